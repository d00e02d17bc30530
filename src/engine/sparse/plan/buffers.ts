/**
 * Where vectors lie while a program runs: buffers, used again once nobody can still be reading them.
 * @module
 */
import { roundUp } from "../layout.ts";
import type { EngineMemory } from "../memory.ts";

/** A buffer: vectors one after the other. */
export interface Buffer {
  readonly address: number;
  readonly bytes: number;
}

/** Hands out buffers of one program. */
export class Buffers {
  readonly #memory: EngineMemory;
  #free: Buffer[] = [];
  /** Given back, but another thread may still be reading them, until all have met at a barrier. */
  #resting: Buffer[] = [];

  /** @param spare Room that may be used first. */
  constructor(memory: EngineMemory, spare: Buffer) {
    this.#memory = memory;
    if (spare.bytes > 0) this.#free.push(spare);
  }

  take(bytes: number): Buffer {
    const size = roundUp(bytes, 64);
    // The smallest that is large enough, so that large ones stay whole.
    let at = -1, least = Infinity;
    for (const [i, buffer] of this.#free.entries()) {
      if (buffer.bytes >= size && buffer.bytes < least) [at, least] = [i, buffer.bytes];
    }
    if (at < 0) return { address: this.#memory.reserve(size), bytes: size };
    const [best] = this.#free.splice(at, 1);
    // What is left of a much larger one can serve others.
    if (best.bytes - size >= 4096) {
      this.#free.push({ address: best.address + size, bytes: best.bytes - size });
      return { address: best.address, bytes: size };
    }
    return best;
  }

  give(buffer: Buffer): void {
    this.#resting.push(buffer);
  }

  /** All threads have met: what was given back before is free. */
  barrier(): void {
    this.#free = this.#free.concat(this.#resting);
    this.#resting = [];
  }
}
