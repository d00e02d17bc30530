/**
 * From a description of a decoder to its ONNX graph.
 *
 * The files beside this one say what differs between architectures; all that they share is here, in
 * the order in which a token passes through it.
 * @module
 */
import { float, GraphBuilder } from "../../onnx/builder.ts";
import { capped } from "../../onnx/cap.ts";
import { type GraphProto, TensorProto_DataType as DataType } from "../../onnx/generated/onnx_pb.ts";
import { activate } from "./activations.ts";
import type { Attention } from "./attention.ts";
import { convolution } from "./convolution.ts";
import { deltaNet } from "./delta_net.ts";
import { cut, cutHeads, divideBySize, type Lent } from "./parts.ts";
import {
  below,
  type DecoderSpec,
  embeddingOf,
  type Recurrent,
  type SublayerNorms,
} from "./spec.ts";
import { stateSpace } from "./state_space.ts";
import type { DecoderWeights } from "./weights.ts";

/**
 * Builds the graph of a decoder, from `input_ids` and `position_ids`, both `[batch, sequence]`, to
 * `logits` `[batch, sequence, vocabulary]`.
 *
 * @param spec The decoder.
 * @param weights How its weights enter the graph.
 * @param attention How tokens see each other: in whole windows, or with a cache.
 * @param logits Whether logits are given for all positions, or for the last one alone.
 */
export function buildDecoder(
  spec: DecoderSpec,
  weights: DecoderWeights,
  attention: Attention,
  logits: "all" | "last" = "all",
): GraphProto {
  return new DecoderBuilder(spec, weights, attention).build(logits);
}

class DecoderBuilder {
  readonly #spec: DecoderSpec;
  readonly #weights: DecoderWeights;
  readonly #attention: Attention;
  readonly #b: GraphBuilder;
  readonly #lent: Lent;

  constructor(spec: DecoderSpec, weights: DecoderWeights, attention: Attention) {
    this.#spec = spec;
    this.#weights = weights;
    this.#attention = attention;
    this.#b = new GraphBuilder("decoder");
    this.#lent = {
      b: this.#b,
      attention,
      linear: this.#linear.bind(this),
      small: (name, part, dims) => weights.small(this.#b, name, part, dims),
    };
  }

