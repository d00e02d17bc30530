/**
 * How many weights of a matrix stay, told without looking at them: sizes hang on nothing else.
 * @module
 */
import { type LinearShare, mends } from "./block.ts";
import { slotsOf } from "./slots.ts";
import type { Method, Pattern } from "./types.ts";

/**
 * What stays of a matrix; `fewer` where it may be less, for some go together or are rounded to 0; `mended` where other
 * values take the place of those that stay.
 */
export type Kept =
  & (
    /** So many weights, anywhere. */
    | { readonly kind: "any"; readonly weights: number; readonly fewer?: boolean }
    /** `n` of every `m` neighbours in a row. */
    | { readonly kind: "nm"; readonly n: number; readonly m: number; readonly fewer?: boolean }
    /** So many slots; a block's linears share theirs out by their weights, so this is the mean. */
    | { readonly kind: "slots"; readonly slots: number }
  )
  & { readonly mended?: boolean };

/**
 * What a mask keeps at most. Masks keep less where weights were 0 before, and where equal scores go
 * together.
 *
 * @param shape Of the matrix.
 * @param method What decides which weights go first.
 * @param pattern Which sets may stay.
 * @param share How much of its block stays.
 */
export function keptOf(
  { rows, columns }: { readonly rows: number; readonly columns: number },
  method: Method,
  pattern: Pattern,
  share: LinearShare,
): Kept {
  const mended = mends(method);
  switch (pattern.kind) {
    case "nm":
      return { kind: "nm", n: pattern.n, m: pattern.m, fewer: mended, mended };
    case "mixed":
      return {
        kind: "nm",
        n: share.kept ?? Math.round(share.density * pattern.m),
        m: pattern.m,
        fewer: mended,
        mended,
      };
    case "slots":
      return {
        kind: "slots",
        mended,
        slots: Math.ceil(share.density * slotsOf({ rows, columns })),
      };
    case "unstructured":
      return {
        kind: "any",
        weights: method === "magnitude" && share.density < 1
          // One more than asked goes, of the whole matrix.
          ? Math.max(
            0,
            rows * columns - Math.floor(rows * columns * (1 - share.density) + 1e-7) - 1,
          )
          // Each row loses a whole number, rounded down.
          : rows * (columns - Math.floor(columns * (1 - share.density) + 1e-7)),
        fewer: method !== "wanda",
        mended,
      };
  }
}
