/** The shapes that the core computes on. @module */

/** A weight matrix with the statistics of its input. */
export interface Weight {
  /** Name inside its block, for messages, e.g. `self_attn.q_proj`. */
  readonly name: string;
  /** Row-major `[rows, columns]`, i.e. `[out, in]`. */
  readonly values: Float32Array;
  readonly rows: number;
  readonly columns: number;
  /** ‖X‖₂ of each input column, as `InputNorms` makes it: `[columns]`. */
  readonly norms: Float32Array;
}

/** How a block's score is made of its weights' scores. */
export type Reducer = "median" | "mean";

/** What decides which weights go first, where those that stay are left as they are. */
export type MaskMethod = "wanda" | "magnitude";

/** How weights are pruned: by a mask, or with those that stay making up for it. */
export type Method = MaskMethod | MendingMethod;

/** Methods that change the weights which stay. */
export type MendingMethod = "sparsegpt" | "espalier";

/** What decides how many weights each block keeps. */
export type AllocationName = "uniform" | "dlp" | "owl" | "atp";

/** Which sets of weights may be kept. */
export type Pattern =
  /** Any weights. */
  | { readonly kind: "unstructured" }
  /** `n` of every `m` neighbours in a row. */
  | { readonly kind: "nm"; readonly n: number; readonly m: number }
  /** N of every `m` neighbours, N chosen for each block by the allocation. */
  | { readonly kind: "mixed"; readonly m: number }
  /** From 0 to 4 slots of 4 weights a row in each window of 4 rows × 16 inputs; see `slots.ts`. */
  | { readonly kind: "slots" };

/** 1 where a weight is kept, 0 where it is pruned: row-major, one byte a weight. */
export type Mask = Uint8Array;
