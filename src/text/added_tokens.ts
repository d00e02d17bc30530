/**
 * Finds the tokens that were added to a vocabulary in a text, as the library for Python finds them.
 *
 * `@huggingface/tokenizers` passes over it where one must be a word of its own, has them take in what JavaScript calls
 * white space, and takes what follows one that was found after normalizing for the beginning of the text, where a space
 * may be put.
 *
 * @module
 */
import type { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { FIRST_SPACES, LAST_SPACES, type PreTokenizer, WORD } from "./pre_tokenizers.ts";

/** One of `added_tokens` in `tokenizer.json`. */
export interface AddedToken {
  readonly content: string;
  readonly special: boolean;
  /** Whether it is looked for after the text has been normalized. */
  readonly normalized?: boolean | null;
  readonly single_word?: boolean | null;
  /** Whether white space before it belongs to it, and behind it. */
  readonly lstrip?: boolean | null;
  readonly rstrip?: boolean | null;
}

/** What `@huggingface/tokenizers` finds added tokens with: before a text is normalized, and after. */
type Finders =
  & Record<"splitter_unnormalized" | "splitter_normalized", { split(text: string): string[] }>
  & {
    readonly added_tokens: readonly { content: string; lstrip: boolean; rstrip: boolean }[];
    /** By how they are spelled, also in a text that has been normalized. */
    readonly added_tokens_map: Map<string, unknown>;
  };

const BEGINS_WITH_WORD = new RegExp(`^[${WORD}]`, "u");

/**
 * Makes a tokenizer of the package find added tokens as the library for Python does.
 *
 * @param hub Changed in place.
 * @param added `added_tokens` of its `tokenizer.json`.
 */
export function findAdded(hub: HubTokenizer, added: readonly AddedToken[]): void {
  /** Tokens as they are spelled in a text, and in one that has been normalized. */
  const asIs = new Map<string, AddedToken>(), normalized = new Map<string, AddedToken>();
  for (const token of added) {
    const isNormalized = (token.normalized ?? !token.special) && hub.normalizer;
    if (isNormalized) normalized.set(hub.normalizer!(token.content), token);
    else asIs.set(token.content, token);
  }
  const finders = hub as unknown as Finders;
  spellAgain(finders, normalized);
  // What they take in is done with here.
  for (const token of finders.added_tokens) token.lstrip = token.rstrip = false;
  /** What a normalized part of a text begins with, until it is read, unless that is an added token. */
  let beginning: string | undefined;
  const { splitter_unnormalized: before, splitter_normalized: after } = finders;
  finders.splitter_unnormalized = { split: (text) => sectionsOf(before.split(text), asIs) };
  finders.splitter_normalized = {
    split(text) {
      const sections = sectionsOf(after.split(text), normalized);
      beginning = normalized.has(sections[0]) ? undefined : sections[0];
      return sections;
    },
  };
  const split = hub.pre_tokenizer as PreTokenizer | null;
  if (!split) return;
  const preTokenizer: PreTokenizer = (text, options) => {
    const isFirst = options?.section_index === 0 && beginning?.startsWith(text);
    beginning = undefined;
    return split(text, { ...options, section_index: isFirst ? 0 : 1 });
  };
  hub.pre_tokenizer = preTokenizer as unknown as typeof hub.pre_tokenizer;
}

/** Has tokens looked for as the normalizer spells them: the package has asked its own. */
function spellAgain(finders: Finders, normalized: ReadonlyMap<string, AddedToken>): void {
  const byText = new Map(finders.added_tokens.map((token) => [token.content, token]));
  const { added_tokens_map: known } = finders;
  known.clear();
  for (const [content, token] of byText) known.set(content, token);
  for (const [text, { content }] of normalized) known.set(text, byText.get(content));
  const Splitter = finders.splitter_normalized.constructor as new (
    words: readonly string[],
  ) => Finders["splitter_normalized"];
  finders.splitter_normalized = new Splitter([...normalized.keys()].filter((text) => text !== ""));
}

/**
 * Whether a text's last character is part of a word. Not by a pattern that ends with `$`: V8 14 finds no class before
 * it that has a character of two UTF-16 units.
 */
function endsWithWord(text: string): boolean {
  return BEGINS_WITH_WORD.test([...text.slice(-2)].at(-1) ?? "");
}

/**
 * Added tokens, and the text between them.
 *
 * @param found A text, cut where tokens are spelled.
 * @param tokens What is looked for.
 */
function sectionsOf(
  found: readonly string[],
  tokens: ReadonlyMap<string, AddedToken>,
): string[] {
  const sections: string[] = [];
  let before: AddedToken | undefined;
  let isText = false;
  for (const [i, section] of found.entries()) {
    const known = tokens.get(section);
    const isInWord = known?.single_word &&
      (endsWithWord(found[i - 1] ?? "") ||
        BEGINS_WITH_WORD.test(found[i + 1]?.slice(0, 2) ?? ""));
    const token = isInWord ? undefined : known;
    const last = sections.length - 1;
    if (token && isText && token.lstrip) sections[last] = sections[last].replace(LAST_SPACES, "");
    if (!token && isText) sections[last] += section;
    else sections.push(before?.rstrip && !token ? section.replace(FIRST_SPACES, "") : section);
    before = token;
    isText = !token;
  }
  return sections;
}
