/**
 * Weights that several threads pack: a queue of descriptors, of which each thread takes the next.
 *
 * One thread reads matrices, gives them their places and posts them; where it has no room for another one it
 * takes one itself. A message from thread to thread takes longer than many a matrix takes to be packed.
 */
import { QUIT, SPINS } from "./control";
import { pack, packDense } from "./pack";
import { packSketch } from "./pack_sketch";

/** Jobs that have been posted, and taken, of all times. */
const POSTED: usize = 1056, BEGUN: usize = 1060;
/** Where descriptors wait: a ring of places. */
const RING: usize = 1064, RING_PLACES: usize = 1068;
/** Bumped with each job, and at the end. */
const SIGNAL: usize = 1072;
/** Not 0: no more will be posted. */
const ENDED: usize = 1076;

/** Words of a descriptor: what is to be done, what came of it, and not 0 when it is done. */
const JOB: usize = 136, RESULT: usize = 140, DONE: usize = 144;

/** Where the descriptor of job `n` waits. */
// @ts-ignore: decorator
@inline
function placeOf(n: u32): usize {
  return load<usize>(RING) + (<usize> (n % load<u32>(RING_PLACES)) << 2);
}

/** Posts a job. No more may be under way than the ring has places. */
export function post(d: usize): void {
  const posted = load<u32>(POSTED);
  store<u32>(d, 0, DONE);
  store<usize>(placeOf(posted), d);
  atomic.store<u32>(POSTED, posted + 1);
  atomic.add<i32>(SIGNAL, 1);
  atomic.notify(SIGNAL, 1);
}

/** Does the next job; false when there is none. */
export function help(): bool {
  for (;;) {
    const n = atomic.load<u32>(BEGUN);
    if (n == atomic.load<u32>(POSTED)) return false;
    const d = load<usize>(placeOf(n));
    if (atomic.cmpxchg<u32>(BEGUN, n, n + 1) != n) continue;
    store<u32>(d, perform(d), RESULT);
    atomic.store<u32>(d + DONE, 1);
    return true;
  }
}

function perform(d: usize): u32 {
  const job = load<u32>(d, JOB);
  if (job == 0) return pack(d);
  if (job == 1) return packDense(d);
  packSketch(d);
  return 0;
}

/** A thread's life until all weights are packed. */
export function helpToEnd(): void {
  for (;;) {
    const signal = atomic.load<i32>(SIGNAL);
    while (help()) {}
    if (atomic.load<i32>(ENDED) != 0 || atomic.load<i32>(QUIT) != 0) return;
    for (let i = load<i32>(SPINS); i > 0 && atomic.load<i32>(SIGNAL) == signal; i--) {}
    if (atomic.load<i32>(SIGNAL) == signal) atomic.wait<i32>(SIGNAL, signal, -1);
  }
}
