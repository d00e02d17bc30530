/**
 * `prune --fit`: what is found is compiled, and its files are weighed.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { compile } from "../../compile/compile.ts";
import { inspect } from "../../src/api/inspect.ts";
import { prune as pruneAlone } from "../../src/api/prune.ts";
import type { PruneOptions } from "../../src/api/options.ts";
import { bytesIn } from "../../src/platform/folders.ts";
import { prune } from "../../src/workflow/prune.ts";
import { rejectionOf, Workshop } from "../checkpoint/support.ts";
import { fail, succeed } from "../cli/support.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const LONG = 240_000;
const TINY = fromRoot("examples/tiny");
const CALIBRATION = join(TINY, "calibration.txt");
const LITTLE = { calibration: CALIBRATION, samples: 2, seqlen: 48 } as const;

function pruned(options: Partial<PruneOptions>) {
  return prune({ model: TINY, output: workshop.fresh("fit"), ...LITTLE, ...options });
}

/** Bytes of the model's files once it is compiled, without a word about how. */
async function compiledBytes(checkpoint: string): Promise<number> {
  const { output } = await compile({ model: checkpoint, output: workshop.fresh("compiled") });
  return bytesIn(join(output, "onnx"));
}

describe("prune --fit", () => {
  test("finds a plan whose compiled files fit, and compile knows how", async () => {
    for (const asked of [2_300_000, 3_100_000]) {
      const { fit, compile, output, sparsity } = await pruned({ fit: asked });
      const bytes = await compiledBytes(output!);
      expect(bytes).toBeLessThanOrEqual(asked);
      // All but a page a tensor of it is used, and foretold; of slots the most that there can be is.
      const exact = fit!.trials[0].pattern !== "slots";
      // A model that is dense cannot use more.
      if (fit!.trials[0].sparsity > 0) {
        expect(bytes).toBeGreaterThan((exact ? 0.93 : 0.75) * asked);
      }
      expect(bytes).toBeLessThanOrEqual(fit!.bytes);
      expect(bytes).toBeGreaterThan((exact ? 0.99 : 0.8) * fit!.bytes);
      expect(fit!.trials.every((trial) => trial.bytes <= asked)).toBe(true);
      const perplexities = fit!.trials.map(({ perplexity }) => perplexity);
      expect(perplexities).toEqual([...perplexities].sort((a, b) => a - b));
      expect(fit!.trials[0].compile).toEqual(compile!);
      expect(Math.abs(sparsity.reached! - fit!.trials[0].sparsity)).toBeLessThan(0.04);
      const record = JSON.parse(readFileSync(join(output!, "espalier.json"), "utf8"));
      expect({ fit: record.fit, compile: record.compile }).toEqual({
        fit: fit!,
        compile: compile!,
      });
    }
  }, LONG);

  test(
    "tries one pattern alone where it is asked for, and gives the same bytes again",
    async () => {
      const options = { fit: "2.6MB", pattern: "mixed:16", allocation: "uniform" } as const;
      const [one, two] = [await pruned(options), await pruned(options)];
      const patterns = one.fit!.trials.map(({ pattern }) => pattern);
      expect([...new Set(patterns)]).toEqual(["mixed:16"]);
      expect(await compiledBytes(one.output!)).toBeLessThanOrEqual(2_600_000);
      for (const file of ["espalier.json", "model.safetensors"]) {
        expect(readFileSync(join(one.output!, file)).equals(readFileSync(join(two.output!, file))))
          .toBe(true);
      }
    },
    LONG,
  );

  test("measures the other allocations beside the one that it was given", async () => {
    for (const allocation of ["dlp", "owl"] as const) {
      const { trials, notes } = await pruned({
        fit: "2.6MB",
        pattern: "unstructured",
        method: "magnitude",
        allocation,
        text: CALIBRATION,
        windows: 1,
        compare: true,
      });
      const others = ["uniform", "dlp", "owl", "atp"].filter((other) => other !== allocation);
      expect(trials.map((trial): string => trial.allocation)).toEqual(others);
      expect(notes.filter((note) => /^(uniform|dlp|owl|atp) is left out/.test(note))).toEqual([]);
    }
  }, LONG);

  test("leaves a model dense that fits as it is", async () => {
    const { sparsity, blocks, output, compile: stored, fit } = await pruned({
      fit: "4.5MB",
      allocation: "uniform",
    });
    // A few of its weights are 0 as it is.
    expect(sparsity).toEqual({ asked: 0, reached: inspect({ model: TINY }).linears.sparsity });
    // A number of kept weights is that of M, where there is one.
    for (const block of blocks) expect(block).toMatchObject({ density: 1, kept: undefined });
    // Which is better, a little text decides.
    expect(stored).toMatchObject({ head: "int8" });
    expect(["int8", "int4"]).toContain(stored!.values!);
    expect(fit!.trials[0].sparsity).toBe(0);
    const [before, after] = [TINY, output!].map((folder) =>
      readFileSync(join(folder, "model.safetensors"))
    );
    expect(after.equals(before)).toBe(true);
    const report = await compile({ model: output!, output: workshop.fresh("compiled") });
    expect(bytesIn(join(report.output, "onnx"))).toBe(fit!.bytes);
    // It has been pruned for this: nobody need be told to prune first.
    expect(report.notes).toEqual([]);
  }, LONG);

  test("rounds what is left dense in its trials too, as compile will", async () => {
    const options = {
      fit: "4.5MB",
      pattern: "unstructured",
      allocation: "uniform",
      dryRun: true,
    } as const;
    const denseTrials = async (skip: string[]) => {
      const { fit } = await pruned({ ...options, skip });
      return fit!.trials.filter(({ sparsity }) => sparsity === 0);
    };
    const [all, fewer] = [await denseTrials([]), await denseTrials(["*.mlp.*"])];
    // Nothing is pruned of either, so they are the same models.
    expect(all.length).toBe(2);
    expect(fewer).toEqual(all);
  }, LONG);

  test("counts the zeros that were there, where nothing is changed", async () => {
    const zeros = { pattern: "2:4", method: "magnitude", allocation: "uniform" } as const;
    const before = workshop.fresh("sparse");
    await prune({ ...zeros, model: TINY, output: before });
    const report = await prune({
      ...LITTLE,
      model: before,
      output: workshop.fresh("fitted"),
      fit: "4.5MB",
      method: "magnitude",
      allocation: "uniform",
    });
    expect(report.fit!.trials[0].sparsity).toBe(0);
    expect(report.sparsity.reached).toBeCloseTo(0.5, 3);
    const { linears } = inspect({ model: before });
    expect(report.sparsity.reached).toBeCloseTo(linears.sparsity, 9);
  }, LONG);

  test("takes a head in int4 where a method rounds it, and counts its bytes", async () => {
    const { compile, fit, output } = await pruned({
      fit: "2.2MB",
      method: "sparsegpt",
      pattern: "8:16",
      allocation: "uniform",
    });
    expect(compile).toEqual({ values: "int4", head: "int4", group: 32 });
    // Weights that are rounded to 0 are not stored, which is not foretold.
    const bytes = await compiledBytes(output!);
    expect(bytes).toBeLessThanOrEqual(fit!.bytes);
    expect(bytes).toBeGreaterThan(0.9 * fit!.bytes);
  }, LONG);

  test("refuses what nothing comes down to, and says what is possible", async () => {
    const output = workshop.fresh("none");
    const error = await rejectionOf(pruned({ fit: "1MB", output }));
    expect(error.code).toBe("SIZE_UNREACHABLE");
    const [, smallest] = /smallest possible is (\d+) \(/.exec(error.message)!;
    expect(existsSync(output)).toBe(false);
    const { fit } = await pruned({ fit: Number(smallest), allocation: "uniform", dryRun: true });
    expect(fit!.bytes).toBe(Number(smallest));
    const fixed = await rejectionOf(pruned({ fit: "2MB", pattern: "8:16" }));
    expect(fixed.message).toContain("8:16 in int4");
  }, LONG);

  test("is no wish beside what it looks for, and takes calibration text", async () => {
    const others: Partial<PruneOptions>[] = [
      { sparsity: 0.5 },
      { densities: [1] },
      { allocation: "auto" },
    ];
    for (const beside of others) {
      const error = await rejectionOf(pruned({ fit: "2MB", ...beside }));
      expect(error.code).toBe("USAGE");
    }
    const textless = await rejectionOf(
      pruned({ fit: "3MB", method: "magnitude", calibration: undefined }),
    );
    expect(textless.message).toContain("--calibration");
    const alone = await rejectionOf(
      pruneAlone({ model: TINY, output: workshop.fresh("alone"), ...LITTLE, fit: "3MB" }),
    );
    expect(alone.code).toBe("USAGE");
  }, LONG);

  test("prints the plans and the command that compiles", async () => {
    const output = workshop.fresh("printed");
    const words = ["--fit", "2.6MB", "--pattern", "4:16", "--samples", "2", "--seqlen", "48"];
    const text = ["--calibration", CALIBRATION];
    const { stdout } = await succeed("prune", TINY, "-o", output, ...words, ...text);
    expect(stdout).toContain("plans for 2.60 MB");
    expect(stdout).toContain(`compile ${output} --values int8`);
    await fail(2, "USAGE", ["prune", TINY, "--fit", "lots"], "--fit");
  }, LONG);
});

test("prune says that what it leaves dense is rounded by compile, and not before", async () => {
  const options = {
    method: "sparsegpt" as const,
    pattern: "8:16",
    dryRun: true,
    skip: ["*.mlp.*"],
  };
  const said = (notes: readonly string[]) => notes.some((note) => note.includes("to nearest"));
  expect(said((await pruned({ ...options, values: "int4" })).notes)).toBe(true);
  expect(said((await pruned(options)).notes)).toBe(false);
}, LONG);
