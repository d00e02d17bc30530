/**
 * The steps of a decoder while they are made.
 * @module
 */
import { isKeeping, type Part, type Step, type Value, valuesReadBy } from "../ir.ts";

/**
 * Collects steps, each of which makes a value of its own.
 *
 * A step that turns out to be a part of another one, e.g. a product whose bias comes later, stays: at
 * the end, those whose values nobody reads are left out.
 */
export class StepList {
  readonly #widths: number[] = [];
  readonly #steps: Step[] = [];
  readonly #makers = new Map<Value, Step>();
  readonly #claimed = new Set<string>();

  /** A new value. */
  value(width: number): Value {
    return this.#widths.push(width) - 1;
  }

  /** Says that something that a layer has kept is read; false where it has been before. */
  claim(kept: string): boolean {
    const isFirst = !this.#claimed.has(kept);
    this.#claimed.add(kept);
    return isFirst;
  }

  /** Adds a step whose inputs are there; returns its output. */
  push(step: Step): Value {
    this.#steps.push(step);
    this.#makers.set(step.output, step);
    return step.output;
  }

  widthOf(value: Value): number {
    return this.#widths[value];
  }

  /** The step of attention that fills a layer's cache, if there is one by now. */
  attentionOf(layer: number): (Step & { op: "attention" }) | undefined {
    return this.#steps.find((step) => step.op === "attention" && step.layer === layer) as
      | (Step & { op: "attention" })
      | undefined;
  }

  /** The step that makes a value. */
  makerOf(value: Value): Step {
    return this.#makers.get(value)!;
  }

  /**
   * What the logits and the caches need, with values numbered in the order in which they are made.
   *
   * @param logits The value that is wanted in the end.
   */
  finish(logits: Value): { widths: number[]; steps: Step[]; logits: Value } {
    const needed = new Set([logits]);
    const kept: Step[] = [];
    for (const step of this.#steps.toReversed()) {
      if (!isKeeping(step) && !needed.has(step.output)) continue;
      kept.push(step);
      for (const value of valuesReadBy(step)) needed.add(value);
    }
    kept.reverse();
    const numbers = new Map(kept.map(({ output }, i) => [output, i]));
    const number = (value: Value) => numbers.get(value)!;
    return {
      widths: kept.map(({ output }) => this.#widths[output]),
      steps: kept.map((step) => renumbered(step, number)),
      logits: number(logits),
    };
  }
}

function renumbered(step: Step, number: (value: Value) => Value): Step {
  const output = number(step.output);
  switch (step.op) {
    case "embed":
      return { ...step, output };
    case "attention":
      return {
        ...step,
        queries: number(step.queries),
        keys: step.keys === undefined ? undefined : number(step.keys),
        values: step.values === undefined ? undefined : number(step.values),
        output,
      };
    case "delta": {
      const of = (part: Part) => ({ ...part, value: number(part.value) });
      return {
        ...step,
        queries: of(step.queries),
        keys: of(step.keys),
        values: of(step.values),
        decays: number(step.decays),
        strengths: step.strengths === undefined ? undefined : number(step.strengths),
        output,
      };
    }
    case "add":
    case "mul":
      return { ...step, a: number(step.a), b: number(step.b), output };
    default:
      return { ...step, input: number(step.input), output };
  }
}
