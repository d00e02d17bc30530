import { describe, expect, test } from "bun:test";
import {
  distill,
  highestRate,
  prepareLessons,
  windowsPerStep,
} from "../../src/calibrate/distill.ts";
import { Parameters } from "../../src/calibrate/parameters.ts";
import { batchesOf, planForDistillation } from "../../src/calibrate/plan.ts";
import { WindowStates } from "../../src/calibrate/states.ts";
import { distillationLoss } from "../../src/engine/ort/distillation_loss.ts";
import { logSumsOf } from "../../src/engine/ort/soft_head.ts";
import { StagedModel } from "../../src/engine/ort/staged.ts";
import { AbortError, MemoryBudgetError } from "../../src/errors.ts";
import { evaluateWindows } from "../../src/evaluate/perplexity.ts";
import type { Block } from "../../src/onnx/sections.ts";
import { magnitudeMask, packMask } from "../../src/prune/mod.ts";
import { liesOnGrid, type MatrixGrid, matrixGrid } from "../../src/prune/int4_grid.ts";
import { FAST, load, type Loaded } from "../support/models.ts";
import { readOracle } from "../support/oracle.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

const oracle = readOracle("tiny");
const windowsOf = (tokens: number[][], count: number, length = 128) =>
  tokens.slice(0, count).map((window) => Int32Array.from(window.slice(0, length)));
const calibration = windowsOf(oracle.calibration.tokens, 8);
const evaluation = windowsOf(oracle.evaluation.tokens, 4);

const openExample = () => load("examples/tiny", FAST, 128);

/** As much of a model as says how fast it learns. */
const modelOf = (columns: number, blocks: number) => ({
  blocks: new Array<{ linears: { columns: number }[] }>(blocks).fill({ linears: [{ columns }] }),
});

function linearsOf({ model }: Loaded) {
  return model.blocks.flatMap(({ linears }) => linears);
}

/**
 * The example's linears, half of their weights pruned by magnitude.
 *
 * @param grids Takes the grids that they are rounded to, where they are.
 */
function halved(
  loaded: Loaded,
  { spill = false, grids }: { spill?: boolean; grids?: Map<string, MatrixGrid> } = {},
): Parameters {
  const parameters = new Parameters(spill);
  for (const { name, weight, rows, columns } of linearsOf(loaded)) {
    const values = new Float32Array(rows * columns);
    loaded.checkpoint.readFloats(weight, values);
    const norms = new Float32Array(columns).fill(1);
    const mask = magnitudeMask({ name, values, rows, columns, norms }, 0.5);
    const pruned = values.map((value, i) => value * mask[i]);
    grids?.set(weight, matrixGrid(pruned, columns, 64));
    parameters.add(weight, pruned, packMask(mask), grids?.get(weight));
  }
  return parameters;
}

function snapshot(loaded: Loaded, parameters: Parameters): Map<string, Float32Array> {
  return new Map(
    linearsOf(loaded).map(({ weight, rows, columns }) => {
      const values = new Float32Array(rows * columns);
      parameters.read(weight, values);
      return [weight, values];
    }),
  );
}

async function lessonsOf({ model, spec }: Loaded, windows: readonly Int32Array[]) {
  const states = new WindowStates(batchesOf(windows, 3), spec.hidden, false);
  const hidden = new WindowStates(batchesOf(windows, 1), model.sections.head.columns, false);
  return await prepareLessons(model, states, hidden);
}

/** Perplexity with the parameters in the place of the checkpoint's weights. */
async function perplexity(
  { model, spec, checkpoint }: Loaded,
  parameters: Parameters,
  windows: readonly Int32Array[],
): Promise<number> {
  const student = new StagedModel(model.graph, {
    tensors: checkpoint.tensors,
    readFloats: (name, target, first = 0) =>
      parameters.has(name)
        ? parameters.read(name, target)
        : checkpoint.readFloats(name, target, first),
  }, model.backend);
  const states = new WindowStates(batchesOf(windows, 4), spec.hidden, false);
  const { perplexity } = await evaluateWindows(student, states);
  await student.close();
  return perplexity;
}

async function run(
  loaded: Loaded,
  parameters: Parameters,
  steps: number,
  signal?: AbortSignal,
): Promise<number[]> {
  const losses: number[] = [];
  await distill(
    loaded.model,
    parameters,
    calibration,
    await lessonsOf(loaded, calibration),
    { steps, seed: 1 },
    { signal, onStep: (_, loss) => losses.push(loss) },
  );
  return losses;
}

