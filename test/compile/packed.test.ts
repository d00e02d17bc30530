/**
 * Packed matrices: what is packed comes back, byte for byte as `docs/format.md` says, and what breaks
 * a rule is refused.
 * @module
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { bytesOfBitmap, decodeBitmap, encodeBitmap } from "../../compile/packed/bitmap.ts";
import { bytesOfCsr, countEntries, decodeCsr, encodeCsr } from "../../compile/packed/csr.ts";
import { bytesOfNm, codeBits, decodeNm, encodeNm, findPattern } from "../../compile/packed/nm.ts";
import {
  bytesOfValues,
  countNonzeros,
  elementsOf,
  halfOf,
  narrow,
  scaleOf,
  widen,
} from "../../compile/packed/quantize.ts";
import type {
  Matrix,
  NmPattern,
  PackedBitmap,
  PackedCsr,
  PackedNm,
  ValueOptions,
  Values,
} from "../../compile/packed/types.ts";
import { FormatUnfitError, NotFiniteError, PackedFormatError } from "../../src/errors.ts";

const F32 = { type: "f32" } as const;
const F16 = { type: "f16" } as const;
const INT8 = { type: "int8" } as const;

/** Every value type, int8 with scales of whole rows and of groups that do not divide them. */
const OPTIONS: readonly ValueOptions[] = [
  F32,
  F16,
  INT8,
  { type: "int8", group: 5 },
  { type: "int4", group: 32 },
];

const labelOf = ({ type, group }: ValueOptions) => group ? `${type} by ${group}` : type;

/** Finite weights that every value type holds, zeros and numbers below float16's normal ones too. */
const weight = fc.oneof(
  { weight: 8, arbitrary: fc.float({ min: -4, max: 4, noNaN: true }) },
  fc.float({ min: -65504, max: 65504, noNaN: true }),
  fc.float({ min: Math.fround(-1e-4), max: Math.fround(1e-4), noNaN: true }),
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
  places: fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), weight), { maxLength: 6 }),
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

const matrices = fc.oneof({ weight: 3, arbitrary: sparse }, distant);

/** An N:M pattern and a matrix that obeys it. */
const patterned = fc.record({
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
function matrixOf(columns: number, ...rows: number[][]): Matrix {
  const values = Float32Array.from(rows.flat());
  return { name: "q_proj", rows: values.length / columns, columns, values };
}

/** Fails at the first element that differs; 0 and -0 do not. */
function expectSame(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) {
      throw new Error(`element ${i} is ${actual[i]}, not ${expected[i]}`);
    }
  }
}

/** What a reader gets of a matrix: for f32 itself, for the others as tests of their own pin it. */
function rounded(matrix: Matrix, options: ValueOptions): Float32Array {
  return widen(narrow(matrix, options), matrix);
}

/** Bytes of everything that would be written to a file. */
function bytesOf(packed: PackedNm | PackedCsr | PackedBitmap): number {
  return bytesOfStored(packed.values) +
    ("codes" in packed ? packed.codes.byteLength : 0) +
    ("gaps" in packed ? packed.gaps.byteLength + packed.rowPointers.byteLength : 0) +
    ("bits" in packed ? packed.bits.byteLength : 0);
}

