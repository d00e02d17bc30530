/**
 * In how many places one token's weights are read.
 *
 * What fetches memory ahead of loads differs between processors: some have the rows of a product sooner where a
 * quarter of them is read beside the other quarters, some where they are read one after the other. JavaScript tries
 * both and says which it is to be (`places.ts` beside this folder); results are the same bits.
 */
import { PLACES } from "./control";

/**
 * Where those rows end, from `first` on, that are read in four places; all others are read in one.
 *
 * @param multiple What they are to be a multiple of.
 */
// @ts-ignore: decorator
@inline
export function endInFour(first: i32, last: i32, multiple: i32): i32 {
  return load<i32>(PLACES) == 4 ? last - (last - first) % multiple : first;
}
