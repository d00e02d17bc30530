import { describe, expect, test } from "bun:test";
import { sharesOf } from "../../src/api/allocate.ts";
import { prunePass } from "../../src/calibrate/passes.ts";
import { batchesOf } from "../../src/calibrate/plan.ts";
import { WindowStates } from "../../src/calibrate/states.ts";
import { embedAll, runAll, weightOf } from "../../src/calibrate/statistics.ts";
import { openBackend } from "../../src/engine/ort/backend.ts";
import { windowLogits } from "../../src/engine/ort/head.ts";
import { MaskedSlice, prunedStatistics } from "../../src/evaluate/masked_slice.ts";
import { maskOf } from "../../src/prune/block.ts";
import { slopeOf } from "../../src/prune/margins.ts";
import { applyMask, applyPackedMask, packMask } from "../../src/prune/mask.ts";
import type { Pattern } from "../../src/prune/types.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { load, type Loaded } from "../support/models.ts";
import { readOracle } from "../support/oracle.ts";

const LENGTH = 12;
const cut = (tokens: readonly number[]) => Int32Array.from(tokens).subarray(0, LENGTH);
const oracle = readOracle("tiny");
const calibration = oracle.calibration.tokens.slice(0, 2).map(cut);
const apart = oracle.evaluation.tokens.slice(0, 3).map(cut);
const skipped = () => false;
const unstructured: Pattern = { kind: "unstructured" };

function roomOf({ spec }: Loaded, windows: readonly Int32Array[], spill = false): WindowStates {
  return new WindowStates(batchesOf(windows, 2), spec.hidden, spill);
}

/** A slice of the example, masked by statistics at uniform densities of a half. */
async function opened(loaded: Loaded, pattern: Pattern, spill = false) {
  const rules = { method: "wanda", pattern, skipped } as const;
  const shares = sharesOf(new Float64Array(8).fill(0.5), pattern);
  const states = roomOf(loaded, calibration);
  const norms = await prunedStatistics(loaded.model, { ...rules, shares }, states);
  states.close();
  const slice = await MaskedSlice.open(
    loaded.model,
    rules,
    norms,
    () => roomOf(loaded, apart, spill),
  );
  return { slice, rules, norms, shares };
}

/** Softmax in float64. */
function chances(logits: Float32Array): Float64Array {
  const all = Float64Array.from(logits);
  const top = all.reduce((a, b) => Math.max(a, b));
  const exps = all.map((value) => Math.exp(value - top));
  const sum = exps.reduce((a, b) => a + b);
  return exps.map((value) => value / sum);
}

describe("the loss of a slice", () => {
  test("is the mean of both cross entropies of whole softmaxes, computed the plain way", async () => {
    const loaded = await load("examples/tiny", await openBackend("wasm", 1), LENGTH);
    const { model } = loaded;
    const { slice, norms } = await opened(loaded, unstructured);
    const densities = Float64Array.from({ length: 8 }, (_, b) => 0.3 + 0.05 * b);
    const measured = await slice.measure(sharesOf(densities, unstructured));
    slice.close();

    let soft = 0;
    let hard = 0;
    for (const window of apart) {
      const dense = await windowLogits(model, window);
      const states = roomOf(loaded, [window]);
      await embedAll(model, states);
      for (let index = 0; index < 8; index++) {
        const weights = model.readBlock(index);
        for (const linear of model.blocks[index].linears) {
          const weight = weightOf(linear, weights, norms[index]);
          const share = { density: densities[index] };
          applyMask(weight.values, maskOf(weight, "wanda", unstructured, share));
        }
        await runAll(model, index, weights, states, { norms: false, advance: true });
      }
      const hidden = await model.finish(states.load(0));
      const { head } = model.sections;
      const table = new Float32Array(head.rows * head.columns);
      model.weights.readFloats(head.weight, table);
      for (let t = 0; t < LENGTH; t++) {
        const logits = new Float32Array(head.rows);
        for (let row = 0; row < head.rows; row++) {
          let dot = 0;
          for (let c = 0; c < head.columns; c++) {
            dot += table[row * head.columns + c] * hidden[t * head.columns + c];
          }
          logits[row] = dot;
        }
        const q = chances(logits);
        chances(dense.subarray(t * head.rows, (t + 1) * head.rows)).forEach((p, id) =>
          soft -= p * Math.log(q[id])
        );
        if (t + 1 < LENGTH) hard -= Math.log(q[window[t + 1]]);
      }
      states.close();
    }
    await loaded.close();
    const expected = soft / (apart.length * LENGTH) + hard / (apart.length * (LENGTH - 1));
    expect(measured).toBeCloseTo(expected / 2, 4);
  });

  test(
    "is the same to the last bit from the first block that differs as from the beginning",
    async () => {
      const loaded = await load("examples/tiny", await openBackend("wasm", 1), LENGTH);
      const patterns: Pattern[] = [unstructured, { kind: "mixed", m: 16 }, { kind: "slots" }];
      for (const pattern of patterns) {
        const one = await opened(loaded, pattern);
        const random = uniformNumbers(4);
        let densities = new Float64Array(8).fill(0.5);
        await one.slice.measure(one.shares);
        one.slice.accept();
        for (let step = 0; step < 8; step++) {
          const changed = densities.slice();
          const [from, to] = [Math.floor(random() * 8), Math.floor(random() * 8)];
          changed[from] -= 0.125;
          changed[to] += 0.125;
          const shares = sharesOf(changed, pattern);
          const loss = await one.slice.measure(shares);
          // Half of them become what the next ones are compared with.
          if (step % 2 === 0) {
            one.slice.accept();
            densities = changed;
          }
          const anew = await opened(loaded, pattern, true);
          expect(await anew.slice.measure(shares)).toBe(loss);
          anew.slice.close();
        }
        one.slice.close();
      }
      await loaded.close();
    },
    120_000,
  );

  test("takes the statistics that pruning by the same shares takes", async () => {
    const loaded = await load("examples/tiny", await openBackend("wasm", 1), LENGTH);
    const { norms, rules, shares, slice } = await opened(loaded, unstructured);
    slice.close();
    const states = roomOf(loaded, calibration);
    const masks = new Map<string, Uint8Array>();
    await prunePass(loaded.model, { ...rules, shares }, { pruned: states }, ({ weight, mask }) => {
      masks.set(weight, mask);
    });
    states.close();
    for (const { index, linears } of loaded.model.blocks) {
      const weights = loaded.model.readBlock(index);
      for (const linear of linears) {
        const weight = weightOf(linear, weights, norms[index]);
        expect(maskOf(weight, "wanda", unstructured, shares[index])).toEqual(
          masks.get(linear.weight)!,
        );
      }
    }
    await loaded.close();
  });
});

