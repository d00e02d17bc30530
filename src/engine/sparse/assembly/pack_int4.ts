/**
 * int4 matrices into their layouts: what `pack.ts` does for other types.
 *
 * Levels lie two a byte in files, as two's complement, and scales are float16, `[ROWS, groups]`.
 */
import {
  DENSE_HEADER,
  DENSE_SEGMENT,
  denseBytes,
  fourBytes,
  SLOTS_HEADER,
  slotsBytes,
} from "./int4";
import { SEGMENT, SLOTS_ONE_INT4 } from "./linear";
import { COLUMNS, columnsOf, GROUP, length, LENGTHS, ROWS, SCALES, VALUES, valuesOf } from "./decode";

/** Level `e` of those at `values`. */
// @ts-ignore: decorator
@inline
export function levelAt(values: usize, e: usize): i32 {
  return <i32> load<u8>(values + (e >> 1)) >> ((<i32> e & 1) << 2) << 28 >> 28;
}

/** `count` levels of four bits, 8 at most, from level `e` of those at `values` on. */
// @ts-ignore: decorator
@inline
export function levelsAt(values: usize, e: u32, count: u32): u32 {
  const bits = <u32> (load<u64>(values + <usize> (e >> 1)) >> <u64> ((e & 1) << 2));
  return count == 0 ? 0 : bits & (<u32> -1 >> (32 - (count << 2)));
}

/** How many of eight levels are not 0. */
// @ts-ignore: decorator
@inline
function countKept(levels: u32): u32 {
  return <u32> popcnt((levels | levels >> 1 | levels >> 2 | levels >> 3) & 0x11111111);
}

/** How many of `count` levels, 16 at most, are not 0. */
// @ts-ignore: decorator
@inline
export function keptLevels(values: usize, e: u32, count: u32): u32 {
  const some = min<u32>(count, 8);
  return countKept(levelsAt(values, e, some)) + countKept(levelsAt(values, e + some, count - some));
}

/** Four levels, a byte each. */
// @ts-ignore: decorator
@inline
export function spread(levels: u32): u32 {
  const two = (levels | levels << 8) & 0x00ff00ff;
  return (two | two << 4) & 0x0f0f0f0f;
}

/** Segments that share a scale. */
// @ts-ignore: decorator
@inline
export function perGroup(d: usize): usize {
  return <usize> (load<i32>(d, GROUP) / SEGMENT);
}

/** Groups of a row. */
// @ts-ignore: decorator
@inline
function groups(d: usize): usize {
  const group = load<i32>(d, GROUP);
  return <usize> ((load<i32>(d, COLUMNS) + group - 1) / group);
}

/** Whether a scale is 0, infinite or no number. */
export function isScaleDamaged(d: usize): bool {
  const scales = load<usize>(d, SCALES), count = <usize> load<u32>(d, ROWS) * groups(d);
  for (let i: usize = 0; i < count; i++) {
    const half = load<u16>(scales + (i << 1));
    if ((half & 0x7fff) == 0 || (half & 0x7c00) == 0x7c00) return true;
  }
  return false;
}

/** The scale of row `row` and a group; 0 for rows that do not exist. */
// @ts-ignore: decorator
@inline
function scaleOf(d: usize, row: i32, group: usize): u16 {
  if (row >= load<i32>(d, ROWS)) return 0;
  return load<u16>(load<usize>(d, SCALES) + ((<usize> row * groups(d) + group) << 1));
}

/** Bytes of eight rows in slots. */
export function sizeOfEight(d: usize, kind: i32, segments: usize): usize {
  return slotsBytes(segments, perGroup(d), fourBytes(kind));
}

/** Writes the scales of four rows in slots, of which the eight begin at `out`. */
export function putScales(d: usize, row: i32, out: usize, kind: i32): void {
  const size = SLOTS_HEADER + perGroup(d) * 2 * fourBytes(kind);
  for (let i = 0; i < 4; i++) {
    const at = out + <usize> ((row & 4) + i << 1);
    for (let group: usize = 0; group < groups(d); group++) {
      store<u16>(at + group * size, scaleOf(d, row + i, group));
    }
  }
}

