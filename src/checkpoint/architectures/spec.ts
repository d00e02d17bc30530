/**
 * What tells one decoder from another.
 * @module
 */
import { ConfigError } from "../../errors.ts";

/** Element-wise functions between the two halves of an MLP; `gelu_tanh` is what most call GELU's approximation. */
export type Activation = "silu" | "relu" | "relu_squared" | "gelu" | "gelu_tanh";

/** How a layer turns queries and keys by their positions. */
export interface Rotary {
  /** Angle per position of each pair of dimensions, in radians; what a head has more of them is not turned. */
  readonly frequencies: Float32Array;
  /** What cosines and sines are multiplied by. */
  readonly factor: number;
  /** Whether neighbouring elements are a pair; else, one of the first half and one of the second are. */
  readonly interleaved?: boolean;
  /**
   * Positions that are turned so, where sequences of more would be turned by other angles from their beginning on, or
   * later positions would be turned otherwise.
   */
  readonly positions?: number;
}

/** The norms of a sublayer, attention or MLP, by the names of their tensors in the block. */
export interface SublayerNorms {
  /** Of what goes into it. */
  readonly before?: string;
  /** Of what comes out of it, before that is added to the residual stream. */
  readonly after?: string;
  /** Of the sum. */
  readonly ofSum?: string;
}

/** Names of modules: of the embedding and positions, of blocks, and of what a block attends with. */
export interface ModuleNames {
  /** Default: `embed_tokens`. */
  readonly embedding?: string;
  /** Of learned positions; default: `embed_positions`. */
  readonly positions?: string;
  /** Default: `layers`. */
  readonly layers?: string;
  /** Default: `self_attn`. */
  readonly attention?: string;
}

/** Layers that convolve tokens with those just before them, each channel by its own kernel, and attend to none. */
export interface Convolutions {
  readonly isIn: (layer: number) => boolean;
  /** Tokens that a kernel spans, the token itself included. */
  readonly length: number;
  /** Whether kernels, and the linears on both sides of them, have biases. */
  readonly bias: boolean;
}

/**
 * Layers that remember: each head has one matrix for all tokens before, its state, which fades and takes every token in.
 * By the gated delta rule (Gated DeltaNet, arXiv 2412.06464), which also corrects it, or as a state space does (Mamba 2,
 * arXiv 2405.21060).
 */
export interface Recurrent {
  readonly kind: "gated delta" | "state space";
  readonly isIn: (layer: number) => boolean;
  /** Heads of queries and of keys; each serves as many heads of values, one after the other. */
  readonly keyHeads: number;
  readonly valueHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
  /** Tokens that the kernels before them span, the token itself included. */
  readonly length: number;
  /** Whether these kernels have biases, and whether the linears do. */
  readonly kernelBias: boolean;
  readonly bias: boolean;
}

/** Heads of keys and values, and elements of each head of a layer. */
export interface LayerHeads {
  readonly keyValueHeads: number;
  readonly headDim: number;
}

/**
 * What each layer is given of a token beside the hidden states: a row's part of a table of its own, and a part of what
 * the embedding projects to (Gemma 3n's and 4's per-layer embeddings). All names are below the root but for the block's.
 */
