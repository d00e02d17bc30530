/**
 * What remembers: each head has one matrix, that of its sequence, which fades and takes every token in: corrected, in
 * linear attention by the gated delta rule, or as it is, in state spaces.
 *
 * A head's matrix has a row for each element of a key; its columns, elements of a value, know nothing of each other.
 * So threads divide heads and columns, sixteen at a time, each of which lies in one piece and in the nearest cache
 * while a thread goes through all tokens with it; nobody waits. What comes of a token is summed in one order, whatever
 * is run with it.
 */
import { PAGES } from "./control";
import { exp } from "./math";
import { sumLanes } from "./simd";
import { share, vectorOf } from "./vectors";

/** Addresses of vectors; the word behind each is how many bytes tokens are apart. No strengths, no correction. */
const QUERIES: usize = 8, KEYS: usize = 16, VALUES: usize = 24, DECAYS: usize = 32, STRENGTHS: usize = 40;
const OUT: usize = 48;
/** Heads, and elements of each. */
const KEY_HEADS: usize = 56, VALUE_HEADS: usize = 60, KEY_DIM: usize = 64, VALUE_DIM: usize = 68;
/** Bytes from the beginning of a sequence's state to this layer's. */
const LAYER: usize = 72;
/** What queries are multiplied by; and what is added to squares of lengths by which keys and they are divided. */
const SCALE: usize = 76, EPSILON: usize = 80;

/** Columns that a thread goes through tokens with, and bytes of a row of them. */
const COLUMNS = 16, ROW: usize = 64;

export function delta(a: usize, tokens: i32, thread: i32, threads: i32): void {
  const heads = load<i32>(a, VALUE_HEADS), blocks = (load<i32>(a, VALUE_DIM) + COLUMNS - 1) / COLUMNS;
  const end = share(heads * blocks, thread + 1, threads);
  for (let unit = share(heads * blocks, thread, threads); unit < end; unit++) {
    for (let t = 0; t < tokens; t++) deltaToken(a, t, unit, unit / blocks, unit % blocks);
  }
}

/** One token's step of some columns of a head. */
function deltaToken(a: usize, token: i32, unit: i32, head: i32, block: i32): void {
  const dim = <usize> load<u32>(a, KEY_DIM), width = load<i32>(a, VALUE_DIM);
  const shared = head / (load<i32>(a, VALUE_HEADS) / load<i32>(a, KEY_HEADS));
  const q = vectorOf(a, QUERIES, token) + <usize> shared * (dim << 2);
  const k = vectorOf(a, KEYS, token) + <usize> shared * (dim << 2);
  const column = block * COLUMNS, at = <usize> (head * width + column) << 2, some = width - column;
  const state = stateOf(token) + load<usize>(a, LAYER) + <usize> unit * dim * ROW;
  const left = exp(v128.load32_splat(vectorOf(a, DECAYS, token) + (<usize> head << 2)));
  const values = vectorOf(a, VALUES, token) + at, out = vectorOf(a, OUT, token) + at;
  if (load<usize>(a, STRENGTHS) == 0) {
    takeIn(state, q, k, dim, left, load<f32>(a, SCALE), values, out, some);
    return;
  }
  const epsilon = load<f32>(a, EPSILON);
  const ofKey: f32 = 1 / sqrt<f32>(products(k, k, dim) + epsilon);
  const ofQuery: f32 = load<f32>(a, SCALE) / sqrt<f32>(products(q, q, dim) + epsilon);
  const strength = v128.load32_splat(vectorOf(a, STRENGTHS, token) + (<usize> head << 2));
  correct(state, q, k, dim, left, ofKey, ofQuery, strength, values, out, some);
}

/** S ← αS + k ⊗ v, of some columns, and what the query finds then. */
function takeIn(
  state: usize,
  q: usize,
  k: usize,
  dim: usize,
  left: v128,
  scale: f32,
  values: usize,
  out: usize,
  some: i32,
): void {
  const v0 = firstOf(values, some), v1 = firstOf(values + 16, some - 4);
  const v2 = firstOf(values + 32, some - 8), v3 = firstOf(values + 48, some - 12);
  let r0 = f32x4.splat(0), r1 = r0, r2 = r0, r3 = r0, row = state;
  for (let i: usize = 0; i < dim << 2; i += 4, row += ROW) {
    const ki = v128.load32_splat(k + i), qi = v128.load32_splat(q + i);
    const s0 = f32x4.add(f32x4.mul(v128.load(row), left), f32x4.mul(v0, ki));
    const s1 = f32x4.add(f32x4.mul(v128.load(row, 16), left), f32x4.mul(v1, ki));
    const s2 = f32x4.add(f32x4.mul(v128.load(row, 32), left), f32x4.mul(v2, ki));
    const s3 = f32x4.add(f32x4.mul(v128.load(row, 48), left), f32x4.mul(v3, ki));
    v128.store(row, s0);
    v128.store(row, s1, 16);
    v128.store(row, s2, 32);
    v128.store(row, s3, 48);
    r0 = f32x4.add(r0, f32x4.mul(s0, qi));
    r1 = f32x4.add(r1, f32x4.mul(s1, qi));
    r2 = f32x4.add(r2, f32x4.mul(s2, qi));
    r3 = f32x4.add(r3, f32x4.mul(s3, qi));
  }
  const gain = f32x4.splat(scale);
  putFirst(out, some, f32x4.mul(r0, gain));
  putFirst(out + 16, some - 4, f32x4.mul(r1, gain));
  putFirst(out + 32, some - 8, f32x4.mul(r2, gain));
  putFirst(out + 48, some - 12, f32x4.mul(r3, gain));
}

