/**
 * Packed matrices changed at random: each must end in an error of ours, or in the matrix that a
 * naive reader makes of it, and no read may lie outside a tensor.
 *
 * The changes follow from a seed, which every failure names: `ESPALIER_FUZZ_SEED=… bun test fuzz`
 * repeats it. With `CI=true` there are ten times as many.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { decodeBitmap, encodeBitmap, validateBitmap } from "../../compile/packed/bitmap.ts";
import { decodeCsr, encodeCsr, validateCsr } from "../../compile/packed/csr.ts";
import { decodeNm, encodeNm, validateNm } from "../../compile/packed/nm.ts";
import { decodeSlots, encodeSlots, validateSlots } from "../../compile/packed/slots.ts";
import type { Matrix, Shape, ValueOptions, Values } from "../../compile/packed/types.ts";
import { EspalierError } from "../../src/errors.ts";
import { caseCount, Dice, SEED } from "../support/fuzz.ts";
import { caseNumber } from "../support/turns.ts";
import { visitSlots } from "../support/naive_weights.ts";

/** Changes of each format: 28,000 together with `CI=true`, half of them in each runtime. */
const CASES = caseCount(7_000, 700);

/** A matrix of more weights than this is validated but not decoded: a few bytes can claim 8 GB. */
const LARGEST_DECODED = 1 << 20;

/** What a number in a file's attributes is replaced by. */
const ODD_NUMBERS = [
  0,
  -0,
  1,
  2,
  3,
  4,
  8,
  31,
  32,
  33,
  64,
  255,
  256,
  65536,
  0.5,
  -1,
  1e-5,
  -1e300,
  1e300,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  NaN,
  Infinity,
  -Infinity,
];

type Tensor = Uint8Array | Uint16Array | Int8Array | Int32Array | Float32Array;

/** A matrix of some shape, N of every 4 neighbours or fewer kept. */
function randomMatrix(dice: Dice): Matrix {
  const rows = 1 + dice.below(6);
  const columns = 4 * (1 + dice.below(dice.below(4) === 0 ? 200 : 8));
  const share = dice.pick([0, 0.01, 0.2, 0.5]);
  const values = new Float32Array(rows * columns);
  for (let i = 0; i < values.length; i++) {
    if (i % 4 < 2 && dice.next() < share) values[i] = dice.next() - 0.5;
  }
  return { name: "w", rows, columns, values };
}

function randomOptions(dice: Dice): ValueOptions {
  return dice.pick<ValueOptions>([
    { type: "f32" },
    { type: "f16" },
    { type: "int8" },
    { type: "int8", group: 1 + dice.below(9) },
    { type: "int4", group: dice.pick([32, 64, 128]) },
  ]);
}

/** A tensor with some elements changed, left out, or added. */
function changed<T extends Tensor>(dice: Dice, tensor: T): T {
  const at = dice.below(tensor.length);
  const make = (length: number) => new (tensor.constructor as new (length: number) => T)(length);
  switch (dice.below(6)) {
    case 0:
    case 1: { // Bits.
      const copy = tensor.slice() as T;
      const bytes = new Uint8Array(copy.buffer);
      if (bytes.length === 0) return copy;
      for (let n = 1 + dice.below(3); n > 0; n--) {
        bytes[dice.below(bytes.length)] ^= 1 << dice.below(8);
      }
      return copy;
    }
    case 2: { // Elements.
      const copy = tensor.slice() as T;
      if (copy.length > 0) copy[at] = dice.pick(ODD_NUMBERS);
      return copy;
    }
    case 3: // Its beginning.
      return tensor.slice(0, at) as T;
    case 4: { // More of it.
      const longer = make(tensor.length + 1 + dice.below(9));
      longer.set(tensor);
      return longer;
    }
    default: // Random ones, in their number or another.
      return make(dice.pick([tensor.length, dice.below(40)]))
        .map(() => dice.pick([dice.below(256), dice.pick(ODD_NUMBERS)])) as T;
  }
}

/** A packed matrix with one or two of its parts changed. */
function mutate<P extends Shape & { values: Values }>(dice: Dice, packed: P): P {
  let mutant = packed;
  for (let n = dice.pick([1, 1, 2]); n > 0; n--) {
    const key = dice.pick(Object.keys(mutant).filter((key) => key !== "name")) as keyof P;
    const part: unknown = mutant[key];
    if (key === "values") {
      const { values } = mutant;
      const inner = dice.pick(Object.keys(values).filter((key) => key !== "type"));
      const old: unknown = values[inner as keyof Values];
      const now = typeof old === "number" ? dice.pick(ODD_NUMBERS) : changed(dice, old as Tensor);
      mutant = { ...mutant, values: { ...values, [inner]: now } };
    } else {
      const now = typeof part === "number"
        ? dice.pick([dice.pick(ODD_NUMBERS), part + 1, part - 1])
        : changed(dice, part as Tensor);
      mutant = { ...mutant, [key]: now };
    }
  }
  return mutant;
}

