/**
 * Random numbers from a seed, the same on every machine.
 * @module
 */

const MASK = 0xffffffffffffffffn;

/**
 * The next number of splitmix64 (Steele, Lea and Flood), which spreads the bits of a seed.
 *
 * @param state 64 bits.
 */
export function splitmix64(state: bigint): { readonly state: bigint; readonly value: bigint } {
  const next = (state + 0x9e3779b97f4a7c15n) & MASK;
  let z = next;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return { state: next, value: z ^ (z >> 31n) };
}

/** xoshiro128** 1.1 (Blackman and Vigna): 32 random bits at a time, with a period of 2^128 − 1. */
export class Xoshiro128 {
  readonly #state: Uint32Array;

  /** @param state Four words, not all 0. */
  constructor(state: ArrayLike<number>) {
    this.#state = Uint32Array.from(state);
  }

  /**
   * A generator whose state is made of a seed by splitmix64, as its authors advise.
   *
   * @param seed A whole number that is not negative.
   */
  static fromSeed(seed: number): Xoshiro128 {
    const first = splitmix64(BigInt(seed));
    const { value } = splitmix64(first.state);
    const words = [first.value, first.value >> 32n, value, value >> 32n];
    return new Xoshiro128(words.map((word) => Number(word & 0xffffffffn)));
  }

  /** 32 random bits, as a number from 0 to 2^32 − 1. */
  bits(): number {
    const s = this.#state;
    const scrambled = Math.imul(rotated(Math.imul(s[1], 5), 7), 9) >>> 0;
    const t = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotated(s[3], 11);
    return scrambled;
  }

  /** A uniform number in [0, 1), with 53 random bits. */
  uniform(): number {
    const high = this.bits() >>> 5;
    const low = this.bits() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }
}

function rotated(word: number, by: number): number {
  return (word << by) | (word >>> (32 - by));
}

/** A seed that nobody chose: 53 random bits of the system. */
export function randomSeed(): number {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 4294967296 + low;
}
