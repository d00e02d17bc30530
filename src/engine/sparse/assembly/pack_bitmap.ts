/**
 * int8 matrices in bitmaps, which is what most files hold, straight into slots.
 *
 * What `decode.ts` and `pack.ts` do weight by weight is done here for a window of 16 inputs at once: its
 * bits tell how many weights it has, and those lie side by side in the file as they do in a slot. Only
 * what is beyond a window's slots goes through the lists of columns and values.
 */
import { SET_BITS } from "./control";
import {
  BITMAP,
  COLUMNS,
  columnsOf,
  COUNT,
  ENTRY,
  FORMAT,
  INDICES,
  INT4,
  INT8,
  LENGTHS,
  OK,
  PADDING,
  ROWS,
  TOO_FEW,
  TYPE,
  VALUES,
  valuesOf,
} from "./decode";
import { SLOTS_ONE } from "./linear";
import { keptLevels } from "./pack_int4";
import { PAIR } from "./pairs";
import { pairBytes, segmentBytes } from "./slots";

/** Whether a matrix is a bitmap of int8 or int4. */
export function isBitmap(d: usize): bool {
  const type = load<i32>(d, TYPE);
  return load<i32>(d, FORMAT) == BITMAP && (type == INT8 || type == INT4);
}

/** Bytes of a row of bits. */
// @ts-ignore: decorator
@inline
export function bytesOfBits(d: usize): usize {
  return (<usize> load<u32>(d, COLUMNS) + 7) >> 3;
}

/** The 16 bits of window `w` of a row that has so many bytes. */
// @ts-ignore: decorator
@inline
export function bitsAt(row: usize, bytes: usize, w: usize): u32 {
  const at = row + (w << 1);
  return (w << 1) + 1 < bytes ? <u32> load<u16>(at) : <u32> load<u8>(at);
}

/** How many of `count` values, 16 at most, are 0. */
// @ts-ignore: decorator
@inline
function zerosAmong(values: usize, count: u32): u32 {
  return <u32> popcnt(i8x16.bitmask(i8x16.eq(v128.load(values), i8x16.splat(0))) & ((1 << count) - 1));
}

/**
 * Counts the weights of each window of four rows, of int8 or int4, those that are 0 left out.
 *
 * @param counts A byte for each window and row, `[windows, 4]`, which is 0.
 */
export function countBits(d: usize, first: i32, counts: usize): i32 {
  const columns = <usize> load<u32>(d, COLUMNS), bytes = bytesOfBits(d);
  const windows = (columns + 15) >> 4, count = load<u32>(d, COUNT);
  const values = load<usize>(d, VALUES), isInt8 = load<i32>(d, TYPE) == INT8;
  let e = load<u32>(d, ENTRY);
  for (let i = 0; i < 4 && first + i < load<i32>(d, ROWS); i++) {
    const row = load<usize>(d, INDICES) + <usize> (first + i) * bytes;
    const end = <u32> load<u8>(row + bytes - 1), rest = <u32> columns & 7;
    if (rest != 0 && end >> rest != 0) return PADDING;
    for (let w: usize = 0; w < windows; w++) {
      const n = <u32> popcnt(bitsAt(row, bytes, w));
      if (n >= count - e) return TOO_FEW;
      // The first value is no weight.
      const kept = isInt8
        ? n - zerosAmong(values + <usize> e + 1, n)
        : keptLevels(values, e + 1, n);
      store<u8>(counts + (w << 2) + i, <u8> kept);
      e += n;
    }
  }
  store<u32>(d, e, ENTRY);
  return OK;
}

/**
 * Four rows into one or two slots for every window; what finds none goes to the lists.
 *
 * @param out Where the eight rows begin, of which these are the first or the last four.
 * @param isWritten Whether they are written, or only their lists filled.
 */
