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
import type { Attention, Projections } from "./attention.ts";
import { type KeysAndValues, putTogether, takeApart, widthInto } from "./carried.ts";
import { convolution } from "./convolution.ts";
import { deltaNet } from "./delta_net.ts";
import { cut, cutHeads, divideBySize, type Lent } from "./parts.ts";
import { addInput, inputOfOne, inputsOfAll, type LentForInputs, partOfLayer } from "./per_layer.ts";
import {
  below,
  type DecoderSpec,
  embeddingOf,
  headsOf,
  type PerLayerInputs,
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
  #ids = "";
  /** What layers have attended to, for those that have no keys of their own. */
  #attendedTo = new Map<number, KeysAndValues>();
  /** What all layers are given beside the hidden states, where they are and blocks are not run one by one. */
  #inputs: string | undefined;

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
    this.#ids = b.input("input_ids", DataType.INT64, ["batch_size", "sequence_length"]);
    const positions = this.#attention.begin(b, this.#spec, this.#ids);
    const rootScope = (root || "decoder").replaceAll(".", "/");
    let hidden = b.within(rootScope, () => this.#embed(positions));
    this.#describeHidden(hidden, 0);
    this.#inputs = b.within(rootScope, () => this.#inputsOfAll(hidden));
    for (let layer = 0; layer < layers; layer++) {
      hidden = b.within(
        `${rootScope}/${names?.layers ?? "layers"}.${layer}`,
        () => this.#wholeBlock(hidden, layer),
      );
      this.#describeHidden(hidden, layer + 1);
    }
    hidden = b.within(rootScope, () => this.#afterBlocks(hidden));
    this.#head(hidden, logits);
    this.#attention.end(b);
    return b.graph;
  }

  #embed(positions: string): string {
    const b = this.#b;
    const { root, names, hidden, embeddingWidth, learnedPositions, context } = this.#spec;
    const width = embeddingWidth ?? hidden;
    let value = this.#embedTokens();
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

  /** The rows of the embedding that the ids name. */
  #embedTokens(): string {
    const b = this.#b;
    const { vocabulary, hidden, embeddingWidth, scales } = this.#spec;
    const table = embeddingOf(this.#spec), width = embeddingWidth ?? hidden;
    return b.within("embed_tokens", () => {
      const rows = this.#weights.rows(b, table, vocabulary, width, this.#ids);
      return this.#scale(rows, scales?.embedding);
    });
  }

  /** What layers are given beside the hidden states, for all of them at once where blocks are run together. */
  #inputsOfAll(embedded: string): string | undefined {
    const { perLayer } = this.#spec;
    if (!perLayer || this.#attention.isByBlock) return undefined;
    const lent = this.#lentForInputs(perLayer, () => embedded);
    return this.#b.within("per_layer", () => inputsOfAll(lent, this.#ids));
  }

  /** The input of one layer. */
  #inputOf(layer: number, perLayer: PerLayerInputs): string {
    const { layers } = this.#spec;
    return this.#b.within(
      "per_layer",
      () =>
        this.#inputs === undefined
          ? inputOfOne(this.#lentForInputs(perLayer, () => this.#embedTokens()), this.#ids, layer)
          : partOfLayer(this.#b, this.#inputs, perLayer.width, layers, layer),
    );
  }

  #lentForInputs(of: PerLayerInputs, embed: () => string): LentForInputs {
    return {
      ...{ b: this.#b, weights: this.#weights, spec: this.#spec, of, embed },
      norm: (value, name, width) => this.#norm(value, name, width),
    };
  }

  /** A block, with what it reads of those before it and gives to those behind it. */
  #wholeBlock(input: string, layer: number): string {
    const b = this.#b, spec = this.#spec, { perLayer, blockScale, names, root } = spec;
    const path = below(root, `${names?.layers ?? "layers"}.${layer}`);
    let hidden = input;
    if (this.#attention.isByBlock) {
      ({ hidden, carried: this.#attendedTo } = takeApart(b, spec, input, layer));
    }
    hidden = this.#block(hidden, layer);
    if (perLayer) {
      const norm = (value: string) =>
        b.within(perLayer.after, () => this.#norm(value, `${path}.${perLayer.after}`, spec.hidden));
      const own = this.#inputOf(layer, perLayer);
      hidden = addInput(this.#lent, norm, hidden, own, path, spec, perLayer);
    }
    if (blockScale) {
      const factor = this.#weights.small(b, `${path}.${blockScale}`, undefined, [1]);
      hidden = b.node("Mul", [hidden, factor], { name: blockScale });
    }
    return this.#attention.isByBlock
      ? putTogether(b, spec, hidden, this.#attendedTo, layer)
      : hidden;
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
      return b.node("Add", [attended, this.#mlp(other, path, layer)], { name: "mlp/residual" });
    }
    const attended = sublayer(input, norm.attention, attend);
    return sublayer(attended, norm.mlp, (value) => this.#mlp(value, path, layer));
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
    const { hidden, heads, attention, names } = this.#spec;
    const { keyValueHeads, headDim } = headsOf(this.#spec, layer);
    const module = `${path}.${names?.attention ?? "self_attn"}`;
    const { gates, ...projected } = this.#projections(value, module, layer);
    const normTurned = (turned: string, part: "q" | "k") =>
      this.#normHeads(turned, module, part, part === "q" ? heads : keyValueHeads, headDim);
    const { attended, ...keysAndValues } = this.#attention.attend(this.#b, layer, {
      ...projected,
      normTurned: attention.norm === "turned" ? normTurned : undefined,
      sinks: attention.sinks &&
        this.#weights.small(this.#b, `${module}.${attention.sinks}`, undefined, [heads]),
    });
    this.#attendedTo.set(layer, keysAndValues);
    const gated = attention.gate
      ? this.#gateHeads(attended, value, `${module}.${attention.gate}`)
      : gates
      ? this.#b.node("Mul", [attended, this.#b.node("Sigmoid", [gates])], { name: "gate" })
      : attended;
    const out = `${module}.${attention.out}`;
    return this.#linear(gated, out, hidden, heads * headDim, attention.outputBias);
  }

  /** What heads attend with, and the gates of what they give, where the matrix of queries has them. */
  #projections(
    value: string,
    module: string,
    layer: number,
  ): Pick<Projections, "queries" | "own" | "others"> & { gates?: string } {
    const { hidden, heads, attention } = this.#spec;
    const { keyValueHeads, headDim } = headsOf(this.#spec, layer);
    const linear = (name: string, rows: number) =>
      this.#linear(value, `${module}.${name}`, rows, hidden, attention.inputBias);
    if (attention.fused) {
      const rows = (heads + 2 * keyValueHeads) * headDim;
      const [queries, keys, values] = this.#cutProjections(linear(attention.fused, rows));
      return { queries, own: { keys, values } };
    }
    const normed = (projected: string, part: "q" | "k", count: number) =>
      attention.norm && attention.norm !== "turned"
        ? this.#normHeads(projected, module, part, count, headDim)
        : projected;
    const width = heads * headDim;
    const [wide, gates] = attention.gatedByElement
      ? cutHeads(this.#b, linear("q_proj", 2 * width), heads, 2, headDim)
      : [linear("q_proj", width)];
    const queries = normed(wide, "q", heads);
    const from = attention.keysOf?.(layer);
    if (from !== undefined) return { queries, others: this.#attendedTo.get(from)!, gates };
    const keys = normed(linear("k_proj", keyValueHeads * headDim), "k", keyValueHeads);
    const values = linear("v_proj", keyValueHeads * headDim);
    const own = {
      keys,
      values: attention.normsValues ? this.#normValues(values, keyValueHeads, headDim) : values,
    };
    return { queries, own, gates };
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
  #normHeads(
    value: string,
    module: string,
    part: "q" | "k",
    count: number,
    headDim: number,
  ): string {
    const b = this.#b;
    const { attention } = this.#spec;
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

  /** Each head of values divided by its root mean square. */
  #normValues(value: string, count: number, headDim: number): string {
    const b = this.#b;
    return b.within("v_norm", () => {
      const heads = b.node("Reshape", [value, b.integers([0, 0, count, headDim])]);
      const divided = divideBySize(b, heads, "ReduceMean", this.#spec.norm.epsilon);
      const normed = b.node("Mul", [divided, onesOf(b, headDim)]);
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

  #mlp(value: string, path: string, layer: number): string {
    const b = this.#b;
    const { hidden, mlp } = this.#spec;
    const intermediate = mlp.intermediateIn?.(layer) ?? this.#spec.intermediate;
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

  /** Describes what comes to a block, or behind the last. */
  #describeHidden(value: string, layer: number): void {
    const width = this.#attention.isByBlock ? widthInto(this.#spec, layer) : this.#spec.hidden;
    this.#b.describe(value, DataType.FLOAT, ["batch_size", "sequence_length", width]);
  }
}

/** Weights of a norm that has none. */
function onesOf(b: GraphBuilder, width: number): string {
  return b.constant(`ones_${width}`, () => new Float32Array(width).fill(1), [width]);
}
