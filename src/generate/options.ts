/**
 * Options of `generate`.
 * @module
 */
import { z } from "zod";
import type { TokenConstraint } from "../text/constraint.ts";
import { samplingFields } from "../text/sampling_options.ts";
import type { PromptOptions } from "./prompt.ts";

/** Most stop strings: each costs a step for every character. */
const MOST_STOPS = 16;
/** Longest stop string, in UTF-16 units: so much text is held back at most. */
const LONGEST_STOP = 1000;

const stopString = z.string().min(1).max(LONGEST_STOP);
/** Stop strings as a list. */
export const stopList = z.array(stopString).max(MOST_STOPS);

/** The fields of {@linkcode generationSchema}, for schemas that have more. */
export const generationFields = {
  maxTokens: z.int().min(1).optional().describe(
    "most tokens to generate (default: as many as the context holds)",
  ),
  stop: z.union([stopString, stopList]).default([]).describe(
    "text, or a special token, to stop at; it is not a part of the answer. May be given several times",
  ),
  ignoreEos: z.boolean().default(false).describe("go on after the model has ended its text"),
  ...samplingFields,
};

/** Options of `generate`: when to stop, and how tokens are chosen. */
export const generationSchema = z.strictObject(generationFields);

/** Options of `generate`, as a caller writes them. */
export interface GenerationOptions extends z.input<typeof generationSchema>, PromptOptions {
  /** Stops the work, also within a long prompt; it then fails with `AbortError`. */
  readonly signal?: AbortSignal;
  /**
   * The form that the text must have, as `Model.constrain` makes it; for this one generation. The text
   * ends with it. A stop string still cuts it short.
   */
  readonly constraint?: TokenConstraint;
}
