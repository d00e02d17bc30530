/**
 * Chooses the next token.
 *
 * In this order, which is that of transformers:
 *
 * 1. repetition penalty (each token of prompt and text: a positive logit is divided by it, a negative
 *    one multiplied), then frequency and presence penalty (each token that was generated: its logit
 *    less `count · frequencyPenalty + presencePenalty`, as OpenAI defines it), then the bias;
 *    Tokens that a constraint forbids are out after this step, whatever their logit;
 * 2. temperature 0: the largest logit, of equal ones the lowest id, and that is all;
 * 3. temperature: logits are divided by it;
 * 4. top-k: exactly K tokens stay;
 * 5. top-p: the fewest tokens whose probability, among those that stayed, is at least P;
 * 6. min-p: tokens with at least this part of the likeliest one's probability;
 * 7. one of what is left is drawn.
 *
 * The same logits and the same seed give the same token in every runtime: no step that decides uses a
 * function whose last bit is the engine's own affair.
 *
 * @module
 */
import { NotFiniteError, TokenRangeError } from "../errors.ts";
import { Candidates } from "./candidates.ts";
import { forbid, type TokenConstraint } from "./constraint.ts";
import { type ChoiceLogprobs, logprobsOf } from "./logprobs.ts";
import { randomSeed, Xoshiro128 } from "./random.ts";
import type { SamplingSettings } from "./sampling_options.ts";

/** By how much more than min-p says logits may be below the largest: its bound is rounded. */
const WITHIN_SLACK = 0.01;

/** A chosen token. */
export interface Choice {
  readonly token: number;
  /**
   * Of the model's own distribution, before penalties, bias, constraint and temperature. Only when they
   * were asked for.
   */
  readonly logprobs?: ChoiceLogprobs;
}

/** Chooses the tokens of one sequence. */
export class Sampler {
  /** The seed that is drawn with: the one of the settings, or a random one. */
  readonly seed: number;
  readonly #settings: SamplingSettings;
  readonly #random: Xoshiro128;
  readonly #bias: readonly (readonly [id: number, bias: number])[];
  /** How often each token was generated. Tokens of the prompt alone are there with 0. */
  readonly #counts = new Map<number, number>();
  readonly #vocabulary: number;
  readonly #constraint: TokenConstraint | undefined;
  /** Made at first use: a greedy choice without penalties needs none. */
  #candidates: Candidates | undefined;
  #adjusted: Float32Array | undefined;

