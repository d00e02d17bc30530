/**
 * The one memory in which a model lies: weights, buffers and cache, each placed once.
 * @module
 */
import { MemoryBudgetError } from "../../errors.ts";
import { FIRST_FREE, roundUp } from "./layout.ts";

const PAGE_BYTES = 65536;
/** Bytes that WebAssembly can address. */
const ADDRESSABLE = 65536 * PAGE_BYTES;

/** A WebAssembly memory from which room is handed out and never taken back. */
export class EngineMemory {
  readonly memory: WebAssembly.Memory;
  readonly #most: number;
  #top = FIRST_FREE;

  /**
   * @param shared Whether threads share it.
   * @param most Bytes that it may grow to.
   * @param pages Pages that it has from the beginning, where it never grows: see {@linkcode EngineMemory.fixed}.
   */
  constructor(shared: boolean, most = ADDRESSABLE, readonly pages?: number) {
    this.#most = Math.min(most, ADDRESSABLE);
    this.memory = new WebAssembly.Memory({ initial: pages ?? 1, maximum: pages ?? 65536, shared });
  }

  /**
   * A memory that threads share, and that has its whole size from the beginning: of the machine's memory it takes
   * what is written to, not more than one that grows.
   *
   * @param most Bytes of it.
   * @returns Nothing where the machine does not promise as many.
   */
  static fixed(most = ADDRESSABLE): EngineMemory | undefined {
    const pages = Math.max(1, Math.ceil(Math.min(most, ADDRESSABLE) / PAGE_BYTES));
    try {
      return new EngineMemory(true, most, pages);
    } catch {
      return undefined;
    }
  }

  /** Bytes that have been handed out. */
  get used(): number {
    return this.#top;
  }

  /** Bytes that may still be handed out, as far as the machine has them. */
  get left(): number {
    return Math.max(0, this.#most - this.#top);
  }

  /**
   * Room of zeros.
   *
   * @returns Its address, a multiple of 64.
   * @throws {MemoryBudgetError} When there is not as much.
   */
  reserve(bytes: number): number {
    const address = roundUp(this.#top, 64);
    const end = address + bytes;
    const fail = (cause?: unknown) =>
      new MemoryBudgetError(
        `the model needs more than ${Math.floor(end / 1e6)} MB, and may have ` +
          `${Math.floor(this.#most / 1e6)} MB: give it more memory or a shorter context`,
        { cause },
      );
    if (end > this.#most) throw fail();
    const missing = end - this.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.memory.grow(Math.ceil(missing / PAGE_BYTES));
      } catch (cause) {
        throw fail(cause);
      }
    }
    this.#top = end;
    return address;
  }

  /** Bytes at an address. Views hold until more room is reserved. */
  bytes(address: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, address, length);
  }

  floats(address: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, length);
  }

  /** Bits of float16 numbers. */
  halves(address: number, length: number): Uint16Array {
    return new Uint16Array(this.memory.buffer, address, length);
  }

  words(address: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, address, length);
  }

  get(address: number): number {
    return new Uint32Array(this.memory.buffer, address, 1)[0];
  }

  set(address: number, value: number): void {
    new Uint32Array(this.memory.buffer, address, 1)[0] = value;
  }
}
