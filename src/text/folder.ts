/**
 * The tokenizer in a checkpoint's folder.
 * @module
 */
import { join } from "node:path";
import { TokenizerError } from "../errors.ts";
import { readJson } from "../platform/files.ts";
import { exists } from "../platform/paths.ts";
import { type TextFiles, type Tokenizer, tokenizerFrom } from "./tokenizer.ts";

/** Bytes of the largest `tokenizer.json` that is read; Gemma's has 33 MB. */
const LARGEST_TOKENIZER = 128 << 20;
/** Bytes of the largest other file; configurations have some kB. */
const LARGEST_OTHER = 16 << 20;

/**
 * Opens the tokenizer of a checkpoint.
 *
 * @param folder The folder with `tokenizer.json`.
 * @throws {TokenizerError} When there is none, or it cannot be used.
 */
export function openTokenizer(folder: string): Tokenizer {
  try {
    return tokenizerFrom(readTextFiles(folder));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TokenizerError(reason.includes(folder) ? reason : `${folder}: ${reason}`, { cause });
  }
}

/** The files that a tokenizer is made of, those that are there. */
function readTextFiles(folder: string): TextFiles {
  const path = join(folder, "tokenizer.json");
  if (!exists(path)) {
    throw new TokenizerError(
      `${folder} holds no tokenizer.json, which is needed to read text: save the fast tokenizer there, ` +
        `or give token ids as {"windows": [[…], …]}`,
    );
  }
  const json = (name: string) => {
    const path = join(folder, name);
    return exists(path) ? readJson(path, LARGEST_OTHER) : undefined;
  };
  return {
    tokenizer: readJson(path, LARGEST_TOKENIZER),
    tokenizerConfig: json("tokenizer_config.json"),
    config: json("config.json"),
    generationConfig: json("generation_config.json"),
  };
}
