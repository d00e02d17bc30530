/**
 * Runs a lowered decoder in plain loops of float64, one token after the other.
 *
 * What lowering makes of a graph, and what the engine's kernels make of that, are held against this: it
 * is written to be read and seen to be right, not to be fast.
 * @module
 */
import type { Decoder, Step } from "../../src/engine/sparse/ir.ts";
import type { NaiveWeights } from "./naive_weights.ts";

/** A decoder with a cache: keys and values, and all that convolutions have read. */
export class NaiveDecoder {
  readonly #decoder: Decoder;
  readonly #weights: NaiveWeights;
  /** By layer, then by position: each `[keyValueHeads · headDim]`. */
  readonly #keys: Float64Array[][];
  readonly #values: Float64Array[][];
  /** By layer, then by position: each `[channels]`. */
  readonly #convolved: Float64Array[][];
  /** By layer: `[valueHeads, keyDim, valueDim]` behind the last token, and behind each before it. */
  readonly #states = new Map<number, Float64Array[]>();
  #length = 0;

  constructor(decoder: Decoder, weights: NaiveWeights) {
    this.#decoder = decoder;
    this.#weights = weights;
    this.#keys = Array.from({ length: decoder.layers }, () => []);
    this.#values = Array.from({ length: decoder.layers }, () => []);
    this.#convolved = Array.from({ length: decoder.layers }, () => []);
  }

  /** Tokens in the cache. */
  get length(): number {
    return this.#length;
  }

  /** Runs tokens after those in the cache; returns the logits of each. */
  run(tokens: readonly number[]): Float64Array[] {
    return tokens.map((token) => {
      const logits = this.#step(token);
      this.#length++;
      return logits;
    });
  }

