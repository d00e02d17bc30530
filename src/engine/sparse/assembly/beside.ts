/**
 * Weights that windows have no slot for: lists beside slots.
 *
 * A weight is an entry of eight bytes: its value (float32), its column and the lower half of its row's number (uint16
 * each). Four rows take turns, so that no sum waits for the one before it. A table has the address where the entries
 * of each four rows begin; its end is the end of the last. Inputs are float32, so that these products are exact.
 */
import {
  COLUMNS,
  LISTS,
  LISTS_X,
  LISTS_X_COPY,
  LISTS_X_STRIDE,
  SCRATCH_BYTES,
  scratchOf,
} from "./linear";
import { productAt, rowAt } from "./runs";
import { addFloats, addFourTurned } from "./simd";
import { turn } from "./turned";

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

/** Places for tokens in a column of turned inputs. */
// @ts-ignore: decorator
@inline
function placesOf(tokens: i32): i32 {
  return tokens + 3 & ~3;
}

/** Rows that are added to sums together, and bytes of a token's sums of them: those of `sums.ts`. */
const SUM_ROWS: usize = 16, SUMS: usize = SUM_ROWS << 2;

/** Which inputs this thread has turned, 0 for none, and where they are. */
let turnedOf: usize = 0, turned: usize = 0;

/** What has been turned will not be there any more. */
export function forgetTurned(): void {
  turnedOf = 0;
}

/**
 * Turns the inputs of a product's lists, at the end of the thread's room, where they are not there from the product
 * before. One without lists may take all of the room.
 */
export function turnInputs(a: usize, tokens: i32, thread: i32): void {
  const isListed = load<usize>(a, LISTS) != 0, x = isListed ? load<usize>(a, LISTS_X) : 0;
  const places = placesOf(tokens), columns = <usize> load<u32>(a, COLUMNS);
  const to = scratchOf(a, thread) + <usize> load<u32>(a, SCRATCH_BYTES) - columns * (<usize> places << 2);
  if (x == turnedOf && to == turned) return;
  turnedOf = x;
  turned = to;
  if (x != 0) turn(x, load<u32>(a, LISTS_X_STRIDE), tokens, places, columns, to);
}

/**
 * Adds what several tokens have of sixteen rows, if there is anything; {@link turnInputs} has been called.
 *
 * @param row A multiple of sixteen.
 * @param sums The sums of these rows of whole tiles of tokens, one token's after the other's.
 * @param room As many bytes.
 */
export function addLists(a: usize, row: i32, tokens: i32, sums: usize, room: usize): void {
  if (load<usize>(a, LISTS) == 0) return;
  const table = load<usize>(a, LISTS) + <usize> row;
  const begin = load<usize>(table), end = load<usize>(table + SUM_ROWS);
  if (begin == end) return;
  // Here each row has its tokens one after the other, as columns of inputs have.
  const width = <usize> placesOf(tokens) << 2;
  for (let at = room, after = room + SUM_ROWS * width; at < after; at += 16) v128.store(at, f32x4.splat(0));
  for (let at = begin; at < end; at += BESIDE) {
    const w = v128.load32_splat(at);
    let x = turned + <usize> load<u16>(at, BESIDE_COLUMN) * width;
    let to = room + (<usize> load<u16>(at, BESIDE_ROW) & SUM_ROWS - 1) * width;
    for (const last = to + width; to < last; to += 16) {
      addFloats(to, f32x4.mul(w, v128.load(x)));
      x += 16;
    }
  }
  addTurned(width, sums, room);
}

/** Adds what each of sixteen rows has for its tokens, `width` bytes, to what each token has for its rows. */
function addTurned(width: usize, sums: usize, room: usize): void {
  for (let row: usize = 0; row < SUMS; row += 16) {
    let from = room + (row >> 2) * width, to = sums + row;
    for (const end = from + width; from < end; from += 16, to += 4 * SUMS) {
      const v0 = v128.load(from), v1 = v128.load(from + width);
      const v2 = v128.load(from + 2 * width), v3 = v128.load(from + 3 * width);
      addFourTurned(v0, v1, v2, v3, to, SUMS);
    }
  }
}