/** A tensor that throws when an element is read or written that it does not have. */
function fenced<T>(tensor: T): T {
  if (!ArrayBuffer.isView(tensor)) return tensor;
  const { length } = tensor as unknown as Tensor;
  const check = (key: string | symbol) => {
    if (typeof key === "symbol") return;
    const index = Number(key);
    const isNumber = String(index) === key;
    if (isNumber && !(Number.isInteger(index) && 0 <= index && index < length)) {
      throw new Error(`element ${key} of ${length}`);
    }
  };
  return new Proxy(tensor, {
    get(target, key) {
      check(key);
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set(_, key) {
      throw new Error(`element ${String(key)} is written`);
    },
  });
}

function fencedAll<P extends { values: Values }>(packed: P): P {
  const fence = <O extends object>(object: O): O =>
    Object.fromEntries(Object.entries(object).map(([key, part]) => [key, fenced(part)])) as O;
  return fence({ ...packed, values: fence(packed.values) });
}

/**
 * Mutates what `encode` makes, and runs it through a format's validator and decoder.
 *
 * @returns How many ended in a result, and how many in each error.
 */
function fuzz<P extends Shape & { values: Values }>(
  encode: (matrix: Matrix, options: ValueOptions) => P,
  validate: (packed: P) => void,
  decode: (packed: P) => Float32Array,
  read: (packed: P, weightAt: (element: number, position: number) => void) => void,
): Map<string, number> {
  const endings = new Map<string, number>();
  for (let nth = 0; nth < CASES; nth++) {
    const i = caseNumber(nth);
    const dice = new Dice(SEED * 1_000_003 + i);
    const mutant = mutate(dice, encode(randomMatrix(dice), randomOptions(dice)));
    let ending = "result";
    try {
      const packed = fencedAll(mutant);
      validate(packed);
      if (mutant.rows * mutant.columns <= LARGEST_DECODED) {
        const dense = decode(packed);
        if (!dense.every(Number.isFinite)) throw new Error("a weight is not finite");
        const expected = new Float32Array(mutant.rows * mutant.columns);
        read(packed, (element, position) => {
          expected[position] = weightOf(packed, element, position);
        });
        if (dense.length !== expected.length) throw new Error("another shape");
        const at = dense.findIndex((w, i) => w !== expected[i]);
        if (at >= 0) throw new Error(`weight ${at} is ${dense[at]}, not ${expected[at]}`);
      }
    } catch (error) {
      if (!(error instanceof EspalierError) || error.message.length > 2000) {
        throw new Error(`case ${i} of seed ${SEED}: ${error}`, { cause: error });
      }
      ending = error.code;
    }
    endings.set(ending, (endings.get(ending) ?? 0) + 1);
  }
  return endings;
}

/** Fails unless a good part of the cases went either way. */
function expectBoth(endings: Map<string, number>): void {
  expect([...endings.keys()].sort()).toEqual(["PACKED_INVALID", "result"]);
  for (const count of endings.values()) expect(count).toBeGreaterThan(CASES / 50);
}

/** A weight as `docs/format.md` says that it is made from a stored element. */
function weightOf(packed: Shape & { values: Values }, element: number, position: number): number {
  const { values, columns } = packed;
  const stored = values.data[element];
  if (values.type === "f32") return stored;
  if (values.type === "f16") return halfNumber(stored);
  const perRow = Math.ceil(columns / values.group);
  const row = Math.floor(position / columns);
  const scale = values.scales[row * perRow + Math.floor(position % columns / values.group)];
  return stored * (values.type === "int4" ? halfNumber(scale) : scale);
}

function halfNumber(bits: number): number {
  const exponent = bits >> 10 & 31;
  const fraction = bits & 1023;
  const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return bits >> 15 ? -magnitude : magnitude;
}

/** The loops of `docs/format.md`, as another reader would have them. */
describe("a packed matrix changed at random ends in an error of ours, or in what its rules say", () => {
  test("as N:M", () => {
    const encode = (matrix: Matrix, options: ValueOptions) =>
      encodeNm(matrix, { n: 2, m: 4 }, options);
    expectBoth(fuzz(encode, validateNm, decodeNm, (packed, weightAt) => {
      const { rows, columns, n, m, codes } = packed;
      const b = m <= 2 ? 1 : m <= 4 ? 2 : m <= 16 ? 4 : 8;
      const length = Math.ceil(rows * b / 8);
      for (let g = 0; g < columns / m; g++) {
        for (let j = 0; j < n; j++) {
          for (let r = 0; r < rows; r++) {
            const byte = codes[(g * n + j) * length + Math.floor(r * b / 8)];
            const code = byte >> (r * b % 8) & (2 ** b - 1);
            weightAt((g * n + j) * rows + r, r * columns + g * m + code);
          }
        }
      }
    }));
  });

  test("as CSR", () => {
    expectBoth(fuzz(encodeCsr, validateCsr, decodeCsr, ({ gaps }, weightAt) => {
      let position = 0;
      for (let e = 0; e < gaps.length; e++) weightAt(e, position += gaps[e]);
    }));
  });

  test("as a bitmap", () => {
    expectBoth(fuzz(encodeBitmap, validateBitmap, decodeBitmap, (packed, weightAt) => {
      const { rows, columns, bits } = packed;
      let kept = 0;
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) {
          const byte = bits[r * Math.ceil(columns / 8) + Math.floor(c / 8)];
          if (byte >> c % 8 & 1) weightAt(++kept, r * columns + c);
        }
      }
    }));
  });
});

describe("a matrix of slots changed at random ends in an error of ours, or in what its rules say", () => {
  test("as slots", () => {
    // Four rows of the four-fold width in place of each row.
    const encode = (matrix: Matrix, options: ValueOptions) => {
      const values = new Float32Array(16 * matrix.values.length);
      values.set(matrix.values, matrix.values.length);
      return encodeSlots(
        { ...matrix, rows: 4 * matrix.rows, columns: 4 * matrix.columns, values },
        options,
      );
    };
    expectBoth(fuzz(encode, validateSlots, decodeSlots, (packed, weightAt) => {
      visitSlots(packed, packed.counts, packed.masks, weightAt);
    }));
  });
});

describe("the fence around tensors", () => {
  test("finds reads outside", () => {
    const tensor = fenced(Uint8Array.of(1, 2));
    expect(tensor[1]).toBe(2);
    expect(() => tensor[2]).toThrow("element 2 of 2");
    expect(() => tensor[-1]).toThrow("element -1 of 2");
  });
});
