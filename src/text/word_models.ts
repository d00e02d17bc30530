/**
 * Finds the tokens of words as the library for Python does.
 *
 * `@huggingface/tokenizers` asks `tokenizer_config.json` for the token of words that a vocabulary of whole words does not
 * know, makes one of the unknown letters of several words, and hands over all pieces of a word as arguments of a call, of
 * which V8 takes some 120,000: without spaces, a whole text is a word.
 *
 * @module
 */
import type { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";

/** A model of the package. */
interface WordModel {
  unk_token_id?: number;
  encode(words: string[]): string[];
  /** Of a vocabulary of pieces. */
  tokenize?(word: string): string[];
  /** The tokens of words, with those that are not known. */
  _call(words: string[]): string[];
}

/**
 * Makes the model of a tokenizer give what the library for Python gives.
 *
 * @param hub Of `@huggingface/tokenizers`; its model is changed in place.
 * @param unknown The token for what the vocabulary does not know: `unk_token` of the model in `tokenizer.json`.
 */
export function findAsPython(hub: HubTokenizer, unknown: string | null | undefined): void {
  const model = hub.model as unknown as WordModel;
  if (typeof unknown === "string") model.unk_token_id = hub.token_to_id(unknown);
  const { tokenize } = model;
  if (tokenize) model.encode = (words) => words.flatMap((word) => tokenize.call(model, word));
  const tokensOf = model._call;
  model._call = (words) => words.flatMap((word) => tokensOf.call(model, [word]));
}
