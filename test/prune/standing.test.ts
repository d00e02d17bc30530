/** What stays of a matrix that is as sparse as it is to become. @module */
import { expect, test } from "bun:test";
import { standingMask } from "../../src/prune/standing.ts";
import type { Pattern } from "../../src/prune/types.ts";

const ANY: Pattern = { kind: "unstructured" };
/** Two of four in each group of four, a negative zero among them. */
const half = Float32Array.of(0, 1, 0, -1, 2, -0, 3, 0);

test("what has as many zeros as it is to have keeps what it has, and no more", () => {
  const mask = Uint8Array.of(0, 1, 0, 1, 1, 0, 1, 0);
  for (const density of [0.5, 0.75, 1]) {
    expect(standingMask(half, ANY, { density })).toEqual(mask);
  }
  expect(standingMask(half, { kind: "nm", n: 2, m: 4 }, { density: 0.5 })).toEqual(mask);
  expect(standingMask(half, { kind: "mixed", m: 4 }, { density: 0.6, kept: 2 })).toEqual(mask);
  expect(standingMask(half, { kind: "mixed", m: 4 }, { density: 0.5 })).toEqual(mask);
  expect(standingMask(half, { kind: "slots" }, { density: 1 })).toEqual(mask);
  expect(standingMask(new Float32Array(8), { kind: "nm", n: 1, m: 4 }, { density: 0.25 }))
    .toEqual(new Uint8Array(8));
});

test("what is to lose weights, or has no zeros, has no mask yet", () => {
  expect(standingMask(half, ANY, { density: 0.49 })).toBeUndefined();
  expect(standingMask(half, { kind: "nm", n: 1, m: 4 }, { density: 0.25 })).toBeUndefined();
  expect(standingMask(half, { kind: "mixed", m: 4 }, { density: 0.5, kept: 1 })).toBeUndefined();
  expect(standingMask(half, { kind: "slots" }, { density: 0.5 })).toBeUndefined();
  expect(standingMask(Float32Array.of(1, 2, 3, 4), ANY, { density: 1 })).toBeUndefined();
});

test("half of all zeros are no 2:4 where a group has three weights", () => {
  const uneven = Float32Array.of(1, 1, 1, 0, 0, 0, 0, 1);
  expect(standingMask(uneven, ANY, { density: 0.5 })).toBeDefined();
  expect(standingMask(uneven, { kind: "nm", n: 2, m: 4 }, { density: 0.5 })).toBeUndefined();
});
