/**
 * Espalier against the released DLP code: what it computed for a tiny model that comes with the code,
 * and for a 135M model where `ESPALIER_TEST_MODEL` names its folder.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { evaluate, prune, type PruneOptions, type PruneReport } from "../mod.ts";
import { Checkpoint } from "../src/checkpoint/checkpoint.ts";
import { packMask } from "../src/prune/mod.ts";
import { FAST } from "./support/models.ts";
import { type Oracle, type OracleRun, readOracle } from "./support/oracle.ts";
import { fromRoot } from "./support/paths.ts";

const large = process.env.ESPALIER_TEST_MODEL;
const folder = mkdtempSync(join(tmpdir(), "espalier-oracle-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Options that repeat a run of the released code. */
function optionsFor(run: OracleRun, output: string): Partial<PruneOptions> {
  const [allocation, reducer] = run.allocation.split("-");
  return {
    output,
    force: true,
    method: run.method as "wanda",
    allocation: allocation as "dlp",
    reducer: (reducer ?? "median") as "mean",
    ...(run.pattern === "unstructured" ? { sparsity: run.sparsity } : { pattern: run.pattern }),
  };
}

/** Zeros of each linear, `[block][linear]`. */
function zerosOf(report: PruneReport, { about }: Oracle): number[][] {
  return report.blocks.map(({ linears }) =>
    Object.values(linears!).map((sparsity, i) =>
      Math.round(sparsity * about.shapes[i][0] * about.shapes[i][1])
    )
  );
}

/** The mask of a linear of a pruned checkpoint, packed as the released code's are. */
function maskIn(checkpoint: Checkpoint, weight: string): Uint8Array {
  const { shape } = checkpoint.tensors.get(weight)!;
  const values = new Float32Array(shape[0] * shape[1]);
  checkpoint.readFloats(weight, values);
  return packMask(Uint8Array.from(values, (value) => value === 0 ? 0 : 1));
}

function differingBits(a: Uint8Array, b: Uint8Array): number {
  let count = 0;
  a.forEach((byte, i) => {
    for (let bits = byte ^ b[i]; bits; bits &= bits - 1) count++;
  });
  return count;
}

/** All that is compared, for one model. */
function compare(name: "tiny" | "smollm2-135m", model: string, tolerance: Tolerance) {
  const oracle = readOracle(name);
  const calibration = join(folder, `${name}-calibration.json`);
  const text = join(folder, `${name}-evaluation.json`);
  const output = join(folder, name);
  const base = { model, calibration, text, backend: FAST } as const;
  beforeAll(() => {
    writeFileSync(calibration, JSON.stringify({ windows: oracle.calibration.tokens }));
    writeFileSync(text, JSON.stringify({ windows: oracle.evaluation.tokens }));
  });

  test("the dense model's perplexity and the loss of every window agree", async () => {
    const { perplexity, losses } = await evaluate({ model, text, backend: FAST });
    expect(Math.abs(perplexity / oracle.dense.ppl - 1)).toBeLessThan(1e-3);
    losses.forEach((loss, i) => expect(Math.abs(loss - oracle.dense.nll[i])).toBeLessThan(1e-3));
  }, 600_000);

  for (const run of [...oracle.pruned, ...tolerance.more ?? []]) {
    const title = `${run.method}, ${run.allocation}, ${run.pattern} at ${run.sparsity}${
      run.note ?? ""
    }`;
    test(`${title}: scores, densities, zeros, masks and perplexity agree`, async () => {
      const report = await prune({ ...base, ...optionsFor(run, output) });

      const scores = {
        "dlp-mean": oracle.importance.scoreMean,
        "dlp-median": oracle.importance.scoreMedian,
        owl: oracle.importance.outlierPercent,
      }[run.allocation];
      const densities = oracle.densities[run.allocation as "owl"]?.[run.sparsity];
      report.blocks.forEach((block, i) => {
        if (scores && run.pattern === "unstructured") {
          const score = run.allocation === "owl" ? block.outlierPercent! : block.score!;
          expect(Math.abs(score / scores[i] - 1)).toBeLessThan(2e-3);
        }
        if (densities) {
          const off = run.allocation === "owl" ? 1e-4 : 0.002;
          expect(Math.abs(block.density - densities[i])).toBeLessThan(off);
        }
      });

      const zeros = zerosOf(report, oracle);
      /** Columns that Wanda prunes of a linear's rows. */
      const columns = (density: number, linear: number) =>
        Math.floor(oracle.about.shapes[linear][1] * (1 - density) + 1e-7);
      /** How many zeros more or less a linear may have. */
      const most = (block: number, linear: number) => {
        // One score of a hundred million that ends on the other side of OWL's threshold moves every
        // density by 2e-6: with it a threshold at which a few equal weights go together, and beside a
        // step of Wanda's one weight in each row.
        if (run.method !== "wanda") return run.allocation === "owl" ? 4 : 2;
        if (!densities || run.pattern !== "unstructured") return 0;
        const [ours, theirs] = [report.blocks[block].density, densities[block]].map((density) =>
          columns(density, linear)
        );
        return oracle.about.shapes[linear][0] * Math.abs(ours - theirs);
      };
      run.zeros?.forEach((linears, b) =>
        linears.forEach((count, i) =>
          // A weight of SparseGPT's whose update ends at exactly 0 counts too.
          expect(Math.abs(count - zeros[b][i])).toBeLessThanOrEqual(
            run.method === "sparsegpt" ? 1e-3 * count : most(b, i),
          )
        )
      );
      if (run.achieved) {
        expect(Math.abs(report.sparsity.reached! - run.achieved)).toBeLessThan(1e-5);
      }

      const checkpoint = Checkpoint.open(output);
      for (const [block, linears] of Object.entries(run.masks ?? {})) {
        const bits = linears["self_attn.k_proj"].bits;
        if (run.method !== "wanda" || !bits || !tolerance.comparesMask(run, Number(block))) {
          continue;
        }
        const expected = Uint8Array.from(atob(bits), (c) => c.charCodeAt(0));
        const mask = maskIn(checkpoint, `model.layers.${block}.self_attn.k_proj.weight`);
        expect(differingBits(mask, expected)).toBeLessThan(mask.length * 8 * 1e-3);
      }
      checkpoint.close();

      const limit = tolerance.perplexity(run);
      expect(Math.abs(report.perplexity!.pruned / run.ppl - 1)).toBeLessThan(limit);
    }, 600_000);
  }

  test("magnitude's masks are the released code's, given its densities", async () => {
    const run = oracle.pruned.find(({ method, masks }) => method === "magnitude" && masks)!;
    const densities = join(folder, `${name}-densities.json`);
    writeFileSync(densities, JSON.stringify(oracle.densities["dlp-mean"][run.sparsity]));
    await prune({ model, output, force: true, method: "magnitude", densities });
    const checkpoint = Checkpoint.open(output);
    for (const [block, linears] of Object.entries(run.masks!)) {
      for (const [linear, { sha256 }] of Object.entries(linears)) {
        const mask = maskIn(checkpoint, `model.layers.${block}.${linear}.weight`);
        expect(createHash("sha256").update(mask).digest("hex")).toBe(sha256);
      }
    }
    checkpoint.close();
  }, 600_000);
}

