/** Zeros among weights that are read a piece at a time. @module */
import { expect, test } from "bun:test";
import { zerosOf } from "../../src/api/zeros.ts";
import type { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { atOnce } from "../../src/platform/steps.ts";

test("zeros are counted in every piece of a large matrix", () => {
  const [rows, columns] = [3, 1 << 20];
  // The second row is zeros, and so are five of the third.
  const read = (_: string, target: Float32Array, first = 0) => {
    for (let i = 0; i < target.length; i++) {
      const [row, column] = [Math.floor((first + i) / columns), (first + i) % columns];
      target[i] = row === 1 || (row === 2 && column < 5) ? 0 : 1;
    }
  };
  const checkpoint = { readFloats: read } as unknown as Checkpoint;
  expect(atOnce(zerosOf(checkpoint, { weight: "w", rows, columns }))).toBe(columns + 5);
});
