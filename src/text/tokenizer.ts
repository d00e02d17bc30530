/**
 * The tokenizer of a model, from the parsed files of its checkpoint. It needs no file system; where
 * there is one, `folder.ts` reads the files.
 *
 * Text becomes tokens by `@huggingface/tokenizers`, tokens become text by our own code: it has to do so
 * one token at a time.
 *
 * @module
 */
import { Tokenizer as HubTokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { quote } from "../checks.ts";
import { TokenizerError } from "../errors.ts";
import { findAdded } from "./added_tokens.ts";
import { Detokenizer, type DetokenizerOptions, type DetokenizerSource } from "./detokenizer.ts";
import { normalizeAsPython } from "./normalizers.ts";
import { spellTokens } from "./post_processors.ts";
import { cutAsPython } from "./pre_tokenizers.ts";
import { type TokenBytes, tokenBytesFrom } from "./token_bytes.ts";
import { unusable } from "./unusable.ts";
import { findAsPython } from "./word_models.ts";

/** The files of a checkpoint that say how text goes in and out. JSON is parsed. */
export interface TextFiles {
  /** `tokenizer.json` */
  readonly tokenizer: unknown;
  /** `tokenizer_config.json` */
  readonly tokenizerConfig?: unknown;
  /** `config.json` */
  readonly config?: unknown;
  /** `generation_config.json` */
  readonly generationConfig?: unknown;
  /** `chat_template.jinja` */
  readonly chatTemplate?: string;
}

/** Text to token ids and back. */
export interface Tokenizer extends DetokenizerSource {
  /**
   * Ids of a text.
   *
   * @param options `addSpecialTokens` adds what the model wants around a text, mostly a token at its
   *   beginning; without it (the default) the ids are the text's alone.
   * @throws {TokenizerError} When there is no token for a part of the text, and none for what is not known.
   */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): Int32Array;
  /**
   * The text of ids. Bytes that are no UTF-8 become U+FFFD, ids that are not known nothing. Unlike
   * some versions of transformers it never takes away spaces before punctuation.
   *
   * @throws {TokenizerError} When the tokenizer's decoder is of a form that is not known.
   */
  decode(ids: ArrayLike<number>, options?: DetokenizerOptions): string;
  /** The id of a token, spelled as in the vocabulary. */
  idOf(token: string): number | undefined;
  /** The token of an id, spelled as in the vocabulary. */
  tokenOf(id: number): string | undefined;
  /** Ids after which a text has ended: all that the model's configurations name. */
  readonly endIds: ReadonlySet<number>;
  /** The id that begins a text, where the configuration names one; whether `encode` adds it is the tokenizer's. */
  readonly beginId: number | undefined;
}

/** A token in `tokenizer_config.json`: its text, or an object that holds it. */
const namedToken = z.union([
  z.string(),
  z.looseObject({ content: z.string() }).transform(({ content }) => content),
]).nullish();
const tokenizerConfigSchema = z.looseObject({
  bos_token: namedToken,
  eos_token: namedToken,
  additional_special_tokens: z.array(namedToken).nullish(),
});
/** Fields of `tokenizer_config.json` for tokenizers without a `tokenizer.json`, whose normalizer says all of it. */
const NOT_ASKED = { remove_space: false, do_lowercase_and_remove_accent: false };
const tokenId = z.int().nonnegative();
/** Some configurations say -1 for "none". */
const tokenIds = z.union([z.int(), z.array(z.int())]).nullish().transform((ids) =>
  [ids ?? []].flat().filter((id) => id >= 0)
);
const modelConfigSchema = z.looseObject({ bos_token_id: tokenIds, eos_token_id: tokenIds });
const tokenizerSchema = z.looseObject({
  added_tokens: z.array(z.looseObject({
    id: tokenId,
    special: z.boolean().default(false),
    content: z.string().default(""),
    single_word: z.boolean().nullish(),
    lstrip: z.boolean().nullish(),
    rstrip: z.boolean().nullish(),
    normalized: z.boolean().nullish(),
  })).default([]),
  normalizer: z.unknown(),
  pre_tokenizer: z.unknown(),
  decoder: z.unknown(),
  model: z.looseObject({
    type: z.string().nullish(),
    byte_fallback: z.boolean().nullish(),
    unk_token: z.string().nullish(),
    continuing_subword_prefix: z.string().nullish(),
  }).default({}),
  post_processor: z.unknown().optional(),
});

/**
 * Makes a tokenizer of parsed files.
 *
 * @param files At least `tokenizer.json`.
 * @throws {TokenizerError} Naming the file that cannot be used.
 */
