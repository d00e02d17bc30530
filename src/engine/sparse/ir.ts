/**
 * A decoder as the sparse engine sees it: a list of steps on values, each a vector for every token.
 *
 * Lowering makes it from an ONNX graph (`lower.ts`), planning makes a program of it (`plan.ts`).
 * Tensors of norms, biases and rotary tables are float32.
 * @module
 */
import type { Scaling, SparseFormat } from "../../../compile/functions.ts";

/** Index into {@linkcode Decoder.widths}. */
export type Value = number;

/**
 * A weight matrix `[rows, columns]` in the model's file; names are those of its tensors there.
 *
 * Two steps may name the same tensors: an embedding and the head that is tied to it do.
 */
export type MatrixRef =
  & { readonly name: string; readonly rows: number; readonly columns: number }
  & (
    | {
      readonly kind: "dense";
      readonly type: "f32" | "f16" | "int8" | "int4";
      readonly values: string;
      /** `[rows]` for int8, `[rows, ⌈columns / group⌉]` for int4. */
      readonly scales?: string;
      /** For int4: what the scales' indices stand for, `[256]`. */
      readonly table?: string;
      /** For int4: columns that share a scale. */
      readonly group?: number;
    }
    | {
      readonly kind: "sparse";
      readonly type: "f32" | "f16" | "int8" | "int4";
      readonly format: SparseFormat;
      readonly scaling: Scaling;
      /** The operator's attributes, by name. */
      readonly attributes: Readonly<Record<string, number>>;
      /** Tensors by the names of the operator's inputs (`values`, `codes`, …), without x. */
      readonly tensors: Readonly<Record<string, string>>;
    }
  );

/** Cosines and sines by which pairs of elements are turned, both `[positions, pairs]`. */
export type RotaryTables =
  & { readonly positions: number; readonly pairs: number }
  & (
    | { readonly kind: "stored"; readonly cosines: string; readonly sines: string }
    /** factor · cos(position · frequency), and the same with sines. */
    | {
      readonly kind: "computed";
      readonly frequencies: readonly number[];
      readonly factor: number;
    }
  );

/** A function of each element by itself. */
export type ElementwiseOp =
  | "sigmoid"
  | "silu"
  | "softplus"
  | "gelu"
  | "gelu_tanh"
  | "relu"
  | "relu_squared"
  | "tanh";

/** Elements of a value that follow one another, from an offset on. */
export interface Part {
  readonly value: Value;
  readonly offset: number;
}

/** Whether tables are the same tensors, or made by the same node. */
export function sameTables(a: RotaryTables, b: RotaryTables): boolean {
  if (a.kind === "computed" || b.kind === "computed") return a === b;
  return a.cosines === b.cosines && a.sines === b.sines;
}

