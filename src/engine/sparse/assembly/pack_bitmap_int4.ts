/**
 * int4 matrices in bitmaps straight into slots, a window of 16 inputs at once: what `pack_bitmap.ts` does
 * for int8.
 */
import {
  COLUMNS,
  columnsOf,
  ENTRY,
  INDICES,
  LENGTHS,
  ROWS,
  VALUES,
  valuesOf,
} from "./decode";
import { fourBytes, SLOTS_HEADER } from "./int4";
import { SLOTS_ONE_INT4 } from "./linear";
import { bitsAt, bytesOfBits, placesOf } from "./pack_bitmap";
import {
  keptLevels,
  levelAt,
  levelsAt,
  perGroup,
  putScales,
  spread,
} from "./pack_int4";

/**
 * Four rows into one or two slots for every window; what finds none goes to the lists.
 *
 * @param out Where the eight rows begin, of which these are the first or the last four.
 * @param isWritten Whether they are written, or only their lists filled.
 */
export function packBitsInt4(d: usize, first: i32, out: usize, kind: i32, isWritten: bool): void {
  const bytes = bytesOfBits(d), windows = (<usize> load<u32>(d, COLUMNS) + 15) >> 4;
  const values = load<usize>(d, VALUES), per = perGroup(d), four = fourBytes(kind);
  const isOne = kind == SLOTS_ONE_INT4, most: u32 = isOne ? 4 : 8;
  const second = <usize> ((first & 4) >> 2);
  if (isWritten) putScales(d, first, out, kind);
  // The first value is no weight.
  let e = load<u32>(d, ENTRY) + 1;
  for (let i = 0; i < 4; i++) {
    if (first + i >= load<i32>(d, ROWS)) {
      store<i32>(d + (<usize> i << 2), 0, LENGTHS);
      continue;
    }
    const row = load<usize>(d, INDICES) + <usize> (first + i) * bytes;
    const cs = columnsOf(d, i), vs = valuesOf(d, i);
    let left = 0;
    for (let w: usize = 0; w < windows; w++) {
      const bits = bitsAt(row, bytes, w), n = <u32> popcnt(bits), from = e;
      const s = w >> 1, slot = isOne ? <u32> (w & 1) : 0;
      const pair = out + (s / per + 1) * SLOTS_HEADER + (s * 2 + second) * four +
        (isOne ? 0 : (w & 1) * 32);
      const lane = pair + (<usize> i << 2);
      e += n;
      if (n <= most && keptLevels(values, from, n) == n) {
        if (isWritten) fill(lane, slot, bits, levelsAt(values, from, n));
        continue;
      }
      // Weight by weight: zeros take no slot, and what has none goes to the lists.
      let k: u32 = 0, at: usize = from;
      for (let rest = bits; rest != 0; rest &= rest - 1) {
        const column = ctz(rest), value = levelAt(values, at++);
        if (value == 0) continue;
        if (k == most) {
          store<u16>(cs + (<usize> left << 1), <u16> ((w << 4) + column));
          store<i32>(vs + (<usize> left << 2), value);
          left++;
          continue;
        }
        if (isWritten) {
          const index = lane + <usize> (k & 3), shift = (slot + (k >> 2)) << 2;
          store<u8>(index, <u32> load<u8>(index) | column << shift);
          store<u8>(index, <u32> load<u8>(index, 16) | (value & 15) << shift, 16);
        }
        k++;
      }
    }
    store<i32>(d + (<usize> i << 2), left, LENGTHS);
  }
  store<u32>(d, e - 1, ENTRY);
}

/**
 * A row of a window into a pair from slot `slot` on, which is 0 there: up to four weights into that slot, the
 * next four into the other.
 */
// @ts-ignore: decorator
@inline
function fill(lane: usize, slot: u32, bits: u32, levels: u32): void {
  const places = placesOf(bits), indices = <u32> places << (slot << 2) | <u32> (places >> 32) << 4;
  const both = spread(levels & 0xffff) << (slot << 2) | spread(levels >> 16) << 4;
  store<u32>(lane, load<u32>(lane) | indices);
  store<u32>(lane, load<u32>(lane, 16) | both, 16);
}
