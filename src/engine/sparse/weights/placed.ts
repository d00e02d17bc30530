/**
 * A matrix where kernels read it.
 * @module
 */
import type { Kind } from "../layout.ts";

/** Bytes of an element in files. */
export const ELEMENT_BYTES = { f32: 4, f16: 2, int8: 1, int4: 0.5 };

/** A matrix in memory. */
export interface PlacedMatrix {
  readonly kind: Kind;
  /** Of the weights; of slots that are as many as needed, of the table of their chunks. */
  readonly address: number;
  readonly rows: number;
  readonly columns: number;
  /** Rows with those that fill the last sixteen. */
  readonly paddedRows: number;
  /** Segments of its input. */
  readonly segments: number;
  /** Address of a scale for each row; 0 for none. */
  readonly rowScales: number;
  /** Address of scales `[rows / 4, segment, 4]`; 0 for none. */
  readonly groupScales: number;
  /** Segments that share a scale of int4 weights; 0 for others. */
  readonly groupSegments: number;
  /** Address of the places of lists, four rows each: of all weights, or of those beside slots; 0 for none. */
  readonly lists: number;
  /** Bytes that a multiplication reads. */
  readonly bytes: number;
}