/** How far from the released code a result may be. */
interface Tolerance {
  /** Runs to compare with beside those of the oracle. */
  more?: OracleRun[];
  /** Relative; infinite where the pruned model has collapsed and a few bits move it far. */
  perplexity(run: OracleRun): number;
  /** Whether the masks of a block are compared. */
  comparesMask(run: OracleRun, block: number): boolean;
}

describe("the released code, on the tiny model", () => {
  compare("tiny", fromRoot("examples/tiny"), {
    perplexity: ({ method }) => ({ wanda: 0.02, sparsegpt: 0.03 })[method] ?? 0.05,
    comparesMask: () => true,
  });
});

/** The released code's steps in PyTorch, with a square root that is rounded correctly. */
function withRoundedRoot(): OracleRun[] {
  const path = fromRoot("test/fixtures/oracle/smollm2-135m-rounded-root.json");
  const { pruned } = JSON.parse(readFileSync(path, "utf8")) as { pruned: OracleRun[] };
  return pruned.map((run) => ({ ...run, method: "wanda", note: ", the root rounded correctly" }));
}

if (large) {
  describe("the released code, on the 135M model", () => {
    compare("smollm2-135m", large, {
      more: withRoundedRoot(),
      // Wanda's masks hang on the last bit of ‖X‖₂, and PyTorch's square root has that bit wrong for
      // one value in six. Where a near tie tips, all later masks differ by a percent; at 70 %, with
      // perplexities in the hundreds, that moves the figure by up to 5 %. With the root rounded
      // correctly in PyTorch too, masks and perplexity are held to the narrow bounds.
      perplexity: ({ method, sparsity, pattern, note }) =>
        method === "sparsegpt"
          // The same windows in another order give 139.8, 157.6 and 157.7 where the released code has
          // 142.3: sums in another order are other bits, and at 70 % a few bits move the figure so far.
          ? sparsity === 0.5 ? 0.03 : 0.12
          : method !== "wanda"
          // In 15 of 100 groups of 2:4 the second and the third weight are equal, as float16 has them, and
          // which of them goes is not defined: 1,407 where the one of the lower column goes, 2,383 where
          // the other does, and 1,516.6, the released code's figure, by PyTorch's choice.
          ? sparsity === 0.7 ? Infinity : pattern === "unstructured" ? 0.05 : 0.1
          : sparsity === 0.5 || note
          ? 0.02
          : 0.05,
      comparesMask: ({ note }, block) => note !== undefined || block === 0,
    });
  });
} else {
  test.if(false)("the released code, on the 135M model: set ESPALIER_TEST_MODEL", () => {});
}
