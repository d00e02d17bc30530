/**
 * From a description of a decoder to its ONNX graph.
 *
 * The files beside this one say what differs between architectures; all that they share is here, in
 * the order in which a token passes through it.
 * @module
 */
import {
  ConfigError,
  TensorMissingError,
  TensorShapeError,
  TensorTypeError,
} from "../../errors.ts";
import { float, GraphBuilder, MICROSOFT } from "../../onnx/builder.ts";
import { onnxTypeOf } from "../../onnx/element_type.ts";
import { type GraphProto, TensorProto_DataType as DataType } from "../../onnx/generated/onnx_pb.ts";
import type { CheckpointTensor } from "../checkpoint.ts";

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

/**
 * Builds the graph of a decoder: `input_ids` and `position_ids`, both `[batch, sequence]`, to `logits`
 * `[batch, sequence, vocabulary]`, for whole windows that begin at position 0: no cache, no padding.
 *
 * @param spec The decoder.
 * @param tensors The checkpoint's tensors; the graph's initializers point to them.
 * @param positions Positions that rotary tables are made for; a longer window cannot be run.
 * @throws {TensorMissingError} When the checkpoint lacks a tensor.
 * @throws {TensorShapeError} When a tensor's shape does not fit the spec.
 * @throws {TensorTypeError} When a tensor is not stored as float32, float16 or bfloat16.
 */
