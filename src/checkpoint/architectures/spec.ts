/**
 * What tells one decoder from another.
 * @module
 */
import { ConfigError } from "../../errors.ts";

/** Element-wise functions between the two halves of an MLP. */
export type Activation = "silu" | "relu" | "gelu";

/** What tells one decoder from another. Tensor names are without the `.weight` at their end. */
export interface DecoderSpec {
  readonly hidden: number;
  readonly intermediate: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocabulary: number;
  /** The longest context that the model was made for. */
  readonly context: number;
  /** Name of everything but the head, e.g. `model`; `model.decoder` for OPT. */
  readonly root: string;
  /** Tensor of the output head; the embedding's own where they are tied. */
  readonly head: string;
  /** Width of the embedding, where it differs from `hidden` and is projected. */
  readonly embeddingWidth?: number;
  /** Learned positions: their tensor has `offset` rows before position 0. */
  readonly learnedPositions?: { readonly offset: number };
  /** Angle per position of each pair of rotary dimensions. */
  readonly rotary?: Float32Array;
  readonly norm: {
    readonly kind: "rms" | "layer";
    readonly epsilon: number;
    /** Whether a norm has weights of its own. */
    readonly affine: boolean;
    /** Before attention and MLP (almost everywhere), or after them. */
    readonly first: boolean;
    readonly attention: string;
    readonly mlp: string;
    /** The norm before the head, if there is one. */
    readonly final?: string;
  };
  readonly attention: {
    readonly out: string;
    readonly inputBias: boolean;
    readonly outputBias: boolean;
    /** RMS norms of each head of queries and keys, as Qwen 3 has them. */
    readonly headNorm: boolean;
    /** Positions that a token sees, itself included; undefined for all before it. */
    readonly window: (layer: number) => number | undefined;
    /** Whether a layer turns queries and keys by their positions, where the decoder has `rotary`. */
    readonly turns: (layer: number) => boolean;
  };
  readonly mlp: {
    /** `down(act(gate(x)) · up(x))`, or `second(act(first(x)))`. */
    readonly gate?: string;
    readonly up: string;
    readonly down: string;
    readonly bias: boolean;
    readonly activation: Activation;
  };
}

/** More elements than a head of any model has; rotary tables are made by it. */
const LARGEST_HEAD = 8192;

/**
 * Checks that head counts and widths go together.
 *
 * @throws {ConfigError} When they do not.
 */
export function checkHeads(hidden: number, heads: number, keyValueHeads: number, headDim: number) {
  if (heads % keyValueHeads !== 0) {
    throw new ConfigError(
      `config.json: ${heads} attention heads cannot share ${keyValueHeads} key/value heads`,
    );
  }
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw new ConfigError(
      `config.json: heads of ${headDim} elements (head_dim, or hidden_size ${hidden} over ${heads} heads) cannot be: an even whole number is needed`,
    );
  }
  if (headDim > LARGEST_HEAD) {
    throw new ConfigError(
      `config.json: a head of ${headDim} elements is larger than any model's (${LARGEST_HEAD})`,
    );
  }
}