  build(logits: "all" | "last"): GraphProto {
    const { root, layers, names } = this.#spec;
    const b = this.#b;
    const ids = b.input("input_ids", DataType.INT64, ["batch_size", "sequence_length"]);
    const positions = this.#attention.begin(b, this.#spec, ids);
    const rootScope = (root || "decoder").replaceAll(".", "/");
    let hidden = b.within(rootScope, () => this.#embed(ids, positions));
    this.#describeHidden(hidden);
    for (let layer = 0; layer < layers; layer++) {
      hidden = b.within(
        `${rootScope}/${names?.layers ?? "layers"}.${layer}`,
        () => this.#block(hidden, layer),
      );
      this.#describeHidden(hidden);
    }
    hidden = b.within(rootScope, () => this.#afterBlocks(hidden));
    this.#head(hidden, logits);
    this.#attention.end(b);
    return b.graph;
  }

  #embed(ids: string, positions: string): string {
    const b = this.#b;
    const { root, names, vocabulary, hidden, embeddingWidth, learnedPositions, context, scales } =
      this.#spec;
    const width = embeddingWidth ?? hidden;
    const table = embeddingOf(this.#spec);
    let value = b.within("embed_tokens", () => {
      const rows = this.#weights.rows(b, table, vocabulary, width, ids);
      return this.#scale(rows, scales?.embedding);
    });
    if (width !== hidden) {
      value = this.#linear(value, below(root, "project_in"), hidden, width, false);
    }
    const { ofEmbedding } = this.#spec.norm;
    if (ofEmbedding) {
      const embedded = value;
      value = b.within("embed_norm", () => this.#norm(embedded, below(root, ofEmbedding), hidden));
    }
    if (!learnedPositions) return value;
    return b.within("embed_positions", () => {
      const { offset } = learnedPositions;
      const shift = b.constant("position_offset", BigInt64Array.of(BigInt(offset)), []);
      const shifted = b.node("Add", [positions, shift]);
      const rows = context + offset;
      const table = below(root, names?.positions ?? "embed_positions");
      const learned = this.#weights.rows(b, table, rows, hidden, shifted);
      return b.node("Add", [value, learned]);
    });
  }

  #block(input: string, layer: number): string {
    const b = this.#b;
    const { root, names, norm, hidden, scales, sideBySide, convolutions, recurrent } = this.#spec;
    const path = below(root, `${names?.layers ?? "layers"}.${layer}`);
    const attend = (value: string) =>
      convolutions?.isIn(layer)
        ? b.within(
          "conv",
          () => convolution(this.#lent, value, `${path}.conv`, layer, convolutions, hidden),
        )
        : recurrent?.isIn(layer)
        ? this.#remember(value, path, layer, recurrent)
        : b.within("self_attn", () => this.#attend(value, path, layer));
    const normalise = (value: string, name: string | undefined): string =>
      name ? b.within(name, () => this.#norm(value, `${path}.${name}`, hidden)) : value;
    const sublayer = (
      value: string,
      { before, after, ofSum }: SublayerNorms,
      run: (value: string) => string,
    ): string => {
      const result = normalise(run(normalise(value, before)), after);
      const scope = before ?? after ?? ofSum;
      const part = b.within(`${scope}/residual`, () => this.#scale(result, scales?.residual));
      return normalise(b.node("Add", [value, part], { name: `${scope}/residual` }), ofSum);
    };
    if (sideBySide) {
      const { attention: { before: first }, mlp: { before: second } } = norm;
      const normed = normalise(input, first);
      const attended = b.node("Add", [input, attend(normed)], { name: "self_attn/residual" });
      const other = first === second ? normed : normalise(input, second);
      return b.node("Add", [attended, this.#mlp(other, path)], { name: "mlp/residual" });
    }
    const attended = sublayer(input, norm.attention, attend);
    return sublayer(attended, norm.mlp, (value) => this.#mlp(value, path));
  }

  #remember(value: string, path: string, layer: number, recurrent: Recurrent): string {
    const [name, build] = recurrent.kind === "state space"
      ? ["mamba", stateSpace] as const
      : ["linear_attn", deltaNet] as const;
    const module = `${path}.${name}`;
    return this.#b.within(
      name,
      () => build(this.#lent, value, module, layer, recurrent, this.#spec),
    );
  }

  #attend(value: string, path: string, layer: number): string {
    const { hidden, heads, keyValueHeads, headDim, attention, names } = this.#spec;
    const module = `${path}.${names?.attention ?? "self_attn"}`;
    const { gates, ...projected } = this.#projections(value, module);
    const normTurned = (turned: string, part: "q" | "k") =>
      this.#normHeads(turned, module, part, part === "q" ? heads : keyValueHeads);
    const attended = this.#attention.attend(this.#b, layer, {
      ...projected,
      normTurned: attention.norm === "turned" ? normTurned : undefined,
      sinks: attention.sinks &&
        this.#weights.small(this.#b, `${module}.${attention.sinks}`, undefined, [heads]),
    });
    const gated = attention.gate
      ? this.#gateHeads(attended, value, `${module}.${attention.gate}`)
      : gates
      ? this.#b.node("Mul", [attended, this.#b.node("Sigmoid", [gates])], { name: "gate" })
      : attended;
    const out = `${module}.${attention.out}`;
    return this.#linear(gated, out, hidden, heads * headDim, attention.outputBias);
  }

  /** What heads attend with, and the gates of what they give, where the matrix of queries has them. */
  #projections(value: string, module: string): Record<"queries" | "keys" | "values", string> & {
    gates?: string;
  } {
    const { hidden, heads, keyValueHeads, headDim, attention } = this.#spec;
    const linear = (name: string, rows: number) =>
      this.#linear(value, `${module}.${name}`, rows, hidden, attention.inputBias);
    if (attention.fused) {
      const rows = (heads + 2 * keyValueHeads) * headDim;
      const [queries, keys, values] = this.#cutProjections(linear(attention.fused, rows));
      return { queries, keys, values };
    }
    const normed = (projected: string, part: "q" | "k", count: number) =>
      attention.norm && attention.norm !== "turned"
        ? this.#normHeads(projected, module, part, count)
        : projected;
    const width = heads * headDim;
    const [queries, gates] = attention.gatedByElement
      ? cutHeads(this.#b, linear("q_proj", 2 * width), heads, 2, headDim)
      : [linear("q_proj", width)];
    return {
      queries: normed(queries, "q", heads),
      keys: normed(linear("k_proj", keyValueHeads * headDim), "k", keyValueHeads),
      values: linear("v_proj", keyValueHeads * headDim),
      gates,
    };
  }

  /** What heads give, each times a number between 0 and 1 that the token's hidden states say. */
  #gateHeads(attended: string, value: string, name: string): string {
    const b = this.#b;
    const { hidden, heads, headDim } = this.#spec;
    const shape = (x: string, dims: number[]) => b.node("Reshape", [x, b.integers(dims)]);
    const gates = b.node("Sigmoid", [this.#linear(value, name, heads, hidden, false)]);
    return b.within("gate", () => {
      const apart = shape(attended, [0, 0, heads, headDim]);
      const gated = b.node("Mul", [apart, shape(gates, [0, 0, heads, 1])]);
      return shape(gated, [0, 0, heads * headDim]);
    });
  }

  /** Queries or keys, normed by head or all heads together. */
  #normHeads(value: string, module: string, part: "q" | "k", count: number): string {
    const b = this.#b;
    const { headDim, attention } = this.#spec;
    const name = attention.normNames?.[part] ?? `${part}_norm`;
    const norm = `${module}.${name}`;
    return b.within(name, () => {
      if (attention.norm === "whole") return this.#norm(value, norm, count * headDim);
      const heads = b.node("Reshape", [value, b.integers([0, 0, count, headDim])]);
      const normed = attention.norm === "own"
        ? this.#normByHead(heads, norm, count)
        : this.#norm(heads, norm, headDim);
      return b.node("Reshape", [normed, b.integers([0, 0, count * headDim])]);
    });
  }

  /** Layer norms of heads that have weights of their own. */
  #normByHead(value: string, name: string, count: number): string {
    const b = this.#b;
    const { headDim, norm: { epsilon } } = this.#spec;
    const normed = this.#layerNorm(value, [onesOf(b, headDim)], epsilon);
    return b.node("Mul", [normed, this.#weights.small(b, name, "weight", [count, headDim])]);
  }

  #mlp(value: string, path: string): string {
    const b = this.#b;
    const { hidden, intermediate, mlp } = this.#spec;
    const linear = (input: string, name: string, rows: number, columns: number) =>
      this.#linear(input, `${path}.${name}`, rows, columns, mlp.bias);
    if (!mlp.gate) {
      const first = linear(value, mlp.up, intermediate, hidden);
      return linear(activate(b, mlp.activation, first), mlp.down, hidden, intermediate);
    }
    const [gate, up] = mlp.fused
      ? cut(b, linear(value, mlp.fused, 2 * intermediate, hidden), [intermediate, intermediate])
      : [
        linear(value, mlp.gate, intermediate, hidden),
        linear(value, mlp.up, intermediate, hidden),
      ];
    const product = b.node("Mul", [activate(b, mlp.activation, gate), up], { name: "mlp/Mul" });
    return linear(product, mlp.down, hidden, intermediate);
  }

  /** Queries, keys and values out of what one matrix gives. */
  #cutProjections(value: string): string[] {
    const b = this.#b;
    const { heads, keyValueHeads, headDim, attention: { byHead } } = this.#spec;
    if (byHead) return cutHeads(b, value, heads, 3, headDim);
    return cut(b, value, [heads, keyValueHeads, keyValueHeads].map((n) => n * headDim));
  }

  #norm(value: string, name: string, width: number): string {
    const b = this.#b;
    const { kind, epsilon, affine, biased = true, aboveOne } = this.#spec.norm;
    const weightOf = () => {
      const stored = this.#weights.small(b, name, "weight", [width]);
      return aboveOne ? b.node("Add", [stored, b.scalar(1)]) : stored;
    };
    if (kind === "layer") {
      const [weight, bias] = affine
        ? [weightOf(), biased ? this.#weights.small(b, name, "bias", [width]) : ""]
        : [onesOf(b, width), ""];
      return this.#layerNorm(value, [weight, bias].filter(Boolean), epsilon);
    }
    const normed = divideBySize(b, value, "ReduceMean", epsilon);
    return b.node("Mul", [normed, affine ? weightOf() : onesOf(b, width)]);
  }

  #layerNorm(value: string, weights: readonly string[], epsilon: number): string {
    return this.#b.node("LayerNormalization", [value, ...weights], {
      attributes: { axis: -1, epsilon: float(epsilon) },
    });
  }

  /** `x · factor`: no node where that changes nothing. */
  #scale(value: string, factor = 1): string {
    return factor === 1 ? value : this.#b.node("Mul", [value, this.#b.scalar(factor)]);
  }

