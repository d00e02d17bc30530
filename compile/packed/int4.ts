/**
 * int4: weights as levels from -8 to 7, two a byte, with a scale for each row and 32, 64 or 128 columns.
 * The scales of a matrix are of few different values, so each takes a byte: its place in a table.
 *
 * The grid is that of `src/prune/int4_grid.ts`: what was rounded to it while it was pruned is found to lie
 * on it, and loses nothing here.
 * @module
 */
import { quote } from "../../src/checks.ts";
import { FormatUnfitError } from "../../src/errors.ts";
import { toHalves } from "../../src/onnx/half.ts";
import {
  gridLevel,
  gridScale,
  type GroupColumns,
  groupColumns,
  INT4_GROUP,
  liesOnGrid,
  scaleAt,
  stepOf,
} from "../../src/prune/int4_grid.ts";
import { damaged, type Matrix, placeOf, type Shape, type Values } from "./types.ts";

/** Entries of a table of scales, all of which are in files. */
export const TABLE_LENGTH = 256;
/** What fills a table up: the scale 1. */
const ONE = 0x3c00;
/** Different magnitudes of a matrix's scales: of both signs they fill a table. */
const MAGNITUDES = TABLE_LENGTH / 2;

/** The greatest weight: -8 times the greatest scale. */
const GREATEST_WEIGHT = 8 * scaleAt(stepOf(Infinity));

/** Rows that are looked at to see whether a matrix lies on a grid, and weights that must be seen. */
const ROWS_SEEN = 8;
const LEAST_SEEN = 32;

/**
 * How many neighbours in a row share a scale: the most of 128, 64 and 32 for which the weights lie on a
 * grid already, and else as many as hold the kept weights that are asked for.
 *
 * Weights that were rounded to the grid and became 0 count as pruned, so a matrix's zeros alone do not
 * tell with which groups it was rounded.
 *
 * @param matrix The matrix.
 * @param kept Kept weights that are to share a scale.
 */
export function int4Columns(matrix: Matrix, kept = INT4_GROUP): GroupColumns {
  const onGrid = gridColumns(matrix);
  if (onGrid) return onGrid;
  let count = 0;
  for (const value of matrix.values) count += value !== 0 ? 1 : 0;
  return groupColumns(count / matrix.values.length, kept);
}

/** The most columns that share a scale of a grid on which the weights lie already; nothing where they lie on none. */
export function gridColumns(matrix: Matrix): GroupColumns | undefined {
  // Those that reach over whole rows are one grid: the least of them says so.
  const isLeast = (group: number) => group === 32 || group / 2 < matrix.columns;
  return ([128, 64, 32] as const).find((group) => isLeast(group) && isRounded(matrix, group));
}

/** The rows that are looked at for that: others need not be read. */
export function rowsSeen(rows: number): number[] {
  const step = Math.ceil(rows / ROWS_SEEN);
  return Array.from({ length: Math.ceil(rows / step) }, (_, i) => i * step);
}

/** Whether some rows of a matrix lie on grids of so many columns. */
function isRounded({ values, rows, columns }: Matrix, group: GroupColumns): boolean {
  let seen = 0;
  for (const row of rowsSeen(rows)) {
    const rowEnd = (row + 1) * columns;
    for (let start = row * columns; start < rowEnd; start += group) {
      const kept = values.subarray(start, Math.min(start + group, rowEnd)).filter((w) => w !== 0);
      if (!liesOnGrid(kept, gridScale(kept))) return false;
      seen += kept.length;
    }
  }
  return seen >= LEAST_SEEN;
}

/**
 * Stores every weight of a matrix as int4.
 *
 * @param matrix The matrix; not changed.
 * @param group Columns that share a scale: 32, 64 or 128.
 * @throws {FormatUnfitError} When it is another number, or a weight is too great for a scale.
 */
export function toInt4(matrix: Matrix, group: number): Values {
  const scales = scalesOf(matrix, group);
  boundScales(scales);
  const halves = new Uint16Array(scales.length);
  toHalves(scales, halves);
  return { type: "int4", data: levelsOf(matrix, scales, group), scales: halves, group };
}