describe("the loss of distillation", () => {
  for (
    const [architecture, cap] of [["llama", Infinity], ["gemma2", 4], ["phi", Infinity]] as const
  ) {
    test(`and its gradient are those of the definition, in one piece of the vocabulary and in many: ${architecture}`, async () => {
      const loaded = await load(`test/fixtures/architectures/${architecture}`, "wasm");
      const { model, checkpoint, close } = loaded;
      const { weight: name, bias: added, rows, columns } = model.sections.head;
      const weight = new Float32Array(rows * columns);
      checkpoint.readFloats(name, weight);
      const bias = new Float32Array(rows);
      if (added !== undefined) checkpoint.readFloats(added, bias);
      const random = uniformNumbers(3);
      const count = 5;
      const noise = () =>
        Float32Array.from({ length: count * columns }, () => 6 * (random() - 0.5));
      const student = noise();
      const teacher = noise();

      const logChances = (hidden: Float32Array, t: number) => {
        const logits = Float64Array.from({ length: rows }, (_, r) => {
          let sum = bias[r];
          for (let c = 0; c < columns; c++) {
            sum += hidden[t * columns + c] * weight[r * columns + c];
          }
          return cap < Infinity ? cap * Math.tanh(sum / cap) : sum;
        });
        const top = Math.max(...logits);
        const sum = top + Math.log(logits.reduce((all, logit) => all + Math.exp(logit - top), 0));
        const slopes = logits.map((logit) => 1 - (logit / cap) ** 2);
        return { log: logits.map((logit) => logit - sum), slopes };
      };
      let loss = 0;
      const gradient = new Float64Array(count * columns);
      for (let t = 0; t < count; t++) {
        const { log: p } = logChances(teacher, t);
        const { log: q, slopes } = logChances(student, t);
        for (let r = 0; r < rows; r++) {
          loss += Math.exp(p[r]) * (p[r] - q[r]) / count;
          const apart = slopes[r] * (Math.exp(q[r]) - Math.exp(p[r])) / count;
          for (let c = 0; c < columns; c++) {
            gradient[t * columns + c] += apart * weight[r * columns + c];
          }
        }
      }
      expect(loss).toBeGreaterThan(0.01);

      const [logSums] = await logSumsOf(model, [teacher]);
      for (const rowsAtOnce of [rows, 7]) {
        const found = await distillationLoss(
          model,
          student,
          { hidden: teacher, logSums },
          4 * count * rowsAtOnce,
        );
        expect(Math.abs(found.loss - loss)).toBeLessThan(1e-5 * (1 + loss));
        found.gradient.forEach((value, i) =>
          expect(Math.abs(value - gradient[i])).toBeLessThan(1e-5)
        );
      }
      await close();
    });
  }

  test("is nothing where the predictions are the teacher's", async () => {
    const { model, close } = await load("test/fixtures/architectures/llama", "wasm");
    const hidden = Float32Array.from(
      { length: 3 * model.sections.head.columns },
      (_, i) => Math.sin(i),
    );
    const [logSums] = await logSumsOf(model, [hidden]);
    const { loss, gradient } = await distillationLoss(model, hidden, { hidden, logSums });
    expect(Math.abs(loss)).toBeLessThan(1e-5);
    gradient.forEach((value) => expect(Math.abs(value)).toBeLessThan(1e-5));
    await close();
  });
});

