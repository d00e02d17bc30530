/**
 * A model's tokenizer and chat template, from wherever its files lie.
 * @module
 */
import type { ModelSource } from "../engine/source.ts";
import { EspalierError, TokenizerError } from "../errors.ts";
import { type ModelText, modelTextFrom } from "../text/model_text.ts";

/** Bytes of the largest `tokenizer.json` that is read; Gemma's has 33 MB. */
const LARGEST_TOKENIZER = 128 << 20;
/** Bytes of the largest other file; templates and configurations have some kB. */
const LARGEST_OTHER = 16 << 20;

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
  const text = async (path: string, largest: number) =>
    new TextDecoder().decode(await source.read(path, largest));
  const optional = async (path: string) =>
    await source.has(path) ? await text(path, LARGEST_OTHER) : undefined;
  const [tokenizer, tokenizerConfig, config, generationConfig, chatTemplate] = await Promise.all([
    text("tokenizer.json", LARGEST_TOKENIZER),
    optional("tokenizer_config.json"),
    optional("config.json"),
    optional("generation_config.json"),
    optional("chat_template.jinja"),
  ]);
  try {
    return modelTextFrom({
      tokenizer: parsed("tokenizer.json", tokenizer),
      tokenizerConfig: parsed("tokenizer_config.json", tokenizerConfig),
      config: parsed("config.json", config),
      generationConfig: parsed("generation_config.json", generationConfig),
      chatTemplate,
    });
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
