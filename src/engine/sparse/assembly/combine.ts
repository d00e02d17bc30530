/** Puts together what the pages that a token sees have given. */
import {
  DIM,
  headOf,
  HEADS,
  OUT,
  pagesSeen,
  partialBytes,
  PARTIALS,
  positionOf,
  SINKS,
} from "./attention_step";
import { exp2OfNegative } from "./math";

/** log2 e: sinks are scores of e^x. */
const LOG2E: f32 = 1.4426950408889634;

/** Puts the partial results of one token together. */
export function combine(a: usize, tokens: i32, thread: i32, threads: i32): void {
  if (tokens > 1) return;
  const dim = <usize> load<u32>(a, DIM), position = positionOf(0);
  const pages = pagesSeen(a, position), partials = load<usize>(a, PARTIALS);
  for (let head = thread; head < load<i32>(a, HEADS); head += threads) {
    combineOne(a, 0, head, partials + <usize> (head * pages) * partialBytes(dim), pages);
  }
}

export function combineOne(a: usize, token: i32, head: i32, partials: usize, pages: i32): void {
  const dim = <usize> load<u32>(a, DIM), size = partialBytes(dim);
  const out = headOf(a, OUT, token, head), end = partials + <usize> pages * size;
  let highest: f32 = -Infinity;
  for (let at = partials; at < end; at += size) highest = max(highest, load<f32>(at));
  let total: f32 = 0;
  const sinks = load<usize>(a, SINKS);
  if (sinks != 0) {
    const sink = load<f32>(sinks + (<usize> head << 2)) * LOG2E;
    highest = max(highest, sink);
    total = f32x4.extract_lane(exp2OfNegative(f32x4.splat(sink - highest)), 0);
  }
  for (let at = partials; at < end; at += size) {
    const weights = exp2OfNegative(f32x4.splat(load<f32>(at) - highest)), weight = f32x4.extract_lane(weights, 0);
    total += load<f32>(at, 4) * weight;
    // In the place of the largest score, which nobody reads any more.
    store<f32>(at, weight);
  }
  const factor: f32 = 1 / total, factors = f32x4.splat(factor), zero = f32x4.splat(0);
  let d: usize = 0;
  // Four vectors, so that an addition need not wait for the one before.
  for (; d + 16 <= dim; d += 16) {
    let s0 = zero, s1 = zero, s2 = zero, s3 = zero, values = partials + (d << 2);
    for (let at = partials; at < end; at += size, values += size) {
      const weight = v128.load32_splat(at);
      s0 = f32x4.add(s0, f32x4.mul(v128.load(values, 16), weight));
      s1 = f32x4.add(s1, f32x4.mul(v128.load(values, 32), weight));
      s2 = f32x4.add(s2, f32x4.mul(v128.load(values, 48), weight));
      s3 = f32x4.add(s3, f32x4.mul(v128.load(values, 64), weight));
    }
    const to = out + (d << 2);
    v128.store(to, f32x4.mul(s0, factors));
    v128.store(to, f32x4.mul(s1, factors), 16);
    v128.store(to, f32x4.mul(s2, factors), 32);
    v128.store(to, f32x4.mul(s3, factors), 48);
  }
  for (; d + 4 <= dim; d += 4) {
    let sum = f32x4.splat(0);
    for (let at = partials; at < end; at += size) {
      sum = f32x4.add(sum, f32x4.mul(v128.load(at + (d << 2), 16), v128.load32_splat(at)));
    }
    v128.store(out + (d << 2), f32x4.mul(sum, factors));
  }
  for (; d < dim; d++) {
    let sum: f32 = 0;
    for (let at = partials; at < end; at += size) sum += load<f32>(at + (d << 2), 16) * load<f32>(at);
    store<f32>(out + (d << 2), sum * factor);
  }
}
