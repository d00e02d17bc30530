import { describe, expect, test } from "bun:test";
import { batchesOf } from "../../src/calibrate/plan.ts";
import { groupsOf, residualTarget } from "../../src/calibrate/grams.ts";
import { type PrunedLinear, prunePass, type PruneRules } from "../../src/calibrate/passes.ts";
import { WindowStates } from "../../src/calibrate/states.ts";
import { embedAll, runAll } from "../../src/calibrate/statistics.ts";
import { OrtAlgebra } from "../../src/engine/ort/algebra.ts";
import { openBackend } from "../../src/engine/ort/backend.ts";
import { StagedModel } from "../../src/engine/ort/staged.ts";
import { AbortError } from "../../src/errors.ts";
import { measureLosses } from "../../src/evaluate/perplexity.ts";
import { roundTo } from "../../src/onnx/element_type.ts";
import { residualOf } from "../../src/onnx/residual.ts";
import { inverseFactor } from "../../src/prune/cholesky.ts";
import { gridScale, roundToGrid } from "../../src/prune/int4_grid.ts";
import { plainAlgebra } from "../../src/prune/mod.ts";
import type { Method } from "../../src/prune/types.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { FAST, load } from "../support/models.ts";
import { readOracle } from "../support/oracle.ts";

const oracle = readOracle("tiny");
const windows = (tokens: number[][], count: number) =>
  tokens.slice(0, count).map((window) => Int32Array.from(window));
const calibration = windows(oracle.calibration.tokens, 8);
const evaluation = windows(oracle.evaluation.tokens, 4);

describe("products by ONNX Runtime", () => {
  test("are those of plain JavaScript, however the factors lie", async () => {
    const random = uniformNumbers(1);
    const matrix = (rows: number, columns: number) => ({
      data: Float32Array.from({ length: rows * columns }, () => random() - 0.5),
      rows,
      columns,
    });
    for (const name of new Set(["wasm", FAST] as const)) {
      const algebra = new OrtAlgebra(await openBackend(name, 1));
      for (const transposeA of [false, true]) {
        for (const transposeB of [false, true]) {
          const a = transposeA ? matrix(5, 3) : matrix(3, 5);
          const b = transposeB ? matrix(7, 5) : matrix(5, 7);
          const found = await algebra.product(a, b, { transposeA, transposeB });
          const expected = await plainAlgebra.product(a, b, { transposeA, transposeB });
          expect([found.rows, found.columns]).toEqual([3, 7]);
          found.data.forEach((v, i) => expect(Math.abs(v - expected.data[i])).toBeLessThan(1e-6));
        }
      }
      await algebra.close();
    }
  });
});

test("products stop when they are told to, in the midst of a matrix", async () => {
  const size = 256;
  const hessian = new Float32Array(size * size);
  for (let i = 0; i < size; i++) hessian[i * size + i] = 1;
  const stop = new AbortController();
  const algebra = new OrtAlgebra(await openBackend("wasm", 1), stop.signal);
  setTimeout(() => stop.abort(), 0);
  const factors = async () => {
    for (;;) await inverseFactor({ data: hessian, rows: size, columns: size }, 0.01, algebra);
  };
  await expect(factors()).rejects.toThrow(AbortError);
  await algebra.close();
});

describe("where a linear joins the residual stream", () => {
  for (
    const [name, bias] of [["llama", false], ["qwen3", false], ["opt", true], [
      "gpt-neox",
      true,
    ], ["gpt2", true]] as const
  ) {
    test(`is found for attention's and the MLP's last linear of ${name}, and for no other`, async () => {
      const { model, close } = await load(`test/fixtures/architectures/${name}`, "wasm");
      const [block] = model.blocks;
      const found = block.linears.map((linear, i) =>
        residualOf(model.graph, block, linear, block.linears.slice(0, i))
      );
      const joined = block.linears.filter((_, i) => found[i]).map((linear) => linear.name);
      expect(joined).toEqual(
        block.linears.map((linear) => linear.name).filter((linear) =>
          /o_proj|out_proj|down_proj|fc2|attention.dense|4h_to_h|c_proj/.test(linear)
        ),
      );
      for (const each of found) if (each) expect(each.bias !== undefined).toBe(bias);
      await close();
    });
  }

  test("is nowhere while what it is added to hangs on linears that are not pruned yet", async () => {
    const { model, close } = await load("test/fixtures/architectures/llama", "wasm");
    const [block] = model.blocks;
    const down = block.linears.find(({ name }) => name.endsWith("down_proj"))!;
    expect(residualOf(model.graph, block, down, [])).toBeUndefined();
    await close();
  });

  for (const name of ["llama", "opt", "gpt-neox"]) {
    test(`and the target there is what the dense linear of ${name} gives, in a model that is dense`, async () => {
      const { model, spec, close } = await load(`test/fixtures/architectures/${name}`, "wasm");
      const tokens = Int32Array.from({ length: 6 }, (_, i) => (i * 7) % 50);
      const states = new WindowStates(batchesOf([tokens], 1), spec.hidden, false);
      await embedAll(model, states);
      const [block] = model.blocks;
      const weights = model.readBlock(0);
      for (const [i, linear] of block.linears.entries()) {
        const residual = residualOf(model.graph, block, linear, block.linears.slice(0, i));
        if (!residual) continue;
        const taps = [residual.sum, residual.other, linear.output];
        const run = await model.runBlock(0, weights, states.load(0), { taps });
        const target = residualTarget(residual, run, run, weights);
        const given = run.taps.get(linear.output)!;
        expect([target.rows, target.columns]).toEqual([given.rows, given.columns]);
        target.data.forEach((v, k) => expect(Math.abs(v - given.data[k])).toBeLessThan(1e-4));
      }
      states.close();
      await close();
    });
  }

  test("linears with one input are one group, in the order of the block", async () => {
    const { model, close } = await load("test/fixtures/architectures/llama", "wasm");
    const groups = groupsOf(model.blocks[0].linears).map((group) =>
      group.map(({ name }) => name.split(".")[1])
    );
    expect(groups).toEqual([
      ["q_proj", "k_proj", "v_proj"],
      ["o_proj"],
      ["gate_proj", "up_proj"],
      ["down_proj"],
    ]);
    await close();
  });
});