export function tokenizerFrom(files: TextFiles): Tokenizer {
  const named = checked("tokenizer_config.json", tokenizerConfigSchema, files.tokenizerConfig);
  const model = checked("config.json", modelConfigSchema, files.config);
  const generation = checked(
    "generation_config.json",
    modelConfigSchema,
    files.generationConfig,
  );
  const hub = usable(() => new HubTokenizer(files.tokenizer as object, { ...named, ...NOT_ASKED }));
  const { added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model: algorithm } =
    checked(
      "tokenizer.json",
      tokenizerSchema,
      files.tokenizer,
    );
  if (algorithm.continuing_subword_prefix && (hub.model as { merges?: unknown }).merges) {
    throw unusable("a continuing_subword_prefix is not known of BPE");
  }
  findAsPython(hub, algorithm.unk_token);
  spellTokens(hub, hub.post_processor, post_processor);
  normalizeAsPython(hub.normalizer, normalizer);
  cutAsPython(hub.pre_tokenizer, pre_tokenizer);
  findAdded(hub, added_tokens);
  // Some of what is wrong in the file is found with the first text.
  usable(() => hub.encode("a 1", { add_special_tokens: true }));
  const idsOf = (tokens: readonly (string | null | undefined)[]) =>
    tokens.flatMap((token) => {
      const id = typeof token === "string" ? hub.token_to_id(token) : undefined;
      return id === undefined ? [] : [id];
    });

  const added = new Set(added_tokens.map(({ id }) => id));
  const specialIds = new Set([
    ...added_tokens.filter(({ special }) => special).map(({ id }) => id),
    ...idsOf(named.additional_special_tokens ?? []),
  ]);
  const [beginId] = [
    ...idsOf([named.bos_token]),
    ...generation.bos_token_id,
    ...model.bos_token_id,
  ];
  // `@huggingface/tokenizers` writes bytes for what a vocabulary lacks with BPE alone.
  const byteIds = algorithm.type === "Unigram" && algorithm.byte_fallback
    ? byteIdsOf(hub)
    : undefined;
  return new ModelTokenizer(hub, decoder, added, byteIds, {
    specialIds,
    beginId,
    endIds: new Set([
      ...generation.eos_token_id,
      ...model.eos_token_id,
      ...idsOf([named.eos_token]),
    ]),
  });
}

/**
 * What the package makes of the file.
 *
 * @throws {TokenizerError} When it fails, in whatever words.
 */
function usable<T>(make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw unusable(cause instanceof Error ? cause.message : String(cause), cause);
  }
}

/** The ids of the tokens that stand for a byte each, by byte; undefined where there are not all. */
function byteIdsOf(hub: HubTokenizer): number[] | undefined {
  const ids = Array.from({ length: 256 }, (_, byte) => {
    const digits = byte.toString(16).toUpperCase().padStart(2, "0");
    return hub.token_to_id(`<0x${digits}>`);
  });
  return ids.every((id) => id !== undefined) ? ids : undefined;
}

const utf8 = new TextEncoder();
/** What fits into the tensors of ids. */
const LARGEST_ID = 0x7fffffff;

class ModelTokenizer implements Tokenizer {
  readonly specialIds: ReadonlySet<number>;
  readonly beginId: number | undefined;
  readonly endIds: ReadonlySet<number>;
  readonly #hub: HubTokenizer;
  readonly #decoder: unknown;
  readonly #added: ReadonlySet<number>;
  readonly #byteIds: readonly number[] | undefined;
  readonly #bytes = new Map<number, Uint8Array>();
  #rule: TokenBytes | undefined;

  constructor(
    hub: HubTokenizer,
    decoder: unknown,
    added: ReadonlySet<number>,
    byteIds: readonly number[] | undefined,
    ids: Pick<Tokenizer, "specialIds" | "beginId" | "endIds">,
  ) {
    this.#hub = hub;
    this.#decoder = decoder;
    this.#added = added;
    this.#byteIds = byteIds;
    this.specialIds = ids.specialIds;
    this.beginId = ids.beginId;
    this.endIds = ids.endIds;
  }

  encode(text: string, options: { readonly addSpecialTokens?: boolean } = {}): Int32Array {
    const { ids, tokens } = this.#hub.encode(text, {
      add_special_tokens: options.addSpecialTokens ?? false,
    });
    const byteIds = this.#byteIds;
    // What is not in the vocabulary stands among the tokens as it is in the text.
    const all = !byteIds
      ? ids
      : ids.flatMap((id, i) =>
        this.idOf(tokens[i]) === undefined
          ? Array.from(utf8.encode(tokens[i]), (byte) => byteIds[byte])
          : id
      );
    const odd = all.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id <= LARGEST_ID));
    if (odd >= 0) {
      throw new TokenizerError(
        `tokenizer.json cannot be used for this text: it has no token ${
          byteIds || tokens[odd] === undefined ? "for a part of it" : quote(String(tokens[odd]))
        }, and none for what it does not know`,
      );
    }
    return Int32Array.from(all);
  }

  decode(ids: ArrayLike<number>, options: DetokenizerOptions = {}): string {
    const detokenizer = new Detokenizer(this, options);
    let text = "";
    for (let i = 0; i < ids.length; i++) text += detokenizer.push(ids[i]);
    return text + detokenizer.end();
  }

  idOf(token: string): number | undefined {
    return this.#hub.token_to_id(token);
  }

  tokenOf(id: number): string | undefined {
    return this.#hub.id_to_token(id);
  }

  bytesOf(id: number): Uint8Array {
    const known = this.#bytes.get(id);
    if (known) return known;
    const token = this.tokenOf(id);
    if (token === undefined) return new Uint8Array();
    const bytes = this.#knownRule().bytesOf(token, this.#added.has(id));
    this.#bytes.set(id, bytes);
    return bytes;
  }

  get leadingSpaces(): number {
    return this.#knownRule().leadingSpaces;
  }

  /** Read when it is first needed: who only reads text needs no decoder. */
  #knownRule(): TokenBytes {
    return this.#rule ??= tokenBytesFrom(this.#decoder);
  }
}

function checked<T extends z.ZodType>(file: string, schema: T, json: unknown): z.output<T> {
  const parsed = schema.safeParse(json === undefined ? {} : json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new TokenizerError(
    `${file} cannot be used: ${issue.path.join(".") || "it"}: ${issue.message}`,
  );
}
