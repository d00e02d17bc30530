import { describe, expect, test } from "bun:test";
import { batchesOf, planFor, sessionsMayKeep, type Workload } from "../../src/calibrate/plan.ts";
import { WindowStates } from "../../src/calibrate/states.ts";
import { embedAll, runAll } from "../../src/calibrate/statistics.ts";
import { widthBetween } from "../../src/checkpoint/architectures/carried.ts";
import { evaluateWindows } from "../../src/evaluate/perplexity.ts";
import { MemoryBudgetError } from "../../src/errors.ts";
import { forward, load } from "../support/models.ts";
import { readOracle } from "../support/oracle.ts";

const oracle = readOracle("tiny");
const isSame = (a: Float32Array, b: Float32Array) =>
  a.length === b.length && a.every((value, i) => value === b[i]);
const windows = oracle.calibration.tokens.slice(0, 5).map((window) => Int32Array.from(window));

/** Models, and how many of their blocks are run. In Gemma 4, more goes on to some blocks than to others. */
const MODELS = { "examples/tiny": 2, "test/fixtures/architectures/gemma4": 5 };

/** Norms of the inputs of the first blocks. */
async function normsWith(
  folder: keyof typeof MODELS,
  perBatch: number,
  spill: boolean,
): Promise<Float32Array[]> {
  const { model, spec, close } = await load(folder, "wasm", 256);
  const known = windows.map((window) => window.map((id) => id % spec.vocabulary));
  const states = new WindowStates(batchesOf(known, perBatch), widthBetween(spec), spill);
  try {
    await embedAll(model, states);
    const found: Float32Array[] = [];
    for (let index = 0; index < MODELS[folder]; index++) {
      const want = { norms: true, advance: true };
      const norms = await runAll(model, index, model.readBlock(index), states, want);
      found.push(...norms.values());
    }
    return found;
  } finally {
    states.close();
    await close();
  }
}

for (const folder of Object.keys(MODELS) as (keyof typeof MODELS)[]) {
  describe(`statistics of ${folder}`, () => {
    test("are the same to the last bit in memory and through a file", async () => {
      const [inFile, inMemory] = [
        await normsWith(folder, 2, true),
        await normsWith(folder, 2, false),
      ];
      expect(inFile.length).toBeGreaterThan(5);
      // Said as a truth, since arrays that differ would be printed whole.
      expect(inFile.every((norms, i) => isSame(norms, inMemory[i]))).toBe(true);
    });

    test("do not depend on how windows are grouped", async () => {
      const one = await normsWith(folder, 1, false);
      const all = await normsWith(folder, 5, false);
      one.forEach((norms, i) =>
        norms.forEach((norm, c) => expect(Math.abs(norm / all[i][c] - 1)).toBeLessThan(1e-5))
      );
    });
  });
}

test("what all blocks read, such as the mask, is kept once for all batches of a form", async () => {
  const { model, spec, close } = await load("examples/tiny", "wasm", 256);
  const states = new WindowStates(batchesOf(windows, 2), spec.hidden, true);
  try {
    await embedAll(model, states);
    const [first, second, last] = states.batches.map((_, i) => states.load(i).shared);
    for (const name of model.sections.shared) expect(second[name]).toBe(first[name]);
    // The last batch is one window.
    expect(last.positions.dims).toEqual([1, 256]);
    expect(last.positions).not.toBe(first.positions);
    expect(last.attention_bias_all).toBe(first.attention_bias_all);
  } finally {
    states.close();
    await close();
  }
});

test("a block gives the same after its sessions were freed", async () => {
  const { model, spec, close } = await load("examples/tiny", "wasm", 256);
  const states = new WindowStates(batchesOf(windows, 2), spec.hidden, false);
  try {
    await embedAll(model, states);
    const run = () => runAll(model, 0, model.readBlock(0), states, { norms: true, advance: false });
    const before = await run();
    await model.freeSessions();
    expect(await run()).toEqual(before);
    await model.freeSessions();
    await model.freeSessions();
  } finally {
    states.close();
    await close();
  }
});

