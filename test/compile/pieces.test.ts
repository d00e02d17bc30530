/**
 * Matrices that are larger than what is read of one at a time: heads and embeddings of large vocabularies.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { prune } from "../../src/api/prune.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { type OutgoingTensor, writeSafetensors } from "../../src/checkpoint/safetensors_writer.ts";
import { gridScale, liesOnGrid, roundToGrid } from "../../src/prune/int4_grid.ts";
import { editJson, matrixOf } from "../checkpoint/support.ts";
import { FAST } from "../support/models.ts";
import { CompileWorkshop, LONG } from "./support.ts";

/** Rows: with 64 columns, a little more than a piece of 16 MiB, or of 4 Mi elements. */
const ROWS = 66_000;
const GROUP = 32;
/** What bfloat16 may change. */
const STORED = 2 ** -8;

const MATRICES = ["lm_head.weight", "model.embed_tokens.weight"];

const workshop = new CompileWorkshop();
const model = workshop.copy("phi3");
afterAll(() => workshop.remove());

/** Calls `check` with each group of weights that share a scale; says of which row it was that threw. */
function eachGroup(
  [before, after]: readonly [Float32Array, Float32Array],
  size: number,
  check: (before: Float32Array, after: Float32Array) => boolean,
): void {
  expect(after.length).toBe(before.length);
  for (let at = 0; at < before.length; at += size) {
    if (check(before.subarray(at, at + size), after.subarray(at, at + size))) continue;
    throw new Error(`row ${Math.floor(at / 64)} is not what it was`);
  }
}

const farthest = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
const largest = (values: Float32Array) =>
  values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

beforeAll(async () => {
  const checkpoint = Checkpoint.open(model);
  const tensors = [...checkpoint.tensors.values()].map(({ name, shape }): OutgoingTensor => {
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    checkpoint.readFloats(name, values);
    if (!MATRICES.includes(name)) return { name, shape, read: () => values };
    const [rows, columns] = shape;
    const more = new Float32Array(ROWS * columns);
    for (let row = 0; row < ROWS; row++) {
      // No row is what lies a piece before it.
      const from = (7 * row + (row >> 8)) % rows;
      more.set(values.subarray(from * columns, (from + 1) * columns), row * columns);
    }
    return { name, shape: [ROWS, columns], read: () => more };
  });
  checkpoint.close();
  await writeSafetensors(join(model, "model.safetensors"), tensors, "bf16");
  editJson(model, "config.json", (config) => void (config.vocab_size = ROWS));
}, LONG);

describe("a head and an embedding that are read a piece at a time", () => {
  test("are rounded to int4 to their last rows, and compiled as they were rounded", async () => {
    const calibration = join(workshop.path, "windows.json");
    const window = [1, 5, 65_990, 200, 31, 65_600, 3, 12];
    writeFileSync(calibration, JSON.stringify({ windows: [window] }));
    const pruned = join(workshop.path, "rounded");
    await prune({
      ...{ model, output: pruned, calibration, method: "sparsegpt", sparsity: 0, distill: 0 },
      ...{ values: "int4", head: "int4", backend: FAST, threads: 1 },
    });
    const [head, embedding] = MATRICES.map((name) =>
      [matrixOf(model, name).values, matrixOf(pruned, name).values] as const
    );
    eachGroup(embedding, GROUP, (before, after) => {
      const scale = gridScale(before);
      return before.every((weight, i) => {
        const nearest = roundToGrid(weight, scale);
        return Math.abs(after[i] - nearest) <= STORED * Math.abs(nearest);
      });
    });
    // Rounded by what comes into it, so that no weight need go to its nearest level: but none goes far.
    eachGroup(head, GROUP, (before, after) => farthest(before, after) < largest(before) / 2);

    const compiled = await workshop.compile(pruned, { values: "int4", head: "int4" });
    const back = await workshop.expand(compiled.output);
    for (const name of MATRICES) {
      eachGroup(
        [matrixOf(pruned, name).values, matrixOf(back, name).values],
        GROUP,
        (before, after) =>
          liesOnGrid(after, gridScale(after)) &&
          farthest(before, after) <= 2 * STORED * largest(before),
      );
    }
  }, LONG);

  test("are compiled to int8 row by row, to the last", async () => {
    const compiled = await workshop.compile(model, { values: "int8" });
    const back = await workshop.expand(compiled.output);
    for (const name of MATRICES) {
      eachGroup(
        [matrixOf(model, name).values, matrixOf(back, name).values],
        64,
        (before, after) => farthest(before, after) <= largest(before) / 127,
      );
    }
  }, LONG);
});