/**
 * S ← αS + k ⊗ β(v − (αS)ᵀk), of some columns, and what the query finds then: it is made of what it found before, so
 * that the state is read once for both.
 *
 * @param ofKey What the key is multiplied by.
 * @param ofQuery What the query is.
 */
function correct(
  state: usize,
  q: usize,
  k: usize,
  dim: usize,
  left: v128,
  ofKey: f32,
  ofQuery: f32,
  strength: v128,
  values: usize,
  out: usize,
  some: i32,
): void {
  // What is remembered of the key, and what the query finds of it.
  let m0 = f32x4.splat(0), m1 = m0, m2 = m0, m3 = m0, r0 = m0, r1 = m0, r2 = m0, r3 = m0;
  let row = state;
  for (let i: usize = 0; i < dim << 2; i += 4, row += ROW) {
    const ki = v128.load32_splat(k + i), qi = v128.load32_splat(q + i);
    const s0 = v128.load(row), s1 = v128.load(row, 16), s2 = v128.load(row, 32), s3 = v128.load(row, 48);
    m0 = f32x4.add(m0, f32x4.mul(s0, ki));
    m1 = f32x4.add(m1, f32x4.mul(s1, ki));
    m2 = f32x4.add(m2, f32x4.mul(s2, ki));
    m3 = f32x4.add(m3, f32x4.mul(s3, ki));
    r0 = f32x4.add(r0, f32x4.mul(s0, qi));
    r1 = f32x4.add(r1, f32x4.mul(s1, qi));
    r2 = f32x4.add(r2, f32x4.mul(s2, qi));
    r3 = f32x4.add(r3, f32x4.mul(s3, qi));
  }
  const ofMemory = f32x4.mul(left, f32x4.splat(ofKey));
  const d0 = corrected(firstOf(values, some), m0, ofMemory, strength);
  const d1 = corrected(firstOf(values + 16, some - 4), m1, ofMemory, strength);
  const d2 = corrected(firstOf(values + 32, some - 8), m2, ofMemory, strength);
  const d3 = corrected(firstOf(values + 48, some - 12), m3, ofMemory, strength);

  const alike = f32x4.splat(products(q, k, dim) * ofKey), gain = f32x4.splat(ofQuery);
  putFirst(out, some, found(r0, d0, left, alike, gain));
  putFirst(out + 16, some - 4, found(r1, d1, left, alike, gain));
  putFirst(out + 32, some - 8, found(r2, d2, left, alike, gain));
  putFirst(out + 48, some - 12, found(r3, d3, left, alike, gain));

  const inverse = f32x4.splat(ofKey);
  const e0 = f32x4.mul(d0, inverse), e1 = f32x4.mul(d1, inverse);
  const e2 = f32x4.mul(d2, inverse), e3 = f32x4.mul(d3, inverse);
  row = state;
  for (let i: usize = 0; i < dim << 2; i += 4, row += ROW) {
    const ki = v128.load32_splat(k + i);
    v128.store(row, f32x4.add(f32x4.mul(v128.load(row), left), f32x4.mul(e0, ki)));
    v128.store(row, f32x4.add(f32x4.mul(v128.load(row, 16), left), f32x4.mul(e1, ki)), 16);
    v128.store(row, f32x4.add(f32x4.mul(v128.load(row, 32), left), f32x4.mul(e2, ki)), 32);
    v128.store(row, f32x4.add(f32x4.mul(v128.load(row, 48), left), f32x4.mul(e3, ki)), 48);
  }
}

/** β(v − αSᵀk). */
// @ts-ignore: decorator
@inline
function corrected(value: v128, remembered: v128, ofMemory: v128, strength: v128): v128 {
  return f32x4.mul(strength, f32x4.sub(value, f32x4.mul(remembered, ofMemory)));
}

/** What a query finds once the memory has faded and was corrected. */
// @ts-ignore: decorator
@inline
function found(before: v128, correction: v128, left: v128, alike: v128, gain: v128): v128 {
  return f32x4.mul(gain, f32x4.add(f32x4.mul(before, left), f32x4.mul(correction, alike)));
}

/** Σ x·y, always in the same order. */
function products(x: usize, y: usize, count: usize): f32 {
  let sum = f32x4.splat(0), i: usize = 0;
  const bytes = count << 2;
  for (; i + 16 <= bytes; i += 16) sum = f32x4.add(sum, f32x4.mul(v128.load(x + i), v128.load(y + i)));
  let total = sumLanes(sum);
  for (; i < bytes; i += 4) total += load<f32>(x + i) * load<f32>(y + i);
  return total;
}

/** Four numbers, or as many as there are and zeros: what lies behind is of others. */
// @ts-ignore: decorator
@inline
function firstOf(at: usize, count: i32): v128 {
  if (count >= 4) return v128.load(at);
  let some = f32x4.splat(0);
  if (count > 0) some = v128.load32_zero(at);
  if (count > 1) some = f32x4.replace_lane(some, 1, load<f32>(at, 4));
  if (count > 2) some = f32x4.replace_lane(some, 2, load<f32>(at, 8));
  return some;
}

// @ts-ignore: decorator
@inline
function putFirst(at: usize, count: i32, four: v128): void {
  if (count >= 4) {
    v128.store(at, four);
    return;
  }
  if (count > 0) store<f32>(at, f32x4.extract_lane(four, 0));
  if (count > 1) store<f32>(at, f32x4.extract_lane(four, 1), 4);
  if (count > 2) store<f32>(at, f32x4.extract_lane(four, 2), 8);
}

/** Where the state of a token's sequence lies: the word before the list of its pages says so. */
// @ts-ignore: decorator
@inline
function stateOf(token: i32): usize {
  return load<usize>(load<usize>(load<usize>(PAGES) + (<usize> token << 2)) - 4);
}
