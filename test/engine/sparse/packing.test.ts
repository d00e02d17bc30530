/**
 * Weights that several threads pack: the same bytes in the same places as from one, and no wait without an end.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { encodeBitmap } from "../../../compile/packed/bitmap.ts";
import { encodeNm } from "../../../compile/packed/nm.ts";
import { PackedFormatError, WorkerLostError } from "../../../src/errors.ts";
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import { CONTROL } from "../../../src/engine/sparse/layout.ts";
import { type Setup, setUp } from "../../../src/engine/sparse/setup.ts";
import { WeightLoader } from "../../../src/engine/sparse/weights/loader.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { rejectionOf } from "../../checkpoint/support.ts";
import { Tensors } from "./tensors.ts";

/** More matrices than threads have rooms, of all sizes, in layouts without addresses in them. */
function matrices(file: Tensors): MatrixRef[] {
  const dice = new Dice(SEED);
  return Array.from({ length: 60 }, (_, i) => {
    const rows = 4 + dice.below(i % 10 === 0 ? 600 : 60), columns = 64 * (1 + dice.below(6));
    const kept = i % 3 === 0 ? 4 : 8;
    const values = new Float32Array(rows * columns);
    for (let start = 0; start < values.length; start += 16) {
      for (let k = 0; k < kept; k++) values[start + 2 * k + dice.below(2)] = dice.next() - 0.5;
    }
    const matrix = { name: "w", rows, columns, values };
    if (i % 4 === 0) return file.packed(encodeBitmap(matrix, { type: "int8" }));
    if (i % 4 === 1) return file.packed(encodeNm(matrix, { n: kept, m: 16 }, { type: "int8" }));
    if (i % 4 === 2) return file.packed(encodeBitmap(matrix, { type: "int4", group: 32 }));
    const elements = Float64Array.from(values, (value) => Math.round(254 * value));
    const scales = new Float32Array(rows).fill(0.5);
    return file.matrix({ rows, columns, type: "int8", elements, scales }, false);
  });
}

/** Has matrices placed, and a sketch made of the last. */
async function load(
  file: Tensors,
  refs: readonly MatrixRef[],
  { memory, kernels, team }: Setup,
  sketched = false,
): Promise<Uint8Array> {
  const reader = await file.open();
  try {
    const loader = new WeightLoader(reader, memory, kernels, refs, team);
    const first = memory.used;
    const placed = [];
    for (const ref of refs) placed.push(await loader.matrix(ref));
    if (sketched) await loader.sketch(placed[placed.length - 1]);
    await loader.settle();
    return memory.bytes(first, memory.used - first).slice();
  } finally {
    reader.close();
  }
}

describe("weights that several threads pack", () => {
  test("lie where one thread puts them, byte by byte", async () => {
    const file = new Tensors();
    const refs = matrices(file);
    // A head, in pieces of a megabyte.
    const [rows, columns] = [20_000, 128];
    const elements = Float64Array.from({ length: rows * columns }, (_, i) => i * 7919 % 255 - 127);
    const scales = new Float32Array(rows).fill(1);
    refs.push(file.matrix({ rows, columns, type: "int8", elements, scales }, false));
    const alone = await setUp({ threads: 1 });
    const expected = await load(file, refs, alone, true);
    expect(expected.length).toBeGreaterThan(rows * columns);
    for (const [threads, background] of [[2, false], [4, false], [1, true], [3, true]] as const) {
      const setup = await setUp({ threads, background });
      expect(setup.team.threads).toBe(background ? threads : threads - 1);
      const found = await load(file, refs, setup, true);
      expect(found.length).toBe(expected.length);
      // Not by toEqual, which takes minutes for megabytes in Deno.
      expect(found.findIndex((byte, i) => byte !== expected[i])).toBe(-1);
      setup.team.stop();
    }
  });

  test("are read through to the end where a model is larger than the rooms may be", async () => {
    const file = new Tensors();
    const refs = matrices(file);
    const { memory, kernels, team } = await setUp({ threads: 3, memory: 20e6 });
    // What is left allows one room of those that two threads would have.
    const largest = 1_200_000;
    const values = new Float32Array(largest / 2).fill(1);
    refs.push(
      file.packed(encodeBitmap({ name: "w", rows: 600, columns: 1000, values }, { type: "f32" })),
    );
    const reader = await file.open();
    const loader = new WeightLoader(reader, memory, kernels, refs, team);
    expect(loader.stage.bytes).toBeLessThan(2 * 4 * values.length);
    for (const ref of refs) await loader.matrix(ref);
    await loader.settle();
    reader.close();
    team.stop();
  });

  test("are refused where one of them is damaged", async () => {
    for (const at of [0, 30, 60]) {
      const file = new Tensors();
      const refs = matrices(file);
      const elements = new Float64Array(64 * 64).fill(1);
      elements[4000] = NaN;
      refs.splice(at, 0, file.matrix({ rows: 64, columns: 64, type: "f32", elements }, false));
      for (const threads of [1, 3]) {
        const setup = await setUp({ threads });
        expect(await rejectionOf(load(file, refs, setup))).toBeInstanceOf(PackedFormatError);
        setup.team.stop();
      }
    }
  });

  test("are not waited for longer than a thread may take", async () => {
    const file = new Tensors();
    const refs = matrices(file);
    const { memory, kernels, team } = await setUp({ threads: 1 });
    expect(team.threads).toBe(0);
    // Somebody begins whatever is posted, and never ends it.
    const lossy = { ...kernels, help: () => 0 };
    const lost = () => new WorkerLostError("a thread was lost");
    const reader = await file.open();
    for (const patience of [50, 1e9]) {
      const helpers = { threads: 1, patience, lost };
      const loader = new WeightLoader(reader, memory, lossy, refs, helpers);
      await loader.matrix(refs[0]);
      // Or it is known to have died.
      if (patience > 50) memory.set(CONTROL.FAILED, 1);
      expect(await rejectionOf(loader.settle())).toBeInstanceOf(WorkerLostError);
    }
    reader.close();
  });
});
