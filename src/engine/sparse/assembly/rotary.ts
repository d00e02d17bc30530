/** Rotary embedding: pairs of a head's elements, each turned by an angle, from `from` to `to`. */

/** An element and the one `half` bytes behind it are a pair. */
export function turnHalves(from: usize, to: usize, cosines: usize, sines: usize, half: usize): void {
  let i: usize = 0;
  for (; i + 16 <= half; i += 16) {
    const x = v128.load(from + i), y = v128.load(from + half + i);
    const cos = v128.load(cosines + i), sin = v128.load(sines + i);
    v128.store(to + i, f32x4.sub(f32x4.mul(x, cos), f32x4.mul(y, sin)));
    v128.store(to + half + i, f32x4.add(f32x4.mul(y, cos), f32x4.mul(x, sin)));
  }
  for (; i < half; i += 4) {
    const x = load<f32>(from + i), y = load<f32>(from + half + i);
    store<f32>(to + i, x * load<f32>(cosines + i) - y * load<f32>(sines + i));
    store<f32>(to + half + i, y * load<f32>(cosines + i) + x * load<f32>(sines + i));
  }
}

/** Neighbours are a pair: `turned` bytes of them. */
export function turnNeighbours(from: usize, to: usize, cosines: usize, sines: usize, turned: usize): void {
  const signs = f32x4(-1, 1, -1, 1);
  let i: usize = 0;
  for (; i + 16 <= turned; i += 16) {
    const x = v128.load(from + i), y = i32x4.shuffle(x, x, 1, 0, 3, 2);
    const c = v128.load64_zero(cosines + (i >> 1)), s = v128.load64_zero(sines + (i >> 1));
    const cos = i32x4.shuffle(c, c, 0, 0, 1, 1), sin = f32x4.mul(i32x4.shuffle(s, s, 0, 0, 1, 1), signs);
    v128.store(to + i, f32x4.add(f32x4.mul(x, cos), f32x4.mul(y, sin)));
  }
  if (i == turned) return;
  const x = load<f32>(from + i), y = load<f32>(from + i, 4);
  const cos = load<f32>(cosines + (i >> 1)), sin = load<f32>(sines + (i >> 1));
  store<f32>(to + i, x * cos - y * sin);
  store<f32>(to + i, y * cos + x * sin, 4);
}
