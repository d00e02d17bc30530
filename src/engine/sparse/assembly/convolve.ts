/**
 * Convolutions over the tokens: each channel's own sum over a token's input and those just before it.
 *
 * A layer's part of a page has room for the last inputs of the page's own tokens, as many as are read before a token's:
 * each where its position says, in turn. Threads divide the channels, and go through all tokens one after the other: so
 * what a token reads is there, and nobody waits. Its sum is made in one order, whatever is run with it.
 */
import { page, positionOf } from "./attention_step";
import { activate, NONE } from "./math";
import { share, vectorOf } from "./vectors";

/** Addresses of vectors; the word behind each is how many bytes tokens are apart. 0 is no gate. */
const IN: usize = 8, GATE: usize = 16, TIMES: usize = 24, OUT: usize = 32;
/** How many channels there are, and how many tokens each sees, the token itself among them. */
const CHANNELS: usize = 40, LENGTH: usize = 44;
/** Weights `[length, channels]`, the token's own last, each token's in whole lines; what sums begin with, or 0. */
const WEIGHTS: usize = 48, BIAS: usize = 52;
/** Bytes from a page's beginning to this layer's part of it. */
const LAYER: usize = 56;
/** Of the sums, before they are multiplied. */
const ACTIVATION: usize = 60;

/** Channels of a line, and bytes. */
const LINE = 16, LINE_BYTES = 64;

export function convolve(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const channels = load<i32>(a, CHANNELS), lines = (channels + LINE - 1) / LINE;
  const first = <usize> share(lines, thread, threads) * LINE_BYTES;
  const last = min(<usize> share(lines, thread + 1, threads) * LINE_BYTES, <usize> channels << 2);
  if (first >= last) return;
  const apart = <usize> lines * LINE_BYTES;
  for (let t = 0; t < tokens; t++) convolveToken(a, t, apart, first, last - first);
}

/** One token's channels from byte `first` on; `apart` are the bytes from one token's weights or inputs to the next one's. */
function convolveToken(a: usize, token: i32, apart: usize, first: usize, bytes: usize): void {
  const position = positionOf(token), before = load<i32>(a, LENGTH) - 1, bias = load<usize>(a, BIAS);
  const out = vectorOf(a, OUT, token) + first, layer = load<usize>(a, LAYER) + first;
  let weights = load<usize>(a, WEIGHTS) + first;
  let isBegun = bias != 0;
  if (isBegun) memory.copy(out, bias + first, bytes);
  for (let p = position - before; p < position; p++) {
    // Before the first token there is nothing.
    if (p >= 0) {
      const kept = page(token, p >> 6) + layer + <usize> (p % before) * apart;
      if (isBegun) addProducts(out, kept, weights, bytes);
      else multiply(out, kept, weights, bytes);
      isBegun = true;
    }
    weights += apart;
  }
  // What is kept here has been read: it is of the position that is as far back as any.
  const own = page(token, position >> 6) + layer + <usize> (position % before) * apart;
  const input = vectorOf(a, IN, token) + first;
  if (load<usize>(a, GATE) != 0) multiply(own, input, vectorOf(a, GATE, token) + first, bytes);
  else memory.copy(own, input, bytes);
  if (isBegun) addProducts(out, own, weights, bytes);
  else multiply(out, own, weights, bytes);
  activateSome(load<i32>(a, ACTIVATION), out, bytes);
  if (load<usize>(a, TIMES) != 0) multiply(out, out, vectorOf(a, TIMES, token) + first, bytes);
}

/** Activates numbers where they lie. */
function activateSome(kind: i32, at: usize, bytes: usize): void {
  if (kind == NONE) return;
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(at + i, activate(kind, v128.load(at + i)));
  for (; i < bytes; i += 4) {
    store<f32>(at + i, f32x4.extract_lane(activate(kind, v128.load32_zero(at + i)), 0));
  }
}

/** Adds x · weights to sums. */
function addProducts(sums: usize, x: usize, weights: usize, bytes: usize): void {
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) {
    const product = f32x4.mul(v128.load(x + i), v128.load(weights + i));
    v128.store(sums + i, f32x4.add(v128.load(sums + i), product));
  }
  // Not a byte more: behind a part of a vector others follow, or nothing.
  for (; i < bytes; i += 4) {
    store<f32>(sums + i, load<f32>(sums + i) + load<f32>(x + i) * load<f32>(weights + i));
  }
}

/** x · y, which may lie where the product is put. */
function multiply(to: usize, x: usize, y: usize, bytes: usize): void {
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(to + i, f32x4.mul(v128.load(x + i), v128.load(y + i)));
  for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(x + i) * load<f32>(y + i));
}
