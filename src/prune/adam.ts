/**
 * Gradient descent on the weights that a mask keeps.
 *
 * Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1). Only kept weights have moments, and those lie
 * packed one after the other, as the weights do: 12 bytes for each weight that stays, and a bit for
 * every one.
 * @module
 */

/** What the averages of gradients and of their squares keep at each step. */
const FIRST_DECAY = 0.9;
const SECOND_DECAY = 0.99;
/** Keeps weights that have never had a gradient where they are. */
const EPSILON = 1e-12;

/** The kept weights of one matrix. */
export interface KeptWeights {
  /** The mask, a bit for each weight; see `packMask`. */
  readonly bits: Uint8Array;
  /** The kept weights, in their order in the matrix. */
  readonly values: Float32Array;
  /** Running mean of each one's gradient. */
  readonly first: Float32Array;
  /** Running mean of its square. */
  readonly second: Float32Array;
}

/**
 * Packs the weights of a matrix that its mask keeps.
 *
 * @param matrix The weights.
 * @param bits Their mask as `packMask` packs it.
 */
export function packKept(matrix: Float32Array, bits: Uint8Array): KeptWeights {
  const values = matrix.filter((_, i) => (bits[i >> 3] >> (i & 7) & 1) === 1);
  const { length } = values;
  return { bits, values, first: new Float32Array(length), second: new Float32Array(length) };
}

/**
 * Puts kept weights where they belong in their matrix.
 *
 * @param bits The matrix's mask, packed.
 * @param values The kept weights, packed.
 * @param target The whole matrix; pruned weights become 0.
 */
export function unpackKept(bits: Uint8Array, values: Float32Array, target: Float32Array): void {
  target.fill(0);
  for (let byte = 0, k = 0; byte < bits.length; byte++) {
    for (let left = bits[byte]; left !== 0; left &= left - 1) {
      target[byte * 8 + lowestBit(left)] = values[k++];
    }
  }
}

/**
 * One step of Adam.
 *
 * @param kept The weights, changed in place.
 * @param gradient The loss's gradient by the whole matrix.
 * @param rate How far a weight moves whose gradients all point one way.
 * @param step How many steps there were before.
 */
export function adamStep(
  { bits, values, first, second }: KeptWeights,
  gradient: Float32Array,
  rate: number,
  step: number,
): void {
  // The averages begin at 0, which these make up for.
  const firstScale = 1 / (1 - FIRST_DECAY ** (step + 1));
  const secondScale = 1 / (1 - SECOND_DECAY ** (step + 1));
  for (let byte = 0, k = 0; byte < bits.length; byte++) {
    for (let left = bits[byte]; left !== 0; left &= left - 1, k++) {
      const g = gradient[byte * 8 + lowestBit(left)];
      const m = first[k] = FIRST_DECAY * first[k] + (1 - FIRST_DECAY) * g;
      const v = second[k] = SECOND_DECAY * second[k] + (1 - SECOND_DECAY) * g * g;
      values[k] -= rate * m * firstScale / (Math.sqrt(v * secondScale) + EPSILON);
    }
  }
}

function lowestBit(byte: number): number {
  return 31 - Math.clz32(byte & -byte);
}
