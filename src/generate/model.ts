// Declarations that are made of this file need it where a project's own `lib` is older.
/// <reference lib="esnext.disposable" preserve="true" />
/**
 * A loaded model with its text: what a user of the library holds.
 * @module
 */
import type { CacheUse, EngineModel, ModelInfo, Sequence } from "../engine/model.ts";
import { checkObject, checkSignal, checkTokens } from "../checks.ts";
import { TokenizerError, UsageError } from "../errors.ts";
import type { TokenConstraint } from "../text/constraint.ts";
import type { TextForm } from "../text/structured/mod.ts";
import { consecutiveWindows } from "../text/windows.ts";
import { generate, type GenerationPiece } from "./generate.ts";
import type { GenerationOptions } from "./options.ts";
import { perplexityOf } from "./perplexity.ts";
import type { ModelCard } from "./card.ts";
import type { ModelText } from "../text/model_text.ts";
import { type Prompt, type PromptOptions, type PromptTokens, promptTokens } from "./prompt.ts";

/** Tokens of a window of {@linkcode Model.perplexity} unless the caller or the model says otherwise. */
const DEFAULT_SEQLEN = 512;

/** What a loaded model is, and how it came to run where it runs. */
export interface LoadedInfo extends ModelInfo {
  /** Name of its folder. */
  readonly name: string;
  /** Bytes of its `onnx` folder, where it has a folder. */
  readonly fileBytes?: number;
  /** Why this engine runs it. */
  readonly why: string;
  /** Seconds from the call of `load` to the model, compiling included. */
  readonly loadSeconds: number;
}

/** What a {@linkcode Model} is made of. */
export interface ModelParts {
  readonly engine: EngineModel;
  /** Undefined for a model without a tokenizer: it takes and gives token ids only. */
  readonly text: ModelText | undefined;
  readonly info: LoadedInfo;
  /** What it is made of, where that is known. */
  readonly card?: ModelCard;
  /** Removes what was made for it, after the engine has been closed. */
  readonly dispose: () => void;
}

/** A loaded model. {@linkcode close} it when done, or declare it with `await using`. */
export class Model implements AsyncDisposable {
  readonly #engine: EngineModel;
  readonly #text: ModelText | undefined;
  readonly #dispose: () => void;
  readonly info: LoadedInfo;
  /** What it is made of; undefined for a model without the record that `compile` writes. */
  readonly card: ModelCard | undefined;

  /** Use `load`. */
  constructor(parts: ModelParts) {
    this.#engine = parts.engine;
    this.#text = parts.text;
    this.#dispose = parts.dispose;
    this.info = parts.info;
    this.card = parts.card;
  }