/**
 * The best scale for each row and group of a matrix.
 *
 * @param matrix The matrix, or some of its rows.
 * @param group Columns that share a scale.
 * @returns `[rows, ⌈columns / group⌉]`; see {@linkcode boundScales}.
 * @throws {FormatUnfitError} See {@linkcode toInt4}.
 */
export function scalesOf(matrix: Matrix, group: number): Float32Array {
  const { name, values, rows, columns } = matrix;
  if (group !== 32 && group !== 64 && group !== 128) {
    throw new FormatUnfitError(
      `${quote(name)} cannot have an int4 scale for each ${group} columns: take 32, 64 or 128`,
    );
  }
  const at = values.findIndex((weight) => Math.abs(weight) > GREATEST_WEIGHT);
  if (at >= 0) {
    throw new FormatUnfitError(
      `${quote(name)} has ${values[at]} at ${placeOf(at, columns)}, more than int4 with float16 ` +
        `scales can hold (${GREATEST_WEIGHT}): store it as f32 or int8`,
    );
  }
  const scales = new Float32Array(rows * Math.ceil(columns / group));
  const kept = new Float32Array(group);
  let next = 0;
  for (let row = 0; row < rows; row++) {
    const rowEnd = (row + 1) * columns;
    for (let start = row * columns; start < rowEnd; start += group) {
      const end = Math.min(start + group, rowEnd);
      let count = 0;
      for (let i = start; i < end; i++) {
        kept[count] = values[i];
        count += values[i] !== 0 ? 1 : 0;
      }
      // A group without weights must not count among the scales that a table has room for.
      scales[next++] = count === 0 ? 0 : gridScale(kept, count);
    }
  }
  return scales;
}

/**
 * Makes scales of a matrix few enough for its table: those that are smaller than the 128 greatest
 * magnitudes, if there are any, become the least of these. (As near as scales are to each other, those
 * are at least 2^-8 of the greatest.) Groups without weights get the greatest.
 *
 * @param scales All scales of a matrix, changed in place.
 */
export function boundScales(scales: Float32Array): void {
  const magnitudes = new Float32Array(new Set(scales.map(Math.abs))).sort().reverse();
  if (!(magnitudes[0] > 0)) return void scales.fill(1);
  const least = magnitudes[Math.min(magnitudes.length, MAGNITUDES) - 1];
  for (let i = 0; i < scales.length; i++) {
    if (scales[i] === 0) scales[i] = magnitudes[0];
    else if (Math.abs(scales[i]) < least) scales[i] = Math.sign(scales[i]) * least;
  }
}

/**
 * The levels of a matrix, or of some of its rows, with given scales.
 *
 * @param scales `[rows, ⌈columns / group⌉]`, none of them 0.
 * @returns `[rows, columns]`.
 */
export function levelsOf(
  { values, rows, columns }: Matrix,
  scales: Float32Array,
  group: number,
): Int8Array {
  const levels = new Int8Array(values.length);
  let next = 0;
  for (let row = 0; row < rows; row++) {
    const rowEnd = (row + 1) * columns;
    for (let start = row * columns; start < rowEnd; start += group) {
      const scale = scales[next++];
      const end = Math.min(start + group, rowEnd);
      for (let i = start; i < end; i++) levels[i] = gridLevel(values[i], scale);
    }
  }
  return levels;
}

/** Scales as a file has them. */
export interface IndexedScales {
  /** A place in the table for each scale. */
  readonly indices: Uint8Array;
  /** Bits of float16 numbers, ascending as unsigned integers; 1 behind the last. */
  readonly table: Uint16Array;
}

/**
 * Puts the different scales of a matrix into a table.
 *
 * @param scales Bits of float16 numbers.
 * @throws {FormatUnfitError} When they are more than {@linkcode TABLE_LENGTH}.
 */
export function indexScales(scales: Uint16Array): IndexedScales {
  const places = new Int16Array(1 << 16);
  for (const scale of scales) places[scale] = 1;
  const table = new Uint16Array(TABLE_LENGTH).fill(ONE);
  let count = 0;
  for (let scale = 0; scale < places.length; scale++) {
    if (places[scale] === 0) continue;
    if (count === TABLE_LENGTH) {
      throw new FormatUnfitError(`int4 takes at most ${TABLE_LENGTH} different scales a matrix`);
    }
    places[scale] = count;
    table[count++] = scale;
  }
  return { indices: Uint8Array.from(scales, (scale) => places[scale]), table };
}