/** The same of values and their scales alone. */
function bytesOfStored(values: Values): number {
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
function nearestHalf(w: number): number {
  const exponent = Math.max(-14, Math.floor(Math.log2(Math.abs(w) || 1)));
  const step = 2 ** (exponent - 10);
  const below = Math.floor(w / step);
  const rest = w / step - below;
  return (rest < 0.5 || rest === 0.5 && below % 2 === 0 ? below : below + 1) * step;
}

describe("float16", () => {
  test("widens and narrows every finite number without a change", () => {
    const data = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const widened = elementsOf({ type: "f16", data });
    for (let bits = 0; bits < 65536; bits++) {
      if ((bits & 0x7c00) === 0x7c00) continue;
      // A weight of -0 is a pruned one.
      expect(halfOf(widened[bits]) === bits || bits === 0x8000).toBe(true);
    }
    expect([0x3c00, 0xc000, 0x0001, 0x0400, 0x7bff].map((bits) => widened[bits]))
      .toEqual([1, -2, 2 ** -24, 2 ** -14, 65504]);
  });

  test("rounds halfway numbers to the even one, and others to the nearest", () => {
    const data = Uint16Array.from({ length: 0x7c00 }, (_, i) => i);
    const widened = elementsOf({ type: "f16", data });
    for (let bits = 0; bits < 0x7bff; bits++) {
      const middle = (widened[bits] + widened[bits + 1]) / 2;
      const nudge = middle * 2 ** -20;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const found = [
        halfOf(middle),
        halfOf(-middle),
        halfOf(middle - nudge),
        halfOf(middle + nudge),
      ];
      if (`${found}` !== `${[even, even | 0x8000, bits, bits + 1]}`) {
        throw new Error(`around ${middle}: ${found}`);
      }
    }
  });

  test("is the nearest to any weight", () => {
    fc.assert(fc.property(matrices, (matrix) => {
      expectSame(rounded(matrix, F16), matrix.values.map(nearestHalf));
    }));
  });

  test("refuses what it cannot hold, and says where that is and what can", () => {
    expect(halfOf(Math.fround(65519.99))).toBe(0x7bff);
    const matrix = matrixOf(2, [1, 2], [3, -65520]);
    expect(() => narrow(matrix, F16)).toThrow(FormatUnfitError);
    expect(() => narrow(matrix, F16)).toThrow(
      '"q_proj" has -65520 at row 1, column 1, more than float16 can hold (65504): ' +
        "store it as f32 or int8",
    );
  });
});

describe("int8", () => {
  /** Groups of weights, some with one that is far greater than the others. */
  const groups = fc.oneof(
    fc.array(weight, { maxLength: 60 }),
    fc.array(fc.float({ noNaN: true, min: Math.fround(-1e30), max: Math.fround(1e30) }), {
      maxLength: 8,
    }),
    fc.tuple(fc.array(fc.float({ min: -1, max: 1, noNaN: true }), { maxLength: 60 }), weight)
      .map(([many, one]) => [...many, one]),
  ).filter((group) => group.length > 0);

  const errorOf = (weights: ArrayLike<number>, stored: ArrayLike<number>) =>
    Array.from(weights, (w, i) => (w - stored[i]) ** 2).reduce((a, b) => a + b, 0);

  test("never has a greater squared error than the scale of the greatest weight gives", () => {
    fc.assert(
      fc.property(groups, (group) => {
        const scale = Math.fround(Math.max(...group.map(Math.abs)) / 127) || 2 ** -149;
        const simple = group.map((w) =>
          Math.fround(Math.max(-127, Math.min(127, Math.round(w / scale))) * scale)
        );
        const found = rounded(matrixOf(group.length, group), INT8);
        expect(errorOf(group, found)).toBeLessThanOrEqual(errorOf(group, simple) * (1 + 1e-6));
      }),
      { numRuns: 500 },
    );
  });

  test("has a clearly smaller error for few weights a scale", () => {
    const next = uniform(7);
    let simple = 0;
    let found = 0;
    for (let i = 0; i < 200; i++) {
      const group = Float64Array.from({ length: 32 }, () => (next() + next() + next() - 1.5) ** 2);
      const error = (scale: number) =>
        errorOf(group, group.map((w) => Math.min(127, Math.round(w / scale)) * scale));
      simple += error(Math.max(...group) / 127);
      found += error(scaleOf(group));
    }
    expect(found).toBeLessThan(0.85 * simple);
  });

  test("rounds every weight to the nearest step, and keeps zeros", () => {
    fc.assert(fc.property(matrices, fc.integer({ min: 1, max: 50 }), (matrix, group) => {
      const values = narrow(matrix, { type: "int8", group });
      if (values.type !== "int8") throw new Error(values.type);
      expect(values.group).toBe(Math.min(group, matrix.columns));
      const perRow = Math.ceil(matrix.columns / values.group);
      expect(values.scales).toHaveLength(matrix.rows * perRow);
      matrix.values.forEach((w, i) => {
        const column = i % matrix.columns;
        const row = Math.floor(i / matrix.columns);
        const scale = values.scales[row * perRow + Math.floor(column / values.group)];
        const q = values.data[i];
        const nearest = Math.max(-127, Math.min(127, w / scale));
        if (!(Math.abs(nearest - q) <= 0.5 + 1e-9) || w === 0 && q !== 0) {
          throw new Error(`${w} with the scale ${scale} became ${q}`);
        }
      });
    }));
  });

  test("gives a group without weights the scale 1, and finds scales that fit exactly", () => {
    const matrix = matrixOf(4, [3.96875, -0.0625, 0, 254], [0, 0, -0, 127]);
    expect(narrow(matrix, { type: "int8", group: 2 })).toEqual({
      type: "int8",
      data: Int8Array.of(127, -2, 0, 127, 0, 0, 0, 127),
      scales: Float32Array.of(0.03125, 2, 1, 1),
      group: 2,
    });
    expect(scaleOf(new Float64Array(0))).toBe(1);
  });

  test("holds the least and the greatest float32", () => {
    for (const w of [2 ** -149, 2 ** -126, 3.4028234663852886e38]) {
      const [stored] = rounded(matrixOf(2, [w, -w]), INT8);
      expect(stored).toBeGreaterThan(0.98 * w);
      expect(stored).toBeLessThan(1.02 * w);
    }
  });

  test("refuses groups that are no positive whole number", () => {
    for (const group of [0, -1, 1.5, NaN]) {
      expect(() => narrow(matrixOf(2, [1, 2]), { type: "int8", group })).toThrow(
        `"q_proj" cannot have a scale for each ${group} weights of a row`,
      );
    }
  });
});

describe("every format", () => {
  for (const options of OPTIONS) {
    test(`gives back what was packed as ${labelOf(options)}, in as many bytes as it foretold`, () => {
      fc.assert(
        fc.property(matrices, (matrix) => {
          const expected = rounded(matrix, options);
          const csr = encodeCsr(matrix, options);
          expectSame(decodeCsr(csr), expected);
          expect(bytesOf(csr)).toBe(bytesOfCsr(matrix, countEntries(matrix.values), options));
          const bitmap = encodeBitmap(matrix, options);
          expectSame(decodeBitmap(bitmap), expected);
          expect(bytesOf(bitmap))
            .toBe(bytesOfBitmap(matrix, countNonzeros(matrix.values), options));
          const pattern = findPattern(matrix, options.type);
          if (pattern) expectSame(decodeNm(encodeNm(matrix, pattern, options)), expected);
        }),
        { numRuns: 200 },
      );
      fc.assert(fc.property(patterned, ({ matrix, pattern }) => {
        const packed = encodeNm(matrix, pattern, options);
        expectSame(decodeNm(packed), rounded(matrix, options));
        expect(bytesOf(packed)).toBe(bytesOfNm(matrix, pattern, options));
      }));
    });
  }

  test("stores dense matrices in as many bytes as it foretold", () => {
    fc.assert(fc.property(matrices, fc.constantFrom(...OPTIONS), (matrix, options) => {
      const values = narrow(matrix, options);
      expect(bytesOfValues(matrix, options, matrix.values.length)).toBe(bytesOfStored(values));
    }));
  });

  test("leaves the matrix as it was, and shares no memory with it", () => {
    const matrix = matrixOf(4, [0, 1, 2, 0], [-0, 3, 0, 4]);
    for (
      const { values } of [
        encodeNm(matrix, { n: 2, m: 4 }, F32),
        encodeCsr(matrix, F32),
        encodeBitmap(matrix, F32),
      ]
    ) {
      values.data.fill(9);
    }
    expectSame(matrix.values, [0, 1, 2, 0, 0, 3, 0, 4]);
  });

  test("stores zeros as +0, whichever zero they were", () => {
    const matrix = matrixOf(600, [...Array(599).fill(-0), 1]);
    const zeros = [
      encodeNm(matrix, { n: 2, m: 4 }, F32).values,
      encodeNm(matrix, { n: 2, m: 4 }, F16).values,
      encodeCsr(matrix, F32).values,
      encodeCsr(matrix, F16).values,
    ].flatMap(({ data }) => [...data].filter((element) => element === 0 || element === 0x8000));
    expect(zeros.length).toBeGreaterThan(4);
    expect(zeros.every((zero) => Object.is(zero, 0))).toBe(true);
  });

  test("refuses a matrix that is not finite, not of its shape, or too large", () => {
    const encoders: ((matrix: Matrix) => unknown)[] = [
      (matrix) => encodeNm(matrix, { n: 1, m: 2 }, INT8),
      (matrix) => encodeCsr(matrix, F16),
      (matrix) => encodeBitmap(matrix, F32),
    ];
    for (const encode of encoders) {
      for (const bad of [NaN, Infinity, -Infinity]) {
        expect(() => encode(matrixOf(2, [0, 1], [bad, 0]))).toThrow(NotFiniteError);
        expect(() => encode(matrixOf(2, [0, 1], [bad, 0])))
          .toThrow(`"q_proj" has ${bad} at row 1, column 0`);
      }
      const empty = { name: "q_proj", values: new Float32Array(0) };
      expect(() => encode({ ...empty, rows: 0, columns: 4 })).toThrow(FormatUnfitError);
      expect(() => encode({ ...empty, rows: 2 ** 16, columns: 2 ** 15 })).toThrow("2147483647");
      expect(() => encode({ ...empty, rows: 2, columns: 4 })).toThrow("has 0 weights");
    }
  });
});

describe("N:M", () => {
  const naiveMost = ({ values }: Matrix, m: number) => {
    let most = 0;
    for (let i = 0; i < values.length; i += m) {
      most = Math.max(most, values.slice(i, i + m).filter((w) => w !== 0).length);
    }
    return most;
  };

  test("holds a matrix if and only if no group has more than N weights", () => {
    fc.assert(fc.property(patterned, ({ matrix, pattern: { m } }) => {
      const most = naiveMost(matrix, m);
      if (most > 0) expectSame(decodeNm(encodeNm(matrix, { n: most, m }, F32)), matrix.values);
      if (most > 1) {
        expect(() => encodeNm(matrix, { n: most - 1, m }, F32)).toThrow(FormatUnfitError);
      }
    }));
  });

  test("is found where zeros obey it, and it is the smallest", () => {
    fc.assert(fc.property(patterned, fc.constantFrom(...OPTIONS), ({ matrix }, options) => {
      let best: NmPattern | undefined;
      for (const m of [2, 4, 8, 16, 32]) {
        const pattern = { n: Math.max(1, naiveMost(matrix, m)), m };
        if (matrix.columns % m !== 0 || pattern.n === m) continue;
        // Of many rows, so that no bits are lost to padding.
        const bytes = (of: NmPattern) => bytesOfNm({ ...matrix, rows: 64 }, of, options);
        if (best === undefined || bytes(pattern) < bytes(best)) best = pattern;
      }
      expect(findPattern(matrix, options.type)).toEqual(best);
    }));
    expect(findPattern(matrixOf(8, [1, 0, 2, 0, 0, 3, 4, 0]))).toEqual({ n: 1, m: 2 });
    expect(findPattern(matrixOf(4, [1, 2, 3, 4]))).toBe(undefined);
    expect(findPattern(matrixOf(3, [0, 0, 1]))).toBe(undefined);
    expect(findPattern(matrixOf(3, [0, 0, 1]), "f32", [3])).toEqual({ n: 1, m: 3 });
  });

  test("takes codes of 1, 2, 4 or 8 bits", () => {
    const bits = Array.from({ length: 31 }, (_, i) => codeBits(i + 2));
    expect(bits).toEqual([1, 2, 2, ...Array(12).fill(4), ...Array(16).fill(8)]);
  });

  test("names the tensor, the place, the pattern that fits and the other formats in its refusal", () => {
    const matrix = matrixOf(4, [1, 0, 0, 2], [1, 2, 3, 0]);
    expect(() => encodeNm(matrix, { n: 2, m: 4 }, F32)).toThrow(
      '"q_proj" cannot be stored as 2:4: row 1 keeps 3 weights of columns 0 to 3; ' +
        "its zeros obey 3:4, which works, and so do csr and bitmap",
    );
    expect(() => encodeNm(matrix, { n: 2, m: 8 }, F32)).toThrow("8 does not divide its 4 columns");
    expect(() => encodeNm(matrixOf(3, [1, 2, 3]), { n: 2, m: 4 }, F32))
      .toThrow("its zeros obey no N:M; csr and bitmap work");
    for (const [n, m] of [[0, 4], [5, 4], [1, 1], [1, 33], [1.5, 4], [NaN, 4]]) {
      expect(() => encodeNm(matrix, { n, m }, F32)).toThrow(`cannot be stored as ${n}:${m}`);
    }
  });
});

/** The examples of `docs/format.md`, byte for byte. */
describe("the layout", () => {
  const matrix = matrixOf(
    8,
    [0, 1.5, 0, -2, 0, 0, 0, 0.5],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [4, 0, 0, 3, -1, 0, 2.5, 0],
  );
  const shape = { name: "q_proj", rows: 3, columns: 8 };

  test("of values is that of float16 bits, and of int8 with its scales", () => {
    const values = narrow(matrixOf(4, [3.96875, -0.0625, 0, 254]), { type: "int8", group: 2 });
    if (values.type !== "int8") throw new Error(values.type);
    expect(bytes(values.data)).toBe("7f fe 00 7f");
    expect(bytes(values.scales)).toBe("00 00 00 3d 00 00 00 40");
  });

  test("of N:M is groups, places, rows, with codes packed along rows", () => {
    const packed = {
      ...shape,
      n: 2,
      m: 4,
      values: { type: "f32", data: Float32Array.of(1.5, 0, 4, -2, 0, 3, 0, 0, -1, 0.5, 0, 2.5) },
      codes: Uint8Array.of(0x01, 0x37, 0x00, 0x27),
    } as const;
    expect(encodeNm(matrix, { n: 2, m: 4 }, F32)).toEqual(packed);
    expectSame(decodeNm(packed), matrix.values);
  });

  test("of N:M has codes of 1, 4 and 8 bits, lowest first, and zeros after the last row", () => {
    const halves = matrixOf(2, ...[0, 1, 1, 0, 1, 1, 0, 1, 1].map((c) => c ? [0, 5] : [5, 0]));
    expect([...encodeNm(halves, { n: 1, m: 2 }, F32).codes]).toEqual([0b10110110, 0b1]);
    const one = (m: number, place: number) => Array.from({ length: m }, (_, c) => +(c === place));
    const nibbles = matrixOf(16, one(16, 9), one(16, 15), one(16, 3));
    expect([...encodeNm(nibbles, { n: 1, m: 16 }, F32).codes]).toEqual([0xf9, 0x03]);
    const whole = matrixOf(32, one(32, 31), one(32, 17));
    expect([...encodeNm(whole, { n: 1, m: 32 }, F32).codes]).toEqual([31, 17]);
  });

  test("of CSR is the distance of each entry from the one before", () => {
    const packed: PackedCsr = {
      ...shape,
      values: { type: "f32", data: Float32Array.of(1.5, -2, 0.5, 4, 3, -1, 2.5) },
      gaps: Uint8Array.of(1, 2, 4, 9, 3, 1, 2),
      rowPointers: Int32Array.of(0, 3, 3, 7),
    };
    expect(encodeCsr(matrix, F32)).toEqual(packed);
    expectSame(decodeCsr(packed), matrix.values);
  });

  test("of CSR has entries of value 0 where the distance is over 255", () => {
    const values = new Float32Array(1200);
    values[300] = 1;
    values[600] = 2;
    values[1199] = 3;
    expect(encodeCsr({ name: "q_proj", rows: 2, columns: 600, values }, F32)).toEqual({
      name: "q_proj",
      rows: 2,
      columns: 600,
      values: { type: "f32", data: Float32Array.of(0, 1, 0, 2, 0, 0, 3) },
      gaps: Uint8Array.of(0xff, 0x2d, 0xff, 0x2d, 0xff, 0xff, 0x59),
      rowPointers: Int32Array.of(0, 3, 7),
    });
    // 255 is a distance, 510 is two, and the first position is one too.
    for (const [position, gaps] of [[255, [255]], [256, [255, 1]], [510, [255, 255]]] as const) {
      const { values: { data }, ...packed } = encodeCsr(
        matrixOf(600, Array.from({ length: 600 }, (_, c) => +(c === position))),
        F32,
      );
      expect([...packed.gaps]).toEqual([...gaps]);
      expect([...data]).toEqual([...Array(gaps.length - 1).fill(0), 1]);
    }
  });

  test("of CSR has one entry for a matrix of zeros", () => {
    const packed = encodeCsr(matrixOf(2, [0, 0], [0, 0]), INT8);
    expect([...packed.gaps]).toEqual([0]);
    expect([...packed.values.data]).toEqual([0]);
    expect([...packed.rowPointers]).toEqual([0, 1, 1]);
  });

  test("of a bitmap is a bit a weight, and the weights after a zero", () => {
    const packed: PackedBitmap = {
      ...shape,
      values: {
        type: "f16",
        data: Uint16Array.of(0, 0x3e00, 0xc000, 0x3800, 0x4400, 0x4200, 0xbc00, 0x4100),
      },
      bits: Uint8Array.of(0x8a, 0x00, 0x59),
    };
    expect(encodeBitmap(matrix, F16)).toEqual(packed);
    expectSame(decodeBitmap(packed), matrix.values);
    expectSame(
      encodeBitmap(matrix, F32).values.data,
      [0, 1.5, -2, 0.5, 4, 3, -1, 2.5],
    );
  });

  test("of a bitmap starts every row at a byte", () => {
    const row = [1, 0, 0, 0, 0, 0, 0, 0, 1, 2];
    const { bits } = encodeBitmap(matrixOf(10, row, row.toReversed()), F32);
    expect([...bits]).toEqual([0b1, 0b11, 0b11, 0b10]);
  });
});

describe("a damaged", () => {
  const ones = { type: "f32", data: Float32Array.of(1, 2, 3, 4) } as const;
  const nm: PackedNm = {
    name: "q_proj",
    rows: 2,
    columns: 4,
    n: 2,
    m: 4,
    values: ones,
    codes: Uint8Array.of(0b0100, 0b1110),
  };
  const csr: PackedCsr = {
    name: "q_proj",
    rows: 2,
    columns: 5,
    values: ones,
    gaps: Uint8Array.of(0, 2, 4, 3),
    rowPointers: Int32Array.of(0, 2, 4),
  };
  const bitmap: PackedBitmap = {
    name: "q_proj",
    rows: 2,
    columns: 5,
    values: { type: "f32", data: Float32Array.of(0, 2, 3, 4) },
    bits: Uint8Array.of(0b10001, 0b100),
  };

  /** Fails unless the matrix is refused with the words, as ours, by the decoder, which validates. */
  function refused(decode: () => unknown, words: string): void {
    expect(decode).toThrow(PackedFormatError);
    expect(decode).toThrow(`"q_proj": ${words}`);
    expect(decode).toThrow("compile the model again");
  }

  test("matrix was whole before", () => {
    expectSame(decodeNm(nm), [1, 0, 3, 0, 0, 2, 0, 4]);
    expectSame(decodeCsr(csr), [1, 0, 2, 0, 0, 0, 3, 0, 0, 4]);
    expectSame(decodeBitmap(bitmap), [2, 0, 0, 0, 3, 0, 0, 4, 0, 0]);
  });

  test("shape is refused", () => {
    for (const rows of [0, -1, 1.5, NaN, Infinity, 2 ** 31]) {
      refused(() => decodeNm({ ...nm, rows }), `shape ${rows} × 4 is not of 1 to 2147483647`);
      refused(() => decodeCsr({ ...csr, rows }), "shape");
      refused(() => decodeBitmap({ ...bitmap, rows }), "shape");
    }
  });

  test("value is refused", () => {
    for (const data of [Float32Array.of(0, 2, NaN, 4), Float32Array.of(0, 2, -Infinity, 4)]) {
      const values = { type: "f32", data } as const;
      refused(() => decodeNm({ ...nm, values }), "values element 2 is not finite");
      refused(() => decodeCsr({ ...csr, values }), "values element 2 is not finite");
      refused(() => decodeBitmap({ ...bitmap, values }), "values element 2 is not finite");
    }
    const half = { type: "f16", data: Uint16Array.of(0, 1, 2, 0xfc00) } as const;
    refused(() => decodeCsr({ ...csr, values: half }), "values element 3 is not finite");
    const long = { type: "f32", data: new Float32Array(5) } as const;
    refused(() => decodeNm({ ...nm, values: long }), "values has 5 elements, not 4");
    refused(() => decodeCsr({ ...csr, values: long }), "values has 5 elements, not 4");
    refused(() => decodeBitmap({ ...bitmap, values: long }), "values has 5 elements, not 4");
    refused(() => decodeBitmap({ ...bitmap, values: ones }), "values do not begin with 0");
    const odd = { type: "int2", data: new Int8Array(4) } as unknown as Values;
    refused(() => decodeCsr({ ...csr, values: odd }), 'values are of the unknown type "int2"');
  });

  test("scale is refused", () => {
    const scaled = (scales: number[], group: number, data = [1, 2, 3, 4]) => ({
      ...nm,
      values: {
        type: "int8",
        data: Int8Array.from(data),
        scales: Float32Array.from(scales),
        group,
      } as const,
    });
    expectSame(decodeNm(scaled([1, 2, 3, 4], 2)), [1, 0, 6, 0, 0, 6, 0, 16]);
    for (const scale of [0, -1, NaN, Infinity, 2 ** 122]) {
      refused(() => decodeNm(scaled([1, 2, scale, 4], 2)), `scales has ${scale} at row 1, group 0`);
    }
    for (const group of [0, 5, -1, 1.5, NaN]) {
      refused(() => decodeNm(scaled([1, 2], group)), `scales are for groups of ${group} of 4`);
    }
    refused(() => decodeNm(scaled([1, 2, 3], 3)), "scales has 3 elements, not 4");
    refused(() => decodeNm(scaled([1, 2], 4, [1, 2, -128, 4])), "values element 2 is -128");
  });

  test("N:M pattern or code is refused", () => {
    for (const [n, m] of [[0, 4], [3, 2], [1, 3], [1, 1], [1, 64], [NaN, 4], [1, NaN], [2.5, 4]]) {
      refused(() => decodeNm({ ...nm, n, m }), `pattern ${n}:${m} is none that 4 columns can have`);
    }
    const coded = (...codes: number[]) => ({ ...nm, codes: Uint8Array.from(codes) });
    refused(() => decodeNm(coded(0)), "codes has 1 elements, not 2");
    refused(
      () => decodeNm(coded(0b0100, 0b0110)),
      "codes have position 1 of 4 at group 0, slot 1, row 1; positions of a group ascend",
    );
    refused(() => decodeNm(coded(0b0100, 0b1100)), "codes have position 0 of 4 at group 0, slot 1");
    refused(
      () => decodeNm(coded(0b0100, 0b11110)),
      "codes have bits after the last row at group 0, slot 1",
    );
    const three = {
      ...coded(0b1101),
      columns: 3,
      n: 1,
      m: 3,
      values: { ...ones, data: Float32Array.of(1, 2) },
    };
    refused(() => decodeNm(three), "codes have position 3 of 3 at group 0, slot 0, row 1");
  });

  test("gap is refused", () => {
    const gapped = (...gaps: number[]) => ({ ...csr, gaps: Uint8Array.from(gaps) });
    refused(() => decodeCsr(gapped()), "gaps are empty");
    refused(() => decodeCsr(gapped(0, 2, 4, 0)), "gaps are 0 at entry 3");
    refused(() => decodeCsr(gapped(0, 2, 4, 4)), "gaps lead out of the matrix at entry 3");
    refused(() => decodeCsr(gapped(10, 2, 4, 4)), "gaps lead out of the matrix at entry 0");
    refused(() => decodeCsr(gapped(0, 2, 4)), "values has 4 elements, not 3");
  });

  test("row pointer is refused", () => {
    const pointed = (...rows: number[]) => ({ ...csr, rowPointers: Int32Array.from(rows) });
    refused(() => decodeCsr(pointed(0, 4)), "row pointers has 2 elements, not 3");
    refused(() => decodeCsr(pointed(1, 2, 4)), "row pointers start at 1");
    refused(() => decodeCsr(pointed(0, -1, 4)), "row pointers fall from 0 to -1 at row 0");
    refused(() => decodeCsr(pointed(0, 5, 4)), "row pointers fall from 5 to 4 at row 1");
    refused(() => decodeCsr(pointed(0, 2, 5)), "row pointers end at 5, but there are 4 entries");
    refused(
      () => decodeCsr(pointed(0, 1, 4)),
      "row pointers count entry 1 to row 1, but it lies in row 0",
    );
    refused(
      () => decodeCsr(pointed(0, 3, 4)),
      "row pointers count entry 2 to row 0, but it lies in row 1",
    );
  });

  test("bitmap is refused", () => {
    const set = (...bits: number[]) => ({ ...bitmap, bits: Uint8Array.from(bits) });
    refused(() => decodeBitmap(set(7)), "bits has 1 elements, not 2");
    refused(() => decodeBitmap(set(0b10001, 0)), "values has 4 elements, not 3");
    refused(
      () => decodeBitmap(set(0b10001, 0b100000)),
      "bits go on after the last column at row 1",
    );
  });

  test("name is cut short in messages", () => {
    const name = "x".repeat(1e5);
    let message = "";
    try {
      decodeNm({ ...nm, name, n: 0 });
    } catch (error) {
      if (error instanceof PackedFormatError) message = error.message;
    }
    expect(message.length).toBeGreaterThan(100);
    expect(message.length).toBeLessThan(400);
  });
});

/** Bytes as `docs/format.md` writes them. */
function bytes(data: ArrayBufferView): string {
  const view = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return Array.from(view, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/** Uniform numbers in [0, 1) that are the same everywhere. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}
