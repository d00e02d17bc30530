/**
 * How tokens see each other: the two forms of attention that a decoder's graph can have, and of what is in its place.
 * @module
 */
import { float, type GraphBuilder, MICROSOFT } from "../../onnx/builder.ts";
import { capped } from "../../onnx/cap.ts";
import { TensorProto_DataType as DataType } from "../../onnx/generated/onnx_pb.ts";
import { cacheParts, stateNames } from "./cache_parts.ts";
import type { KeysAndValues } from "./carried.ts";
import { convolveAfter, type Convolved, convolveWindow } from "./convolution.ts";
import { recur, type Recurrence } from "./recurrence.ts";
import { fillTables } from "./rotary.ts";
import { type DecoderSpec, headsOf, type Rotary } from "./spec.ts";

/** What one layer attends with, each `[batch, sequence, heads · headDim]`, not yet turned. */
export interface Projections {
  readonly queries: string;
  /** The layer's own, or, turned, those of the layer that `keysOf` of the decoder names. */
  readonly own?: KeysAndValues;
  readonly others?: KeysAndValues;
  /** What queries and keys go through once they are turned, where that is something. */
  readonly normTurned?: (turned: string, part: "q" | "k") => string;
  /** Scores of nothing, `[heads]`, where there are some. */
  readonly sinks?: string;
}

/** What a layer's attention gives, `[batch, sequence, heads · headDim]`, and what it attended to. */
export interface Attended extends KeysAndValues {
  readonly attended: string;
}

/** A form of attention. One object serves one graph. */
export interface Attention {
  /** Whether blocks are run one by one: what one reads of those before it then has to come with the hidden states. */
  readonly isByBlock: boolean;
  /**
   * Called before the blocks, outside their scopes: inputs beside the ids, and values that all blocks
   * share.
   *
   * @returns The tokens' positions `[batch, sequence]`, one of the inputs.
   */
  begin(b: GraphBuilder, spec: DecoderSpec, ids: string): string;
  /** One layer's attention. */
  attend(b: GraphBuilder, layer: number, projections: Projections): Attended;
  /** One layer's convolution, `[batch, sequence, channels]`. */
  convolve(b: GraphBuilder, layer: number, convolved: Convolved): string;
  /** What one layer's states give, `[batch, sequence, valueHeads · valueDim]`. */
  recur(b: GraphBuilder, layer: number, recurrence: Recurrence): string;
  /** Called after the head: outputs beside the logits. */
  end(b: GraphBuilder): void;
}

/**
 * Makes tables of cosines and sines, `[positions, turned dimensions / 2]`, as values of a graph.
 *
 * @param suffix What names end with, so that those of several tables differ.
 * @returns Their names.
 */
export type MakeTables = (b: GraphBuilder, rotary: Rotary, suffix: string) => [string, string];

/** Tables as constants of the graph. */
function constantTables(positions: number): MakeTables {
  return (b, rotary, suffix) => {
    const dims = [positions, rotary.frequencies.length];
    const [cosines, sines] = [0, 1].map(() => new Float32Array(dims[0] * dims[1]));
    fillTables(cosines, sines, rotary);
    return [
      b.constant(`cos_cache${suffix}`, cosines, dims),
      b.constant(`sin_cache${suffix}`, sines, dims),
    ];
  };
}

/** Turns queries or keys by their positions: RotaryEmbedding, with one pair of tables for all layers that turn alike. */
class Turning {
  readonly #make: MakeTables;
  readonly #tables = new Map<Rotary, [string, string]>();

  constructor(make: MakeTables) {
    this.#make = make;
  }

  turn(
    b: GraphBuilder,
    spec: DecoderSpec,
    layer: number,
    x: string,
    heads: number,
    positions: string,
  ): string {
    const rotary = spec.rotary(layer);
    if (!rotary) return x;
    const [cosines, sines] = this.#tablesOf(b, rotary);
    const turned = 2 * rotary.frequencies.length;
    const attributes: Record<string, number> = {
      num_heads: heads,
      interleaved: rotary.interleaved ? 1 : 0,
    };
    if (turned !== headsOf(spec, layer).headDim) attributes.rotary_embedding_dim = turned;
    return b.node("RotaryEmbedding", [x, positions, cosines, sines], {
      domain: MICROSOFT,
      attributes,
    });
  }

  /** One pair of tables for all blocks that turn alike. */
  #tablesOf(b: GraphBuilder, rotary: Rotary): [string, string] {
    let tables = this.#tables.get(rotary);
    if (!tables) {
      const suffix = this.#tables.size === 0 ? "" : `_${this.#tables.size}`;
      tables = b.outside(() => this.#make(b, rotary, suffix));
      this.#tables.set(rotary, tables);
    }
    return tables;
  }
}