  /**
   * The same model with its engine in another's hands, who says which sequence computes when, say. To
   * close either closes both.
   */
  through(wrap: (engine: EngineModel) => EngineModel): Model {
    return new Model({
      engine: wrap(this.#engine),
      text: this.#text,
      info: this.info,
      card: this.card,
      dispose: this.#dispose,
    });
  }

  /** Whether it has a chat template, so that it can be given messages. */
  get canChat(): boolean {
    return this.#text?.template !== undefined;
  }

  /**
   * Generates text; see `generate` of `src/generate/generate.ts` for all that it throws.
   *
   * @param prompt Text to continue, messages to answer, or token ids; or what {@linkcode prepare} has made of one.
   * @returns Pieces of text as they are certain, then one piece of type `end`.
   */
  generate(
    prompt: Prompt | PromptTokens,
    options?: GenerationOptions,
  ): AsyncGenerator<GenerationPiece, void, undefined> {
    return generate(this.#engine, this.#requireText(), prompt, options);
  }

  /**
   * Makes tokens of a prompt, for several texts that begin with it; of a long one that takes a while.
   *
   * @throws As {@linkcode generate} does for a prompt that is wrong.
   */
  prepare(prompt: Prompt, options: PromptOptions = {}): PromptTokens {
    checkObject(options, "options", "{ promptLimit: 1000 }");
    return promptTokens(this.#requireText(), prompt, this.info, options);
  }

  /**
   * Makes a constraint for {@linkcode generate}: what is generated is then JSON, and ends with it. The
   * constraint follows one text: make another one for each generation. Schemas that were used before
   * are kept, so that is quick.
   *
   * The promise holds for texts that end with `stop` (a stop string cuts any text); one that ends with
   * `length` is the beginning of such a text.
   *
   * @param form `"json"` for any JSON object, or a JSON schema; `src/text/structured/schema.ts` says what
   *   schemas may have.
   * @throws {SchemaError} Naming what is wrong with the schema, and where.
   * @throws {UsageError} When the form is neither.
   * @throws {TokenizerError} When the model has no tokenizer.
   *
   * @example
   * ```ts
   * const schema = { type: "object", properties: { age: { type: "integer" } }, required: ["age"] };
   * const constraint = await model.constrain({ schema });
   * for await (const piece of model.generate("Ada is 36. ", { constraint })) { … }
   * ```
   */
  async constrain(form: TextForm): Promise<TokenConstraint> {
    const { tokenizer } = this.#requireText();
    // Loaded by those who want it only.
    const { constraintFor } = await import("../text/structured/mod.ts");
    return constraintFor(tokenizer, this.info.vocabulary, form);
  }

  /**
   * Token ids of a text.
   *
   * @param options `addSpecialTokens`: also those that the model wants around a text, as a prompt has.
   * @throws {UsageError} When it is no text.
   * @throws {TokenizerError} When the model has no tokenizer, or that no token for a part of the text.
   */
  tokens(text: string, options: { readonly addSpecialTokens?: boolean } = {}): Int32Array {
    if (typeof text !== "string") throw new UsageError("text must be a string");
    checkObject(options, "options", "{ addSpecialTokens: true }");
    return this.#requireText().tokenizer.encode(text, options);
  }

  /**
   * The text of token ids.
   *
   * @throws {TokenizerError} When the model has no tokenizer.
   */
  text(tokens: ArrayLike<number>): string {
    checkTokens(tokens);
    return this.#requireText().tokenizer.decode(tokens);
  }

  /**
   * The bytes of UTF-8 that a token stands for; one character may be spread over several.
   *
   * @throws {TokenizerError} When the model has no tokenizer.
   */
  bytes(token: number): Uint8Array {
    return this.#requireText().tokenizer.bytesOf(token);
  }

  /**
   * Logits after each token, `[tokens, vocabulary]`, of a sequence of its own.
   *
   * @throws {ContextOverflowError} When the tokens do not fit into the context.
   * @throws {TokenRangeError} When a token is not one of the vocabulary.
   */
  async logits(
    tokens: ArrayLike<number>,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<Float32Array> {
    checkTokens(tokens);
    checkObject(options, "options", "{ signal }");
    checkSignal(options.signal);
    const sequence = this.#engine.open();
    try {
      return await sequence.run(tokens, { ...options, logits: "all" });
    } finally {
      sequence.close();
    }
  }

  /**
   * Perplexity on consecutive windows of a text; what is left at its end is not used.
   *
   * @param text A text, or its token ids.
   * @param options `seqlen`: tokens a window (default: 512, as far as context and text allow).
   *   `windows`: at most so many.
   * @throws {UsageError} When a window has less than two tokens, or there is to be none.
   * @throws {TextError} When the text is shorter than one window.
   */
  async perplexity(
    text: string | Int32Array,
    options: {
      readonly seqlen?: number;
      readonly windows?: number;
      readonly signal?: AbortSignal;
    } = {},
  ): Promise<number> {
    const tokens = typeof text === "string" ? this.tokens(text) : text;
    checkTokens(tokens);
    checkObject(options, "options", "{ seqlen: 512 }");
    checkSignal(options.signal);
    const seqlen = options.seqlen ??
      Math.max(2, Math.min(DEFAULT_SEQLEN, this.info.context, tokens.length));
    const most = options.windows ?? Infinity;
    if (!(Number.isInteger(seqlen) && seqlen >= 2)) {
      throw new UsageError(`seqlen: ${seqlen} is no whole number of 2 or more`);
    }
    if (!(most >= 1)) throw new UsageError(`windows: ${most} is less than 1`);
    const windows = consecutiveWindows(tokens, seqlen, Math.floor(most));
    return await perplexityOf(this.#engine, windows, options.signal);
  }

  /**
   * Opens a sequence, to step through tokens without text.
   *
   * @param prompt Tokens that are going to be run: what the engine still holds of them need not be.
   */
  open(prompt: ArrayLike<number> = []): Sequence {
    checkTokens(prompt);
    return this.#engine.open(prompt);
  }

  /** What its key/value cache holds at this moment; undefined where the engine does not say. */
  cacheUse(): CacheUse | undefined {
    return this.#engine.cacheUse?.();
  }

  /** Frees everything; a second call does nothing. */
  async close(): Promise<void> {
    try {
      await this.#engine.close();
    } finally {
      this.#dispose();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #requireText(): ModelText {
    if (this.#text) return this.#text;
    throw new TokenizerError(
      `${this.info.name} has no tokenizer.json, which is needed for text: save the fast tokenizer of the ` +
        `model that it was made from beside it`,
    );
  }
}
