/**
 * What JavaScript asks of a build before it trusts it: some processors and engines have relaxed
 * instructions that give other results than these kernels count on.
 */
import { scoresInt8OfTwo } from "./page_int8";
import { WORK } from "./probabilities";
import { dot, ones, pick } from "./simd";
import { addNarrowTile } from "./slots_sorted";

/** Weights and inputs at the ends of their ranges, and between. */
// @ts-ignore: decorator
@inline
function weight(i: i32): i32 {
  const k = i % 7;
  return k == 0 ? 127 : k == 1 ? -127 : k == 2 ? -128 : (i * 89) % 255 - 127;
}

// @ts-ignore: decorator
@inline
function activation(i: i32): i32 {
  const k = i % 5;
  return k == 0 ? 127 : k == 1 ? 0 : (i * 57) % 128;
}

/**
 * Whether products and picks are right.
 *
 * @param at 64 bytes that it may write to.
 */
export function isRight(at: usize): bool {
  const one = ones();
  for (let round = 0; round < 64; round++) {
    for (let i = 0; i < 16; i++) {
      store<i8>(at + i, weight(round * 16 + i));
      store<u8>(at + i, activation(round * 11 + i), 16);
      store<u8>(at + i, (round * 7 + i * 5) & 15, 32);
    }
    const picked = pick(v128.load(at, 16), v128.load(at, 32));
    v128.store(at, picked, 48);
    for (let i = 0; i < 16; i++) {
      if (load<u8>(at + i, 48) != load<u8>(at + load<u8>(at + i, 32), 16)) return false;
    }
    const sums = dot(v128.load(at), picked, i32x4.splat(round), one);
    v128.store(at, sums, 16);
    for (let lane = 0; lane < 4; lane++) {
      let sum = round;
      for (let i = 0; i < 4; i++) {
        sum += <i32> load<i8>(at + lane * 4 + i) * <i32> load<u8>(at + lane * 4 + i, 48);
      }
      if (load<i32>(at + lane * 4, 16) != sum) return false;
    }
  }
  return true;
}

/**
 * Work to be timed, as prompts have it: a segment of two slots a window that meets eight tokens, with their sums in
 * memory, and the products of two queries with sixteen keys. Builds may be as fast at the one, and far apart at the
 * other.
 *
 * All is loaded, from another place in each round, and no two of it alike: what compilers find to be the same
 * they compute once, and how much of it that is differs from build to build.
 *
 * @param at 8 kB: zeros, but for what {@link isRight} has left. Numbers that are floats here must not be what an earlier
 * round left of integers: processors take hundreds of cycles for floats that are nearly 0.
 */
export function race(at: usize, rounds: i32): i32 {
  const sums = at + 1024, scores = at + 2048, queries = at + 3072;
  for (let i = 0; i < rounds; i++) {
    // A segment as `unpackSorted` leaves it, two vectors of steps, and eight tokens.
    const moved = <usize> (i & 31) << 4, w = at + moved;
    addNarrowTile(true, sums, w + 208, w + 176, w);
    scoresInt8OfTwo(w, queries + moved, scores, scores + WORK, 0, 15, 32);
  }
  return load<i32>(sums);
}
