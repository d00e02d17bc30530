import { describe, expect, test } from "bun:test";
import { halfOf } from "../../compile/packed/quantize.ts";
import { TensorTypeError } from "../../src/errors.ts";
import {
  firstNotFinite,
  FLOAT_BYTES,
  type FloatType,
  floatTypeOf,
  narrowTo,
  onnxTypeOf,
  widen,
} from "../../src/onnx/element_type.ts";
import { TensorProto_DataType as DataType } from "../../src/onnx/generated/onnx_pb.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

type Short = "f16" | "bf16";

/** How the short types divide their 16 bits. */
const LAYOUT: Record<Short, { exponent: number; fraction: number }> = {
  f16: { exponent: 5, fraction: 10 },
  bf16: { exponent: 8, fraction: 7 },
};

const EVERY = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** A number from its bits, by the definition of IEEE 754, in double precision. */
function valueOf(bits: number, type: Short): number {
  const { exponent, fraction } = LAYOUT[type];
  const bias = 2 ** (exponent - 1) - 1;
  const e = (bits >> fraction) & (2 ** exponent - 1);
  const f = (bits & (2 ** fraction - 1)) / 2 ** fraction;
  const sign = bits >> 15 ? -1 : 1;
  if (e === 2 ** exponent - 1) return f === 0 ? sign * Infinity : NaN;
  return e === 0 ? sign * f * 2 ** (1 - bias) : sign * (1 + f) * 2 ** (e - bias);
}

/** Magnitudes in order, which is the order of their bits; for infinity what would come next. */
const MAGNITUDES = Object.fromEntries(
  (["f16", "bf16"] as const).map((type) => {
    const infinity = 32768 - 2 ** LAYOUT[type].fraction;
    const finite = Array.from({ length: infinity }, (_, bits) => valueOf(bits, type));
    return [type, [...finite, 2 * finite[infinity - 1] - finite[infinity - 2]]];
  }),
) as Record<Short, number[]>;

/** The bits of the nearest number, found by comparing it with its two neighbours. */
function nearest(value: number, type: Short): number {
  const magnitudes = MAGNITUDES[type];
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  let low = 0;
  let high = magnitudes.length - 1;
  if (magnitude >= magnitudes[high]) return sign | high;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (magnitudes[middle] <= magnitude) low = middle;
    else high = middle;
  }
  const down = magnitude - magnitudes[low];
  const up = magnitudes[high] - magnitude;
  return sign | (down < up || (down === up && low % 2 === 0) ? low : high);
}

function narrowed(values: Float32Array, type: Short): Uint16Array {
  const bytes = narrowTo(values, type);
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
}

function widened(bits: Uint16Array, type: Short): Float32Array {
  const values = new Float32Array(bits.length);
  widen(new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength), type, values);
  return values;
}

/** Float32 numbers around which rounding goes wrong, if it does, and as many at random. */
function hardNumbers(type: Short): Float32Array {
  const magnitudes = MAGNITUDES[type];
  const numbers: number[] = [0, -0, Infinity, -Infinity, 1e-45, 3.4028234663852886e38];
  for (let i = 1; i < magnitudes.length; i++) {
    const middle = (magnitudes[i - 1] + magnitudes[i]) / 2;
    numbers.push(middle, -middle);
  }
  const bits = new Uint32Array(Float32Array.from(numbers).buffer);
  const random = uniformNumbers(5);
  const all = new Uint32Array(4 * bits.length);
  bits.forEach((pattern, i) => {
    const isFinite = (pattern & 0x7f800000) !== 0x7f800000;
    all[4 * i] = pattern;
    // The float32 on either side.
    all[4 * i + 1] = isFinite ? pattern + 1 : pattern;
    all[4 * i + 2] = (pattern & 0x7fffffff) === 0 ? pattern : pattern - 1;
    // Any other, but no NaN.
    const other = Math.floor(random() * 2 ** 32);
    all[4 * i + 3] = (other & 0x7f800000) === 0x7f800000 ? other & 0xff800000 : other;
  });
  return new Float32Array(all.buffer);
}

