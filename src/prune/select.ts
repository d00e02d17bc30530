/**
 * Selection: the k-th smallest value without sorting all of them.
 * @module
 */

/**
 * Reorders `values` so that the element of rank `k` stands at index `k`, nothing larger before it and
 * nothing smaller after it (Hoare's FIND with a median of three; expected time linear).
 *
 * @param values Reordered in place.
 * @param k Rank from 0.
 * @returns The element of that rank.
 */
export function selectRank(values: Float32Array, k: number): number {
  let left = 0;
  let right = values.length - 1;
  while (right > left) {
    const middle = (left + right) >> 1;
    const a = values[left], b = values[middle], c = values[right];
    const pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
    let i = left;
    let j = right;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i <= j) {
        const swap = values[i];
        values[i++] = values[j];
        values[j--] = swap;
      }
    }
    if (k <= j) right = j;
    else if (k >= i) left = i;
    else break;
  }
  return values[k];
}

/** Buckets of a {@linkcode Threshold}: exponent and four bits of the fraction, 16 to a power of two. */
const BUCKET_SHIFT = 19;
const BUCKETS = 1 << (31 - BUCKET_SHIFT);

/**
 * Finds the k-th smallest of many rows of scores, without reordering them.
 *
 * Floats that are not negative sort as their bits do: a histogram of the upper bits finds the bucket of
 * the k-th, and only what is in it, a few in a hundred, is looked at again.
 */
export class Threshold {
  readonly #histogram = new Uint32Array(BUCKETS);
  readonly #inBucket: Float32Array;
  /** Scores that are lower than the one found last. */
  below = 0;

  /** @param length Most scores of a row. */
  constructor(length: number) {
    this.#inBucket = new Float32Array(length);
  }

  /**
   * @param scores Not negative, no NaN, no -0; a `Float32Array` that begins where a word does.
   * @param k Rank from 0.
   * @returns The score of that rank.
   */
  find(scores: Float32Array, k: number): number {
    const bits = new Uint32Array(scores.buffer, scores.byteOffset, scores.length);
    const histogram = this.#histogram.fill(0);
    let bucket = BUCKETS;
    for (let i = 0; i < bits.length; i++) {
      const at = bits[i] >>> BUCKET_SHIFT;
      histogram[at]++;
      if (at < bucket) bucket = at;
    }
    let before = 0;
    while (before + histogram[bucket] <= k) before += histogram[bucket++];
    const inBucket = this.#inBucket;
    let count = 0;
    for (let i = 0; i < bits.length; i++) {
      if (bits[i] >>> BUCKET_SHIFT === bucket) inBucket[count++] = scores[i];
    }
    const found = selectRank(inBucket.subarray(0, count), k - before);
    this.below = before;
    for (let i = 0; i < k - before; i++) if (inBucket[i] < found) this.below++;
    return found;
  }
}
