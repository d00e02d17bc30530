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
import { bytesOfValues, countNonzeros, narrow } from "../../compile/packed/quantize.ts";
import type {
  Matrix,
  NmPattern,
  PackedBitmap,
  PackedCsr,
  PackedNm,
  Values,
} from "../../compile/packed/types.ts";
import { FormatUnfitError, NotFiniteError, PackedFormatError } from "../../src/errors.ts";
import {
  bytesOf,
  bytesOfStored,
  expectSame,
  F16,
  F32,
  INT8,
  labelOf,
  matrices,
  matrixOf,
  OPTIONS,
  patterned,
  rounded,
} from "./matrices.ts";

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
    refused(() => decodeCsr(gapped(0, 0, 2, 4)), "gaps are 0 at entry 1");
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
