/**
 * Matrices for the tests of packed formats, and what those compare.
 * @module
 */
import { expect } from "bun:test";
import fc from "fast-check";
import { narrow, widen } from "../../compile/packed/quantize.ts";
import type {
  Matrix,
  PackedBitmap,
  PackedCsr,
  PackedNm,
  ValueOptions,
  Values,
} from "../../compile/packed/types.ts";
import { doubles, floats } from "../support/numbers.ts";

export const F32 = { type: "f32" } as const;
export const F16 = { type: "f16" } as const;
export const INT8 = { type: "int8" } as const;

/** Every value type, int8 with scales of whole rows and of groups that do not divide them. */
export const OPTIONS: readonly ValueOptions[] = [
  F32,
  F16,
  INT8,
  { type: "int8", group: 5 },
  { type: "int4", group: 32 },
];

export const labelOf = ({ type, group }: ValueOptions) => group ? `${type} by ${group}` : type;

/** Finite weights that every value type holds, zeros and numbers below float16's normal ones too. */
export const weight = fc.oneof(
  { weight: 8, arbitrary: floats(-4, 4) },
  floats(-65504, 65504),
  floats(Math.fround(-1e-4), Math.fround(1e-4)),
);

/** A weight or a zero, as it is in a row of one kind. */
const KINDS = {
  empty: fc.constant(0),
  full: weight.map((w) => w === 0 ? 1 : w),
  mixed: fc.oneof(fc.constant(0), weight),
};

const sparse = fc.record({
  rows: fc.integer({ min: 1, max: 7 }),
  columns: fc.integer({ min: 1, max: 40 }),
}).chain(({ rows, columns }) =>
  fc.oneof(
    fc.constantFrom("empty", "full", "mixed").map((kind) => Array(rows).fill(kind)),
    fc.array(fc.constantFrom("empty", "full", "mixed"), { minLength: rows, maxLength: rows }),
  ).chain((kinds) =>
    fc.tuple(...kinds.map((kind: keyof typeof KINDS) =>
      fc.array(KINDS[kind], { minLength: columns, maxLength: columns })
    ))
  ).map((values) =>
    matrixOf(columns, ...values)
  )
);

/** Few weights far from each other: distances over 255, over rows or within one. */
const distant = fc.record({
  rows: fc.integer({ min: 1, max: 1200 }),
  columns: fc.integer({ min: 1, max: 1200 }),
  places: fc.array(fc.tuple(doubles(0, 1), weight), { maxLength: 6 }),
  exact: fc.constantFrom(0, 254, 255, 256, 509, 510, 511, 512, 765),
})
  // Either side may be long, not both.
  .map(({ rows, columns, ...rest }) => ({
    ...rest,
    rows: rows > columns ? rows : rows % 5 + 1,
    columns: rows > columns ? columns % 5 + 1 : columns,
  }))
  .map(({ rows, columns, places, exact }): Matrix => {
    const values = new Float32Array(rows * columns);
    for (const [place, w] of places) {
      const first = Math.floor(place * (values.length - 1));
      values[first] = w;
      // A second one at a distance where an entry more or less is inserted.
      if (first + exact < values.length) values[first + exact] = 1;
    }
    return { name: "w", rows, columns, values };
  });

export const matrices = fc.oneof({ weight: 3, arbitrary: sparse }, distant);

/** An N:M pattern and a matrix that obeys it. */
export const patterned = fc.record({
  m: fc.integer({ min: 2, max: 32 }),
  groups: fc.integer({ min: 1, max: 4 }),
  rows: fc.integer({ min: 1, max: 19 }),
}).chain(({ m, groups, rows }) =>
  fc.record({
    n: fc.integer({ min: 1, max: m }),
    values: fc.array(KINDS.mixed, {
      minLength: rows * groups * m,
      maxLength: rows * groups * m,
    }),
    order: fc.shuffledSubarray([...Array(m).keys()], { minLength: m }),
  }).map(({ n, values, order }) => {
    // Which places stay differs from group to group.
    const kept = (i: number) => order[(i % m + Math.floor(i / m)) % m] < n;
    const matrix = matrixOf(groups * m, values.map((w, i) => kept(i) ? w : 0));
    return { pattern: { n, m }, matrix: { ...matrix, rows } };
  })
);

/** A matrix of the given rows. */
export function matrixOf(columns: number, ...rows: number[][]): Matrix {
  const values = Float32Array.from(rows.flat());
  return { name: "q_proj", rows: values.length / columns, columns, values };
}

/** Fails at the first element that differs; 0 and -0 do not. */
export function expectSame(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) {
      throw new Error(`element ${i} is ${actual[i]}, not ${expected[i]}`);
    }
  }
}

/** What a reader gets of a matrix: for f32 itself, for the others as tests of their own pin it. */
export function rounded(matrix: Matrix, options: ValueOptions): Float32Array {
  return widen(narrow(matrix, options), matrix);
}

/** Bytes of everything that would be written to a file. */
export function bytesOf(packed: PackedNm | PackedCsr | PackedBitmap): number {
  return bytesOfStored(packed.values) +
    ("codes" in packed ? packed.codes.byteLength : 0) +
    ("gaps" in packed ? packed.gaps.byteLength + packed.rowPointers.byteLength : 0) +
    ("bits" in packed ? packed.bits.byteLength : 0);
}

/** The same of values and their scales alone. */
export function bytesOfStored(values: Values): number {
  // Scales of int4 are a byte each, and there is a table of 256.
  const scales = values.type === "int4"
    ? values.scales.length + 512
    : values.type === "int8"
    ? values.scales.byteLength
    : 0;
  return scales +
    (values.type === "int4" ? Math.ceil(values.data.length / 2) : values.data.byteLength);
}

/** The float16 nearest to a number, from the definition. */
export function nearestHalf(w: number): number {
  const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(w) || 1)));
  const step = 2 ** (exponent - 10);
  const below = Math.floor(w / step);
  const rest = w / step - below;
  return (rest < 0.5 || rest === 0.5 && below % 2 === 0 ? below : below + 1) * step;
}
