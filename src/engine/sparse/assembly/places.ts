/**
 * In how many places one token's weights are read.
 *
 * What fetches memory ahead of loads differs between processors: some have the rows of a product sooner where one half
 * of them is read beside the other, or each of four quarters, some where they are read one after the other. JavaScript
 * tries all and says which it is to be (`ways.ts` beside this folder); results are the same bits.
 */
import { LEAST_PLACE, PLACES } from "./control";

/**
 * In how many places to read rows: 1, 2 or 4.
 *
 * @param group Rows that lie together.
 * @param size Bytes of these.
 */
// @ts-ignore: decorator
@inline
export function placesOf(rows: i32, group: i32, size: usize): i32 {
  const places = load<i32>(PLACES);
  return <usize> (rows / (places * group)) * size < load<usize>(LEAST_PLACE) ? 1 : places;
}

/** Rows of each place; those that are left over are read in one. */
// @ts-ignore: decorator
@inline
export function partOf(rows: i32, places: i32, group: i32): i32 {
  const part = rows / places;
  return part - part % group;
}
