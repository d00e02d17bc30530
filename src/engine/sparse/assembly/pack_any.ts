/**
 * Four rows into the layout of `slots_any.ts`, from the lists that `pack.ts` decodes them into.
 */
import { headBytes, UNIT } from "./slots_any";

/** What a slot costs with its place, and what a weight in lists costs, in bytes. */
const SLOT_COST = 25, LISTED_COST = 10;

/** Entries of each stream and weights beyond slots, of the four rows that were counted last. */
let quads: i32 = 0, doubles: i32 = 0, couples: i32 = 0, singles: i32 = 0, beyond: i32 = 0;

/**
 * Counts what each window of four rows has.
 *
 * @param room A count for each window and row, `[windows, 4]`.
 * @param lengths Lengths of the four lists of columns `c0` to `c3`, int32.
 */
export function count(room: usize, columns: i32, c0: usize, c1: usize, c2: usize, c3: usize, lengths: usize): void {
  memory.fill(room, 0, <usize> ((columns + 15) >> 4) * 4);
  countRow(room, c0, load<i32>(lengths));
  countRow(room + 1, c1, load<i32>(lengths, 4));
  countRow(room + 2, c2, load<i32>(lengths, 8));
  countRow(room + 3, c3, load<i32>(lengths, 12));
}

/**
 * Decides how many slots each window of four rows gets.
 *
 * A window's slots are full for the row with most weights and emptier for others; the last one may be
 * for a weight or two, which cost less in lists.
 *
 * @param room 12 bytes a window: a count for each row, of which the first becomes the window's slots, then
 * where those go.
 */
export function decide(room: usize, columns: i32): void {
  const windows = <usize> ((columns + 15) >> 4);
  // Of windows with the same counts, as those of a pattern have, one is looked at.
  let counts: u32 = 0, best = 0, left = 0;
  beyond = 0;
  for (let w: usize = 0; w < windows; w++) {
    const at = room + w * 4;
    if (load<u32>(at) == counts) {
      store<u8>(at, best);
      beyond += left;
      continue;
    }
    counts = load<u32>(at);
    best = 0;
    left = 0;
    let least = i32.MAX_VALUE;
    for (let slots = 0; slots <= 4; slots++) {
      const rest = over(at, 0, slots) + over(at, 1, slots) + over(at, 2, slots) + over(at, 3, slots);
      const cost = slots * SLOT_COST + rest * LISTED_COST;
      if (cost < least) {
        least = cost;
        best = slots;
        left = rest;
      }
      if (rest == 0) break;
    }
    store<u8>(at, best);
    beyond += left;
  }
  quads = 0;
  doubles = 0;
  couples = 0;
  singles = 0;
  for (let w: usize = 0; w < windows; w += 2) {
    const a = slotsOf(room, w), b = w + 1 < windows ? slotsOf(room, w + 1) : 0;
    const both = min(a >> 1, b >> 1), odd = (a & 1) + (b & 1);
    quads += both;
    doubles += (a >> 1) + (b >> 1) - 2 * both;
    couples += odd >> 1;
    singles += odd & 1;
  }
}

/** Slots of a window. */
// @ts-ignore: decorator
@inline
function slotsOf(room: usize, window: usize): i32 {
  return load<u8>(room + window * 4);
}

function countRow(counts: usize, columns: usize, length: i32): void {
  for (let j = 0; j < length; j++) {
    const at = counts + (<usize> load<u16>(columns + (<usize> j << 1)) >> 4 << 2);
    store<u8>(at, load<u8>(at) + 1);
  }
}

/** Weights of a row that so many slots of its window do not hold. */
// @ts-ignore: decorator
@inline
function over(counts: usize, row: usize, slots: i32): i32 {
  return max(0, <i32> load<u8>(counts + row) - slots * 4);
}

/** Weights of the rows counted last that will be in lists. */
export function beyondSlots(): i32 {
  return beyond;
}

/** Pairs of singles. */
// @ts-ignore: decorator
@inline
function pairsOf(): i32 {
  return (singles + 1) >> 1;
}

/** Where the streams of the chunk begin. */
function streamsOffset(): usize {
  return headBytes(quads + doubles + couples + 2 * pairsOf());
}

/** Bytes of the chunk of the rows counted last. */
export function chunkBytes(): usize {
  return streamsOffset() + <usize> (2 * quads + doubles + couples + pairsOf()) * UNIT;
}

