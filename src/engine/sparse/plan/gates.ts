/**
 * Convolutions with what is around them, gates or an activation: one step in place of up to six. And linear attention
 * with the parts that it reads.
 *
 * What one product or convolution has made for all of them is read where it lies, and threads need not meet between the
 * gate before a convolution, the convolution, and what is behind it: each has the same channels of all three.
 * @module
 */
import { type Decoder, type Part, type Step, usesOf, type Value, valuesReadBy } from "../ir.ts";

type Convolution = Extract<Step, { op: "convolve" }>;

/** A decoder whose convolutions have taken in what only they read, or what alone reads them. */
export function joinGates(decoder: Decoder): Decoder {
  const { steps } = decoder;
  if (!steps.some(({ op }) => op === "convolve")) return decoder;
  const uses = usesOf(decoder);
  const makers = new Map(steps.map((step, at) => [step.output, { step, at }]));
  const partOf = (value: Value): Part => {
    const { step } = makers.get(value)!;
    const isPart = step.op === "part" && (step.heads ?? 1) === 1;
    return isPart ? { value: step.input, offset: step.offset } : { value, offset: 0 };
  };

  const partWithin = ({ value, offset }: Part): Part => {
    const part = partOf(value);
    return { ...part, offset: part.offset + offset };
  };

  /** The only step that reads a value. */
  const readerOf = (value: Value): Step | undefined =>
    uses[value] === 1 ? steps.find((step) => valuesReadBy(step).includes(value)) : undefined;

  /** The multiplication that is the only one to read a convolution, where what it multiplies by is there before. */
  const behind = (convolution: Convolution, at: number): [Step, Part] | undefined => {
    const reader = readerOf(convolution.output);
    if (reader?.op !== "mul") return undefined;
    const times = partOf(reader.a === convolution.output ? reader.b : reader.a);
    return makers.get(times.value)!.at < at ? [reader, times] : undefined;
  };

  const joined = new Map<Step, Step>(), gone = new Set<Step>();
  for (const [at, step] of steps.entries()) {
    if (step.op === "delta") {
      const [queries, keys, values] = [step.queries, step.keys, step.values].map(partWithin);
      joined.set(step, { ...step, queries, keys, values });
      continue;
    }
    if (step.op !== "convolve") continue;
    let made: Convolution = step;
    const { step: before } = makers.get(step.input)!;
    if (before.op === "mul" && uses[step.input] === 1 && !gone.has(before)) {
      made = { ...made, ...inputOf(partOf(before.a)), gate: partOf(before.b) };
      gone.add(before);
    } else if (before.op === "part") made = { ...made, ...inputOf(partOf(step.input)) };
    const activation = readerOf(step.output);
    if (activation?.op === "silu") {
      made = { ...made, activation: "silu", output: activation.output };
      gone.add(activation);
    }
    const after = behind(made, at);
    if (after) {
      const [{ output }, times] = after;
      made = { ...made, output, times };
      gone.add(after[0]);
    }
    joined.set(step, made);
  }
  const left = steps.filter((step) => !gone.has(step)).map((step) => joined.get(step) ?? step);
  const still = usesOf({ ...decoder, steps: left });
  return { ...decoder, steps: left.filter((step) => step.op !== "part" || still[step.output] > 0) };
}

/** A part as what a convolution reads. */
function inputOf({ value, offset }: Part): Pick<Convolution, "input" | "offset"> {
  return { input: value, offset };
}
