/**
 * What JavaScript asks of a build before it trusts it: some processors and engines have relaxed
 * instructions that give other results than these kernels count on.
 */
import { dot, lane, ones, pick } from "./simd";
import { addBoth } from "./slots_sorted";
import { SUMS } from "./sums";

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
 * Work to be timed, as prefill has it: a segment of two slots a window that meets four tokens, with their sums in
 * memory.
 *
 * All is loaded, from another place in each round, and no two of it alike: what compilers find to be the same
 * they compute once, and how much of it that is differs from build to build.
 *
 * @param at 1056 bytes, of any content.
 */
export function race(at: usize, rounds: i32): i32 {
  const sums = at + 832;
  for (let i = 0; i < rounds; i++) {
    // A segment as `unpackSorted` leaves it, a vector of steps, and four tokens.
    const w = at + (<usize> (i & 31) << 4), s = v128.load(w, 176);
    const v0 = v128.load(w, 32), v1 = v128.load(w, 48), i0 = v128.load(w, 64), i1 = v128.load(w, 80);
    const v2 = v128.load(w, 112), v3 = v128.load(w, 128), i2 = v128.load(w, 144), i3 = v128.load(w, 160);
    const b = v128.load(w, 16);
    let y = v128.load(w, 192), z = v128.load(w, 208), sum = v128.load(sums);
    v128.store(sums, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(s, 0)));
    y = v128.load(w, 224), z = v128.load(w, 240), sum = v128.load(sums, SUMS);
    v128.store(sums, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(s, 1)), SUMS);
    y = v128.load(w, 256), z = v128.load(w, 272), sum = v128.load(sums, 2 * SUMS);
    v128.store(sums, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(s, 2)), 2 * SUMS);
    y = v128.load(w, 288), z = v128.load(w, 304), sum = v128.load(sums, 3 * SUMS);
    v128.store(sums, addBoth(sum, y, z, b, v0, v1, i0, i1, v2, v3, i2, i3, lane(s, 3)), 3 * SUMS);
  }
  return load<i32>(sums);
}
