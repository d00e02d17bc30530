/**
 * Sizes of the layouts of int4 matrices: `assembly/int4.ts` has the same.
 * @module
 */
import { KIND, type Kind, roundUp, segmentsOf } from "./layout.ts";

/** Layouts of int4 matrices. */
const INT4_KINDS = [KIND.SLOTS_ONE_INT4, KIND.SLOTS_TWO_INT4, KIND.DENSE_INT4] as const;

/** A layout of int4 matrices. */
export type Int4Kind = (typeof INT4_KINDS)[number];

/** Whether a layout is one of int4 matrices. */
export function isInt4(kind: Kind): kind is Int4Kind {
  return (INT4_KINDS as readonly Kind[]).includes(kind);
}

/**
 * Bytes of a matrix, scales included; lists beside it are not.
 *
 * @param group Columns that share a scale: 32, 64 or 128.
 */
export function int4Bytes(kind: Int4Kind, rows: number, columns: number, group: number): number {
  const segments = segmentsOf(columns);
  const groups = Math.ceil(columns / group);
  const paddedRows = roundUp(rows, 16);
  if (kind === KIND.DENSE_INT4) return paddedRows / 16 * (groups * 32 + segments * 256);
  const four = kind === KIND.SLOTS_ONE_INT4 ? 32 : 64;
  return paddedRows / 8 * (groups * 16 + segments * 2 * four);
}

/** Bytes of an entry of lists: of four rows the longest decides, so 24 serve 2.5 entries on average. */
const LIST_BYTES = 24 / 2.5;

/**
 * Two slots a window are multiplied with in fewer steps than the dense layout, which matters for
 * prompts, and may take so much more.
 */
const DENSE_FACTOR = 1.1;

/**
 * The layout that a sparse matrix is computed in.
 *
 * @param beyondOne Weights that have no slot where each window has one.
 * @param beyondTwo The same with two.
 */
export function int4KindOf(
  { rows, columns, group }: { rows: number; columns: number; group: number },
  beyondOne: number,
  beyondTwo: number,
): Int4Kind {
  const bytes = (kind: Int4Kind) => int4Bytes(kind, rows, columns, group);
  const one = bytes(KIND.SLOTS_ONE_INT4) + beyondOne * LIST_BYTES;
  const two = bytes(KIND.SLOTS_TWO_INT4) + beyondTwo * LIST_BYTES;
  if (DENSE_FACTOR * bytes(KIND.DENSE_INT4) < Math.min(one, two)) return KIND.DENSE_INT4;
  return one < two ? KIND.SLOTS_ONE_INT4 : KIND.SLOTS_TWO_INT4;
}