/** One step. Where a step has `input` and `output`, they may not be the same value. */
export type Step =
  /** Rows of a table: those of the token ids, or of the positions plus an offset. */
  | {
    readonly op: "embed";
    readonly table: MatrixRef & { kind: "dense" };
    readonly of: "tokens" | "positions";
    readonly offset: number;
    readonly output: Value;
  }
  /** x / √(mean(x²) + ε) · (above + weight), over each of `groups` equal parts of the vector on its own. */
  | {
    readonly op: "rmsNorm";
    readonly input: Value;
    readonly output: Value;
    readonly groups: number;
    readonly epsilon: number;
    /** Tensor `[width / groups]`. */
    readonly weight: string;
    /** 0 if not given. */
    readonly above?: number;
  }
  | {
    readonly op: "layerNorm";
    readonly input: Value;
    readonly output: Value;
    readonly groups: number;
    readonly epsilon: number;
    /** Tensors `[width / groups]`; a missing bias is zeros. */
    readonly weight: string;
    readonly bias?: string;
    /** What is added to the weight; 0 if not given. */
    readonly above?: number;
  }
  /** W·x (+ bias). */
  | {
    readonly op: "linear";
    readonly input: Value;
    readonly output: Value;
    readonly matrix: MatrixRef;
    /** Tensor `[rows]`. */
    readonly bias?: string;
  }
  /** Turns pairs of each head's first elements by the token's position. */
  | {
    readonly op: "rotary";
    readonly input: Value;
    readonly output: Value;
    readonly heads: number;
    /** Elements of a head that are turned, two a pair; what follows them stays as it is. */
    readonly turned: number;
    /** Whether neighbours are a pair; an element and the one half of them further are, else. */
    readonly interleaved: boolean;
    readonly tables: RotaryTables;
  }
  /** Causal attention; appends keys and values to the cache of its layer. */
  | {
    readonly op: "attention";
    readonly queries: Value;
    /** Both or neither: without them it attends to what an earlier step has put into the cache of that layer. */
    readonly keys?: Value;
    readonly values?: Value;
    readonly output: Value;
    /**
     * From 0 to below {@linkcode Decoder.layers}, each once, by attention with keys or by a convolution; steps need not
     * be in that order.
     */
    readonly layer: number;
    readonly heads: number;
    readonly keyValueHeads: number;
    readonly headDim: number;
    /** Factor of the scores. */
    readonly scale: number;
    /** Scores are cap · tanh(score / cap) then, where there is a cap. */
    readonly cap?: number;
    /** Tokens that are seen, the token itself among them; all when undefined. */
    readonly window?: number;
    /** Tensor `[heads]`, where there is one: scores, neither scaled nor capped, that count and stand for nothing. */
    readonly sinks?: string;
  }
  /**
   * Each channel's own sum over the token and those just before it (+ bias), zeros before the first; keeps what it has
   * read last in the cache of its layer. Its channels are as many as the output is wide.
   */
  | {
    readonly op: "convolve";
    readonly input: Value;
    readonly output: Value;
    /** As attention's. */
    readonly layer: number;
    /** Tokens that are seen, the token itself among them: at least 2. */
    readonly length: number;
    /** Tensor `[channels, 1, length]`; the last of a channel's weights is the token's own. */
    readonly weight: string;
    /** Tensor `[channels]`. */
    readonly bias?: string;
    /** Of the input: 0 if not given. This and what follows comes of `plan/gates.ts`, not of lowering. */
    readonly offset?: number;
    /** What the input is multiplied by before it is read, and kept. */
    readonly gate?: Part;
    /** Of the sums. */
    readonly activation?: "silu";
    /** What the sums are multiplied by. */
    readonly times?: Part;
  }
  /**
   * What remembers. With S the state of a head, k, q and v what the token has of its keys, queries and values:
   * S ← e^decay · S, S ← S + k ⊗ d, scale · Sᵀq. In state spaces d = v; by the gated delta rule k and q are divided by
   * their lengths, √(Σ x² + ε), and d = strength · (v − Sᵀk). States are zeros before the first token.
   */
  | {
    readonly op: "delta";
    /** `[keyHeads, keyDim]`; each serves as many heads of values, one after the other. */
    readonly queries: Part;
    readonly keys: Part;
    /** `[valueHeads, valueDim]`. */
    readonly values: Part;
    /** Of each head of values. */
    readonly decays: Value;
    /** By the gated delta rule. */
    readonly strengths?: Value;
    readonly output: Value;
    /** Of each step another one. */
    readonly layer: number;
    readonly keyHeads: number;
    readonly valueHeads: number;
    readonly keyDim: number;
    readonly valueDim: number;
    readonly scale: number;
    /** By the gated delta rule. */
    readonly epsilon?: number;
  }
  /**
   * Element-wise; `softplus` is ln(1 + e^x), `relu_squared` is relu(x)², `gelu` is the exact one, x · Φ(x), and `gelu_tanh` its approximation by
   * tanh.
   */
  | {
    readonly op: ElementwiseOp;
    readonly input: Value;
    readonly output: Value;
  }
  /** cap · tanh(x / cap), element-wise. */
  | {
    readonly op: "cap";
    readonly input: Value;
    readonly output: Value;
    readonly cap: number;
  }
  /** Elements from `offset` on, as many as the output is wide; or as many in all, of each of `heads` equal parts. */
  | {
    readonly op: "part";
    readonly input: Value;
    readonly output: Value;
    readonly offset: number;
    /** 1 if not given. */
    readonly heads?: number;
  }
  /** Each element as many times in a row as makes the output's width. */
  | { readonly op: "spread"; readonly input: Value; readonly output: Value }
  /** Element-wise by a tensor of as many elements, or by −e^weight; or each weight for `each` elements. */
  | {
    readonly op: "weigh";
    readonly input: Value;
    readonly output: Value;
    readonly weight: string;
    readonly isNegatedExponential?: boolean;
    /** 1 if not given. */
    readonly each?: number;
  }
  /** Element-wise plus a tensor of as many elements. */
  | { readonly op: "shift"; readonly input: Value; readonly output: Value; readonly bias: string }
  /** All elements by one number. */
  | {
    readonly op: "scale";
    readonly input: Value;
    readonly output: Value;
    readonly factor: number;
  }
  | { readonly op: "add" | "mul"; readonly a: Value; readonly b: Value; readonly output: Value };

/** A decoder. */
export interface Decoder {
  /** Width of each value. */
  readonly widths: readonly number[];
  readonly steps: readonly Step[];
  /** The value that is the logits. */
  readonly logits: Value;
  /** Whether the graph gives logits for the last token alone. */
  readonly lastOnly: boolean;
  /** Rows of the token table: token ids are below it. */
  readonly vocabulary: number;
  /** Positions that its tables hold; undefined where nothing bounds them. */
  readonly positions?: number;
  readonly layers: number;
}

/** Whether a step puts something into the cache, or into a state. */
export function isKeeping(step: Step): boolean {
  return step.op === "attention"
    ? step.keys !== undefined
    : step.op === "convolve" || step.op === "delta";
}

/** The values that a step reads. */
export function valuesReadBy(step: Step): Value[] {
  switch (step.op) {
    case "embed":
      return [];
    case "attention":
      return [step.queries, step.keys, step.values].filter((value) => value !== undefined);
    case "add":
    case "mul":
      return [step.a, step.b];
    case "delta":
      return [
        ...[step.queries.value, step.keys.value, step.values.value],
        ...[step.decays, step.strengths].filter((value) => value !== undefined),
      ];
    case "convolve":
      return [step.input, step.gate?.value, step.times?.value].filter((value) =>
        value !== undefined
      );
    default:
      return [step.input];
  }
}

/** How often each value is read, as the logits too. */
export function usesOf(
  { widths, steps, logits }: Pick<Decoder, "widths" | "steps" | "logits">,
): number[] {
  const uses = new Array<number>(widths.length).fill(0);
  for (const value of steps.flatMap(valuesReadBy)) uses[value]++;
  uses[logits]++;
  return uses;
}