export function buildDecoder(
  spec: DecoderSpec,
  tensors: ReadonlyMap<string, CheckpointTensor>,
  positions: number,
): GraphProto {
  return new DecoderBuilder(spec, tensors, positions).build();
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

/** What a token of a block sees. */
interface Sight {
  /** Position of each token, `[batch, sequence]`. */
  readonly positions: string;
  /** Added to the scores of attention, `[sequence, sequence]`. */
  readonly bias: string;
}

class DecoderBuilder {
  readonly #spec: DecoderSpec;
  readonly #tensors: ReadonlyMap<string, CheckpointTensor>;
  readonly #positions: number;
  readonly #b: GraphBuilder;
  readonly #biases = new Set<string>();

  constructor(
    spec: DecoderSpec,
    tensors: ReadonlyMap<string, CheckpointTensor>,
    positions: number,
  ) {
    this.#spec = spec;
    this.#tensors = tensors;
    this.#positions = positions;
    this.#b = new GraphBuilder("decoder");
  }

  build(): GraphProto {
    const { root, layers } = this.#spec;
    const b = this.#b;
    const ids = b.input("input_ids", DataType.INT64, ["batch", "sequence"]);
    const where = b.input("position_ids", DataType.INT64, ["batch", "sequence"]);

    const positions = b.node("Identity", [where], { outputs: ["positions"] });
    b.describe(positions, DataType.INT64, ["batch", "sequence"]);
    const distances = this.#distances(ids);
    const rootScope = root.replaceAll(".", "/");
    let hidden = b.within(rootScope, () => this.#embed(ids, where));
    this.#describeHidden(hidden);
    for (let layer = 0; layer < layers; layer++) {
      hidden = b.within(
        `${rootScope}/layers.${layer}`,
        () => this.#block(hidden, layer, { positions, bias: this.#bias(layer, distances) }),
      );
      this.#describeHidden(hidden);
    }
    hidden = b.within(rootScope, () => this.#afterBlocks(hidden));
    this.#head(hidden);
    return b.graph;
  }

  /** How far each token `[sequence, 1]` is behind each `[1, sequence]`; negative for later ones. */
  #distances(ids: string): string {
    const b = this.#b;
    return b.within("mask", () => {
      const index = (i: number) => b.constant(`index_${i}`, BigInt64Array.of(BigInt(i)), []);
      const length = b.node("Gather", [b.node("Shape", [ids]), index(1)]);
      const range = b.node("Range", [index(0), length, index(1)]);
      const rows = b.node("Unsqueeze", [range, b.integers([1])]);
      const columns = b.node("Unsqueeze", [range, b.integers([0])]);
      return b.node("Sub", [rows, columns]);
    });
  }

  /**
   * What is added to a layer's attention scores, `[sequence, sequence]`: 0 for what a token sees, and
   * the lowest float for what it does not. Layers with the same window share one.
   */
  #bias(layer: number, distances: string): string {
    const b = this.#b;
    const window = this.#spec.attention.window(layer);
    const name = `attention_bias_${window ?? "all"}`;
    if (this.#biases.has(name)) return name;
    this.#biases.add(name);
    b.outside(() =>
      b.within("mask", () => {
        const number = (n: number) => b.constant(`int64_${n}`, BigInt64Array.of(BigInt(n)), []);
        let seen = b.node("GreaterOrEqual", [distances, number(0)]);
        if (window !== undefined) {
          seen = b.node("And", [seen, b.node("Less", [distances, number(window)])]);
        }
        const lowest = b.constant("lowest", Float32Array.of(-3.4028234663852886e38), []);
        b.node("Where", [seen, b.scalar(0), lowest], { outputs: [name] });
      })
    );
    b.describe(name, DataType.FLOAT, ["sequence", "sequence"]);
    return name;
  }

  #embed(ids: string, where: string): string {
    const b = this.#b;
    const { root, vocabulary, hidden, embeddingWidth, learnedPositions, context } = this.#spec;
    const width = embeddingWidth ?? hidden;
    const table = this.#weight(`${root}.embed_tokens`, [vocabulary, width]);
    let value = b.node("Gather", [table, ids], { name: "embed_tokens/Gather" });
    if (width !== hidden) value = this.#linear(value, `${root}.project_in`, hidden, width, false);
    if (!learnedPositions) return value;
    const { offset } = learnedPositions;
    const rows = this.#weight(`${root}.embed_positions`, [context + offset, hidden]);
    const shifted = b.node("Add", [
      where,
      b.constant(`offset`, BigInt64Array.of(BigInt(offset)), []),
    ]);
    const position = b.node("Gather", [rows, shifted], { name: "embed_positions/Gather" });
    return b.node("Add", [value, position]);
  }

  #block(input: string, layer: number, sight: Sight): string {
    const b = this.#b;
    const { root, norm, hidden } = this.#spec;
    const path = `${root}.layers.${layer}`;
    const sublayer = (value: string, normName: string, run: (value: string) => string): string => {
      const normalise = (v: string) =>
        b.within(normName, () => this.#norm(v, `${path}.${normName}`, hidden));
      const result = run(norm.first ? normalise(value) : value);
      const sum = b.node("Add", [value, result], { name: `${normName}/residual` });
      return norm.first ? sum : normalise(sum);
    };
    const attended = sublayer(
      input,
      norm.attention,
      (value) => b.within("self_attn", () => this.#attention(value, path, sight)),
    );
    return sublayer(attended, norm.mlp, (value) => this.#mlp(value, path));
  }

  /**
   * Attention, spelled out in standard operators: GroupQueryAttention, which fuses all this, takes 14
   * times as long in ONNX Runtime's WebAssembly build when windows are whole.
   */
  #attention(value: string, path: string, sight: Sight): string {
    const b = this.#b;
    const { hidden, heads, keyValueHeads, headDim, attention } = this.#spec;
    const queries = this.#project(value, path, "q", heads, sight);
    const keys = this.#project(value, path, "k", keyValueHeads, sight);
    const values = this.#project(value, path, "v", keyValueHeads, sight);

    const turn = (x: string, perm: number[]) => b.node("Transpose", [x], { attributes: { perm } });
    const shape = (x: string, dims: number[]) => b.node("Reshape", [x, b.integers(dims)]);
    // Heads that share keys and values stand below each other: [batch, keyValueHeads, …, headDim].
    const scaled = b.node("Mul", [queries, b.scalar(1 / Math.sqrt(headDim))]);
    const grouped = shape(turn(scaled, [0, 2, 1, 3]), [0, keyValueHeads, -1, headDim]);
    const scores = b.node("MatMul", [grouped, turn(keys, [0, 2, 3, 1])]);
    const masked = b.node("Add", [shape(scores, [0, heads, -1, 0]), sight.bias]);
    const weights = b.node("Softmax", [masked], { attributes: { axis: -1 } });
    const mixed = b.node("MatMul", [
      shape(weights, [0, keyValueHeads, -1, 0]),
      turn(values, [0, 2, 1, 3]),
    ]);
    const apart = turn(shape(mixed, [0, heads, -1, headDim]), [0, 2, 1, 3]);
    const joined = shape(apart, [0, 0, heads * headDim]);
    const out = `${path}.self_attn.${attention.out}`;
    return this.#linear(joined, out, hidden, heads * headDim, attention.outputBias);
  }

  /** Queries, keys or values, `[batch, sequence, count, headDim]`, normed and turned where they are. */
  #project(
    value: string,
    path: string,
    part: "q" | "k" | "v",
    count: number,
    sight: Sight,
  ): string {
    const b = this.#b;
    const { hidden, headDim, attention, rotary } = this.#spec;
    const name = `${path}.self_attn.${part}_proj`;
    const apart = b.integers([0, 0, count, headDim]);
    let projected = this.#linear(value, name, count * headDim, hidden, attention.inputBias);
    if (part === "v") return b.node("Reshape", [projected, apart]);
    if (attention.headNorm) {
      projected = b.within(`${part}_norm`, () => {
        const heads = b.node("Reshape", [projected, apart]);
        const normed = this.#norm(heads, `${path}.self_attn.${part}_norm`, headDim);
        return b.node("Reshape", [normed, b.integers([0, 0, count * headDim])]);
      });
    }
    if (rotary) {
      const [cosines, sines] = this.#rotaryTables(rotary);
      projected = b.node("RotaryEmbedding", [projected, sight.positions, cosines, sines], {
        domain: MICROSOFT,
        attributes: { num_heads: count, interleaved: 0 },
      });
    }
    return b.node("Reshape", [projected, apart]);
  }

  /** Cosines and sines `[positions, headDim / 2]`, one pair of constants for all blocks. */
  #rotaryTables(frequencies: Float32Array): [string, string] {
    const half = frequencies.length;
    const make = (f: (angle: number) => number) => {
      const table = new Float32Array(this.#positions * half);
      for (let p = 0; p < this.#positions; p++) {
        // The angle is rounded to float32, as the models were trained and are run elsewhere: at
        // position 1000 that moves it by up to 3e-5.
        for (let i = 0; i < half; i++) table[p * half + i] = f(Math.fround(p * frequencies[i]));
      }
      return table;
    };
    const dims = [this.#positions, half];
    return [
      this.#b.constant("cos_cache", () => make(Math.cos), dims),
      this.#b.constant("sin_cache", () => make(Math.sin), dims),
    ];
  }

  #mlp(value: string, path: string): string {
    const b = this.#b;
    const { hidden, intermediate, mlp } = this.#spec;
    const linear = (input: string, name: string, rows: number, columns: number) =>
      this.#linear(input, `${path}.${name}`, rows, columns, mlp.bias);
    if (!mlp.gate) {
      const first = linear(value, mlp.up, intermediate, hidden);
      return linear(this.#activate(first), mlp.down, hidden, intermediate);
    }
    const gate = this.#activate(linear(value, mlp.gate, intermediate, hidden));
    const up = linear(value, mlp.up, intermediate, hidden);
    const product = b.node("Mul", [gate, up], { name: "mlp/Mul" });
    return linear(product, mlp.down, hidden, intermediate);
  }

  #activate(value: string): string {
    const b = this.#b;
    return b.within("activation", () => {
      switch (this.#spec.mlp.activation) {
        case "relu":
          return b.node("Relu", [value]);
        case "gelu":
          return b.node("Gelu", [value], { domain: MICROSOFT });
        case "silu":
          return b.node("Mul", [value, b.node("Sigmoid", [value])]);
      }
    });
  }

  #norm(value: string, name: string, width: number): string {
    const b = this.#b;
    const { kind, epsilon, affine } = this.#spec.norm;
    if (kind === "layer") {
      const [weight, bias] = affine
        ? [this.#weight(name, [width]), this.#weight(name, [width], "bias")]
        : [b.constant(`ones_${width}`, new Float32Array(width).fill(1), [width]), ""];
      return b.node("LayerNormalization", [value, weight, bias].filter(Boolean), {
        attributes: { axis: -1, epsilon: float(epsilon) },
      });
    }
    // Spelled out, so that any ONNX tool understands it; ONNX Runtime fuses the six nodes into one.
    const square = b.node("Pow", [value, b.scalar(2)]);
    const mean = b.node("ReduceMean", [square], { attributes: { axes: [-1], keepdims: 1 } });
    const root = b.node("Sqrt", [b.node("Add", [mean, b.scalar(epsilon)])]);
    return b.node("Mul", [b.node("Div", [value, root]), this.#weight(name, [width])]);
  }

  #afterBlocks(hidden: string): string {
    const b = this.#b;
    const { norm, root, hidden: width, embeddingWidth } = this.#spec;
    const { final } = norm;
    let value = final
      ? b.within(final, () => this.#norm(hidden, `${root}.${final}`, width))
      : hidden;
    if (embeddingWidth !== undefined && embeddingWidth !== width) {
      value = this.#linear(value, `${root}.project_out`, embeddingWidth, width, false);
    }
    this.#b.describe(value, DataType.FLOAT, ["batch", "sequence", embeddingWidth ?? width]);
    return value;
  }

  #head(hidden: string): void {
    const b = this.#b;
    const { head, vocabulary, embeddingWidth, hidden: width } = this.#spec;
    b.within("lm_head", () => {
      const weight = this.#weight(head, [vocabulary, embeddingWidth ?? width]);
      const turned = b.node("Transpose", [weight], { attributes: { perm: [1, 0] } });
      b.node("MatMul", [hidden, turned], { outputs: ["logits"] });
    });
    b.output("logits", DataType.FLOAT, ["batch", "sequence", vocabulary]);
  }

  /** `x · Wᵀ (+ b)` with W `[rows, columns]` as checkpoints store it. */
  #linear(value: string, name: string, rows: number, columns: number, bias: boolean): string {
    const b = this.#b;
    const parts = name.split(".");
    return b.within(parts.at(-1)!, () => {
      const weight = this.#weight(name, [rows, columns]);
      const turned = b.node("Transpose", [weight], { attributes: { perm: [1, 0] } });
      const product = b.node("MatMul", [value, turned]);
      return bias ? b.node("Add", [product, this.#weight(name, [rows], "bias")]) : product;
    });
  }

  /** A tensor of the checkpoint as a float32 value. */
  #weight(name: string, dims: number[], part = "weight"): string {
    const full = `${name}.${part}`;
    const tensor = this.#tensors.get(full);
    if (!tensor) {
      throw new TensorMissingError(
        `the checkpoint has no tensor ${full}: its config.json and its weights do not belong together`,
      );
    }
    if (tensor.shape.length !== dims.length || tensor.shape.some((dim, i) => dim !== dims[i])) {
      throw new TensorShapeError(
        `${tensor.file}: tensor ${full} has shape [${tensor.shape}], config.json asks for [${dims}]`,
      );
    }
    if (!tensor.type) {
      throw new TensorTypeError(
        `${tensor.file}: tensor ${full} is stored as ${tensor.dtype}; F32, F16 and BF16 can be pruned`,
      );
    }
    const value = this.#b.external(full, onnxTypeOf(tensor.type), dims, {
      location: tensor.file,
      offset: tensor.offset,
      length: tensor.length,
    });
    return this.#b.node("Cast", [value], { attributes: { to: DataType.FLOAT } });
  }

  #describeHidden(value: string): void {
    this.#b.describe(value, DataType.FLOAT, ["batch", "sequence", this.#spec.hidden]);
  }
}