describe("the margins of a slice", () => {
  test(
    "foretell how the loss changes where one linear, or one block, is sparser and denser",
    async () => {
      const loaded = await load("examples/tiny", await openBackend("wasm", 1), LENGTH);
      const { blocks } = loaded.model;
      const step = 0.05;
      for (const pattern of [unstructured, { kind: "slots" }] as const) {
        const { slice, shares } = await opened(loaded, pattern);
        await slice.measure(shares);
        slice.accept();
        const margins = await slice.margins();
        const foretold: number[] = [];
        const measured: number[] = [];
        for (const [b, own] of margins.entries()) {
          expect(own.length).toBe(7);
          // Slots are shared out among a block's linears by their weights: it moves as a whole.
          const parts = pattern.kind === "slots" ? [own] : own.map((each) => [each]);
          for (const [l, part] of parts.entries()) {
            if ((b + l) % 3 !== 0) continue;
            const at = async (by: number) => {
              const linears = blocks[b].linears.map((_, i) => i === l ? 0.5 + by : 0.5);
              const changed = pattern.kind === "slots"
                ? { density: 0.5 + by }
                : { density: 0.5, linears };
              return await slice.measure(shares.map((share, i) => i === b ? changed : share));
            };
            foretold.push(slopeOf(part));
            measured.push((await at(-step) - await at(step)) / (2 * step));
          }
        }
        slice.close();
        expect(correlation(foretold, measured)).toBeGreaterThan(0.9);
      }
      await loaded.close();
    },
    120_000,
  );

  test("leave out what is skipped", async () => {
    const loaded = await load("examples/tiny", await openBackend("wasm", 1), LENGTH);
    const rules = {
      method: "magnitude",
      pattern: unstructured,
      skipped: (name: string) => name.includes("layers.2.") || name.includes("down_proj"),
    } as const;
    const room = () => roomOf(loaded, apart);
    const slice = await MaskedSlice.open(loaded.model, rules, undefined, room);
    await slice.measure(sharesOf(new Float64Array(8).fill(0.5), unstructured));
    slice.accept();
    const margins = await slice.margins();
    expect(margins.map(({ length }) => length)).toEqual([6, 6, 0, 6, 6, 6, 6, 6]);
    slice.close();
    await loaded.close();
  });
});

/** Pearson's. */
function correlation(a: readonly number[], b: readonly number[]): number {
  const mean = (of: readonly number[]) => of.reduce((x, y) => x + y) / of.length;
  const [ma, mb] = [mean(a), mean(b)];
  const product = (x: readonly number[], mx: number, y: readonly number[], my: number) =>
    x.reduce((sum, value, i) => sum + (value - mx) * (y[i] - my), 0);
  return product(a, ma, b, mb) / Math.sqrt(product(a, ma, a, ma) * product(b, mb, b, mb));
}

test("a packed mask prunes what the mask prunes", () => {
  const random = uniformNumbers(2);
  for (const length of [1, 7, 8, 9, 64, 100]) {
    const mask = Uint8Array.from({ length }, () => random() < 0.5 ? 1 : 0);
    const values = Float32Array.from({ length }, () => random() - 0.5);
    const expected = values.slice();
    applyMask(expected, mask);
    applyPackedMask(values, packMask(mask));
    expect(values).toEqual(expected);
  }
});
