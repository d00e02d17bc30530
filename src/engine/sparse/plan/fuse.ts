/**
 * From a decoder's steps to fewer, larger ones: what follows a matrix product row by row is done as its
 * sums are finished.
 * @module
 */
import { UnsupportedOperatorError } from "../../../errors.ts";
import {
  type Decoder,
  type ElementwiseOp,
  isKeeping,
  type MatrixRef,
  sameTables,
  type Step,
  usesOf,
  type Value,
  valuesReadBy,
} from "../ir.ts";
import { joinGates } from "./gates.ts";

/** A step that the kernels have. */
export type FusedStep =
  | Extract<Step, { op: "embed" | "rmsNorm" | "layerNorm" }>
  | ConvolutionStep
  | DeltaStep
  | LinearStep
  | ElementwiseStep
  | AttentionStep
  /** From here on only tokens whose logits are wanted: these values are of them alone. */
  | { readonly op: "select"; readonly values: readonly Value[] };

/** A step on the elements of one vector, or of two. */
export interface ElementwiseStep {
  readonly op: "elementwise";
  readonly kind: "add" | "mul" | "copy" | "part" | "spread";
  readonly a: Value;
  /** For `add` and `mul`. */
  readonly b?: Value;
  /** In place of that: a tensor of the file. */
  readonly weight?: string;
  readonly isNegatedExponential?: boolean;
  readonly each?: number;
  readonly activation: Activation;
  /** What `a` is multiplied by; 1 if not given. */
  readonly factor?: number;
  /** Of a cap: what comes out of the activation is multiplied by it. */
  readonly cap?: number;
  /** For `part`: its first element, in each of so many equal parts. For `spread`: how many elements are spread. */
  readonly offset?: number;
  readonly heads?: number;
  readonly output: Value;
}

/** An activation function, or none. */
export type Activation = "none" | ElementwiseOp;

/** activation(W·x + bias) · times + plus. */
export interface LinearStep {
  readonly op: "linear";
  readonly input: Value;
  readonly matrix: MatrixRef;
  readonly bias?: string;
  readonly activation: Activation;
  readonly times?: Value;
  readonly plus?: Value;
  readonly output: Value;
}

type Attention = Extract<Step, { op: "attention" }>;
type Rotary = Extract<Step, { op: "rotary" }>;

type RmsNorm = Extract<Step, { op: "rmsNorm" }>;

/** The RMS norm of each head of turned queries or keys. */
export type TurnedNorm = Pick<RmsNorm, "weight" | "above" | "epsilon">;

/** Attention, with the rotary embedding of its queries and keys, and the norms of what comes out of that. */
export type AttentionStep = Attention & {
  readonly rotary?: Pick<Rotary, "tables" | "turned" | "interleaved">;
  readonly queryNorm?: TurnedNorm;
  readonly keyNorm?: TurnedNorm;
  /** Whether it is the last step that puts something into the cache: what follows is for the logits alone. */
  readonly isLast: boolean;
};

/** A convolution over the tokens, with the gates around it. */
export type ConvolutionStep = Extract<Step, { op: "convolve" }>;

/** Linear attention. */
export type DeltaStep = Extract<Step, { op: "delta" }>;

/** A fused program, or a shard of one. */
export interface FusedDecoder {
  readonly widths: readonly number[];
  readonly steps: readonly FusedStep[];
  /** The value that is the logits: of shards only the last makes it. */
  readonly logits: Value;
  /** Values that are there before the first step: what other shards have made. */
  readonly given: readonly Value[];
  /** Values that are read when all steps are done: the logits, or what the next shard is given. */
  readonly results: readonly Value[];
}

/** Matrices of a program, each as often as it is used. */
export function matricesOf({ steps }: FusedDecoder): MatrixRef[] {
  return steps.flatMap((step) =>
    step.op === "linear" ? [step.matrix] : step.op === "embed" ? [step.table] : []
  );
}

/** The values that a fused step reads, each once. */
export function readBy(step: FusedStep): Value[] {
  switch (step.op) {
    case "embed":
      return [];
    case "attention":
      return [...new Set(valuesReadBy(step))];
    case "elementwise":
      return [...new Set(step.b === undefined ? [step.a] : [step.a, step.b])];
    case "linear":
      return [
        ...new Set([step.input, step.times, step.plus].filter((value) => value !== undefined)),
      ];
    case "select":
      return [...step.values];
    case "convolve":
    case "delta":
      return [...new Set(valuesReadBy(step))];
    default:
      return [step.input];
  }
}

/** Values that something else than a product reads, or a product that adds them or multiplies its sums with them. */
export function readNotOnlyByProducts(steps: readonly FusedStep[]): Set<Value> {
  return new Set(steps.flatMap((step) => {
    if (step.op === "select") return [];
    if (step.op !== "linear") return readBy(step);
    return [step.times, step.plus].filter((value) => value !== undefined);
  }));
}