/** Prunes the tiny model's blocks in memory; returns its perplexity on held-out windows. */
async function pruneBy(
  method: Method,
  rules: Partial<PruneRules> = {},
  onLinear: (linear: PrunedLinear) => void = () => {},
): Promise<number> {
  const { model, spec, close } = await load("examples/tiny", await openBackend(FAST, 1), 256);
  const room = (of: readonly Int32Array[]) =>
    new WindowStates(batchesOf(of, 4), spec.hidden, false);
  const states = {
    pruned: room(calibration),
    dense: method === "espalier" ? room(calibration) : undefined,
    heldOut: room(evaluation),
  };
  try {
    await prunePass(
      model,
      {
        method,
        pattern: { kind: "nm", n: 2, m: 4 },
        shares: model.blocks.map(() => ({ density: 0.5, kept: 2 })),
        skipped: () => false,
        ...rules,
      },
      states,
      onLinear,
    );
    return (await measureLosses(model, states.heldOut)).perplexity;
  } finally {
    for (const each of Object.values(states)) each?.close();
    await close();
  }
}

describe("the pass of methods that mend", () => {
  test(
    "loses less by SparseGPT than by Wanda, and less by the repair than by SparseGPT",
    async () => {
      const [wanda, sparsegpt, espalier] = [
        await pruneBy("wanda"),
        await pruneBy("sparsegpt"),
        await pruneBy("espalier"),
      ];
      expect(sparsegpt).toBeLessThan(wanda);
      expect(espalier).toBeLessThan(sparsegpt);
    },
    300_000,
  );

  test("prunes each linear by its own density where it has one", async () => {
    const linears = [0.3, 0.4, 0.5, 0.6, 0.7, 0.5, 0.4];
    const kept: number[] = [];
    await pruneBy("sparsegpt", {
      pattern: { kind: "unstructured" },
      shares: Array.from({ length: 8 }, () => ({ density: 0.5, linears })),
    }, ({ mask }) => void kept.push(mask.reduce((a, b) => a + b, 0) / mask.length));
    expect(kept.length).toBe(8 * linears.length);
    const furthest = kept.map((part, i) => Math.abs(part - linears[i % linears.length]));
    expect(Math.max(...furthest)).toBeLessThan(0.02);
  }, 300_000);

  const TABLES = {
    phi3: "model.embed_tokens.weight",
    gemma4: "model.embed_tokens_per_layer.weight",
    // Tied to the head, which is rounded later, and learned positions are not.
    gpt2: undefined,
  };
  for (const [name, table] of Object.entries(TABLES)) {
    test(`begins with the embeddings that int4 leaves, as far as they are rounded and no head: ${name}`, async () => {
      const backend = await openBackend(FAST, 1);
      const folder = `test/fixtures/architectures/${name}`;
      const { model, spec, checkpoint } = await load(folder, backend, 32);
      const room = () =>
        new WindowStates(
          batchesOf([Int32Array.of(1, 5, 9, 200, 31, 77, 3, 12)], 1),
          spec.hidden,
          false,
        );
      const pass = async (from: StagedModel, headGroup?: number) => {
        const states = { pruned: room(), heldOut: room() };
        await prunePass(
          from,
          {
            method: "sparsegpt",
            pattern: { kind: "unstructured" },
            shares: model.blocks.map(() => ({ density: 1 })),
            skipped: () => true,
            headGroup,
          },
          states,
          () => {},
        );
        return (await measureLosses(from, states.heldOut)).perplexity;
      };
      const rounded = new StagedModel(model.graph, {
        tensors: checkpoint.tensors,
        readFloats: (tensor, target, first) => {
          checkpoint.readFloats(tensor, target, first);
          if (tensor !== table) return;
          const width = checkpoint.tensors.get(tensor)!.shape[1];
          for (let row = 0; row < target.length; row += width) {
            for (let at = row; at < row + width; at += 32) {
              const group = target.subarray(at, Math.min(at + 32, row + width));
              const scale = gridScale(group);
              group.set(group.map((weight) => roundToGrid(weight, scale)));
            }
          }
        },
      }, backend);
      const expected = await pass(rounded);
      expect(await pass(model, 32)).toBeCloseTo(expected, 6);
      const apart = Math.abs(await pass(model) / expected - 1);
      if (table) expect(apart).toBeGreaterThan(1e-3);
      else expect(apart).toBe(0);
      await rounded.close();
      checkpoint.close();
    });
  }

  for (const method of ["sparsegpt", "espalier"] as const) {
    test(
      `${method} keeps two of every four weights, and values that the checkpoint can hold`,
      async () => {
        const seen: string[] = [];
        await pruneBy(method, {
          store: (_name, values) => roundTo(values, "bf16"),
        }, ({ weight, mask, values }) => {
          seen.push(weight);
          for (let at = 0; at < mask.length; at += 4) {
            expect(mask[at] + mask[at + 1] + mask[at + 2] + mask[at + 3]).toBe(2);
          }
          mask.forEach((bit, i) => {
            if (bit === 0 && values[i] !== 0) throw new Error(`${weight} ${i} is pruned and not 0`);
          });
        });
        expect(seen.length).toBe(new Set(seen).size);
        expect(seen.length).toBe(8 * 7);
      },
      300_000,
    );
  }

  test("with every weight kept, the repair leaves the model what it was", async () => {
    const { model, spec, close } = await load("examples/tiny", await openBackend(FAST, 1), 256);
    const states = new WindowStates(batchesOf(evaluation, 4), spec.hidden, false);
    await embedAll(model, states);
    for (let index = 0; index < model.blocks.length; index++) {
      const want = { norms: false, advance: true };
      await runAll(model, index, model.readBlock(index), states, want);
    }
    const { perplexity } = await measureLosses(model, states);
    states.close();
    await close();
    const kept = await pruneBy("espalier", {
      pattern: { kind: "mixed", m: 4 },
      shares: Array.from({ length: 8 }, () => ({ density: 1, kept: 4 })),
    });
    expect(Math.abs(kept / perplexity - 1)).toBeLessThan(1e-3);
  }, 300_000);

  for (const method of ["sparsegpt", "espalier"] as const) {
    test(
      `${method} prunes a model whose norms come after its linears, in whole and in part`,
      async () => {
        const fixture = "test/fixtures/architectures/opt-post-norm";
        const { model, spec, close } = await load(fixture, await openBackend(FAST, 1), 24);
        const text = [Int32Array.from({ length: 24 }, (_, i) => 3 + (i * 7) % 300)];
        for (const only of [/./, /q_proj/]) {
          const states = () => new WindowStates(batchesOf(text, 1), spec.hidden, false);
          const seen: string[] = [];
          const shares = model.blocks.map(() => ({ density: 0.5 }));
          const skipped = (name: string) => !only.test(name);
          await prunePass(
            model,
            { method, pattern: { kind: "unstructured" }, shares, skipped },
            { pruned: states(), dense: method === "espalier" ? states() : undefined },
            ({ weight, mask }) => {
              seen.push(weight);
              const kept = mask.reduce((sum, bit) => sum + bit, 0) / mask.length;
              expect(Math.abs(kept - 0.5)).toBeLessThan(0.01);
            },
          );
          expect(seen.length).toBe(only.test("fc1") ? 18 : 3);
        }
        await close();
      },
      60_000,
    );
  }

  test("leaves alone what is skipped", async () => {
    const seen: string[] = [];
    await pruneBy(
      "espalier",
      { skipped: (name) => /down_proj|q_proj|k_proj|v_proj/.test(name) },
      ({ weight }) => seen.push(weight),
    );
    expect(new Set(seen.map((name) => name.split(".").at(-2)))).toEqual(
      new Set(["o_proj", "gate_proj", "up_proj"]),
    );
  }, 300_000);

  test("goes past blocks of which nothing is pruned, in both models", async () => {
    const skipped = (name: string) => !name.includes(".layers.5.");
    const wanda = await pruneBy("wanda", { skipped });
    for (const method of ["sparsegpt", "espalier"] as const) {
      const seen: string[] = [];
      const perplexity = await pruneBy(method, { skipped }, ({ weight }) => seen.push(weight));
      expect(seen.length).toBe(7);
      expect(perplexity).toBeLessThan(wanda);
    }
  }, 300_000);
});
