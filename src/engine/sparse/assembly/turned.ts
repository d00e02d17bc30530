/** Float32 inputs of several tokens, turned: those of one column lie together, `[column, token]`. */
import { turnFour } from "./simd";

/**
 * Turns them.
 *
 * @param x Of the first token; those of the next are `stride` bytes further.
 * @param places Tokens that there is room for in a column, a multiple of four: those that are not there are zeros.
 */
export function turn(x: usize, stride: usize, tokens: i32, places: i32, columns: usize, to: usize): void {
  const zero = f32x4.splat(0), width = <usize> places << 2;
  let from = x, out = to, c: usize = 0;
  // All tokens of some columns, then the next columns: so that each line is written once.
  for (; c + 4 <= columns; c += 4, from += 16, out += 4 * width) {
    let at = from;
    for (let token = 0; token < places; token += 4, at += 4 * stride) {
      const rest = tokens - token;
      const v0 = rest > 0 ? v128.load(at) : zero, v1 = rest > 1 ? v128.load(at + stride) : zero;
      const v2 = rest > 2 ? v128.load(at + 2 * stride) : zero, v3 = rest > 3 ? v128.load(at + 3 * stride) : zero;
      turnFour(v0, v1, v2, v3, out + (<usize> token << 2), width);
    }
  }
  for (; c < columns; c++, from += 4, out += width) {
    let at = from;
    for (let token = 0; token < places; token++, at += stride) {
      store<f32>(out + (<usize> token << 2), token < tokens ? load<f32>(at) : 0);
    }
  }
}