/** A vector of the file. */
export interface VectorRef {
  readonly name: string;
  /** What is added to its elements. */
  readonly above: number;
  /** Whether it is −e^x of each that is wanted. */
  readonly isNegatedExponential?: boolean;
  /** How often each element is wanted, one after the other; once if not given. */
  readonly each?: number;
}

/** The vectors that a step needs, but for rotary tables and a convolution's weights. */
export function vectorsOf(step: FusedStep): VectorRef[] {
  const plain = (...names: (string | undefined)[]) =>
    names.filter((name) => name !== undefined).map((name) => ({ name, above: 0 }));
  switch (step.op) {
    case "rmsNorm":
      return [{ name: step.weight, above: step.above ?? 0 }];
    case "layerNorm":
      return [{ name: step.weight, above: step.above ?? 0 }, ...plain(step.bias)];
    case "linear":
    case "convolve":
      return plain(step.bias);
    case "attention":
      return [
        ...[step.queryNorm, step.keyNorm].filter((norm) => norm !== undefined)
          .map(({ weight, above }) => ({ name: weight, above: above ?? 0 })),
        ...plain(step.sinks),
      ];
    case "elementwise": {
      const { isNegatedExponential, each } = step;
      return plain(step.weight).map((vector) => ({ ...vector, isNegatedExponential, each }));
    }
    default:
      return [];
  }
}

/**
 * Fuses a decoder's steps.
 *
 * @throws {UnsupportedOperatorError} When rotary embedding is used for something else than attention, or something
 *   else reads what attention changes.
 */
export function fuse(decoder: Decoder): FusedDecoder {
  return new Fuser(joinGates(decoder)).run();
}

class Fuser {
  readonly #decoder: Decoder;
  readonly #steps: FusedStep[] = [];
  readonly #uses: number[];
  /** Products that may still take in what follows them, by the value that they make now. */
  readonly #open = new Map<Value, LinearStep>();
  readonly #rotaries = new Map<Value, Rotary>();
  /** Norms of what RotaryEmbedding turned. */
  readonly #turnedNorms = new Map<Value, RmsNorm>();
  /** The first of the steps at the end that put nothing into the cache: other tokens need nothing of them. */
  readonly #tail: number;

  constructor(decoder: Decoder) {
    this.#decoder = decoder;
    this.#tail = 1 + decoder.steps.findLastIndex((step) => isKeeping(step) || step.op === "embed");
    this.#uses = usesOf(decoder);
  }