/** One or two slots for every window; what finds none stays in the lists. See `slots_int4.ts`. */
export function packSlotsInt4(d: usize, row: i32, out: usize, kind: i32, isWritten: bool): void {
  const most = kind == SLOTS_ONE_INT4 ? 4 : 8;
  const second = <usize> ((row & 4) >> 2);
  const per = perGroup(d), four = fourBytes(kind);
  if (isWritten) putScales(d, row, out, kind);
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i), n = length(d, i);
    let window = -1, k = 0, left = 0;
    for (let j = 0; j < n; j++) {
      const column = <i32> load<u16>(cs + (<usize> j << 1)),
        value = load<i32>(vs + (<usize> j << 2));
      if (column >> 4 != window) {
        window = column >> 4;
        k = 0;
      }
      if (k == most) {
        store<u16>(cs + (<usize> left << 1), column);
        store<i32>(vs + (<usize> left << 2), value);
        left++;
        continue;
      }
      if (isWritten) {
        const s = <usize> (window >> 1), group = s / per;
        // The pair, and the lane's byte in its indices; values are behind those.
        const pair = out + (group + 1) * SLOTS_HEADER + (s * 2 + second) * four +
          (kind == SLOTS_ONE_INT4 ? 0 : <usize> (window & 1) * 32);
        const slot = kind == SLOTS_ONE_INT4 ? window & 1 : k >> 2;
        const index = pair + <usize> ((i << 2) + (k & 3));
        store<u8>(index, <i32> load<u8>(index) | (column & 15) << (slot << 2));
        store<u8>(index, <i32> load<u8>(index, 16) | (value & 15) << (slot << 2), 16);
      }
      k++;
    }
    store<i32>(d + (<usize> i << 2), left, LENGTHS);
  }
}

/** Sixteen rows of the dense layout without weights: their scales, and the halves that stand for 0. */
export function openDenseInt4(d: usize, row: i32, out: usize): void {
  const columns = load<i32>(d, COLUMNS), per = perGroup(d);
  const segments = <usize> ((columns + SEGMENT - 1) / SEGMENT);
  memory.fill(out, 0, denseBytes(segments, per));
  for (let group: usize = 0; group < groups(d); group++) {
    const at = out + group * (DENSE_HEADER + per * DENSE_SEGMENT);
    for (let i = 0; i < 16; i++) store<u16>(at + (i << 1), scaleOf(d, row + i, group));
  }
  for (let c = 0; c < columns; c++) {
    const half: i32 = (c & 4) != 0 ? 0x80 : 8;
    for (let i: usize = 0; i < 16; i++) {
      const at = placeOf(out, per, c) + (i << 2);
      store<u8>(at, <i32> load<u8>(at) | half);
    }
  }
}

/** The byte of a column of the first of sixteen rows. */
// @ts-ignore: decorator
@inline
function placeOf(out: usize, per: usize, column: i32): usize {
  const s = <usize> column / SEGMENT;
  return out + (s / per + 1) * DENSE_HEADER + s * DENSE_SEGMENT + (<usize> (column & 24) << 3) +
    <usize> (column & 3);
}

/** A level in place of the 0 that is there. */
// @ts-ignore: decorator
@inline
function putDense(out: usize, per: usize, lane: usize, column: i32, level: i32): void {
  const at = placeOf(out, per, column) + (lane << 2), shift = column & 4;
  const other = <i32> load<u8>(at) & (0xf0 >> shift);
  store<u8>(at, other | (level + 8) << shift);
}

/** Four decoded rows. */
export function packIntoDenseInt4(d: usize, row: i32, out: usize): void {
  const per = perGroup(d);
  for (let i = 0; i < 4; i++) {
    const cs = columnsOf(d, i), vs = valuesOf(d, i), n = length(d, i);
    const lane = <usize> ((row + i) & 15);
    for (let j = 0; j < n; j++) {
      const column = <i32> load<u16>(cs + (<usize> j << 1));
      putDense(out, per, lane, column, load<i32>(vs + (<usize> j << 2)));
    }
  }
}

/** Row `row` of a dense matrix; false when there are bits after its last weight. */
export function packDenseRowInt4(d: usize, row: i32, out: usize): bool {
  const columns = load<i32>(d, COLUMNS), per = perGroup(d);
  const values = load<usize>(d, VALUES) + <usize> row * <usize> ((columns + 1) >> 1);
  const lane = <usize> (row & 15);
  let c = 0;
  // Eight levels are four bytes in the file and here, in another order, and 8 more each.
  for (; c + 8 <= columns; c += 8) {
    const eight = load<u32>(values + <usize> (c >> 1));
    const bytes = spread(eight & 0xffff) | spread(eight >> 16) << 4;
    store<u32>(placeOf(out, per, c) + (lane << 2), bytes ^ 0x88888888);
  }
  for (; c < columns; c++) putDense(out, per, lane, c, levelAt(values, c));
  return (columns & 1) == 0 || load<u8>(values + <usize> (columns >> 1)) >> 4 == 0;
}
