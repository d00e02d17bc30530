/**
 * A model's tokenizer and chat template, from wherever its files lie.
 * @module
 */
import type { ModelSource } from "../engine/source.ts";
import { EspalierError, TokenizerError } from "../errors.ts";
import { collectGarbage } from "../platform/garbage.ts";
import { type ModelText, modelTextFrom } from "../text/model_text.ts";

/** The files that are read where they are there, all beside each other. */
export const TEXT_FILES = [
  "tokenizer.json",
  "tokenizer_config.json",
  "config.json",
  "generation_config.json",
  "chat_template.jinja",
] as const;

/** Bytes of the largest `tokenizer.json` that is read; Gemma's has 33 MB. */
const LARGEST_TOKENIZER = 128 << 20;
/** Bytes of the largest other file; templates and configurations have some kB. */
const LARGEST_OTHER = 16 << 20;
/** Characters of a `tokenizer.json` of which so much is left over that collecting it pays. */
const MUCH_TEXT = 1 << 20;

/**
 * Reads a model's text files.
 *
 * @returns Undefined when there is no `tokenizer.json`.
 * @throws {TokenizerError} When one of them cannot be used.
 * @throws {ChatTemplateError} When there is something that is no chat template.
 * @throws {FileReadError} When one of them cannot be read.
 */
export async function readText(source: ModelSource): Promise<ModelText | undefined> {
  if (!await source.has("tokenizer.json")) return undefined;
  const { text, length } = await readFiles(source);
  // Before the weights are asked for: a file's text and its JSON take several times what stays of them.
  if (length > MUCH_TEXT) collectGarbage();
  return text;
}

/** The text of a model, and how many characters its `tokenizer.json` has. */
async function readFiles(source: ModelSource): Promise<{ text: ModelText; length: number }> {
  const read = async (path: string, largest: number) => {
    const bytes = await source.read(path, largest);
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch (cause) {
      throw new TokenizerError(`${source.name}: ${path} is not UTF-8 text`, { cause });
    }
  };
  const [needed, ...others] = TEXT_FILES;
  const [tokenizer, ...optional] = await Promise.all([
    read(needed, LARGEST_TOKENIZER),
    ...others.map(async (path) =>
      await source.has(path) ? await read(path, LARGEST_OTHER) : undefined
    ),
  ]);
  const [tokenizerConfig, config, generationConfig, chatTemplate] = optional;
  try {
    const text = modelTextFrom({
      tokenizer: parsed("tokenizer.json", tokenizer),
      tokenizerConfig: parsed("tokenizer_config.json", tokenizerConfig),
      config: parsed("config.json", config),
      generationConfig: parsed("generation_config.json", generationConfig),
      chatTemplate,
    });
    return { text, length: tokenizer.length };
  } catch (error) {
    // The classes of the errors say what is wrong; where it is, only we know.
    if (error instanceof EspalierError) error.message = `${source.name}: ${error.message}`;
    throw error;
  }
}

function parsed(path: string, json: string | undefined): unknown {
  if (json === undefined) return undefined;
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new TokenizerError(`${path} is not valid JSON: ${(cause as Error).message}`, { cause });
  }
}
