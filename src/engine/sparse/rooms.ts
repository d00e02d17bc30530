/**
 * Rooms that lie in several memories at once: of a page of the cache, or of a state, each shard has its own part.
 * @module
 */
import type { EngineMemory } from "./memory.ts";

/** A memory, and the bytes that a room has there. */
export interface RoomPart {
  readonly memory: EngineMemory;
  readonly bytes: number;
}

/** Where a room has nothing it has an address all the same, which no other room has. */
const LEAST = 64;

/** Makes rooms of one size. A room is known by its address in the first memory. */
export class Rooms {
  readonly #parts: readonly RoomPart[];
  /** Addresses in the other memories, by that in the first. */
  readonly #others = new Map<number, readonly number[]>();
  /** Parts that were made before another memory had no room. */
  readonly #spare: number[][];

  constructor(parts: readonly RoomPart[]) {
    this.#parts = parts.length < 2
      ? parts
      : parts.map(({ memory, bytes }) => ({ memory, bytes: Math.max(bytes, LEAST) }));
    this.#spare = parts.map(() => []);
  }

  /** Bytes of a room, in all memories. */
  get bytes(): number {
    return this.#parts.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /**
   * How many more there could be.
   *
   * @param beside Rooms of which one more is needed besides, where there are any.
   */
  left(beside?: Rooms): number {
    const taken = (i: number) => beside ? beside.#parts[i].bytes : 0;
    const each = this.#parts.map(({ memory, bytes }, i) => (memory.left - taken(i)) / bytes);
    // All memories take their bytes from one budget.
    const all = (this.#parts[0].memory.budget.left - (beside ? beside.bytes : 0)) / this.bytes;
    return Math.max(0, Math.floor(Math.min(...each, all)));
  }

  /** Whether a room takes no more than such a part of what each memory has left. */
  isWithin(part: number): boolean {
    return this.#parts.every(({ memory, bytes }) => bytes <= memory.left * part);
  }

  /**
   * A new room; what is in it is of no meaning.
   *
   * @throws {MemoryBudgetError} When there is no memory for one.
   */
  make(): number {
    const made: number[] = [];
    try {
      for (const [i, { memory, bytes }] of this.#parts.entries()) {
        made.push(this.#spare[i].pop() ?? memory.reserve(bytes));
      }
    } catch (error) {
      for (const [i, address] of made.entries()) this.#spare[i].push(address);
      throw error;
    }
    const [room, ...others] = made;
    if (others.length > 0) this.#others.set(room, others);
    return room;
  }

  /** Where a room is in the memory of a shard. */
  at(shard: number, room: number): number {
    return shard === 0 ? room : this.#others.get(room)![shard - 1];
  }

  copy(from: number, to: number): void {
    for (const [i, { memory, bytes }] of this.#parts.entries()) {
      memory.bytes(this.at(i, to), bytes).set(memory.bytes(this.at(i, from), bytes));
    }
  }

  clear(room: number): void {
    for (const [i, { memory, bytes }] of this.#parts.entries()) {
      memory.bytes(this.at(i, room), bytes).fill(0);
    }
  }
}
