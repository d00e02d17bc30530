/**
 * Which format a linear's zeros fit best, by the formats' own sizes.
 * @module
 */
import type { SparseFormat } from "./functions.ts";
import { bytesOfBitmap } from "./packed/bitmap.ts";
import { bytesOfCsr } from "./packed/csr.ts";
import { bytesOfNm } from "./packed/nm.ts";
import { bytesOfValues } from "./packed/quantize.ts";
import { bytesOfSlots, type SlotCounts } from "./packed/slots.ts";
import type { NmPattern, Shape, ValueOptions } from "./packed/types.ts";

/** How a linear is stored. */
export type Format = SparseFormat | "dense";

/** What the sizes of a matrix hang on, beside its shape. */
export interface Zeros {
  /** Weights that are not 0. */
  readonly nonzeros: number;
  /** Entries that CSR takes, as `countEntries` counts them. */
  readonly entries: number;
  /** The N:M that the zeros obey, if they obey one. */
  readonly pattern?: NmPattern;
  /** Slots that it needs, where its shape can be cut into windows. */
  readonly slots?: SlotCounts;
}

/** The format that takes the fewest bytes; of equals the one that is simplest to compute on. */
export function smallestFormat(
  shape: Shape,
  { nonzeros, entries, pattern, slots }: Zeros,
  options: ValueOptions,
): Format {
  const sizes: [Format, number][] = [
    // A dense matrix has a scale for each row, whatever the group; but for int4.
    [
      "dense",
      bytesOfValues(
        shape,
        options.type === "int4" ? options : { type: options.type },
        shape.rows * shape.columns,
      ),
    ],
    ["nm", pattern ? bytesOfNm(shape, pattern, options) : Infinity],
    ["slots", slots ? bytesOfSlots(shape, slots, options) : Infinity],
    ["bitmap", bytesOfBitmap(shape, nonzeros, options)],
    ["csr", bytesOfCsr(shape, entries, options)],
  ];
  return sizes.reduce((best, next) => next[1] < best[1] ? next : best)[0];
}
