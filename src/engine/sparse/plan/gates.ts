/**
 * Convolutions with the gates around them: one step in place of up to six.
 *
 * What one product has made for all of them is read where it lies, and threads need not meet between the gate before a
 * convolution, the convolution, and the gate behind it: each has the same channels of all three.
 * @module
 */
import { type Decoder, type Part, type Step, usesOf, type Value, valuesReadBy } from "../ir.ts";

type Convolution = Extract<Step, { op: "convolve" }>;

/** A decoder whose convolutions have taken in the gates that only they read, or that alone read them. */
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

  /** The multiplication that is the only one to read a convolution, where what it multiplies by is there before. */
  const behind = (convolution: Convolution, at: number): [Step, Part] | undefined => {
    if (uses[convolution.output] !== 1) return undefined;
    const reader = steps.find((step) => valuesReadBy(step).includes(convolution.output));
    if (reader?.op !== "mul") return undefined;
    const times = partOf(reader.a === convolution.output ? reader.b : reader.a);
    return makers.get(times.value)!.at < at ? [reader, times] : undefined;
  };

  const joined = new Map<Step, Step>(), gone = new Set<Step>();
  for (const [at, step] of steps.entries()) {
    if (step.op !== "convolve") continue;
    let made: Convolution = step;
    const { step: before } = makers.get(step.input)!;
    if (before.op === "mul" && uses[step.input] === 1 && !gone.has(before)) {
      const { value: input, offset } = partOf(before.a);
      made = { ...made, input, offset, gate: partOf(before.b) };
      gone.add(before);
    }
    const after = behind(step, at);
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