describe("the plan", () => {
  const work = {
    windows: 128,
    length: 2048,
    hidden: 2048,
    intermediate: 8192,
    heads: 32,
    blockBytes: 268e6,
    copiesWeights: false,
  };

  test("keeps hidden states in memory where the budget allows it, and else in a file", () => {
    expect(planFor(work, 16e9).spill).toBe(false);
    expect(planFor(work, 2.5e9).spill).toBe(true);
  });

  test("counts hidden states as often as they are kept", () => {
    expect(planFor(work, 5e9).spill).toBe(false);
    expect(planFor({ ...work, copies: 3 }, 5e9).spill).toBe(true);
  });

  test("runs several short windows together, and one long one", () => {
    expect(planFor({ ...work, length: 512 }, 16e9).windowsPerBatch).toBe(4);
    expect(planFor(work, 16e9).windowsPerBatch).toBe(1);
  });

  test("runs fewer together where memory is small, and where they are run backwards", () => {
    expect(planFor({ ...work, length: 512 }, 800e6).windowsPerBatch).toBe(2);
    const backward = planFor({ ...work, length: 256, backward: true }, 64e9);
    expect(backward.windowsPerBatch).toBe(4);
    expect(planFor({ ...work, length: 256 }, 64e9).windowsPerBatch).toBe(8);
  });

  test("counts rows of tables that every block is given, as they are read and for each token", () => {
    const least = (rows: number) => planFor({ ...work, windows: 1, rows }, 64e9).bytes;
    expect(least(8960) - least(0)).toBe(3 * 4 * work.length * 8960);
  });

  test("counts heads that together are wider than the hidden states", () => {
    const one = { ...work, windows: 1, intermediate: work.hidden };
    const more = (sizes: Partial<Workload>) =>
      planFor({ ...one, ...sizes, attended: 2 * work.hidden }, 64e9).bytes -
      planFor({ ...one, ...sizes }, 64e9).bytes;
    expect(more({})).toBe(4 * 4 * work.length * work.hidden);
    // The output projection's Hessian, and four more of its size; before, the widest input was as wide as hidden.
    const mended = more({ method: "sparsegpt" }) - more({});
    expect(mended).toBe(4 * (4 - 1) * work.hidden ** 2 * (1 + 4));
    expect(planFor({ ...one, attended: work.hidden / 2 })).toEqual(planFor(one));
  });

  test("has sessions keep memory between runs where the budget allows it, or there is none", () => {
    const small = { ...work, hidden: 576, intermediate: 1536, heads: 9, blockBytes: 16e6 };
    expect(sessionsMayKeep(small, undefined)).toBe(true);
    expect(sessionsMayKeep(small, 2e9)).toBe(true);
    expect(sessionsMayKeep(small, 1.3e9)).toBe(false);
    // Of short windows less is kept, however many run together.
    expect(sessionsMayKeep({ ...small, length: 256 }, 1.3e9)).toBe(true);
  });

  test("refuses a budget that not even one window fits, and says what would fit", () => {
    expect(() => planFor(work, 300e6)).toThrow(MemoryBudgetError);
    expect(() => planFor(work, 300e6)).toThrow(/give \d+ MB/);
  });

  test("counts the square matrices of methods that mend, and says so where they do not fit", () => {
    const least = (method?: "sparsegpt" | "espalier") => planFor({ ...work, method }, 64e9).bytes;
    // 8192 x 8192 float32 values are 268 MB.
    expect(least("sparsegpt") - least()).toBeGreaterThan(4 * 268e6);
    expect(least("espalier") - least()).toBeGreaterThan(4 * 268e6);
    expect(() => planFor({ ...work, method: "sparsegpt" }, 1e9)).toThrow(/--method sparsegpt sums/);
  });

  test("needs more memory for weights that the runtime copies", () => {
    const copied = planFor({ ...work, copiesWeights: true }, 16e9);
    expect(copied.bytes - planFor(work, 16e9).bytes).toBeGreaterThan(work.blockBytes);
  });
});

describe("the loss", () => {
  test("is what logits give, token by token, though the head runs in pieces", async () => {
    const { model, spec, close } = await load("examples/tiny", "wasm", 256);
    const short = windows.slice(0, 3).map((window) => window.subarray(0, 40));
    const states = new WindowStates(batchesOf(short, 2), spec.hidden, false);
    try {
      const { losses, perplexity } = await evaluateWindows(model, states);
      const expected: number[] = [];
      for (const window of short) {
        const logits = await forward(model, [...window]);
        let loss = 0;
        for (let t = 0; t + 1 < window.length; t++) {
          const row = logits.subarray(t * spec.vocabulary, (t + 1) * spec.vocabulary);
          const top = Math.max(...row);
          const sum = row.reduce((sum, value) => sum + Math.exp(value - top), 0);
          loss += top + Math.log(sum) - row[window[t + 1]];
        }
        expected.push(loss / (window.length - 1));
      }
      losses.forEach((loss, i) => expect(loss).toBeCloseTo(expected[i], 4));
      const mean = expected.reduce((a, b) => a + b) / expected.length;
      expect(perplexity).toBeCloseTo(Math.exp(mean), 2);
    } finally {
      states.close();
      await close();
    }
  });
});