export interface PerLayerInputs {
  /** Elements of a layer's. */
  readonly width: number;
  /** Token ids that the table has rows for. */
  readonly vocabulary: number;
  /** The table, `[vocabulary, layers · width]`, and the factor of its rows. */
  readonly table: string;
  readonly scale: number;
  /** The projection of the embedding, `[layers · width, hidden]`, and the norm of each layer's part of it. */
  readonly projection: string;
  readonly norm: string;
  /** Of each block: what its hidden states say of the input, the way back, and the norm of that. */
  readonly gate: string;
  readonly back: string;
  readonly after: string;
}

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
  /** Name of everything but the head, e.g. `model`; `model.decoder` for OPT; empty where names begin below it. */
  readonly root: string;
  /** Names of modules below the root, where they are others than Llama's. */
  readonly names?: ModuleNames;
  /** Tensor of the embedding, where it has none below the root: files that hold the head alone. */
  readonly embedding?: string;
  /** Whether attention and MLP read the same hidden states, each through its norm, and both add to them. */
  readonly sideBySide?: boolean;
  /** Tensor of the output head; the embedding's own where they are tied. */
  readonly head: string;
  /** Whose bias is added to what the head gives, where one is: the head's own module, tied or not. */
  readonly headBias?: string;
  /** Width of the embedding, where it differs from `hidden` and is projected. */
  readonly embeddingWidth?: number;
  /** Factors of the embedding's rows, of what each sublayer adds to the residual stream, and of logits; 1 if not given. */
  readonly scales?: {
    readonly embedding?: number;
    readonly residual?: number;
    readonly logits?: number;
  };
  /** What logits are capped by, cap · tanh(logit / cap), once they are multiplied. */
  readonly logitCap?: number;
  /** Learned positions: their tensor has `offset` rows before position 0. */
  readonly learnedPositions?: { readonly offset: number };
  /** How each layer turns queries and keys by their positions, where it does. */
  readonly rotary: (layer: number) => Rotary | undefined;
  readonly norm: {
    readonly kind: "rms" | "layer";
    readonly epsilon: number;
    /** Whether a norm has weights of its own. */
    readonly affine: boolean;
    /** Whether a layer norm that has weights has biases, too; default: it has. */
    readonly biased?: boolean;
    /** Whether what is stored is what its weights are above 1. */
    readonly aboveOne?: boolean;
    readonly attention: SublayerNorms;
    readonly mlp: SublayerNorms;
    /** The norm of what the embedding gives, if there is one. */
    readonly ofEmbedding?: string;
    /** The norm before the head, if there is one. */
    readonly final?: string;
  };
  readonly attention: {
    readonly out: string;
    /** Of queries, keys and values, one below the other, where they are one matrix. */
    readonly fused?: string;
    /** Whether that matrix has them head by head: queries, keys and values of the first, then those of the next. */
    readonly byHead?: boolean;
    readonly inputBias: boolean;
    readonly outputBias: boolean;
    /**
     * RMS norms of queries and keys: of each head (Qwen 3), of all heads together (OLMo 2), or of each head once it is
     * turned (Hunyuan). Or layer norms of each head, which has weights of its own and no biases (Command R+).
     */
    readonly norm?: "heads" | "whole" | "turned" | "own";
    /** What their tensors are called; `q_norm` and `k_norm` if not given. */
    readonly normNames?: { readonly q: string; readonly k: string };
    /** Of a number for each head by whose sigmoid what that head gives is multiplied, where there is one. */
    readonly gate?: string;
    /**
     * Whether the matrix of queries gives as many gates, head by head behind its queries, by whose sigmoids what heads
     * give is multiplied, element by element (Qwen 3.5).
     */
    readonly gatedByElement?: boolean;
    /** Factor of the scores, of all layers or of each; 1 / √headDim if not given. */
    readonly scale?: number | ((layer: number) => number);
    /** What scores are capped by, cap · tanh(score / cap), once they are multiplied by their factor. */
    readonly cap?: number;
    /**
     * Of a score for each head that counts beside those of what a token sees, and stands for nothing (a sink): the less
     * a head finds, the less it gives.
     */
    readonly sinks?: string;
    /** Positions that a token sees, itself included; undefined for all before it. */
    readonly window: (layer: number) => number | undefined;
    /** Heads of the layers that have others than the decoder. */
    readonly headsIn?: (layer: number) => LayerHeads;
    /** Whether heads of values are normed, too, by a norm without weights. */
    readonly normsValues?: boolean;
    /** The layer before whose keys and values a layer attends to, where it has none of its own. */
    readonly keysOf?: (layer: number) => number | undefined;
  };
  /** What some layers have in place of attention, where some have: the one or the other. */
  readonly convolutions?: Convolutions;
  readonly recurrent?: Recurrent;
  readonly mlp: {
    /** `down(act(gate(x)) · up(x))`, or `second(act(first(x)))`. */
    readonly gate?: string;
    /** Of gate and up, one below the other, where they are one matrix. */
    readonly fused?: string;
    readonly up: string;
    readonly down: string;
    readonly bias: boolean;
    readonly activation: Activation;
    /** Between the halves of a layer's, where layers differ; the decoder's is the widest. */
    readonly intermediateIn?: (layer: number) => number;
  };
  readonly perLayer?: PerLayerInputs;
  /** Tensor `[1]` of each block: the factor of what it gives. */
  readonly blockScale?: string;
}

/** Sizes that heads of a decoder have, each once. */
export function headDimsOf(spec: DecoderSpec): number[] {
  const layers = Array.from({ length: spec.layers }, (_, layer) => headsOf(spec, layer).headDim);
  return [...new Set(layers)].sort((a, b) => a - b);
}

/** Heads of a layer. */
export function headsOf(
  { keyValueHeads, headDim, attention }: Pick<
    DecoderSpec,
    "keyValueHeads" | "headDim" | "attention"
  >,
  layer: number,
): LayerHeads {
  return attention.headsIn?.(layer) ?? { keyValueHeads, headDim };
}

/** The embedding's tensor, without the `.weight` at its end. */
export function embeddingOf(
  { root, names, embedding }: Pick<DecoderSpec, "root" | "names" | "embedding">,
): string {
  return embedding ?? below(root, names?.embedding ?? "embed_tokens");
}

/** Tensors with a row for each token of the vocabulary that ids pick: the embedding first. */
export function tokenTables(
  spec: Pick<DecoderSpec, "root" | "names" | "embedding" | "perLayer">,
): string[] {
  const { root, perLayer } = spec;
  const names = perLayer ? [embeddingOf(spec), below(root, perLayer.table)] : [embeddingOf(spec)];
  return names.map((name) => `${name}.weight`);
}

/** The name of something below the root. */
export function below(root: string, name: string): string {
  return root === "" ? name : `${root}.${name}`;
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