  /** Forgets all tokens but the first `length`. */
  truncate(length: number): void {
    for (const layer of [...this.#keys, ...this.#values, ...this.#convolved]) {
      layer.length = Math.min(layer.length, length);
    }
    for (const states of this.#states.values()) states.length = Math.min(states.length, length);
    this.#length = length;
  }

  /** One token through all steps. */
  #step(token: number): Float64Array {
    const values: Float64Array[] = [];
    for (const step of this.#decoder.steps) values[step.output] = this.#run(step, values, token);
    return values[this.#decoder.logits];
  }

  #run(step: Step, values: readonly Float64Array[], token: number): Float64Array {
    const position = this.#length;
    switch (step.op) {
      case "embed": {
        const row = step.of === "tokens" ? token : position + step.offset;
        const { columns } = step.table;
        return this.#weights.matrix(step.table).slice(row * columns, (row + 1) * columns);
      }
      case "rmsNorm":
        return rmsNorm(
          values[step.input],
          this.#weights.vector(step.weight).map((weight) => weight + (step.above ?? 0)),
          step.groups,
          step.epsilon,
        );
      case "layerNorm":
        return layerNorm(
          values[step.input],
          this.#weights.vector(step.weight).map((weight) => weight + (step.above ?? 0)),
          step.bias === undefined ? undefined : this.#weights.vector(step.bias),
          step.groups,
          step.epsilon,
        );
      case "linear":
        return linear(
          values[step.input],
          this.#weights.matrix(step.matrix),
          step.matrix.rows,
          step.bias === undefined ? undefined : this.#weights.vector(step.bias),
        );
      case "rotary":
        return rotate(
          values[step.input],
          step.heads,
          step.interleaved,
          ...this.#weights.turns(step.tables, position),
        );
      case "attention": {
        const [keys, cached] = [this.#keys[step.layer], this.#values[step.layer]];
        if (step.keys !== undefined) keys[position] = values[step.keys];
        if (step.values !== undefined) cached[position] = values[step.values];
        const first = Math.max(0, position + 1 - (step.window ?? Infinity));
        const sinks = step.sinks === undefined ? undefined : this.#weights.vector(step.sinks);
        return attend(step, values[step.queries], keys.slice(first), cached.slice(first), sinks);
      }
      case "convolve": {
        const inputs = this.#convolved[step.layer];
        inputs[position] = values[step.input];
        const kernels = this.#weights.vector(step.weight);
        const bias = step.bias === undefined ? undefined : this.#weights.vector(step.bias);
        return convolve(inputs.slice(-step.length), step.length, kernels, bias);
      }
      case "delta": {
        const states = this.#states.get(step.layer) ?? [];
        this.#states.set(step.layer, states);
        const [queries, keys, given] = [step.queries, step.keys, step.values].map((
          { value, offset },
        ) => values[value].subarray(offset));
        const size = step.valueHeads * step.keyDim * step.valueDim;
        const { state, found } = remember(
          step,
          states[position - 1] ?? new Float64Array(size),
          { queries, keys, values: given },
          values[step.decays],
          step.strengths === undefined ? undefined : values[step.strengths],
        );
        states[position] = state;
        return found;
      }
      case "spread": {
        const width = this.#decoder.widths[step.output], x = values[step.input];
        return Float64Array.from({ length: width }, (_, i) => x[Math.floor(i * x.length / width)]);
      }
      case "sigmoid":
      case "silu":
      case "softplus":
      case "gelu":
      case "gelu_tanh":
      case "relu":
      case "relu_squared":
      case "tanh":
        return values[step.input].map(ACTIVATIONS[step.op]);
      case "part":
        return part(values[step.input], this.#decoder.widths[step.output], step);
      case "weigh": {
        const { isNegatedExponential, each = 1 } = step;
        const stored = this.#weights.vector(step.weight);
        const weight = isNegatedExponential ? stored.map((w) => -Math.exp(w)) : stored;
        return values[step.input].map((x, i) => x * weight[Math.floor(i / each)]);
      }
      case "shift": {
        const bias = this.#weights.vector(step.bias);
        return values[step.input].map((x, i) => x + bias[i]);
      }
      case "scale":
        return values[step.input].map((x) => step.factor * x);
      case "cap":
        return values[step.input].map((x) => capped(x, step.cap));
      case "add":
        return values[step.a].map((x, i) => x + values[step.b][i]);
      case "mul":
        return values[step.a].map((x, i) => x * values[step.b][i]);
    }
  }
}

function part(
  x: Float64Array,
  width: number,
  { offset, heads = 1 }: { offset: number; heads?: number },
): Float64Array {
  const [some, apart] = [width / heads, x.length / heads];
  return Float64Array.from(
    { length: width },
    (_, i) => x[Math.floor(i / some) * apart + offset + i % some],
  );
}

/** @param inputs Those of the token, which is the last, and of the tokens just before it. */
function convolve(
  inputs: readonly Float64Array[],
  length: number,
  kernels: Float64Array,
  bias: Float64Array | undefined,
): Float64Array {
  return inputs[0].map((_, channel) => {
    const ofToken = (i: number) =>
      kernels[(channel + 1) * length - inputs.length + i] * inputs[i][channel];
    return sum(inputs.length, ofToken) + (bias?.[channel] ?? 0);
  });
}

function rmsNorm(
  x: Float64Array,
  weight: Float64Array,
  groups: number,
  epsilon: number,
): Float64Array {
  const width = x.length / groups;
  return x.map((value, i) => {
    const start = Math.floor(i / width) * width;
    const meanSquare = sum(width, (j) => x[start + j] ** 2) / width;
    return value / Math.sqrt(meanSquare + epsilon) * weight[i % width];
  });
}

function layerNorm(
  x: Float64Array,
  weight: Float64Array,
  bias: Float64Array | undefined,
  groups: number,
  epsilon: number,
): Float64Array {
  const width = x.length / groups;
  return x.map((value, i) => {
    const part = x.subarray(i - i % width, i - i % width + width);
    const mean = sum(width, (j) => part[j]) / width;
    const variance = sum(width, (j) => (part[j] - mean) ** 2) / width;
    const normed = (value - mean) / Math.sqrt(variance + epsilon);
    return normed * weight[i % width] + (bias?.[i % width] ?? 0);
  });
}

function linear(
  x: Float64Array,
  matrix: Float64Array,
  rows: number,
  bias: Float64Array | undefined,
): Float64Array {
  return Float64Array.from(
    { length: rows },
    (_, r) => sum(x.length, (c) => matrix[r * x.length + c] * x[c]) + (bias?.[r] ?? 0),
  );
}

function rotate(
  x: Float64Array,
  heads: number,
  interleaved: boolean,
  cosines: Float64Array,
  sines: Float64Array,
): Float64Array {
  const half = cosines.length;
  const headDim = x.length / heads;
  const turned = x.slice();
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < half; i++) {
      const start = head * headDim;
      const [a, b] = (interleaved ? [2 * i, 2 * i + 1] : [i, half + i]).map((at) => start + at);
      turned[a] = x[a] * cosines[i] - x[b] * sines[i];
      turned[b] = x[b] * cosines[i] + x[a] * sines[i];
    }
  }
  return turned;
}

function attend(
  { heads, keyValueHeads, headDim, scale, cap }: Step & { op: "attention" },
  queries: Float64Array,
  keys: readonly Float64Array[],
  values: readonly Float64Array[],
  sinks: Float64Array | undefined,
): Float64Array {
  const result = new Float64Array(heads * headDim);
  for (let head = 0; head < heads; head++) {
    // Heads that share keys and values are neighbours.
    const shared = Math.floor(head / (heads / keyValueHeads));
    const scores = keys.map((key) =>
      capped(
        scale * sum(headDim, (i) => queries[head * headDim + i] * key[shared * headDim + i]),
        cap,
      )
    );
    const sink = sinks?.[head] ?? -Infinity;
    const greatest = Math.max(sink, ...scores);
    const weights = scores.map((score) => Math.exp(score - greatest));
    const total = Math.exp(sink - greatest) + sum(weights.length, (t) => weights[t]);
    for (let i = 0; i < headDim; i++) {
      result[head * headDim + i] = sum(weights.length, (t) =>
        weights[t] * values[t][shared * headDim + i]) / total;
    }
  }
  return result;
}

/** A token's step of what remembers; see `delta` in `ir.ts`. */
export function remember(
  { keyHeads, valueHeads, keyDim, valueDim, scale, epsilon = 0 }: Omit<
    Step & { op: "delta" },
    "queries" | "keys" | "values" | "decays" | "strengths"
  >,
  before: Float64Array,
  { queries, keys, values }: Record<"queries" | "keys" | "values", Float64Array>,
  decays: Float64Array,
  strengths: Float64Array | undefined,
): { state: Float64Array; found: Float64Array } {
  const state = before.slice(), found = new Float64Array(valueHeads * valueDim);
  const unit = (x: Float64Array, head: number) => {
    const own = x.subarray(head * keyDim, (head + 1) * keyDim);
    if (!strengths) return own;
    const length = Math.sqrt(sum(keyDim, (i) => own[i] ** 2) + epsilon);
    return own.map((value) => value / length);
  };
  for (let head = 0; head < valueHeads; head++) {
    const shared = Math.floor(head / (valueHeads / keyHeads));
    const [q, k] = [unit(queries, shared), unit(keys, shared)];
    const at = (i: number, j: number) => (head * keyDim + i) * valueDim + j;
    for (let j = 0; j < valueDim; j++) {
      for (let i = 0; i < keyDim; i++) state[at(i, j)] *= Math.exp(decays[head]);
      const known = sum(keyDim, (i) => state[at(i, j)] * k[i]);
      const value = values[head * valueDim + j];
      const correction = strengths ? strengths[head] * (value - known) : value;
      for (let i = 0; i < keyDim; i++) state[at(i, j)] += k[i] * correction;
      found[head * valueDim + j] = scale * sum(keyDim, (i) => state[at(i, j)] * q[i]);
    }
  }
  return { state, found };
}

/** Activations in float64. */
export const ACTIVATIONS = {
  sigmoid,
  silu: (x: number) => x * sigmoid(x),
  gelu: (x: number) => x * (1 + erf(x / Math.SQRT2)) / 2,
  // (1 + tanh u) / 2 is sigmoid(2u), in which nothing cancels.
  gelu_tanh: (x: number) => x * sigmoid(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)),
  relu: (x: number) => Math.max(0, x),
  relu_squared: (x: number) => Math.max(0, x) ** 2,
  tanh: Math.tanh,
  softplus: (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
} as const;

function capped(x: number, cap: number | undefined): number {
  return cap === undefined ? x : cap * Math.tanh(x / cap);
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** A series of positive terms: nothing cancels. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let total = 0;
  for (let n = 0, term = x; Math.abs(term) > 1e-18; n++, term *= 2 * x * x / (2 * n + 1)) {
    total += term;
  }
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * total;
}

function sum(count: number, term: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += term(i);
  return total;
}