/**
 * Begins the chunk of the rows counted last: its numbers and places, zeros for all else. Of each window
 * it notes in the room where its slots go: the units of its first and its second two, and twice the unit of
 * the last, if their number is odd, and which of the unit's.
 */
export function beginChunk(chunk: usize, room: usize, columns: i32): void {
  const windows = <usize> ((columns + 15) >> 4), targets = room + windows * 4;
  memory.fill(chunk, 0, chunkBytes());
  store<u32>(chunk, quads);
  store<u32>(chunk, doubles, 4);
  store<u32>(chunk, couples, 8);
  store<u32>(chunk, pairsOf(), 12);
  const places = chunk + 16;
  let quad = 0, double = 0, couple = 0, single = 0, last = 0;
  for (let w: usize = 0; w < windows; w += 2) {
    const a = slotsOf(room, w), b = w + 1 < windows ? slotsOf(room, w + 1) : 0;
    const both = min(a >> 1, b >> 1), place = <i32> w << 4;
    for (let k = 0; k < both; k++) {
      store<u16>(places + (<usize> quad << 1), place);
      setTarget(targets, w, k, 2 * quad);
      setTarget(targets, w + 1, k, 2 * quad + 1);
      quad++;
    }
    for (let side: usize = 0; side < 2; side++) {
      const slots = side == 0 ? a : b;
      for (let k = both; k < slots >> 1; k++) {
        store<u16>(places + (<usize> (quads + double) << 1), place + (<i32> side << 4));
        setTarget(targets, w + side, k, 2 * quads + double);
        double++;
      }
    }
    if ((a & b & 1) != 0) {
      const unit = 2 * quads + doubles + couple;
      store<u16>(places + (<usize> (quads + doubles + couple) << 1), place);
      setTarget(targets, w, 2, 2 * unit);
      setTarget(targets, w + 1, 2, 2 * unit + 1);
      couple++;
    } else if (((a | b) & 1) != 0) {
      const side = <usize> (b & 1);
      last = place + (<i32> side << 4);
      store<u16>(places + (<usize> (quads + doubles + couples + single) << 1), last);
      setTarget(targets, w + side, 2, 2 * (2 * quads + doubles + couples) + single);
      single++;
    }
  }
  // The slot that fills the last pair has weights of 0, wherever its window is.
  if ((singles & 1) != 0) {
    store<u16>(places + (<usize> (quads + doubles + couples + single) << 1), last);
  }
}

// @ts-ignore: decorator
@inline
function setTarget(targets: usize, window: usize, k: i32, target: i32): void {
  store<u16>(targets + (window << 3) + (<usize> k << 1), target);
}

/**
 * Puts a row of the chunk's four into its slots, and leaves in its lists what has none there.
 *
 * @returns The lists' new length.
 */
export function fillChunk(
  chunk: usize,
  room: usize,
  columns: i32,
  i: i32,
  cs: usize,
  vs: usize,
  length: i32,
  isWritten: bool,
): i32 {
  const windows = <usize> ((columns + 15) >> 4), targets = room + windows * 4;
  const streams = chunk + streamsOffset();
  let window: usize = -1, k = 0, left = 0, slots = 0;
  for (let j = 0; j < length; j++) {
    const column = <usize> load<u16>(cs + (<usize> j << 1)), value = load<i32>(vs + (<usize> j << 2));
    if (column >> 4 != window) {
      window = column >> 4;
      k = 0;
      slots = slotsOf(room, window);
    }
    if (k == slots * 4) {
      store<u16>(cs + (<usize> left << 1), <u16> column);
      store<i32>(vs + (<usize> left << 2), value);
      left++;
      continue;
    }
    if (isWritten) {
      const which = k >> 2, target = targets + (window << 3);
      // Two slots a unit.
      const slot = which < (slots & ~1)
        ? 2 * <i32> load<u16>(target + (<usize> (which >> 1) << 1)) + (which & 1)
        : <i32> load<u16>(target, 4);
      const index = streams + <usize> (slot >> 1) * UNIT + <usize> ((i << 2) + (k & 3));
      store<i8>(index + 16 + (<usize> (slot & 1) << 4), <i8> value);
      store<u8>(index, load<u8>(index) | <u8> ((column & 15) << ((slot & 1) << 2)));
    }
    k++;
  }
  return left;
}