for (const type of ["f16", "bf16"] as const) {
  describe(`all 65,536 numbers of ${type}`, () => {
    test("are widened to what their bits say", () => {
      const values = widened(EVERY, type);
      const wrong = [...EVERY].filter((bits) => !Object.is(values[bits], valueOf(bits, type)));
      expect(wrong).toEqual([]);
    });

    test("come back when they are narrowed again, but for the bits of NaN", () => {
      const back = narrowed(widened(EVERY, type), type);
      for (const bits of EVERY) {
        const value = valueOf(bits, type);
        if (Number.isNaN(value) ? !Number.isNaN(valueOf(back[bits], type)) : back[bits] !== bits) {
          throw new Error(`${bits.toString(16)} became ${back[bits].toString(16)}`);
        }
      }
    });

    test("are finite or not, each as it is", () => {
      const one = new Uint16Array(3);
      const bytes = new Uint8Array(one.buffer);
      for (const bits of EVERY) {
        one[1] = bits;
        const expected = Number.isFinite(valueOf(bits, type)) ? -1 : 1;
        if (firstNotFinite(bytes, type) !== expected) throw new Error(bits.toString(16));
      }
    });
  });

  describe(`a float32 narrowed to ${type}`, () => {
    test("becomes the nearest number, halfway between two the even one", () => {
      const values = hardNumbers(type);
      const found = narrowed(values, type);
      values.forEach((value, i) => {
        const expected = nearest(value, type);
        if (found[i] !== expected) {
          throw new Error(`${value}: ${found[i].toString(16)}, not ${expected.toString(16)}`);
        }
      });
      expect(values.length).toBeGreaterThan(200_000);
    });

    test("stays NaN when it is NaN, whatever its bits", () => {
      const patterns = [0x7f800001, 0x7fffffff, 0xff800001, 0xffffffff, 0x7fc00000, 0x7f80ffff];
      const values = new Float32Array(Uint32Array.from(patterns).buffer);
      for (const bits of narrowed(values, type)) expect(valueOf(bits, type)).toBeNaN();
    });
  });
}

describe("rounding", () => {
  const cases: [type: Short, value: number, bits: number, what: string][] = [
    ["f16", 1 + 2 ** -11, 0x3c00, "a tie goes down to the even number"],
    ["f16", 1 + 3 * 2 ** -11, 0x3c02, "a tie goes up to the even number"],
    ["f16", 2 ** -24, 0x0001, "the least subnormal is kept"],
    ["f16", 2 ** -25, 0x0000, "half of it is a tie and becomes 0"],
    ["f16", 1.5 * 2 ** -25, 0x0001, "a little more than half of it is rounded up"],
    ["f16", -(2 ** -25), 0x8000, "0 keeps its sign"],
    ["f16", 2 ** -14 - 2 ** -26, 0x0400, "the carry out of the subnormals gives a normal number"],
    ["f16", 65504, 0x7bff, "the greatest number is kept"],
    ["f16", 65519.996, 0x7bff, "what is nearer to it than to the next becomes it"],
    ["f16", 65520, 0x7c00, "from halfway on all becomes infinite"],
    ["f16", -1e30, 0xfc00, "infinity has a sign"],
    ["bf16", 1 + 2 ** -8, 0x3f80, "a tie goes down to the even number"],
    ["bf16", 1 + 3 * 2 ** -8, 0x3f82, "a tie goes up to the even number"],
    ["bf16", 2 ** -133, 0x0001, "the least subnormal is kept"],
    ["bf16", 3.4028234663852886e38, 0x7f80, "the greatest float32 becomes infinite"],
    ["bf16", 3.3895313892515355e38, 0x7f7f, "the greatest number is kept"],
  ];
  for (const [type, value, bits, what] of cases) {
    test(`to ${type}: ${what}`, () => {
      expect(narrowed(Float32Array.of(value), type)[0]).toBe(bits);
    });
  }

  test("of packed values is the same as that of checkpoints", () => {
    const values = hardNumbers("f16").filter((_, i) => i % 7 === 0);
    const found = narrowed(values, "f16");
    values.forEach((value, i) => {
      if (halfOf(value) !== found[i]) throw new Error(`${value}: ${halfOf(value).toString(16)}`);
    });
  });

  test("leaves f32 as it is", () => {
    const values = Float32Array.of(1, -0, 1e-45, Infinity);
    expect([...new Uint32Array(narrowTo(values, "f32").slice().buffer)])
      .toEqual([...new Uint32Array(values.buffer)]);
    const back = new Float32Array(4);
    widen(narrowTo(values, "f32"), "f32", back);
    expect([...new Uint32Array(back.buffer)]).toEqual([...new Uint32Array(values.buffer)]);
  });
});

describe("types", () => {
  test("have the ONNX numbers that lead back to them, and the size of their elements", () => {
    for (const type of Object.keys(FLOAT_BYTES) as FloatType[]) {
      expect(floatTypeOf(onnxTypeOf(type), "w")).toBe(type);
      expect(narrowTo(new Float32Array(3), type).length).toBe(3 * FLOAT_BYTES[type]);
    }
  });

  test("that weights cannot have are refused by name", () => {
    expect(() => floatTypeOf(DataType.INT64, "ids")).toThrow(TensorTypeError);
    expect(() => floatTypeOf(DataType.INT64, "ids")).toThrow("ids is stored as INT64");
    expect(() => floatTypeOf(999, "odd")).toThrow("odd is stored as type 999");
  });
});

describe("the first value that is not finite", () => {
  test("is found in each type, and -1 stands for none", () => {
    for (const type of ["f32", "f16", "bf16"] as const) {
      for (const odd of [NaN, Infinity, -Infinity]) {
        const values = Float32Array.of(1, -2, 0, odd, 5, odd);
        expect(firstNotFinite(narrowTo(values, type), type)).toBe(3);
      }
      expect(firstNotFinite(narrowTo(Float32Array.of(1, -2, 0, 60000), type), type)).toBe(-1);
      expect(firstNotFinite(new Uint8Array(0), type)).toBe(-1);
    }
  });
});
