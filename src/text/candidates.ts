/**
 * The tokens among which one is drawn, and the filters that make them fewer.
 *
 * Tokens are ranked by score, of equal scores the lower id first. That is a strict order: what a filter
 * keeps does not depend on how it is found. Nothing here sorts the vocabulary: a filter keeps a
 * beginning of the ranking, so it is enough to know where that ends.
 *
 * @module
 */
import { expOfNegative } from "./exp.ts";

/** Steps of the histogram by which top-k is found; each is an eighth wide. */
const STEPS = 256;
const STEPS_PER_LOGIT = 8;

/** Candidates of a vocabulary of one size; the same object serves for token after token. */
export class Candidates {
  /** Ids of the candidates, ascending. */
  readonly #ids: Uint32Array;
  #count = 0;
  /** Probability of each id, up to a common factor: 1 for the likeliest token. */
  readonly #weights: Float64Array;
  /** What the candidates weigh together. */
  #total = 0;
  /** Ids in the order of a search. */
  readonly #search: Uint32Array;
  readonly #histogram = new Int32Array(STEPS);
  #scores: Float32Array;

  /** @param vocabulary Logits of a token. */
  constructor(vocabulary: number) {
    this.#ids = new Uint32Array(vocabulary);
    this.#search = new Uint32Array(vocabulary);
    this.#weights = new Float64Array(vocabulary);
    this.#scores = new Float32Array();
  }

  /** Ids of the candidates, ascending. The array is the object's own. */
  get ids(): Uint32Array {
    return this.#ids.subarray(0, this.#count);
  }

  /**
   * Begins with the tokens of the highest scores.
   *
   * @param scores `[vocabulary]`. NaN and −∞ are never candidates.
   * @param highest The largest score.
   * @param k Most tokens to take; 0 for all.
   */
  begin(scores: Float32Array, highest: number, k: number): void {
    this.#scores = scores;
    const all = k === 0 || k >= scores.length;
    const floor = all ? -Infinity : this.#floorOf(highest, k);
    let count = 0;
    for (let id = 0; id < scores.length; id++) {
      const score = scores[id];
      if (score >= floor && score > -Infinity) this.#ids[count++] = id;
    }
    this.#count = count;
    if (all || count <= k) return;
    this.#search.set(this.ids);
    this.#keepDownTo(this.#lastOf(count, () => 1, k));
  }

  /**
   * Gives each candidate its probability: softmax of score / temperature, up to a common factor.
   *
   * @param temperature Above 0.
   */
  weigh(highest: number, temperature: number): void {
    const ids = this.#ids, scores = this.#scores, weights = this.#weights;
    let total = 0;
    for (let i = 0; i < this.#count; i++) {
      const id = ids[i];
      const weight = expOfNegative((scores[id] - highest) / temperature);
      weights[id] = weight;
      total += weight;
    }
    this.#total = total;
  }

  /**
   * Keeps the fewest candidates, likeliest first, that together have at least a part of the
   * probability of all; one at least.
   */
  keepNucleus(part: number): void {
    const total = this.#total;
    // What is lighter than this weighs, all of it together, less than half of what goes: no rounding
    // brings it back.
    const lightest = (1 - part) * total / this.#count / 2;
    let count = 0;
    for (let i = 0; i < this.#count; i++) {
      const id = this.#ids[i];
      if (this.#weights[id] >= lightest) this.#search[count++] = id;
    }
    this.#keepDownTo(this.#lastOf(count, (id) => this.#weights[id], part * total));
    this.#addUp();
  }

  /** Keeps candidates that have at least a part of the likeliest one's probability. */
  keepAtLeast(part: number): void {
    let count = 0;
    for (let i = 0; i < this.#count; i++) {
      const id = this.#ids[i];
      if (this.#weights[id] >= part) this.#ids[count++] = id;
    }
    this.#count = count;
    this.#addUp();
  }

  /**
   * The candidate at a place of the distribution.
   *
   * @param place In [0, 1): candidates lie side by side by their ids, each as wide as it is likely.
   */
  at(place: number): number {
    const target = place * this.#total;
    let sum = 0;
    let last = this.#ids[0];
    for (let i = 0; i < this.#count; i++) {
      const id = this.#ids[i];
      if (this.#weights[id] === 0) continue;
      sum += this.#weights[id];
      last = id;
      if (sum > target) break;
    }
    return last;
  }

  #addUp(): void {
    this.#total = 0;
    for (let i = 0; i < this.#count; i++) this.#total += this.#weights[this.#ids[i]];
  }

  /** A score that at least `k` tokens reach, and mostly few more: −∞ when it is far below the highest. */
  #floorOf(highest: number, k: number): number {
    const histogram = this.#histogram.fill(0);
    const scores = this.#scores;
    for (let id = 0; id < scores.length; id++) {
      const depth = (highest - scores[id]) * STEPS_PER_LOGIT;
      if (depth < STEPS) histogram[depth | 0]++;
    }
    let count = 0;
    for (let step = 0; step < STEPS; step++) {
      count += histogram[step];
      // One step more than needed: the bound is rounded where the steps are not.
      if (count >= k) return highest - (step + 2) / STEPS_PER_LOGIT;
    }
    return -Infinity;
  }

  /**
   * The last token of the shortest beginning of the ranking that weighs at least `target`, among the
   * first `count` ids of the search; quickselect.
   */
  #lastOf(count: number, weightOf: (id: number) => number, target: number): number {
    const ids = this.#search;
    let low = 0;
    let high = count;
    let missing = target;
    let last = ids[0];
    while (low < high) {
      this.#movePivotToEnd(low, high);
      const pivot = ids[high - 1];
      let split = low;
      let weight = 0;
      for (let i = low; i < high - 1; i++) {
        const id = ids[i];
        if (!this.#isBefore(id, pivot)) continue;
        weight += weightOf(id);
        ids[i] = ids[split];
        ids[split++] = id;
      }
      ids[high - 1] = ids[split];
      ids[split] = pivot;
      if (split > low && weight >= missing) {
        high = split;
        continue;
      }
      last = pivot;
      missing -= weight + weightOf(pivot);
      if (missing <= 0) break;
      low = split + 1;
    }
    return last;
  }

  /** The middle one of three, so that what is nearly in order already takes no longer. */
  #movePivotToEnd(low: number, high: number): void {
    const ids = this.#search;
    const end = high - 1;
    const middle = (low + end) >>> 1;
    if (this.#isBefore(ids[middle], ids[low])) swap(ids, middle, low);
    if (this.#isBefore(ids[end], ids[low])) swap(ids, end, low);
    if (this.#isBefore(ids[middle], ids[end])) swap(ids, middle, end);
  }

  #keepDownTo(last: number): void {
    let count = 0;
    for (let i = 0; i < this.#count; i++) {
      const id = this.#ids[i];
      if (id === last || this.#isBefore(id, last)) this.#ids[count++] = id;
    }
    this.#count = count;
  }

  /** Whether a token ranks before another. */
  #isBefore(a: number, b: number): boolean {
    const scoreOfA = this.#scores[a];
    const scoreOfB = this.#scores[b];
    return scoreOfA > scoreOfB || (scoreOfA === scoreOfB && a < b);
  }
}

function swap(ids: Uint32Array, a: number, b: number): void {
  const id = ids[a];
  ids[a] = ids[b];
  ids[b] = id;
}
