/**
 * What JavaScript asks of a build before it trusts it: some processors and engines have relaxed
 * instructions that give other results than these kernels count on.
 */
import { dot, ones, pick } from "./simd";

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

/** Work to be timed: products of 64 bytes at `at`, as prefill makes them. */
export function race(at: usize, rounds: i32): i32 {
  const one = ones();
  const w0 = v128.load(at),
    w1 = v128.load(at, 16),
    x = v128.load(at, 32),
    indices = v128.load(at, 48);
  let a = i32x4.splat(0), b = a, c = a, d = a;
  for (let i = 0; i < rounds; i++) {
    const p = pick(x, indices);
    a = dot(w0, p, a, one);
    b = dot(w1, p, b, one);
    c = dot(w0, x, c, one);
    d = dot(w1, x, d, one);
  }
  return i32x4.extract_lane(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)), 0);
}
