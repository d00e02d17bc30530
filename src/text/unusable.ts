/** What is said of a `tokenizer.json` that nothing can be made of. @module */
import { TokenizerError } from "../errors.ts";

/** @param reason What is wrong with it. */
export function unusable(reason: string, cause?: unknown): TokenizerError {
  return new TokenizerError(`tokenizer.json cannot be used: ${reason}`, { cause });
}
