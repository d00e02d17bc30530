/**
 * float16 numbers as bits: from float32, rounded, and back, exactly.
 *
 * It imports nothing: `compile/packed`, which runs where no ONNX is, uses it too.
 * @module
 */

/** Adding and taking away 1.5 · 2^52 rounds a double below 2^51 to the nearest integer, ties to even. */
const ROUNDER = 1.5 * 2 ** 52;

/** float32 of each of the 65,536 float16 values, made on first use. */
let table: Float32Array | undefined;

/** The float32 of every float16, by its bits. */
export function halves(): Float32Array {
  if (table) return table;
  const made = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    made[bits] = exponent === 0
      ? sign * fraction * 2 ** -24
      : exponent === 31
      ? fraction ? NaN : sign * Infinity
      : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table = made;
}

/**
 * The float16 nearest to each float32; of two that are equally near, the one whose last bit is 0.
 *
 * @param values The float32 numbers.
 * @param target Filled with bits; those of an infinity where a number is 65520 or more.
 * @returns Whether all became finite numbers.
 */
export function toHalves(values: Float32Array, target: Uint16Array): boolean {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length);
  let finite = true;
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i] >>> 16) & 0x8000;
    const magnitude = bits[i] & 0x7fffffff;
    if (magnitude >= 0x477ff000) { // 65520: as near to 65504 as to what would come next.
      finite = false;
      target[i] = sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
    } else if ((magnitude - 1) >>> 0 < 0x387fffff) { // Above 0 and below 2^-14, the least normal one.
      target[i] = sign | (Math.abs(values[i]) * 2 ** 24 + ROUNDER - ROUNDER);
    } else {
      // The exponent's bias goes from 127 to 15; a carry out of the fraction is right as it is.
      const half = (magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13;
      // All bits where the magnitude is not 0, without a branch.
      target[i] = sign | half & ((magnitude | -magnitude) >> 31);
    }
  }
  return finite;
}
