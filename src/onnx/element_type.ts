/**
 * The element types of weights: their sizes, their names, and how they become float32.
 * @module
 */
import { TensorTypeError } from "../errors.ts";
import { TensorProto_DataType as DataType } from "./generated/onnx_pb.ts";

/** Element types that weights are computed from. */
export type FloatType = "f32" | "f16" | "bf16";

/** Bytes of one element. */
export const FLOAT_BYTES: Record<FloatType, number> = { f32: 4, f16: 2, bf16: 2 };

const TO_ONNX: Record<FloatType, DataType> = {
  f32: DataType.FLOAT,
  f16: DataType.FLOAT16,
  bf16: DataType.BFLOAT16,
};

/** The ONNX number of a float type. */
export function onnxTypeOf(type: FloatType): DataType {
  return TO_ONNX[type];
}

/**
 * The float type with an ONNX number.
 *
 * @param number `data_type` of a TensorProto.
 * @param name The tensor's name, for the message.
 * @throws {TensorTypeError} When weights of that type cannot be computed with.
 */
export function floatTypeOf(number: number, name: string): FloatType {
  for (const type of Object.keys(TO_ONNX) as FloatType[]) {
    if (TO_ONNX[type] === number) return type;
  }
  throw new TensorTypeError(
    `${name} is stored as ${
      DataType[number] ?? `type ${number}`
    }; weights must be float32, float16 or bfloat16`,
  );
}

/** float32 of each of the 65,536 float16 values, made on first use. */
let halfTable: Float32Array | undefined;

function halves(): Float32Array {
  if (halfTable) return halfTable;
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    table[bits] = exponent === 0
      ? sign * fraction * 2 ** -24
      : exponent === 31
      ? fraction ? NaN : sign * Infinity
      : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return halfTable = table;
}

/**
 * Widens stored weights to float32, exactly.
 *
 * @param bytes Little-endian elements; `bytes.byteOffset` must be a multiple of the element's size.
 * @param type The elements' type.
 * @param target Filled with `bytes.length / size` values.
 */
export function widen(bytes: Uint8Array, type: FloatType, target: Float32Array): void {
  const count = bytes.length / FLOAT_BYTES[type];
  switch (type) {
    case "f32":
      target.set(new Float32Array(bytes.buffer, bytes.byteOffset, count));
      return;
    case "f16": {
      const table = halves();
      const source = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
      for (let i = 0; i < count; i++) target[i] = table[source[i]];
      return;
    }
    case "bf16": {
      const source = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
      const bits = new Uint32Array(target.buffer, target.byteOffset, count);
      for (let i = 0; i < count; i++) bits[i] = source[i] << 16;
      return;
    }
  }
}

/**
 * The position of the first NaN or infinity among stored weights, or -1.
 *
 * @param bytes Little-endian elements, aligned as for {@linkcode widen}.
 * @param type The elements' type.
 */
export function firstNotFinite(bytes: Uint8Array, type: FloatType): number {
  const count = bytes.length / FLOAT_BYTES[type];
  // All exponent bits set: infinity or NaN, in each of the three types.
  if (type === "f32") {
    const bits = new Uint32Array(bytes.buffer, bytes.byteOffset, count);
    for (let i = 0; i < count; i++) if ((bits[i] & 0x7f800000) === 0x7f800000) return i;
    return -1;
  }
  const mask = type === "f16" ? 0x7c00 : 0x7f80;
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
  for (let i = 0; i < count; i++) if ((bits[i] & mask) === mask) return i;
  return -1;
}

/**
 * Stores float32 values in a smaller type, rounded to nearest, ties to even.
 *
 * @param values The values; those too great for float16 become infinite.
 * @param type The type.
 * @returns Little-endian bytes.
 */
export function narrowTo(values: Float32Array, type: FloatType): Uint8Array {
  if (type === "f32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const result = new Uint16Array(values.length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < values.length; i++) {
    result[i] = type === "f16"
      ? halfBits(bits[i])
      : (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16;
  }
  return new Uint8Array(result.buffer);
}

/** Bits of the float16 nearest to a float32 given by its bits. */
function halfBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 127;
  const fraction = bits & 0x7fffff;
  if (exponent === 128) return sign | 0x7c00 | (fraction ? 0x200 : 0);
  if (exponent < -25) return sign;
  // Below 2^-14 float16 has steps of 2^-24; above it, 10 bits of fraction.
  const shift = exponent < -14 ? -1 - exponent : 13;
  const mantissa = exponent < -14 ? fraction | 0x800000 : fraction;
  const base = exponent < -14 ? 0 : (exponent + 15) << 10;
  const kept = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  const up = rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0;
  // A carry runs into the exponent, and past the greatest number into infinity.
  return sign | Math.min(base + kept + up, 0x7c00);
}
