/**
 * The element types of weights: their sizes, their names, and how they become float32.
 * @module
 */
import { TensorTypeError } from "../errors.ts";
import { TensorProto_DataType as DataType } from "./generated/onnx_pb.ts";
import { halves, toHalves } from "./half.ts";

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

/** Rounds values to what a type can hold, in place. */
export function roundTo(values: Float32Array, type: FloatType): void {
  if (type !== "f32") widen(narrowTo(values, type), type, values);
}

/**
 * Stores float32 values in a smaller type, rounded to nearest, ties to even.
 *
 * @param values The values; those too great for the type become infinite.
 * @param type The type.
 * @returns Little-endian bytes.
 */
export function narrowTo(values: Float32Array, type: FloatType): Uint8Array {
  if (type === "f32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const result = new Uint16Array(values.length);
  if (type === "f16") {
    toHalves(values, result);
  } else {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = 0; i < values.length; i++) {
      // Rounded, a NaN could become 0; its first bit of fraction keeps it one.
      result[i] = (bits[i] & 0x7fffffff) > 0x7f800000
        ? bits[i] >>> 16 | 0x40
        : (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16;
    }
  }
  return new Uint8Array(result.buffer);
}