  run(): FusedDecoder {
    const { steps, logits, widths } = this.#decoder;
    steps.forEach((step, i) => {
      if (i === this.#tail) this.#select();
      this.#add(step, i);
    });
    this.#close(logits);
    if (this.#tail === steps.length) this.#select();
    return { widths, steps: this.#steps, logits, given: [], results: [logits] };
  }

  /** What the tail needs of all before it, of the tokens whose logits are wanted. */
  #select(): void {
    const { steps, logits } = this.#decoder;
    const made = new Set(steps.slice(0, this.#tail).map(({ output }) => output));
    const needed = [...steps.slice(this.#tail).flatMap(valuesReadBy), logits];
    const values = [...new Set(needed)].filter((value) => made.has(value));
    for (const value of values) this.#close(value);
    this.#steps.push({ op: "select", values });
  }

  #add(step: Step, at: number): void {
    switch (step.op) {
      case "linear":
        this.#close(step.input);
        this.#open.set(step.output, { ...step, activation: "none" });
        return;
      case "sigmoid":
      case "silu":
      case "softplus":
      case "gelu":
      case "gelu_tanh":
      case "relu":
      case "relu_squared":
      case "tanh":
        return this.#activate(step.op, step.input, step.output);
      case "part":
        return this.#elementwise(step, {
          kind: "part",
          offset: step.offset,
          heads: step.heads,
        });
      case "spread":
        return this.#elementwise(step, {
          kind: "spread",
          heads: this.#decoder.widths[step.input],
        });
      case "weigh":
        return this.#elementwise(step, {
          kind: "mul",
          weight: step.weight,
          isNegatedExponential: step.isNegatedExponential,
          each: step.each,
        });
      case "shift":
        return this.#elementwise(step, { kind: "add", weight: step.bias });
      case "scale":
        return this.#elementwise(step, { kind: "copy", factor: step.factor });
      case "cap": {
        const { cap } = step;
        return this.#elementwise(step, { kind: "copy", activation: "tanh", factor: 1 / cap, cap });
      }
      case "mul":
      case "add":
        return this.#combine(step.op, step.a, step.b, step.output);
      case "rotary":
        this.#close(step.input);
        this.#rotaries.set(step.output, step);
        return;
      case "rmsNorm":
        if (this.#rotaries.has(step.input)) {
          this.#turnedNorms.set(step.output, step);
          return;
        }
        this.#close(step.input);
        this.#steps.push(step);
        return;
      case "attention":
        return this.#attend(step, at === this.#tail - 1);
      default:
        for (const value of valuesReadBy(step)) this.#close(value);
        this.#steps.push(step);
    }
  }

  /** A step of its own on what another has made. */
  #elementwise(
    { input, output }: { readonly input: Value; readonly output: Value },
    how: Partial<ElementwiseStep> & Pick<ElementwiseStep, "kind">,
  ): void {
    this.#close(input);
    this.#steps.push({ op: "elementwise", a: input, activation: "none", ...how, output });
  }

  /** The product that makes a value and may take in its only consumer. */
  #growing(value: Value): LinearStep | undefined {
    const open = this.#open.get(value);
    return open && this.#uses[value] === 1 ? open : undefined;
  }

  #activate(activation: Activation, input: Value, output: Value): void {
    const open = this.#growing(input);
    if (open && open.activation === "none" && open.times === undefined && open.plus === undefined) {
      this.#open.delete(input);
      this.#open.set(output, { ...open, activation, output });
      return;
    }
    this.#close(input);
    this.#steps.push({ op: "elementwise", kind: "copy", a: input, activation, output });
  }

  #combine(kind: "add" | "mul", a: Value, b: Value, output: Value): void {
    // The one with an activation first: a gate, whose other side is a plain product.
    const order = this.#open.get(b)?.activation !== undefined &&
        this.#open.get(b)!.activation !== "none"
      ? [b, a]
      : [a, b];
    for (const value of order) {
      const other = value === a ? b : a;
      const open = this.#growing(value);
      if (!open || other === value || open.plus !== undefined) continue;
      if (kind === "mul" && open.times !== undefined) continue;
      this.#close(other);
      this.#open.delete(value);
      const grown = kind === "add" ? { plus: other } : { times: other };
      this.#open.set(output, { ...open, ...grown, output });
      return;
    }
    this.#close(a);
    this.#close(b);
    this.#steps.push({ op: "elementwise", kind, a, b, activation: "none", output });
  }

  #attend(step: Attention, isLast: boolean): void {
    const queryNorm = this.#turnedNorms.get(step.queries),
      keyNorm = step.keys === undefined ? undefined : this.#turnedNorms.get(step.keys);
    const queries = this.#rotaries.get(queryNorm?.input ?? step.queries);
    const turnedKeys = keyNorm?.input ?? step.keys;
    const keys = turnedKeys === undefined ? undefined : this.#rotaries.get(turnedKeys);
    if (step.values !== undefined) this.#close(step.values);
    if (!queries) this.#close(step.queries);
    if (!keys && step.keys !== undefined) this.#close(step.keys);
    this.#assertTurns(step, queries, keys);
    this.#assertNorms(step, queryNorm, keyNorm);
    // Kernels turn queries and keys where they lie, and write those of 8 bits over the others.
    const changed = [
      ...[step.queries, queries?.output, queries?.input],
      ...[keys && step.keys, keys?.output, keys?.input],
    ];
    if (changed.some((value) => value !== undefined && this.#uses[value] !== 1)) {
      throw new UnsupportedOperatorError(
        `layer ${step.layer}: attention is supported where nothing else reads its queries, or keys ` +
          `that RotaryEmbedding turns`,
      );
    }
    this.#steps.push({
      ...step,
      queries: queries?.input ?? step.queries,
      keys: keys?.input ?? step.keys,
      rotary: queries &&
        { tables: queries.tables, turned: queries.turned, interleaved: queries.interleaved },
      queryNorm,
      keyNorm,
      isLast,
    });
  }

  /** @throws {UnsupportedOperatorError} When norms of turned queries and keys are not of heads. */
  #assertNorms(
    step: Attention,
    queryNorm: RmsNorm | undefined,
    keyNorm: RmsNorm | undefined,
  ): void {
    const areOfHeads = (queryNorm?.groups ?? step.heads) === step.heads &&
      (keyNorm?.groups ?? step.keyValueHeads) === step.keyValueHeads;
    if (areOfHeads) return;
    throw new UnsupportedOperatorError(
      `layer ${step.layer}: norms of what RotaryEmbedding turned are supported for each of attention's heads`,
    );
  }

  /** @throws {UnsupportedOperatorError} When not both queries and keys are turned, and as attention has them. */
  #assertTurns(step: Attention, queries: Rotary | undefined, keys: Rotary | undefined): void {
    if (!queries && !keys) return;
    const areKeysAlike = step.keys === undefined ||
      queries && keys && sameTables(queries.tables, keys.tables) &&
        queries.interleaved === keys.interleaved && keys.heads === step.keyValueHeads;
    if (areKeysAlike && queries?.heads === step.heads) return;
    throw new UnsupportedOperatorError(
      `layer ${step.layer}: RotaryEmbedding is supported for both queries and keys of attention, ` +
        `with the same tables and pairs and attention's heads`,
    );
  }

  /** Lets a product be made as it is. */
  #close(value: Value): void {
    const open = this.#open.get(value);
    if (!open) {
      if (this.#rotaries.has(value) || this.#turnedNorms.has(value)) {
        throw new UnsupportedOperatorError(
          "RotaryEmbedding is supported for queries and keys of attention only",
        );
      }
      return;
    }
    this.#open.delete(value);
    this.#steps.push(open);
  }
}
