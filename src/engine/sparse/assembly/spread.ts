/** The transform of Walsh, which takes large single elements apart. */

/**
 * Spreads what a few elements have over all: blocks of 2^k elements, as long as divides `dim`, times a
 * Hadamard matrix of 1 and -1 (the transform of Walsh). Products of two vectors that are spread are
 * {@link spreadGain} times what they were, and largest elements are nearer to typical ones, which is
 * what rounding to integers goes by.
 */
export function spread(at: usize, dim: i32): void {
  const block = <usize> spreadGain(dim) << 2, end = at + (<usize> dim << 2);
  const second = f32x4(1, -1, 1, -1), upper = f32x4(1, 1, -1, -1);
  for (let x = at; x < end; x += 16) {
    let v = v128.load(x);
    v = f32x4.add(f32x4.mul(v, second), i32x4.shuffle(v, v, 1, 0, 3, 2));
    v128.store(x, f32x4.add(f32x4.mul(v, upper), i32x4.shuffle(v, v, 2, 3, 0, 1)));
  }
  let stride: usize = 16;
  // Two steps at a time, so that half as often all is loaded and stored.
  for (; stride << 1 < block; stride <<= 2) {
    for (let x = at; x < end; x += 3 * stride) {
      for (const quarter = x + stride; x < quarter; x += 16) {
        const a = v128.load(x), b = v128.load(x + stride);
        const c = v128.load(x + 2 * stride), d = v128.load(x + 3 * stride);
        const p = f32x4.add(a, b), q = f32x4.sub(a, b), r = f32x4.add(c, d), s = f32x4.sub(c, d);
        v128.store(x, f32x4.add(p, r));
        v128.store(x + stride, f32x4.add(q, s));
        v128.store(x + 2 * stride, f32x4.sub(p, r));
        v128.store(x + 3 * stride, f32x4.sub(q, s));
      }
    }
  }
  if (stride < block) {
    for (let x = at; x < end; x += stride) {
      for (const half = x + stride; x < half; x += 16) {
        const a = v128.load(x), b = v128.load(x + stride);
        v128.store(x, f32x4.add(a, b));
        v128.store(x + stride, f32x4.sub(a, b));
      }
    }
  }
}

/** Elements of a block of {@link spread}: the greatest power of 2 that divides `dim`, a multiple of 4. */
// @ts-ignore: decorator
@inline
export function spreadGain(dim: i32): i32 {
  return dim & -dim;
}
