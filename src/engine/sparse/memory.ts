/**
 * Memories in which a model lies: weights, buffers and cache, each placed once.
 * @module
 */
import { MemoryBudgetError } from "../../errors.ts";
import { FIRST_FREE, roundUp } from "./layout.ts";

const PAGE_BYTES = 65536;
/** Bytes that WebAssembly can address. */
const ADDRESSABLE = 65536 * PAGE_BYTES;

/** What a model may take, in all of its memories together. */
export class MemoryBudget {
  #used = 0;

  /** @param most Bytes (default: what its memories can have). */
  constructor(readonly most = Infinity) {}

  /** Bytes that have been taken. */
  get used(): number {
    return this.#used;
  }

  /** Bytes that may still be taken. */
  get left(): number {
    return Math.max(0, this.most - this.#used);
  }

  take(bytes: number): void {
    this.#used += bytes;
  }
}

/** A WebAssembly memory from which room is handed out and never taken back. */
export class EngineMemory {
  readonly memory: WebAssembly.Memory;
  /** What it takes its bytes from. */
  readonly budget: MemoryBudget;
  #top = FIRST_FREE;

  /**
   * @param shared Whether threads share it.
   * @param budget What it may take its bytes from.
   * @param pages Pages that it has from the beginning, where it never grows: see {@linkcode EngineMemory.fixed}.
   */
  constructor(shared: boolean, budget = new MemoryBudget(), readonly pages?: number) {
    this.budget = budget;
    this.memory = new WebAssembly.Memory({ initial: pages ?? 1, maximum: pages ?? 65536, shared });
    budget.take(FIRST_FREE);
  }

  /**
   * A memory that threads share, and that has its whole size from the beginning: of the machine's memory it takes
   * what is written to, not more than one that grows.
   *
   * @param budget All of it, as far as it can be addressed, is its size.
   * @returns Nothing where the machine does not promise as many bytes.
   */
  static fixed(budget = new MemoryBudget()): EngineMemory | undefined {
    const pages = Math.max(1, Math.ceil(Math.min(budget.most, ADDRESSABLE) / PAGE_BYTES));
    try {
      return new EngineMemory(true, budget, pages);
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
    return Math.min(ADDRESSABLE - this.#top, this.budget.left);
  }

  /**
   * Room of zeros.
   *
   * @returns Its address, a multiple of 64.
   * @throws {MemoryBudgetError} When there is not as much.
   */
  reserve(bytes: number): number {
    const address = roundUp(this.#top, 64);
    const end = address + bytes, more = end - this.#top;
    if (more > this.left) throw this.#shortage(more);
    const missing = end - this.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.memory.grow(Math.ceil(missing / PAGE_BYTES));
      } catch (cause) {
        throw this.#shortage(more, cause);
      }
    }
    this.#top = end;
    this.budget.take(more);
    return address;
  }

  /** The error for who asks for more bytes than there are. */
  #shortage(more: number, cause?: unknown): MemoryBudgetError {
    // What is there is what the model may have in all, or what one memory can.
    const isBudget = this.budget.most < ADDRESSABLE || more > this.budget.left;
    const [used, most] = isBudget ? [this.budget.used, this.budget.most] : [this.#top, ADDRESSABLE];
    return new MemoryBudgetError(
      `the model needs more than ${Math.floor((used + more) / 1e6)} MB, and may have ` +
        `${Math.floor(most / 1e6)} MB: give it more memory or a shorter context`,
      { cause },
    );
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