export function packBits(d: usize, first: i32, out: usize, kind: i32, isWritten: bool): void {
  const bytes = bytesOfBits(d), windows = (<usize> load<u32>(d, COLUMNS) + 15) >> 4;
  const values = load<usize>(d, VALUES) + 1;
  const most: u32 = kind == SLOTS_ONE ? 4 : 8;
  const half = out + <usize> ((first & 4) >> 2) * pairBytes(kind);
  let e = load<u32>(d, ENTRY);
  for (let i = 0; i < 4; i++) {
    if (first + i >= load<i32>(d, ROWS)) {
      store<i32>(d + (<usize> i << 2), 0, LENGTHS);
      continue;
    }
    const row = load<usize>(d, INDICES) + <usize> (first + i) * bytes;
    const cs = columnsOf(d, i), vs = valuesOf(d, i), lane = <usize> i << 2;
    let left = 0;
    for (let w: usize = 0; w < windows; w++) {
      const bits = bitsAt(row, bytes, w), n = <u32> popcnt(bits), at = values + e;
      const pair = half + (w >> 1) * segmentBytes(kind) + (kind == SLOTS_ONE ? 0 : (w & 1) * PAIR);
      e += n;
      if (n <= most) {
        const eight = load<u64>(at), mask = maskOf(n);
        if (!hasZero(eight | ~mask)) {
          if (!isWritten) continue;
          const places = placesOf(bits), weights = eight & mask, to = pair + lane;
          if (kind == SLOTS_ONE) {
            const slot = w & 1;
            store<u32>(to, load<u32>(to) | <u32> places << (<u32> slot << 2));
            store<u32>(to + 16 + (slot << 4), <u32> weights);
          } else {
            store<u32>(to, <u32> places | <u32> (places >> 32) << 4);
            store<u32>(to, <u32> weights, 16);
            store<u32>(to, <u32> (weights >> 32), 32);
          }
          continue;
        }
      }
      // Weight by weight: zeros take no slot, and what has none goes to the lists.
      let k: u32 = 0, from = at;
      for (let rest = bits; rest != 0; rest &= rest - 1) {
        const column = ctz(rest), value = <i32> load<i8>(from++);
        if (value == 0) continue;
        if (k == most) {
          store<u16>(cs + (<usize> left << 1), <u16> ((w << 4) + column));
          store<i32>(vs + (<usize> left << 2), value);
          left++;
          continue;
        }
        if (isWritten) {
          const slot = kind == SLOTS_ONE ? <u32> (w & 1) : k >> 2;
          const index = pair + lane + <usize> (k & 3);
          store<u8>(index, load<u8>(index) | <u8> (column << (slot << 2)));
          store<i8>(index + 16 + (<usize> slot << 4), <i8> value);
        }
        k++;
      }
    }
    store<i32>(d + (<usize> i << 2), left, LENGTHS);
  }
  store<u32>(d, e, ENTRY);
}

/** As many bits as `count` bytes have, 8 at most. */
// @ts-ignore: decorator
@inline
function maskOf(count: u32): u64 {
  return count == 0 ? 0 : <u64> -1 >> (64 - (<u64> count << 3));
}

/** Whether one of eight bytes is 0. */
// @ts-ignore: decorator
@inline
function hasZero(eight: u64): bool {
  return ((eight - 0x0101010101010101) & ~eight & 0x8080808080808080) != 0;
}

/** Which of 16 bits are set, the lowest first, a byte each: for 8 at most. */
// @ts-ignore: decorator
@inline
export function placesOf(bits: u32): u64 {
  const low = bits & 255;
  const upper = load<u64>(SET_BITS + (<usize> (bits >> 8) << 3));
  // 8 more, where there is one.
  const high = upper + (upper >> 4 & 0x0808080808080808);
  const all = load<u64>(SET_BITS + (<usize> low << 3)) | high << (popcnt<u64>(low) << 3);
  return all & 0x0f0f0f0f0f0f0f0f;
}