  /**
   * @param settings Checked options.
   * @param vocabulary Logits of a token.
   * @param prompt Tokens before the first that is chosen, for the repetition penalty.
   * @param constraint Says which tokens may be chosen, and is told which one was.
   * @throws {TokenRangeError} When a token of the prompt or of the bias is not in the vocabulary.
   */
  constructor(
    settings: SamplingSettings,
    vocabulary: number,
    prompt: ArrayLike<number> = [],
    constraint?: TokenConstraint,
  ) {
    this.#settings = settings;
    this.#vocabulary = vocabulary;
    this.#constraint = constraint;
    this.seed = settings.seed ?? randomSeed();
    this.#random = Xoshiro128.fromSeed(this.seed);
    this.#bias = Object.entries(settings.logitBias ?? {}).map(([id, bias]) => [Number(id), bias]);
    for (const [id] of this.#bias) this.#assertInVocabulary(id, "logitBias");
    for (let i = 0; i < prompt.length; i++) {
      this.#assertInVocabulary(prompt[i], `token ${i} of the prompt`);
      this.#counts.set(prompt[i], 0);
    }
  }

  /**
   * How far below the largest logit those may be that are looked at; undefined where any may be. Of others
   * nothing need be known but that they are lower.
   */
  get within(): number | undefined {
    const { temperature, topP, minP, logprobs } = this.#settings;
    if (logprobs !== undefined || this.#isAdjusted) return undefined;
    if (temperature === 0) return 0;
    // A nucleus is a part of what all weigh together.
    if (topP < 1 || minP === 0) return undefined;
    return WITHIN_SLACK - temperature * Math.log(minP);
  }

  /**
   * Chooses a token, and counts it as generated.
   *
   * @param logits `[vocabulary]`, of the token before; those that are further below the largest than
   *   {@linkcode within} may be anything as far below it. They are not changed and not kept. NaN and −∞
   *   are never chosen.
   * @param known The id of the largest logit, of equal ones the lowest, where somebody knows it: then nobody looks.
   * @throws {NotFiniteError} When there is nothing to choose: no logit is finite, or one is infinite.
   * @throws {SchemaError} When the constraint leaves nothing to choose.
   */
  next(logits: Float32Array, known?: number): Choice {
    if (logits.length !== this.#vocabulary) {
      throw new TokenRangeError(
        `${logits.length} logits were given, the vocabulary has ${this.#vocabulary} tokens`,
      );
    }
    const { temperature, logprobs } = this.#settings;
    const scores = this.#adjust(logits);
    const isKnown = scores === logits && known !== undefined && Number.isFinite(logits[known]);
    const likeliest = isKnown ? known : argmax(scores);
    const token = temperature === 0 ? likeliest : this.#draw(scores, scores[likeliest]);
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
    this.#constraint?.take(token);
    if (logprobs === undefined) return { token };
    const highest = scores === logits ? scores[likeliest] : logits[argmax(logits)];
    return { token, logprobs: logprobsOf(logits, highest, token, logprobs) };
  }

  #draw(scores: Float32Array, highest: number): number {
    const { temperature, topK, topP, minP } = this.#settings;
    const candidates = this.#candidates ??= new Candidates(this.#vocabulary);
    candidates.begin(scores, highest, topK);
    candidates.weigh(highest, temperature);
    if (topP < 1) candidates.keepNucleus(topP);
    if (minP > 0) candidates.keepAtLeast(minP);
    return candidates.at(this.#random.uniform());
  }

  /** Whether there are penalties, a bias or a constraint. */
  get #isAdjusted(): boolean {
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.#settings;
    return repetitionPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0 ||
      this.#bias.length > 0 || this.#constraint !== undefined;
  }

  /** Logits after penalties, bias and constraint; the logits themselves where there are none. */
  #adjust(logits: Float32Array): Float32Array {
    if (!this.#isAdjusted) return logits;
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.#settings;
    const repetition = repetitionPenalty !== 1;
    const counted = frequencyPenalty !== 0 || presencePenalty !== 0;
    const constraint = this.#constraint;
    const scores = this.#adjusted ??= new Float32Array(this.#vocabulary);
    scores.set(logits);
    if (repetition || counted) {
      for (const [id, count] of this.#counts) {
        let score = scores[id];
        if (repetition) {
          score = score < 0 ? score * repetitionPenalty : score / repetitionPenalty;
        }
        if (count > 0) score -= count * frequencyPenalty + presencePenalty;
        scores[id] = score;
      }
    }
    for (const [id, bias] of this.#bias) scores[id] += bias;
    if (constraint) forbid(scores, constraint.allowed());
    return scores;
  }

  #assertInVocabulary(id: number, where: string): void {
    if (Number.isInteger(id) && id >= 0 && id < this.#vocabulary) return;
    throw new TokenRangeError(
      `${where}: id ${id} is outside the model's vocabulary of ${this.#vocabulary}`,
    );
  }
}

/**
 * The id of the largest score, of equal ones the lowest.
 *
 * @throws {NotFiniteError} When it is not finite.
 */
function argmax(scores: Float32Array): number {
  let best = 0;
  let highest = -Infinity;
  for (let id = 0; id < scores.length; id++) {
    if (scores[id] > highest) {
      highest = scores[id];
      best = id;
    }
  }
  if (Number.isFinite(highest)) return best;
  throw new NotFiniteError(
    `the model's logits hold ${
      highest > 0 ? "an infinite value" : "no finite value"
    }, so no token ` +
      `can be chosen: the model is damaged, or its values overflow`,
  );
}
