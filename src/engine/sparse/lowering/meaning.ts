/**
 * What a value of an ONNX graph means to the engine, as far as the nodes before it tell.
 *
 * An RMS norm is six nodes of a graph and one step of a decoder. Lowering goes through the nodes once
 * and gives each value a meaning; those on the way through a norm mean a part of one, and the last node
 * makes the step. So what belongs together is found by what it computes, not by its names or places.
 * @module
 */
import type { TensorProto } from "../../../onnx/generated/onnx_pb.ts";
import type { RotaryTables, Value } from "../ir.ts";

/** A vector for every token: a value of the decoder. */
export interface Activation {
  readonly kind: "activation";
  readonly value: Value;
  /** Set where it is seen as `[batch, sequence, heads, width / heads]`, not `[batch, sequence, width]`. */
  readonly heads?: number;
  /** Whether only the last token's vector is left. */
  readonly lastOnly: boolean;
}

/** A tensor of the file. */
export interface Stored {
  readonly kind: "tensor";
  readonly tensor: TensorProto;
  readonly transposed: boolean;
  /** Whether it has been cast to float32. */
  readonly wide: boolean;
}

/** A tensor of the file with a number added to each element. */
export interface Raised {
  readonly kind: "tensor plus a number";
  readonly stored: Stored;
  readonly above: number;
}

/** A vector of the file with a number for each head, `[heads, 1]`. */
export interface OfHeads {
  readonly kind: "tensor of heads";
  readonly stored: Stored;
}

/** Token ids, or positions plus an offset. */
export interface Ids {
  readonly kind: "ids";
  readonly of: "tokens" | "positions";
  readonly offset: number;
}

/** Rows of a table that is not float32, not yet an activation. */
export interface Rows {
  readonly kind: "rows";
  readonly table: TensorProto;
  readonly ids: Ids;
  /** Whether they have been cast to float32. */
  readonly wide: boolean;
}

/** The scales of such rows. */
export interface RowScales {
  readonly kind: "scales of rows";
  readonly scales: TensorProto;
  readonly ids: Ids;
  /** Whether they have the shape `[batch, sequence, 1]`. */
  readonly unsqueezed: boolean;
}

/** A product with an int8 matrix that lacks its scales. */
export interface Unscaled {
  readonly kind: "product without scales";
  readonly input: Activation;
  readonly weight: TensorProto;
}

/** On the way to the root of a vector's mean square, or to its length. */
export interface Moment {
  readonly kind: "part of a norm";
  readonly of: Activation;
  /** x², its mean or sum, that + ε, the root of that. */
  readonly stage: "square" | "mean" | "shifted" | "root";
  readonly isSum: boolean;
  readonly epsilon: number;
}

/** A vector, or each of its heads, over its length, √(Σ x² + ε). */
export interface UnitVectors {
  readonly kind: "unit vectors";
  readonly of: Activation;
  readonly epsilon: number;
  /** Whether heads lie one after the other, as `[batch, sequence, width]`. */
  readonly isFlat: boolean;
}

/** e^x of a tensor's elements, or what is as much below 0. */
export interface Exponentials {
  readonly kind: "exponentials";
  readonly of: Stored;
  readonly isNegated: boolean;
}

/** A vector over the root of its mean square. */
export interface Normed {
  readonly kind: "norm without weight";
  readonly of: Activation;
  readonly epsilon: number;
}

/** `attention_mask`, and the lengths that attention takes from it. */
export interface Lengths {
  readonly kind: "lengths";
  /** The mask; its shape; its length; the count of its ones; that count less 1. */
  readonly of: "mask" | "shape" | "total" | "count" | "last";
  readonly type: "int32" | "int64";
}

/** What a node computes of positions: one of two tables. */
export interface RotaryTable {
  readonly kind: "rotary table";
  readonly part: "cosines" | "sines";
  readonly tables: RotaryTables;
}

/** Vectors of all tokens as `[batch, width, sequence]`. */
export interface Turned {
  readonly kind: "turned vectors";
  readonly of: Activation;
}

/** What a convolution reads: what its layer has kept, and behind it {@linkcode Turned}. */
export interface History {
  readonly kind: "history";
  readonly of: Activation;
  readonly past: Cache;
}

/** What a convolution makes of its history, `[batch, width, sequence]`. */
export interface Convolved {
  readonly kind: "convolved";
  readonly of: Activation;
  readonly layer: number;
  readonly length: number;
  /** Tensors. */
  readonly weight: string;
  readonly bias?: string;
  /** Whether the first is gone, which is no token's: then there are as many as tokens. */
  readonly cut: boolean;
}

/**
 * Keys or values of a layer, what a convolution has read last, or the state of linear attention: an input of the graph,
 * or an output.
 */
export interface Cache {
  readonly kind: "cache";
  readonly time: "past" | "present";
  readonly part: "key" | "value" | "inputs" | "state";
  readonly layer: number;
  /** Of a state: what names call it. */
  readonly family?: string;
  /** Of an output with inputs: how many of them it is given. */
  readonly length?: number;
  /** What the graph declares, as far as it is numbers. */
  readonly shape?: readonly (number | undefined)[];
}

/** What a value means. */
export type Meaning =
  | Activation
  | Stored
  | Raised
  | OfHeads
  | Ids
  | Rows
  | RowScales
  | Unscaled
  | Moment
  | Normed
  | UnitVectors
  | Exponentials
  | Lengths
  | RotaryTable
  | Turned
  | History
  | Convolved
  | Cache;

/** The meaning of a kind. */
export type MeaningOf<K extends Meaning["kind"]> = Extract<Meaning, { kind: K }>;

/**
 * The two inputs of a node that does not care for their order, in the order asked for.
 *
 * @returns Nothing where they are of other kinds.
 */
export function ordered<A extends Meaning["kind"], B extends Meaning["kind"]>(
  [x, y]: readonly [Meaning, Meaning],
  a: A,
  b: B,
): [MeaningOf<A>, MeaningOf<B>] | undefined {
  if (isKind(x, a) && isKind(y, b)) return [x, y];
  if (isKind(y, a) && isKind(x, b)) return [y, x];
  return undefined;
}

function isKind<K extends Meaning["kind"]>(meaning: Meaning, kind: K): meaning is MeaningOf<K> {
  return meaning.kind === kind;
}

/** Whether two ids pick the same rows. */
export function sameIds(a: Ids, b: Ids): boolean {
  return a.of === b.of && a.offset === b.offset;
}