  #afterBlocks(hidden: string): string {
    const b = this.#b;
    const { norm, root, hidden: width, embeddingWidth, scales } = this.#spec;
    const { final } = norm;
    let value = final
      ? b.within(final, () => this.#norm(hidden, below(root, final), width))
      : hidden;
    if (embeddingWidth !== undefined && embeddingWidth !== width) {
      value = this.#linear(value, below(root, "project_out"), embeddingWidth, width, false);
    }
    // Not the logits themselves: there are more of them.
    value = this.#scale(value, scales?.logits);
    b.describe(value, DataType.FLOAT, ["batch_size", "sequence_length", embeddingWidth ?? width]);
    return value;
  }

  #head(hidden: string, logits: "all" | "last"): void {
    const b = this.#b;
    const { head, headBias, vocabulary, embeddingWidth, hidden: width, logitCap } = this.#spec;
    const last = logitCap === undefined ? ["logits"] : 1;
    b.within("lm_head", () => {
      const input = logits === "all" ? hidden : b.node("Slice", [
        hidden,
        b.integers([-1]),
        b.integers([Number.MAX_SAFE_INTEGER]),
        b.integers([1]),
      ]);
      const product = this.#weights.product(
        b,
        input,
        head,
        vocabulary,
        embeddingWidth ?? width,
        headBias === undefined && logitCap === undefined ? "logits" : undefined,
      );
      const biased = headBias === undefined ? product : b.node("Add", [
        product,
        this.#weights.small(b, headBias, "bias", [vocabulary]),
      ], { outputs: last });
      capped(b, biased, logitCap, "logits");
    });
    b.output("logits", DataType.FLOAT, [
      "batch_size",
      logits === "all" ? "sequence_length" : 1,
      vocabulary,
    ]);
  }

  /** `x · Wᵀ (+ b)` with W `[rows, columns]` as checkpoints store it. */
  #linear(value: string, name: string, rows: number, columns: number, bias: boolean): string {
    const b = this.#b;
    return b.within(name.split(".").at(-1)!, () => {
      const product = this.#weights.product(b, value, name, rows, columns);
      return bias
        ? b.node("Add", [product, this.#weights.small(b, name, "bias", [rows])])
        : product;
    });
  }

  #describeHidden(value: string): void {
    this.#b.describe(value, DataType.FLOAT, ["batch_size", "sequence_length", this.#spec.hidden]);
  }
}

/** Weights of a norm that has none. */
function onesOf(b: GraphBuilder, width: number): string {
  return b.constant(`ones_${width}`, () => new Float32Array(width).fill(1), [width]);
}
