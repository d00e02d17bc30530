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
  readonly rotary?: Float64Array;
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
 * Builds the graph of a decoder: `input_ids`, `attention_mask` and `position_ids`, all
 * `[batch, sequence]`, to `logits` `[batch, sequence, vocabulary]`, for whole windows (no cache).
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
      `config.json: hidden_size ${hidden} over ${heads} heads gives no even head size`,
    );
  }
}

class DecoderBuilder {
  readonly #spec: DecoderSpec;
  readonly #tensors: ReadonlyMap<string, CheckpointTensor>;
  readonly #positions: number;
  readonly #b: GraphBuilder;

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
    const mask = b.input("attention_mask", DataType.INT64, ["batch", "total_sequence"]);
    const where = b.input("position_ids", DataType.INT64, ["batch", "sequence"]);

    const lengths = this.#lengths(mask);
    const rootScope = root.replaceAll(".", "/");
    let hidden = b.within(rootScope, () => this.#embed(ids, where));
    this.#describeHidden(hidden);
    for (let layer = 0; layer < layers; layer++) {
      hidden = b.within(
        `${rootScope}/layers.${layer}`,
        () => this.#block(hidden, layer, lengths),
      );
      this.#describeHidden(hidden);
    }
    hidden = b.within(rootScope, () => this.#afterBlocks(hidden));
    this.#head(hidden);
    return b.graph;
  }

  /** The two lengths that attention asks for, from the mask. */
  #lengths(mask: string): { last: string; total: string } {
    const b = this.#b;
    return b.within("lengths", () => {
      const sum = b.node("ReduceSum", [mask, b.integers([1])], { attributes: { keepdims: 0 } });
      const last = b.node("Sub", [sum, b.integers([1])]);
      const shape = b.node("Shape", [mask]);
      const total = b.node("Gather", [shape, b.constant("index_1", BigInt64Array.of(1n), [])]);
      const cast = { attributes: { to: DataType.INT32 } };
      const lengths = { last: b.node("Cast", [last], cast), total: b.node("Cast", [total], cast) };
      b.describe(lengths.last, DataType.INT32, ["batch"]);
      b.describe(lengths.total, DataType.INT32, []);
      return lengths;
    });
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

  #block(input: string, layer: number, lengths: { last: string; total: string }): string {
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
      (value) => b.within("self_attn", () => this.#attention(value, path, layer, lengths)),
    );
    return sublayer(attended, norm.mlp, (value) => this.#mlp(value, path));
  }

  #attention(
    value: string,
    path: string,
    layer: number,
    lengths: { last: string; total: string },
  ): string {
    const b = this.#b;
    const { hidden, heads, keyValueHeads, headDim, attention, rotary } = this.#spec;
    const project = (part: string, count: number): string => {
      const name = `${path}.self_attn.${part}_proj`;
      const projected = this.#linear(value, name, count * headDim, hidden, attention.inputBias);
      if (!attention.headNorm || part === "v") return projected;
      return b.within(`${part}_norm`, () => {
        const apart = b.node("Reshape", [projected, b.integers([0, 0, count, headDim])]);
        const normed = this.#norm(apart, `${path}.self_attn.${part}_norm`, headDim);
        return b.node("Reshape", [normed, b.integers([0, 0, count * headDim])]);
      });
    };
    const window = attention.window(layer);
    const tables = rotary ? this.#rotaryTables(rotary) : [];
    const [attended] = b.nodes("GroupQueryAttention", [
      project("q", heads),
      project("k", keyValueHeads),
      project("v", keyValueHeads),
      "",
      "",
      lengths.last,
      lengths.total,
      ...tables,
    ], {
      domain: MICROSOFT,
      outputs: 3,
      attributes: {
        num_heads: heads,
        kv_num_heads: keyValueHeads,
        do_rotary: rotary ? 1 : 0,
        // ONNX Runtime counts the token itself, as transformers does.
        local_window_size: window ?? -1,
      },
    });
    const out = `${path}.self_attn.${attention.out}`;
    return this.#linear(attended, out, hidden, heads * headDim, attention.outputBias);
  }

  /** Cosines and sines `[positions, headDim / 2]`, one pair of constants for all blocks. */
  #rotaryTables(frequencies: Float64Array): [string, string] {
    const half = frequencies.length;
    const make = (f: (angle: number) => number) => {
      const table = new Float32Array(this.#positions * half);
      for (let p = 0; p < this.#positions; p++) {
        for (let i = 0; i < half; i++) table[p * half + i] = f(p * frequencies[i]);
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
