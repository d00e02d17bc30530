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
    const fitting = this.#free.filter((buffer) => buffer.bytes >= size).sort((a, b) =>
      a.bytes - b.bytes
    );
    if (fitting.length === 0) return { address: this.#memory.reserve(size), bytes: size };
    const [best] = fitting;
    this.#free.splice(this.#free.indexOf(best), 1);
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
    this.#free.push(...this.#resting);
    this.#resting = [];
  }
}