/**
 * The reverse of {@linkcode indexScales}.
 *
 * @param scales From a file that may be damaged.
 * @param packed What they belong to, for messages.
 * @returns Bits of float16 numbers.
 * @throws {PackedFormatError} When the table has another length.
 */
export function lookUpScales(
  { indices, table }: IndexedScales,
  packed: { readonly name: string },
): Uint16Array {
  if (table.length !== TABLE_LENGTH) {
    throw damaged(packed, "scale_table", `has ${table.length} scales, not ${TABLE_LENGTH}`);
  }
  return Uint16Array.from(indices, (index) => table[index]);
}

/**
 * Bytes of int4 values with their scales.
 *
 * @param group Columns that share a scale; left out, as many as if the matrix's zeros decided.
 * @param count Elements that are stored.
 */
export function bytesOfInt4({ rows, columns }: Shape, group: number | undefined, count: number) {
  const shared = group ?? groupColumns(count / (rows * columns), INT4_GROUP);
  return Math.ceil(count / 2) + rows * Math.ceil(columns / shared) + 2 * TABLE_LENGTH;
}

/**
 * Two levels a byte, the first in the lower four bits, as two's complement; after an odd number of them
 * four bits of 0.
 *
 * @param levels From -8 to 7.
 */
export function packNibbles(levels: Int8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(Math.ceil(levels.length / 2));
  const pairs = levels.length >> 1;
  for (let i = 0; i < pairs; i++) bytes[i] = levels[2 * i] & 15 | levels[2 * i + 1] << 4;
  if (levels.length & 1) bytes[pairs] = levels[2 * pairs] & 15;
  return bytes;
}

/**
 * The reverse of {@linkcode packNibbles}.
 *
 * @param bytes From a file that may be damaged.
 * @param count Levels that there are.
 * @param packed What they belong to, for messages.
 * @throws {PackedFormatError} When there are more or fewer bytes, or bits after the last level are not 0.
 */
export function unpackNibbles(
  bytes: Uint8Array,
  count: number,
  packed: { readonly name: string },
): Int8Array {
  if (bytes.length !== Math.ceil(count / 2)) {
    throw damaged(packed, "values", `has ${bytes.length} bytes, not ${Math.ceil(count / 2)}`);
  }
  if (count & 1 && bytes[bytes.length - 1] >> 4 !== 0) {
    throw damaged(packed, "values", "go on after the last weight");
  }
  const levels = new Int8Array(count);
  for (let i = 0; i < count; i++) {
    levels[i] = bytes[i >> 1] >> ((i & 1) << 2) << 28 >> 28;
  }
  return levels;
}

/** Levels of a dense matrix, each row from a byte of its own on: `[rows, ⌈columns / 2⌉]`. */
export function packNibbleRows(levels: Int8Array, { rows, columns }: Shape): Uint8Array {
  if (columns % 2 === 0) return packNibbles(levels);
  const perRow = Math.ceil(columns / 2);
  const bytes = new Uint8Array(rows * perRow);
  for (let row = 0; row < rows; row++) {
    bytes.set(packNibbles(levels.subarray(row * columns, (row + 1) * columns)), row * perRow);
  }
  return bytes;
}

/**
 * The reverse of {@linkcode packNibbleRows}.
 *
 * @param bytes From a file that may be damaged.
 * @param packed What they belong to.
 * @throws {PackedFormatError} When there are more or fewer bytes, or bits after a row are not 0.
 */
export function unpackNibbleRows(
  bytes: Uint8Array,
  packed: Shape & { readonly name: string },
): Int8Array {
  const { rows, columns } = packed;
  if (columns % 2 === 0) return unpackNibbles(bytes, rows * columns, packed);
  const perRow = Math.ceil(columns / 2);
  if (bytes.length !== rows * perRow) {
    throw damaged(packed, "values", `has ${bytes.length} bytes, not ${rows * perRow}`);
  }
  const levels = new Int8Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const part = bytes.subarray(row * perRow, (row + 1) * perRow);
    levels.set(unpackNibbles(part, columns, packed), row * columns);
  }
  return levels;
}
