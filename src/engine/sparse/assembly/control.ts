/**
 * The words that JavaScript and all threads share, and the barrier.
 *
 * `layout.ts` beside this folder has the same numbers for JavaScript.
 */
import { setUpMath } from "./math";

/** Steps that the first thread has begun, of all runs: who waits for it asleep sees that it lives. */
export const PROGRESS: usize = 32;
/** The last `LEAD` that the leader has seen. */
export const LED: usize = 36;
/** Bumped to start a run, for all threads but the first. */
export const EPOCH: usize = 64;
/** Not 0: workers leave their loop. */
export const QUIT: usize = 68;
/** Bumped to start a run whose first thread is the leader, not the caller. */
export const LEAD: usize = 96;
/** Threads that have arrived at the barrier. */
const ARRIVED: usize = 128;
/** Barriers that all threads have passed. */
const GENERATION: usize = 192;
/** Threads that sleep at the barrier. */
const SLEEPERS: usize = 196;
/** Not 0: a thread was lost, and the run is given up. */
export const FAILED: usize = 200;
export const THREADS: usize = 256;
/** Tokens of this run. */
export const TOKENS: usize = 260;
/** Where their positions are, int32: each in its own sequence. */
export const POSITIONS: usize = 264;
/** Of how many tokens logits are wanted. */
export const LOGITS: usize = 268;
export const PROGRAM: usize = 272;
/** Token ids, int32. */
export const IDS: usize = 276;
/** For each token the address of a list: where the pages of its sequence begin. */
export const PAGES: usize = 280;
/** Rounds that a thread spins at a barrier before it sleeps. */
export const SPINS: usize = 284;
/** Milliseconds without an answer after which a thread counts as lost. */
export const PATIENCE: usize = 288;
/** Not 0: the main thread may not sleep, only spin. */
export const MAIN_SPINS: usize = 292;
/** Which tokens' logits are wanted, int32, in rising order. */
export const LOGITS_OF: usize = 296;
/** For each thread a line of counters: the chunks of its share that are taken, of each run of products since a barrier. */
export const TAKEN: usize = 300;
/** Bytes of a line: what one thread counts is in nobody else's way. */
export const TAKEN_BYTES: usize = 64;
/** 16 bytes of 64: the zero points of inputs of seven bits. */
export const ZERO_POINTS: usize = 304;
/** 16 bytes of 15, then 8 halves of 1: constants that kernels load, for they would be made anew each time. */
export const NIBBLES: usize = 320;
export const ONES: usize = 336;

/** Constants of `math.ts`, 16 bytes each. */
export const CONSTANTS: usize = 352;
/** Constants of `int4.ts`: 2^112, the bits of float16 where float32 has them, and int8 by four bits. */
export const HALF_UNIT: usize = 976;
export const HALF_BITS: usize = 992;
export const LEVELS: usize = 1008;
/** 8 halves of 255. */
export const EVEN_BYTES: usize = 1024;
/** How far below the largest logit those may be that are wanted, float32; none below 0 where all are. */
export const WITHIN: usize = 1040;
/** In how many places one token's weights are read, 1, 2 or 4, and how many bytes are worth one: see `places.ts`. */
export const PLACES: usize = 1044;
export const LEAST_PLACE: usize = 1048;
/** Chunks of each thread's share of one token's products: see `shareOut` in `program.ts`. */
export const CHUNKS_OF_ONE: usize = 1052;

/** For each byte which of its bits are set, the lowest first: eight bytes, with 128 more in each that there is. */
export const SET_BITS: usize = 1088;
/** Constants of `slots_int4_one.ts`: 16 bytes of 8, and of 8 in both halves. */
export const EIGHTS: usize = 3136;
export const SIGN_BITS: usize = 3152;

/** Puts the constants in place, and what no run has said yet. */
export function setUp(): void {
  memory.fill(ZERO_POINTS, 64, 16);
  memory.fill(NIBBLES, 15, 16);
  memory.fill(EIGHTS, 8, 16);
  memory.fill(SIGN_BITS, 0x88, 16);
  for (let i: usize = 0; i < 8; i++) {
    store<u16>(ONES + (i << 1), 1);
    store<u16>(EVEN_BYTES + (i << 1), 255);
  }
  for (let i: usize = 0; i < 4; i++) {
    store<f32>(HALF_UNIT + (i << 2), 5192296858534827628530496329220096.0);
    store<u32>(HALF_BITS + (i << 2), 0x8fffe000);
  }
  for (let i = 0; i < 16; i++) store<i8>(LEVELS + i, i < 8 ? i : i - 16);
  for (let byte: usize = 0; byte < 256; byte++) {
    let at = SET_BITS + (byte << 3);
    for (let rest = <u32> byte; rest != 0; rest &= rest - 1) store<u8>(at++, <u8> ctz(rest) | 128);
  }
  store<i32>(PLACES, 1);
  store<i32>(CHUNKS_OF_ONE, 1);
  setUpMath();
}

/** Whether each thread computes all of its share of products, and nobody counts chunks. */
// @ts-ignore: decorator
@inline
export function areSharesWhole(tokens: i32): bool {
  return tokens == 1 && load<i32>(CHUNKS_OF_ONE) == 1;
}

/** Sets all counters to zero. */
function clearTaken(threads: i32): void {
  // `memory.fill` leaves WebAssembly in some engines, while others wait.
  const zero = i32x4.splat(0), taken = load<usize>(TAKEN);
  for (let at = taken, end = taken + <usize> threads * TAKEN_BYTES; at < end; at += 16) v128.store(at, zero);
}

/** Waits until all threads are here. False: a thread was lost. */
export function barrier(thread: i32, threads: i32): bool {
  if (threads == 1) return true;
  if (atomic.load<i32>(FAILED) != 0) return false;
  const generation = atomic.load<i32>(GENERATION);
  if (atomic.add<i32>(ARRIVED, 1) == threads - 1) {
    atomic.store<i32>(ARRIVED, 0);
    // All are here, so nobody takes anything. Where nobody has, lines that others have are left to them.
    if (!areSharesWhole(load<i32>(TOKENS))) clearTaken(threads);
    atomic.add<i32>(GENERATION, 1);
    if (atomic.load<i32>(SLEEPERS) != 0) atomic.notify(GENERATION, -1);
    return true;
  }
  const spins = load<i32>(SPINS);
  for (let i = 0; i < spins; i++) {
    if (atomic.load<i32>(GENERATION) != generation) return true;
  }
  const mayNotSleep = thread == 0 && load<i32>(MAIN_SPINS) != 0;
  // Sleeps are short, so that a thread that fails is noticed by the others. There is no clock here: a
  // thread that may not sleep counts its looks, some hundred thousand of which take a millisecond.
  const patience = <i64> load<i32>(PATIENCE);
  const looks: i64 = mayNotSleep ? patience * 100_000 : max<i64>(1, patience / 20);
  atomic.add<i32>(SLEEPERS, 1);
  for (let i: i64 = 0; i < looks; i++) {
    if (atomic.load<i32>(GENERATION) != generation) break;
    if (atomic.load<i32>(FAILED) != 0) break;
    if (!mayNotSleep) atomic.wait<i32>(GENERATION, generation, 20_000_000);
  }
  atomic.sub<i32>(SLEEPERS, 1);
  if (atomic.load<i32>(GENERATION) != generation) return true;
  atomic.store<i32>(FAILED, 1);
  return false;
}
