/**
 * Options of the commands `generate`, `chat` and `bench`: the CLI's flags come from these schemas.
 * @module
 */
import { z } from "zod";
import { loadFields } from "./load_options.ts";
import { generationFields, stopList } from "./options.ts";

const path = z.string().min(1);
const model = path.optional().describe(
  "folder of a compiled model, or of a checkpoint (default: the example)",
);

/** Generation as the command line has it: every option on its own, and an end. */
const generating = {
  ...generationFields,
  stop: stopList.default([]).describe(generationFields.stop.description!),
};

/** Options of the command `generate`. */
export const generateCommandSchema = z.strictObject({
  model,
  prompt: z.string().min(1).optional().describe("text to continue"),
  promptFile: path.optional().describe(
    "file with the text to continue, without the line break at its end; - is standard input",
  ),
  jsonSchema: path.optional().describe(
    "file with a JSON schema: the text is JSON that validates, and nothing else",
  ),
  ...generating,
  maxTokens: generationFields.maxTokens.unwrap().default(128).describe("most tokens to generate"),
  ...loadFields,
});

/** Probabilities are for programs, and turns have none. */
const { logprobs: _, ...speaking } = generating;

/** Options of the command `chat`. */
export const chatCommandSchema = z.strictObject({
  model,
  system: z.string().min(1).optional().describe("what the model is told before the conversation"),
  ...speaking,
  maxTokens: generationFields.maxTokens.unwrap().default(512).describe("most tokens of an answer"),
  ...loadFields,
});

/** Options of the command `bench`. */
export const benchCommandSchema = z.strictObject({
  model,
  ...loadFields,
  engine: z.enum(["all", "auto", "sparse", "ort"]).default("all").describe(
    "what to measure: all engines that are here, or one; WebGPU only where the device is asked for",
  ),
  repeat: z.int().min(1).max(100).default(3).describe(
    "times that each figure is taken; the median is told",
  ),
});
