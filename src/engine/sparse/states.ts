/**
 * States of linear attention: what a sequence remembers, which changes with each token.
 *
 * That behind the last token is all that computing needs. But a sequence that goes back, or another one that begins
 * alike, would have to begin anew: so of some positions, points, a copy is kept.
 * @module
 */
import { type RoomPart, Rooms } from "./rooms.ts";

/** Points that a sequence keeps: the first of them, where many begin alike, and the last. */
const MOST_POINTS = 2;
/** States up to which those that are only kept for later are not given up for new ones. */
const PLENTY = 6;
/** Part of the memory that is left which a state may take that only a point needs. */
const PART = 1 / 16;

/** States of one model. */
export class StatePool {
  readonly rooms: Rooms;
  /** Bytes of one; 0 where there is no linear attention. */
  readonly bytes: number;
  readonly #reclaim: () => boolean;
  readonly #free: number[] = [];
  readonly #holders = new Map<number, number>();
  #made = 0;

  /**
   * @param parts What a state has in each memory.
   * @param reclaim Gives states up that are only kept for later; false when there are none.
   */
  constructor(parts: readonly RoomPart[], reclaim: () => boolean) {
    this.rooms = new Rooms(parts);
    this.bytes = parts.reduce((sum, { bytes }) => sum + bytes, 0);
    this.#reclaim = reclaim;
  }

  /** States that there are. */
  get made(): number {
    return this.#made;
  }

  /** Those of them that sequences have, those that are only kept for later among them. */
  get held(): number {
    return this.#holders.size;
  }

  /**
   * A state of one's own; what is in it is of no meaning.
   *
   * @throws {MemoryBudgetError} When there is no memory for one.
   */
  take(): number {
    const state = this.#free.pop() ?? (this.#made < PLENTY ? undefined : this.#reclaimed()) ??
      this.#make();
    this.#holders.set(state, 1);
    return state;
  }

  /** A copy to keep, where that takes little of what is left. */
  copyToKeep(from: number): number | undefined {
    if (this.#free.length === 0 && !this.rooms.isWithin(PART)) return undefined;
    const state = this.take();
    this.rooms.copy(from, state);
    return state;
  }

  /** A state that was only kept for later, if there is one. */
  #reclaimed(): number | undefined {
    let state: number | undefined;
    while (state === undefined && this.#reclaim()) state = this.#free.pop();
    return state;
  }

  #make(): number {
    try {
      const state = this.rooms.make();
      this.#made++;
      return state;
    } catch (error) {
      const state = this.#reclaimed();
      if (state === undefined) throw error;
      return state;
    }
  }

  hold(state: number): void {
    this.#holders.set(state, this.#holders.get(state)! + 1);
  }

  give(state: number): void {
    const holders = this.#holders.get(state)! - 1;
    if (holders > 0) this.#holders.set(state, holders);
    else {
      this.#holders.delete(state);
      this.#free.push(state);
    }
  }
}

/** A copy of what a sequence remembered behind its first `length` tokens. */
interface Point {
  readonly length: number;
  readonly state: number;
}

/** What one sequence remembers. */
export class SequenceStates {
  readonly #pool: StatePool;
  #current: number | undefined;
  #points: Point[] = [];

  constructor(pool: StatePool) {
    this.#pool = pool;
  }

  /** Where the state behind the last token lies in a shard's memory; nothing where no token is to be computed yet. */
  at(shard: number): number | undefined {
    return this.#current === undefined ? undefined : this.#pool.rooms.at(shard, this.#current);
  }

  /** All that it holds. */
  get held(): readonly number[] {
    const points = this.#points.map(({ state }) => state);
    return this.#current === undefined ? points : [...points, this.#current];
  }

  /** The last point of so many tokens at most, or the beginning. */
  backTo(length: number): number {
    return this.#points.findLast((point) => point.length <= length)?.length ?? 0;
  }

  /** The last point there is, or the beginning. */
  get last(): number {
    return this.backTo(Infinity);
  }

  /** Takes the points of another up to `length` tokens. */
  share(other: SequenceStates, length: number): void {
    for (const point of other.#points.filter((point) => point.length <= length)) {
      this.#pool.hold(point.state);
      this.#points.push(point);
    }
  }

  /**
   * Makes sure that there is a state behind the first `length` tokens, where it last was or went back to.
   *
   * @throws {MemoryBudgetError} When there is no memory for one.
   */
  prepare(length: number): void {
    if (this.#current !== undefined) return;
    const state = this.#pool.take();
    const point = this.#points.at(-1);
    if (length === 0) this.#pool.rooms.clear(state);
    else this.#pool.rooms.copy(point!.state, state);
    this.#current = state;
  }

  /** Keeps a copy of the state, which is that behind `length` tokens: where it has one of fewer, and there is room. */
  keep(length: number): void {
    if (this.#current === undefined || length <= this.last) return;
    const state = this.#pool.copyToKeep(this.#current);
    if (state === undefined) return;
    this.#points.push({ length, state });
    if (this.#points.length <= MOST_POINTS) return;
    // The first stays, and the newest.
    for (const { state } of this.#points.splice(1, this.#points.length - MOST_POINTS)) {
      this.#pool.give(state);
    }
  }

  /** Goes back to a point, or to the beginning: see {@linkcode SequenceStates.backTo}. */
  goBack(length: number): void {
    const first = this.#points.findIndex((point) => point.length > length);
    const gone = first < 0 ? [] : this.#points.splice(first);
    for (const { state } of gone) this.#pool.give(state);
    if (this.#current !== undefined) this.#pool.give(this.#current);
    this.#current = undefined;
  }
}
