/**
 * The tokenizer of a checkpoint, by `@huggingface/tokenizers`.
 * @module
 */
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { join } from "node:path";
import { TokenizerError } from "../errors.ts";
import { exists, readJson } from "../platform/files.ts";

/** Bytes of the largest `tokenizer.json` that is read; Gemma's has 33 MB. */
const LARGEST_TOKENIZER = 128 << 20;

/** Text to token ids. */
export interface Tokenizer {
  /** Ids of a whole text, without special tokens around it. */
  encode(text: string): Int32Array;
}

/**
 * Opens the tokenizer of a checkpoint.
 *
 * @param folder The folder with `tokenizer.json`.
 * @throws {TokenizerError} When there is none, or it cannot be used.
 */
export function openTokenizer(folder: string): Tokenizer {
  const path = join(folder, "tokenizer.json");
  if (!exists(path)) {
    throw new TokenizerError(
      `${folder} holds no tokenizer.json, which is needed to read text: save the fast tokenizer there, ` +
        `or give token ids as {"windows": [[…], …]}`,
    );
  }
  try {
    const configPath = join(folder, "tokenizer_config.json");
    const tokenizer = new HubTokenizer(
      readJson(path, LARGEST_TOKENIZER) as object,
      (exists(configPath) ? readJson(configPath, LARGEST_TOKENIZER) : {}) as object,
    );
    return {
      encode: (text) => Int32Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids),
    };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TokenizerError(`${path} cannot be used: ${reason}`, { cause });
  }
}