/**
 * Whole windows that begin at position 0, without cache and padding: what calibration runs.
 *
 * Spelled out in standard operators: GroupQueryAttention, which fuses all this, takes 14 times as long
 * in ONNX Runtime's WebAssembly build when windows are whole.
 */
export class WindowAttention implements Attention {
  readonly isByBlock = true;
  readonly #turning: Turning;
  readonly #biases = new Set<string>();
  #spec: DecoderSpec | undefined;
  #positions = "";
  #distances = "";

  /** @param length The longest window that will be run. */
  constructor(length: number) {
    this.#turning = new Turning(constantTables(length));
  }

  begin(b: GraphBuilder, spec: DecoderSpec, ids: string): string {
    this.#spec = spec;
    const positions = positionsInput(b);
    this.#positions = b.node("Identity", [positions], { outputs: ["positions"] });
    b.describe(this.#positions, DataType.INT64, ["batch_size", "sequence_length"]);
    this.#distances = this.#measureDistances(b, ids);
    return positions;
  }

  attend(
    b: GraphBuilder,
    layer: number,
    { queries, own, others, normTurned, sinks }: Projections,
  ): Attended {
    const spec = this.#spec!;
    const { heads } = spec, { keyValueHeads, headDim } = headsOf(spec, layer);
    const turn = (x: string, perm: number[]) => b.node("Transpose", [x], { attributes: { perm } });
    const shape = (x: string, dims: number[]) => b.node("Reshape", [x, b.integers(dims)]);
    const rotated = (x: string, part: "q" | "k", count: number) => {
      const turned = this.#turning.turn(b, spec, layer, x, count, this.#positions);
      return normTurned?.(turned, part) ?? turned;
    };
    const apart = (x: string, count: number) => shape(x, [0, 0, count, headDim]);

    const scale = scaleOf(spec, layer) ?? 1 / Math.sqrt(headDim);
    const scaled = b.node("Mul", [apart(rotated(queries, "q", heads), heads), b.scalar(scale)]);
    // Heads that share keys and values stand below each other: [batch, keyValueHeads, …, headDim].
    const grouped = shape(turn(scaled, [0, 2, 1, 3]), [0, keyValueHeads, -1, headDim]);
    const keys = others?.keys ?? rotated(own!.keys, "k", keyValueHeads);
    const scores = b.node("MatMul", [grouped, turn(apart(keys, keyValueHeads), [0, 2, 3, 1])]);
    const bounded = shape(capped(b, scores, spec.attention.cap), [0, heads, -1, 0]);
    const masked = b.node("Add", [bounded, this.#bias(b, layer)]);
    const weights = b.node("Softmax", [masked], { attributes: { axis: -1 } });
    const { values } = others ?? own!;
    const mixed = b.node("MatMul", [
      shape(weights, [0, keyValueHeads, -1, 0]),
      turn(apart(values, keyValueHeads), [0, 2, 1, 3]),
    ]);
    const ofHeads = shape(mixed, [0, heads, -1, headDim]);
    const left = sinks === undefined
      ? ofHeads
      : b.node("Mul", [ofHeads, besideSinks(b, masked, shape(sinks, [heads, 1, 1]))]);
    const attended = shape(turn(left, [0, 2, 1, 3]), [0, 0, heads * headDim]);
    return { attended, keys, values };
  }

  convolve(b: GraphBuilder, _layer: number, convolved: Convolved): string {
    return convolveWindow(b, convolved);
  }

  recur(b: GraphBuilder, _layer: number, recurrence: Recurrence): string {
    return recur(b, recurrence, "", 2);
  }

  end(): void {}

  /** How far each token `[sequence, 1]` is behind each `[1, sequence]`; negative for later ones. */
  #measureDistances(b: GraphBuilder, ids: string): string {
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
  #bias(b: GraphBuilder, layer: number): string {
    const window = this.#spec!.attention.window(layer);
    const distances = this.#distances;
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
    b.describe(name, DataType.FLOAT, ["sequence_length", "sequence_length"]);
    return name;
  }
}

/** Tokens after a cache, in the names that transformers.js expects: `attention_mask` and `cache_parts.ts`. */
export class CachedAttention implements Attention {
  readonly isByBlock = false;
  readonly #turning: Turning;
  #spec: DecoderSpec | undefined;
  #positions = "";
  #last = "";
  #total = "";

  /** @param tables Makes rotary tables for the longest sequence, cache included. */
  constructor(tables: MakeTables) {
    this.#turning = new Turning(tables);
  }

  begin(b: GraphBuilder, spec: DecoderSpec): string {
    this.#spec = spec;
    const mask = b.input("attention_mask", DataType.INT64, ["batch_size", "total_sequence_length"]);
    this.#positions = positionsInput(b);
    for (const { past, dims } of cacheParts(spec)) {
      b.input(past, DataType.FLOAT, ["batch_size", ...dims("past_sequence_length")]);
    }
    b.within("lengths", () => {
      const cast = { attributes: { to: DataType.INT32 } };
      const sum = b.node("ReduceSum", [mask, b.integers([1])], { attributes: { keepdims: 0 } });
      this.#last = b.node("Cast", [b.node("Sub", [sum, b.integers([1])])], cast);
      const index = b.constant("index_1", BigInt64Array.of(1n), []);
      const total = b.node("Gather", [b.node("Shape", [mask]), index], { attributes: { axis: 0 } });
      this.#total = b.node("Cast", [total], cast);
    });
    return this.#positions;
  }

  attend(
    b: GraphBuilder,
    layer: number,
    { queries, own, others, normTurned, sinks }: Projections,
  ): Attended {
    const spec = this.#spec!;
    const { heads, attention } = spec, { keyValueHeads } = headsOf(spec, layer);
    const scale = scaleOf(spec, layer);
    const rotated = (x: string, part: "q" | "k", count: number) => {
      const turned = this.#turning.turn(b, spec, layer, x, count, this.#positions);
      return normTurned?.(turned, part) ?? turned;
    };
    // Queries before keys: passes over compiled graphs, and their tests, know the nodes in this order.
    const turnedQueries = rotated(queries, "q", heads);
    const keys = others?.keys ?? rotated(own!.keys, "k", keyValueHeads);
    const { values } = others ?? own!;
    const from = attention.keysOf?.(layer) ?? layer;
    const [attended] = b.nodes("GroupQueryAttention", [
      turnedQueries,
      keys,
      values,
      `past_key_values.${from}.key`,
      `past_key_values.${from}.value`,
      this.#last,
      this.#total,
      // No tables, positions or bias.
      ...(sinks === undefined ? [] : ["", "", "", "", sinks]),
    ], {
      domain: MICROSOFT,
      attributes: {
        num_heads: heads,
        kv_num_heads: keyValueHeads,
        // ONNX Runtime counts the token itself, as transformers does; -1 is no window.
        local_window_size: attention.window(layer) ?? -1,
        ...(scale === undefined ? {} : { scale: float(scale) }),
        ...(attention.cap === undefined ? {} : { softcap: float(attention.cap) }),
      },
      // What it gives of another layer's cache, that layer gives.
      outputs: [
        `attended.${layer}`,
        ...["key", "value"].map((part) =>
          from === layer ? `present.${layer}.${part}` : `present.${from}.${part}.${layer}`
        ),
      ],
    });
    return { attended, keys, values };
  }

  convolve(b: GraphBuilder, layer: number, convolved: Convolved): string {
    return convolveAfter(b, layer, convolved);
  }

  recur(b: GraphBuilder, layer: number, recurrence: Recurrence): string {
    const { past, present } = stateNames(layer, recurrence.of);
    return recur(b, recurrence, past, [`remembered.${layer}`, present]);
  }

  end(b: GraphBuilder): void {
    for (const { present, dims } of cacheParts(this.#spec!)) {
      b.output(present, DataType.FLOAT, ["batch_size", ...dims("total_sequence_length")]);
    }
  }
}

/**
 * What is left of what heads give where sinks count, too, `[batch, heads, sequence, 1]`: with s a head's sink, by
 * Σ e^score / (Σ e^score + e^s) = σ(log Σ e^score − s).
 */
function besideSinks(b: GraphBuilder, scores: string, sinks: string): string {
  return b.within("sinks", () => {
    const found = b.node("ReduceLogSumExp", [scores], { attributes: { axes: [-1], keepdims: 1 } });
    return b.node("Sigmoid", [b.node("Add", [found, b.node("Neg", [sinks])])]);
  });
}

/** The factor of a layer's scores, where it is another than usual. */
function scaleOf({ attention: { scale } }: DecoderSpec, layer: number): number | undefined {
  return typeof scale === "function" ? scale(layer) : scale;
}

function positionsInput(b: GraphBuilder): string {
  return b.input("position_ids", DataType.INT64, ["batch_size", "sequence_length"]);
}
