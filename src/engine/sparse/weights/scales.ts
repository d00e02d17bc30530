/**
 * Scales of int8 values, out of a file that may be damaged.
 * @module
 */
import { quote } from "../../../checks.ts";
import { PackedFormatError } from "../../../errors.ts";

/** The bits of 2¹²¹, the greatest scale of int8 values; see docs/format.md. */
const GREATEST_BITS = (121 + 127) << 23;

/**
 * Checks scales.
 *
 * @param name The tensor that holds them, for messages.
 * @param bits Those of float32 numbers, which are in the order of the numbers where these are positive.
 * @throws {PackedFormatError} When one is not above 0, or too great.
 */
export function checkScales(name: string, bits: Int32Array): void {
  // Numbers instead of bits would be objects.
  for (let i = 0; i < bits.length; i++) {
    if (bits[i] > 0 && bits[i] <= GREATEST_BITS) continue;
    const [scale] = new Float32Array(bits.buffer, bits.byteOffset + 4 * i, 1);
    throw new PackedFormatError(`${quote(name)} has the scale ${scale}`);
  }
}
