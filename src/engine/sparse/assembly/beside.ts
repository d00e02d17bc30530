/**
 * Weights that windows have no slot for: lists beside slots.
 *
 * A weight is an entry of eight bytes: its value (float32), its column and the lower half of its row's number (uint16
 * each), row by row. A table has the address where the entries of each four rows begin; its end is the end of the
 * last. Inputs are float32, so that these products are exact.
 */
import { LISTS, LISTS_X, LISTS_X_COPY, LISTS_X_STRIDE } from "./linear";
import { productAt, rowAt } from "./runs";

/** Bytes of an entry, and where its column and its row are in it. */
export const BESIDE: usize = 8, BESIDE_COLUMN: usize = 4, BESIDE_ROW: usize = 6;

/**
 * Rows whose entries one token is multiplied with at a time, before their slots: all that a thread has taken, as a
 * rule. One loop over them has no branch that nothing foretells, as one over those of four rows has, and they and the
 * slots are each read without a pause: an eighth of the time of SmolLM2-135M at 70 % was pauses with 256 rows (Zen 5).
 */
export const LISTED_ROWS: i32 = 2048;

/** Bytes of their results. */
export const LISTED_BYTES: usize = LISTED_ROWS << 2;

/** What the only token has of up to {@link LISTED_ROWS} rows from `row` on, one float32 a row. */
export function timesLists(a: usize, row: i32, rows: i32, thread: i32, to: usize): void {
  // `memory.fill` leaves WebAssembly in some engines, which takes longer.
  for (let at = to, end = to + (<usize> rows << 2); at < end; at += 16) v128.store(at, i32x4.splat(0));
  if (load<usize>(a, LISTS) == 0) return;
  const table = load<usize>(a, LISTS) + <usize> row;
  const x = load<usize>(a, LISTS_X) + <usize> thread * <usize> load<u32>(a, LISTS_X_COPY);
  for (let at = load<usize>(table), end = load<usize>(table + <usize> rows); at < end; at += BESIDE) {
    // One load: each has its address checked in some engines.
    const entry = load<u64>(at), column = <usize> (entry >> 32) & 0xffff;
    const place = to + ((<usize> (entry >> 48) - <usize> row & 0xffff) << 2);
    const product = reinterpret<f32>(<u32> entry) * load<f32>(x + (column << 2));
    store<f32>(place, load<f32>(place) + product);
  }
}

/**
 * The same of rows that are read in several places, `row` rows on in each: their results {@link LISTED_ROWS} apart.
 *
 * @returns Bytes from a result to the next one: 0 where there are no lists, for then one eight of zeros serves all.
 */
export function timesListsOf(places: i32, a: usize, row: i32, rows: i32, thread: i32, to: usize): usize {
  let isAny = false;
  for (let i = 0; i < places; i++) isAny = isAny || load<usize>(productAt(a, thread, i), LISTS) != 0;
  if (!isAny) {
    v128.store(to, i32x4.splat(0));
    v128.store(to, i32x4.splat(0), 16);
    return 0;
  }
  for (let i = 0; i < places; i++) {
    const first = rowAt(a, thread, i) + row;
    timesLists(productAt(a, thread, i), first, rows, thread, to + <usize> i * LISTED_BYTES);
  }
  return 4;
}

/**
 * Adds what several tokens have of some rows, if there is anything.
 *
 * @param rows A power of two, of which `row` is a multiple.
 * @param sums The tokens' sums of these rows, one token's after the other's.
 * @param room As many bytes.
 */
export function addLists(a: usize, row: i32, rows: i32, tokens: i32, sums: usize, room: usize): void {
  if (load<usize>(a, LISTS) == 0) return;
  const table = load<usize>(a, LISTS) + <usize> row;
  const begin = load<usize>(table), end = load<usize>(table + <usize> rows);
  if (begin == end) return;
  const width = <usize> rows << 2, size = <usize> tokens * width, stride = <usize> load<u32>(a, LISTS_X_STRIDE);
  memory.fill(room, 0, size);
  for (let at = begin; at < end; at += BESIDE) {
    const w = load<f32>(at);
    let x = load<usize>(a, LISTS_X) + (<usize> load<u16>(at, BESIDE_COLUMN) << 2);
    let to = room + (<usize> (<i32> load<u16>(at, BESIDE_ROW) & rows - 1) << 2);
    for (const last = to + size; to < last; to += width) {
      store<f32>(to, load<f32>(to) + w * load<f32>(x));
      x += stride;
    }
  }
  for (let at: usize = 0; at < size; at += 16) {
    v128.store(sums + at, f32x4.add(v128.load(sums + at), v128.load(room + at)));
  }
}
