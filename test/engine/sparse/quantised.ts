/**
 * What the tests of quantised inputs share: the numbers that a machine has made of them.
 * @module
 */
import { SEGMENT, segmentsOf } from "../../../src/engine/sparse/layout.ts";
import type { QuantisedVectors } from "../../../src/engine/sparse/plan/encode.ts";
import type { Machine } from "./machine.ts";

/** How many bits an input has: by the ratio to the usual size from which a segment has 14. */
export const RATIOS = { "14 bits": 0, "14 bits where there are outliers": 1.5, "7 bits": 1e30 };

/** Zero of inputs of 14 bits: that of the upper seven and that of the lower seven. */
export const WIDE_ZERO = 64 * 128 + 64;

/** A segment of a quantised vector. */
export interface Segment {
  readonly isWide: boolean;
  /** Of the whole integers. */
  readonly scale: number;
  /** What the scale is (of upper seven bits, where there are fourteen) in the token's unit. */
  readonly step: number;
  readonly unit: number;
  /** With their zero in them. */
  readonly integers: number[];
}

/** Quantised numbers, by token and segment; with one token those of the first thread. */
export function quantisedOf(
  { memory }: Machine,
  { address, stride, low, scales, steps, flags }: QuantisedVectors,
  tokens: number,
  width: number,
): Segment[][] {
  const count = segmentsOf(width);
  return Array.from({ length: tokens }, (_, t) =>
    Array.from({ length: count }, (_, s) => {
      // Several tokens are in tiles of eight.
      const from = tokens === 1
        ? address + s * SEGMENT
        : address + ((t >> 3) * stride + s * SEGMENT) * 8 + (t & 7) * SEGMENT;
      const inputs = Math.min(SEGMENT, width - s * SEGMENT);
      const [upper, lower] = [memory.bytes(from, inputs), memory.bytes(from + low, inputs)];
      const isWide = memory.bytes(flags + (t >> 3) * count * 8 + s * 8 + (t & 7), 1)[0] !== 0;
      // Of several tokens scales and steps, too, are in tiles.
      const [next, inTile, tile] = tokens === 1 ? [4, 0, 0] : [32, (t & 7) * 4, (t >> 3) * 32];
      const at = steps + tile * (count + 1) + inTile;
      const [scale] = memory.floats(scales + tile * count + inTile + s * next, 1);
      return {
        isWide,
        scale: isWide ? scale / 128 : scale,
        // Some builds have them twice, in both halves of a word.
        step: memory.get(at + s * next) & 0xffff,
        unit: memory.floats(at + count * next, 1)[0],
        integers: Array.from(upper, (u, i) => isWide ? u * 128 + lower[i] : u),
      };
    }));
}

/** A number for each input of quantised vectors. */
export function eachInput(
  vectors: readonly Segment[][],
  number: (segment: Segment, integer: number) => number,
): Float64Array[] {
  return vectors.map((segments) =>
    Float64Array.from(
      segments.flatMap((segment) => segment.integers.map((integer) => number(segment, integer))),
    )
  );
}