describe("distillation", () => {
  test("brings a pruned model nearer to the dense one, on text that it has not seen too", async () => {
    const loaded = await openExample();
    const parameters = halved(loaded);
    const before = snapshot(loaded, parameters);
    const start = await perplexity(loaded, parameters, evaluation);
    const losses = await run(loaded, parameters, 12);
    expect(losses.length).toBe(12);
    expect(losses[11]).toBeLessThan(0.7 * losses[0]);
    expect(await perplexity(loaded, parameters, evaluation)).toBeLessThan(0.98 * start);
    for (const [name, values] of snapshot(loaded, parameters)) {
      const was = before.get(name)!;
      const moved = values.filter((value, i) => value !== was[i]).length;
      const kept = was.filter((value) => value !== 0).length;
      expect([name, values.some((value, i) => was[i] === 0 && value !== 0)]).toEqual([name, false]);
      expect([name, moved > 0.9 * kept]).toEqual([name, true]);
    }
    await loaded.close();
  });

  test("gives the same weights each time, in memory and in a file", async () => {
    const loaded = await openExample();
    const results: Float32Array[][] = [];
    for (const spill of [false, false, true]) {
      const parameters = halved(loaded, { spill });
      await run(loaded, parameters, 2);
      results.push([...snapshot(loaded, parameters).values()]);
      parameters.close();
    }
    for (const other of results.slice(1)) {
      const same = other.map((values, m) => values.every((v, i) => v === results[0][m][i]));
      expect(same).toEqual(same.map(() => true));
    }
    await loaded.close();
  });

  test("keeps rounded weights on their grid, and brings them nearer too", async () => {
    const loaded = await openExample();
    const grids = new Map<string, MatrixGrid>();
    const parameters = halved(loaded, { grids });
    const before = snapshot(loaded, parameters);
    const start = await perplexity(loaded, parameters, evaluation);
    await run(loaded, parameters, 12);
    expect(await perplexity(loaded, parameters, evaluation)).toBeLessThan(0.98 * start);
    let moved = 0;
    for (const { weight, columns } of linearsOf(loaded)) {
      const was = before.get(weight)!;
      const { scales } = grids.get(weight)!;
      expect(columns % 64).toBe(0);
      const now = snapshot(loaded, parameters).get(weight)!;
      for (let at = 0; at < now.length; at += 64) {
        expect(liesOnGrid(now.subarray(at, at + 64), scales[at / 64])).toBe(true);
      }
      moved += now.filter((value, i) => value !== was[i]).length;
    }
    expect(moved).toBeGreaterThan(1000);
    await loaded.close();
  });

  test("stops between two blocks", async () => {
    const loaded = await openExample();
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 200);
    await expect(run(loaded, halved(loaded), 1000, stop.signal)).rejects.toThrow(AbortError);
    await loaded.close();
  });

  test("moves weights less in large models, and in small ones no further than in the example", () => {
    expect(highestRate(modelOf(576, 30))).toBeCloseTo(0.0027, 4);
    expect(highestRate(modelOf(192, 8))).toBeCloseTo(0.03, 3);
    expect(highestRate(modelOf(64, 2))).toBe(0.03);
  });

  test("moves weights as in other models of that width where the head is narrower", async () => {
    const { model, close } = await load("test/fixtures/architectures/opt-post-norm", FAST, 8);
    const { sections } = model;
    expect(sections.head.columns).toBe(32);
    const deep = { sections, blocks: new Array<Block>(48).fill(sections.blocks[0]) };
    expect(highestRate(deep)).toBe(highestRate(modelOf(64, 48)));
    await close();
  });

  test("takes about 1,024 tokens a step, in whole windows", () => {
    expect(windowsPerStep(128, 256)).toBe(4);
    expect(windowsPerStep(16, 512)).toBe(2);
    expect(windowsPerStep(16, 2048)).toBe(1);
    expect(windowsPerStep(2, 128)).toBe(2);
  });
});

describe("the memory of distillation", () => {
  const work = {
    windows: 16,
    length: 512,
    hidden: 576,
    intermediate: 1536,
    heads: 9,
    blockBytes: 14e6,
    copiesWeights: false,
    blocks: 30,
    windowsPerStep: 2,
    kept: 32e6,
    weights: 106e6,
  };

  test("holds weights and moments where there is room, else puts them into a file", () => {
    expect(planForDistillation(work, 4e9).spillParameters).toBe(false);
    expect(planForDistillation({ ...work, kept: 3.2e9 }, 4e9).spillParameters).toBe(true);
    expect(planForDistillation({ ...work, windows: 4096 }, 4e9).spillLessons).toBe(true);
  });

  test("has less room for weights and moments where what is to be foreseen stays there, too", () => {
    const many = { ...work, windows: 1024 };
    let budget = 1500e6;
    while (planForDistillation(many, budget).spillLessons) budget += 10e6;
    expect(planForDistillation(many, budget).spillParameters).toBe(true);
    expect(planForDistillation(work, budget)).toEqual({
      spillParameters: false,
      spillLessons: false,
    });
    expect(planForDistillation(many, budget - 10e6).spillParameters).toBe(false);
  });

  test("is refused with the figures where one step does not fit", () => {
    expect(() => planForDistillation(work, 400e6)).toThrow(MemoryBudgetError);
    expect(() => planForDistillation(work, 400e6)).toThrow("--distill 0");
  });

  test("needs no more than the largest step where nothing is said", () => {
    expect(() => planForDistillation({ ...work, blockBytes: 4e9 })).not.toThrow();
  });
});
