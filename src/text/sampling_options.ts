/**
 * Options of the choice of tokens: for the library, the CLI and the server.
 * @module
 */
import { z } from "zod";

/** Largest seed: whole numbers beyond it are not exact. */
const LARGEST_SEED = Number.MAX_SAFE_INTEGER;
/** Most alternatives of which the probability is told, as in OpenAI's interface. */
const MOST_LOGPROBS = 20;

const bias = z.number().min(-100).max(100);
/** `{"50256": -100}`, or `50256=-100,198=2.5` as it is written in a command. */
const logitBias = z.union([
  z.record(z.string().regex(/^\d+$/, "must be a token id"), bias),
  z.string().transform((text, context): Record<string, number> => {
    const entries = text.split(",").map((entry) => /^\s*(\d+)\s*=\s*(\S+)\s*$/.exec(entry));
    if (entries.every((entry) => entry && bias.safeParse(Number(entry[2])).success)) {
      return Object.fromEntries(entries.map((entry) => [entry![1], Number(entry![2])]));
    }
    context.addIssue(`${JSON.stringify(text)} was given; write ID=BIAS,ID=BIAS with -100 to 100`);
    return z.NEVER;
  }),
]);

/** The fields of {@linkcode samplingSchema}, for schemas that have more. */
export const samplingFields = {
  temperature: z.number().min(0).max(2).default(0).describe(
    "0 takes the likeliest token each time; higher is more varied",
  ),
  topK: z.int().min(0).default(0).describe("draw from the K likeliest tokens only (0: all)"),
  topP: z.number().min(0).max(1).default(1).describe(
    "draw from the fewest tokens that together have this probability (1: all)",
  ),
  minP: z.number().min(0).max(1).default(0).describe(
    "draw from tokens with at least this part of the likeliest one's probability (0: all)",
  ),
  repetitionPenalty: z.number().min(0.01).max(10).default(1).describe(
    "makes tokens of the prompt and the text less likely; logits are divided by it (1: off)",
  ),
  frequencyPenalty: z.number().min(-2).max(2).default(0).describe(
    "taken from a token's logit for each time that it was generated",
  ),
  presencePenalty: z.number().min(-2).max(2).default(0).describe(
    "taken from a token's logit once it was generated",
  ),
  seed: z.int().min(0).max(LARGEST_SEED).optional().describe(
    "the same seed draws the same tokens (default: another one each time)",
  ),
  logitBias: logitBias.optional().describe(
    "added to the logits of tokens, by id, -100 to 100: 50256=-100,198=2",
  ),
  logprobs: z.int().min(0).max(MOST_LOGPROBS).optional().describe(
    "also tell the log probability of each token, and so many alternatives",
  ),
};

/** Options of the choice of tokens. */
export const samplingSchema = z.strictObject(samplingFields);

/** Options of the choice of tokens, as a caller writes them. */
export type SamplingOptions = z.input<typeof samplingSchema>;
/** Options of the choice of tokens, checked, with their defaults. */
export type SamplingSettings = z.output<typeof samplingSchema>;
