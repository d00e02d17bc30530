/**
 * What `prune --fit` asks of who knows the formats of compiled models. They are in `compile`, above
 * this folder; `src/workflow` brings the two together.
 * @module
 */
import { UsageError } from "../errors.ts";
import type { Kept } from "../prune/kept.ts";

/** A way to store a compiled model's weights, as the options of `compile` spell it. */
export interface StoreChoice {
  readonly values: string;
  readonly head?: string;
  readonly group?: number;
}

/** How values are stored, in words. */
export function storedAs({ values, head }: StoreChoice): string {
  return head === "int4" ? `${values}, head int4` : values;
}

/** What stays of each linear, by the name of its weight; one that is not there keeps all. */
export type KeptByName = ReadonlyMap<string, Kept>;

/** Sizes of one checkpoint, compiled. */
export interface SizeTeller {
  /** The ways that are tried. */
  readonly choices: readonly StoreChoice[];
  /** Bytes of the compiled model's files, embeddings, head and graph included. */
  bytes(kept: KeptByName, choice: StoreChoice): number;
  /** Bytes of the linears alone, to compare plans by: it takes less time. */
  linearBytes(kept: KeptByName, choice: StoreChoice): number;
  /** Rounds weights in place to what is left of them when they are stored. */
  round(
    matrix: {
      readonly name: string;
      readonly values: Float32Array;
      readonly rows: number;
      readonly columns: number;
    },
    choice: StoreChoice,
  ): void;
}

/** Stands where nobody knows the formats. */
export function noSizes(): never {
  throw new UsageError(
    "fit counts the bytes of a compiled model, which takes the compiler: the library's prune and the " +
      "command have it",
  );
}
