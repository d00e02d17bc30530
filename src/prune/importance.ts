/**
 * Importance of weights and of blocks.
 *
 * Wanda (arXiv 2306.11695) scores a weight by |W|·‖X‖₂; DLP (arXiv 2505.23807) and OWL
 * (arXiv 2310.05175) judge a block by the distribution of these scores over all its weights.
 * @module
 */
import type { Reducer, Weight } from "./types.ts";

/**
 * ‖X‖₂ of each input column of a linear, gathered window by window: √(Σ x² over all tokens ÷ windows).
 *
 * It grows with √(tokens a window): it is no mean over tokens. Scores are compared only with each
 * other, so the factor does not matter.
 *
 * The mean over windows runs in float32, in the released code's order of operations
 * (`WrappedGPT.add_batch`): masks hang on the last bits of the norms, and one weight that differs
 * changes what all later blocks see.
 */
export class InputNorms {
  readonly #mean: Float32Array;
  #windows = 0;

  /** @param columns Width of the input. */
  constructor(columns: number) {
    this.#mean = new Float32Array(columns);
  }

  /**
   * Adds one window.
   *
   * @param squares `[columns]` squares summed over the window's tokens.
   */
  add(squares: Float32Array): void {
    const mean = this.#mean;
    const kept = Math.fround(this.#windows / (this.#windows + 1));
    const windows = ++this.#windows;
    for (let c = 0; c < mean.length; c++) {
      const norm = Math.fround(Math.sqrt(squares[c]));
      mean[c] = Math.fround(mean[c] * kept) +
        Math.fround(Math.fround(norm * norm) / windows);
    }
  }

  /** The norms of all windows so far: `[columns]`. */
  norms(): Float32Array {
    return this.#mean.map(Math.sqrt);
  }
}

/**
 * |W|·‖X‖₂ of one row, in float32 as the released code computes it.
 *
 * @param weight The matrix.
 * @param row Which row.
 * @param target Filled with `columns` scores.
 */
export function rowScores(weight: Weight, row: number, target: Float32Array): void {
  const { values, norms, columns } = weight;
  const start = row * columns;
  for (let c = 0; c < columns; c++) target[c] = Math.abs(values[start + c]) * norms[c];
}

/**
 * A block's score S: the median (paper, equation 3) or the mean (released code) of |W|·‖X‖₂ over all
 * weights of all its linears. The median of an even count is the lower of the two middle values.
 *
 * @param weights The block's linears.
 * @param reducer Which of the two.
 */
export function blockScore(weights: readonly Weight[], reducer: Reducer): number {
  return reducer === "mean" ? meanScore(weights) : medianScore(weights);
}

/**
 * Percent of a block's scores that exceed `threshold` times their mean: OWL's outlier ratio.
 *
 * @param weights The block's linears.
 * @param threshold OWL's M.
 */
export function outlierPercent(weights: readonly Weight[], threshold: number): number {
  const limit = Math.fround(meanScore(weights) * threshold);
  let outliers = 0;
  let count = 0;
  forEachRow(weights, (scores) => {
    for (let i = 0; i < scores.length; i++) if (scores[i] > limit) outliers++;
    count += scores.length;
  });
  return 100 * outliers / count;
}

function meanScore(weights: readonly Weight[]): number {
  let sum = 0;
  let count = 0;
  forEachRow(weights, (scores) => {
    for (let i = 0; i < scores.length; i++) sum += scores[i];
    count += scores.length;
  });
  return sum / count;
}

/**
 * The lower median, without keeping the scores: floats that are not negative sort as their bits do,
 * so a histogram of the upper 16 bits finds the median's bucket, and one of the lower 16 bits inside
 * that bucket finds the median.
 */
function medianScore(weights: readonly Weight[]): number {
  let count = 0;
  const upper = new Float64Array(65536);
  forEachRow(weights, (_, bits) => {
    for (let i = 0; i < bits.length; i++) upper[bits[i] >>> 16]++;
    count += bits.length;
  });
  const rank = Math.floor((count - 1) / 2);
  const [bucket, before] = locate(upper, rank);
  const lower = new Float64Array(65536);
  forEachRow(weights, (_, bits) => {
    for (let i = 0; i < bits.length; i++) {
      if (bits[i] >>> 16 === bucket) lower[bits[i] & 0xffff]++;
    }
  });
  const [rest] = locate(lower, rank - before);
  return new Float32Array(Uint32Array.of(bucket << 16 | rest).buffer)[0];
}

/** The bucket that holds the element of a rank, and how many elements lie before the bucket. */
function locate(histogram: Float64Array, rank: number): [bucket: number, before: number] {
  let before = 0;
  for (let bucket = 0; bucket < histogram.length; bucket++) {
    if (before + histogram[bucket] > rank) return [bucket, before];
    before += histogram[bucket];
  }
  throw new RangeError("rank outside the histogram");
}

/** Calls `visit` with the scores of every row, as floats and as their bits. */
function forEachRow(
  weights: readonly Weight[],
  visit: (scores: Float32Array, bits: Uint32Array) => void,
): void {
  for (const weight of weights) {
    const scores = new Float32Array(weight.columns);
    const bits = new Uint32Array(scores.buffer);
    for (let row = 0; row < weight.rows; row++) {
      rowScores(weight, row, scores);
      visit(scores, bits);
    }
  }
}
