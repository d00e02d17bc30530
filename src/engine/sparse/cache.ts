/**
 * The key/value cache: pages out of a common pool, and sequences that hold pages.
 *
 * Pages that are full may belong to several sequences, which begin alike. What closed sequences had in
 * their cache is kept for a while: the next request often begins with the same tokens.
 * @module
 */
import { commonLength } from "../tokens.ts";
import { PAGE } from "./layout.ts";
import type { EngineMemory } from "./memory.ts";
import { Rooms } from "./rooms.ts";
import { SequenceStates, StatePool } from "./states.ts";

/** Least tokens for which a page that is not full is shared: it will have to be copied. */
const LEAST_COPIED = 8;

/** How pages lie in memory. */
export interface PageLayout {
  /** Bytes of a page. */
  readonly bytes: number;
  /** Bytes that it has in one piece: a layer's, where pages are made several at a time. */
  readonly layerBytes: number;
  /**
   * Pages that are made at once: one, where they lie in several memories. A layer's parts of them lie side by side, and
   * a page's own so many parts apart: a sequence goes through a layer's parts of all its pages, and what fetches memory
   * ahead begins anew with each piece.
   */
  readonly together: number;
  /** Whether of something pages keep only what was last, so that a sequence goes back to the end of a page; default: no. */
  readonly keepsLast?: boolean;
  /** Bytes of a sequence's state; 0, where there is no linear attention, if not given. */
  readonly stateBytes?: number;
}

/** A shard's memory, and how its part of a page lies there. */
export interface PagePlace {
  readonly memory: EngineMemory;
  readonly layout: PageLayout;
}

/** Pages of one model, and states where sequences have some. */
export class PagePool {
  readonly #places: readonly PagePlace[];
  /** Of all pages that are made at once. */
  readonly #rooms: Rooms;
  readonly #together: number;
  readonly #free: number[] = [];
  readonly #holders = new Map<number, number>();
  /** Who writes behind all that others who hold a page share of it, and so needs no copy. */
  readonly #writers = new Map<number, CachedTokens>();
  /** Gives pages up that are only kept for later; false when there are none. */
  #reclaim: () => boolean = () => false;

  readonly #plenty: number;
  #made = 0;
  readonly states: StatePool;

  /**
   * @param places Of each shard.
   * @param plenty Pages up to which what is kept for later is not given up for new ones.
   */
  constructor(places: readonly PagePlace[], plenty = 0) {
    this.#places = places;
    this.#together = places[0].layout.together;
    this.#rooms = new Rooms(
      places.map(({ memory, layout }) => ({ memory, bytes: layout.bytes * layout.together })),
    );
    this.#plenty = plenty;
    const states = places.map(({ memory, layout }) => ({ memory, bytes: layout.stateBytes ?? 0 }));
    this.states = new StatePool(states, () => this.#reclaim());
  }

  /** Bytes of a page, in all memories. */
  get bytes(): number {
    return this.#rooms.bytes / this.#together;
  }

  /** Pages that sequences hold, those that are only kept for later among them. */
  get held(): number {
    return this.#holders.size;
  }

  /** Pages that there are: all that have ever been needed at once. */
  get made(): number {
    return this.#made;
  }

  /** Pages that there could be, beside one state. */
  get most(): number {
    const state = this.states.made === 0 && this.states.bytes > 0 ? this.states.rooms : undefined;
    return this.#made + this.#together * this.#rooms.left(state);
  }

  /** How many of a sequence's first tokens it can go back to: so many, or fewer. */
  backTo(length: number): number {
    return this.#places.some(({ layout }) => layout.keepsLast) ? length - length % PAGE : length;
  }

  onShortage(reclaim: () => boolean): void {
    this.#reclaim = reclaim;
  }

  /**
   * A page of one's own; what is in it is of no meaning.
   *
   * @throws {MemoryBudgetError} When there is no memory for one.
   */
  take(writer: CachedTokens): number {
    let page = this.#free.pop();
    if (page === undefined && this.#made >= this.#plenty) page = this.#reclaimed();
    page ??= this.#reserve();
    this.#holders.set(page, 1);
    this.#writers.set(page, writer);
    return page;
  }

  /** A page that was only kept for later, if there is one. */
  #reclaimed(): number | undefined {
    let page = this.#free.pop();
    // What is given up may be shared with others, so that nothing comes free.
    while (page === undefined && this.#reclaim()) page = this.#free.pop();
    return page;
  }

  #reserve(): number {
    try {
      const page = this.#rooms.make(), { layerBytes } = this.#places[0].layout;
      this.#made += this.#together;
      // The next one is taken next.
      for (let i = this.#together - 1; i > 0; i--) this.#free.push(page + i * layerBytes);
      return page;
    } catch (error) {
      const page = this.#reclaimed();
      if (page === undefined) throw error;
      return page;
    }
  }

  hold(page: number): void {
    this.#holders.set(page, this.#holders.get(page)! + 1);
  }

  give(page: number, holder: CachedTokens): void {
    this.resign(page, holder);
    const holders = this.#holders.get(page)! - 1;
    if (holders > 0) this.#holders.set(page, holders);
    else {
      this.#holders.delete(page);
      this.#free.push(page);
    }
  }

  /** Who goes back within a page would write to what others may share of it. */
  resign(page: number, writer: CachedTokens): void {
    if (this.#writers.get(page) === writer) this.#writers.delete(page);
  }

  isShared(page: number): boolean {
    return this.#holders.get(page)! > 1;
  }

  /**
   * A page to write to behind what one has in a page that one holds: the same where nobody else holds it, or where
   * others share only what one has had, and otherwise a copy, for which that is given back.
   *
   * @throws {MemoryBudgetError} When there is no memory for one.
   */
  own(page: number, writer: CachedTokens): number {
    while (this.isShared(page) && this.#writers.get(page) !== writer) {
      // To give up what is kept may make room, and may leave nobody else who holds the page.
      if (this.#free.length === 0 && this.#made >= this.#plenty && this.#reclaim()) continue;
      let own: number;
      try {
        own = this.take(writer);
      } catch (error) {
        // Those who held it, too, may have been given up for want of memory.
        if (this.isShared(page)) throw error;
        break;
      }
      this.#copy(page, own);
      this.give(page, writer);
      return own;
    }
    this.#writers.set(page, writer);
    return page;
  }

  /** Where a page is in the memory of a shard. */
  at(shard: number, page: number): number {
    return this.#rooms.at(shard, page);
  }

  #copy(from: number, to: number): void {
    for (const [shard, { memory, layout }] of this.#places.entries()) {
      const { bytes, layerBytes, together } = layout;
      const source = this.at(shard, from), target = this.at(shard, to);
      for (let at = 0; at < bytes * together; at += layerBytes * together) {
        memory.bytes(target + at, layerBytes).set(memory.bytes(source + at, layerBytes));
      }
    }
  }
}

/** Tokens and the pages with their keys and values. */
export class CachedTokens {
  readonly #pool: PagePool;
  /** What it remembers, where the model has linear attention. */
  readonly #states: SequenceStates | undefined;
  #pages: number[] = [];
  readonly tokens: number[] = [];
  /** Tokens behind those that have to be computed again, before others are. */
  #again: number[] = [];

  constructor(pool: PagePool) {
    this.#pool = pool;
    if (pool.states.bytes > 0) this.#states = new SequenceStates(pool.states);
  }

  /** What it has of states. */
  get states(): Pick<SequenceStates, "at" | "held"> | undefined {
    return this.#states;
  }

  get pages(): readonly number[] {
    return this.#pages;
  }

  /** Where its pages are in the memory of a shard. */
  pagesIn(shard: number): readonly number[] {
    return shard === 0 ? this.#pages : this.#pages.map((page) => this.#pool.at(shard, page));
  }

  get again(): readonly number[] {
    return this.#again;
  }

  /** Tokens of the sequence, those among them that have to be computed again. */
  get length(): number {
    return this.tokens.length + this.#again.length;
  }

  /** Says that tokens have been computed, behind those that were. */
  add(tokens: readonly number[]): void {
    this.tokens.push(...tokens);
    this.#again.splice(0, tokens.length);
  }

  /** How many of its first tokens it, or another sequence, can go back to: so many, or fewer. */
  backTo(length: number): number {
    return this.#states ? this.#states.backTo(length) : this.#pool.backTo(length);
  }

  /**
   * After how many of `count` tokens more a copy of its state is worth keeping: before the last ones, where prompts that
   * begin alike often part, and at the end of a page, which others may share. Nothing where none is.
   */
  pointWithin(count: number): number | undefined {
    const { length } = this.tokens, behind = length + count - LEAST_COPIED;
    const point = behind - behind % PAGE;
    const isWorthIt = this.#states && point > length && point >= this.#states.last + PAGE;
    return isWorthIt ? point - length : undefined;
  }

  /** Keeps a copy of its state as it is now, to go back to. */
  keepPoint(): void {
    this.#states?.keep(this.tokens.length);
  }

  /** Whether it serves who has these tokens, all of which it begins with, in place of a cache of their own. */
  isInPlaceOf({ tokens }: CachedTokens): boolean {
    const { length } = tokens;
    const isWhole = length === this.tokens.length || this.backTo(length) === length;
    return isWhole && commonLength(tokens, this.tokens) === length;
  }

  /**
   * Begins with the first `length` tokens of another, or a few less.
   *
   * It takes no memory: a page that is not full is copied when this one writes to it, and the other may be
   * given up before that. The other goes on in its page as before.
   */
  share(other: CachedTokens, length: number): void {
    const back = other.backTo(length), rest = back % PAGE;
    const shared = rest < LEAST_COPIED ? back - rest : back;
    for (const page of other.#pages.slice(0, Math.ceil(shared / PAGE))) {
      this.#pool.hold(page);
      this.#pages.push(page);
    }
    for (let i = 0; i < shared; i++) this.tokens.push(other.tokens[i]);
    if (other.#states) this.#states?.share(other.#states, shared);
  }

  /**
   * Pages for `count` tokens more, and a state, all that will be written its own.
   *
   * @throws {MemoryBudgetError} When there is no memory for them; it then has what it had.
   */
  grow(count: number): void {
    const first = Math.floor(this.tokens.length / PAGE);
    try {
      this.#states?.prepare(this.tokens.length);
      if (first < this.#pages.length) this.#pages[first] = this.#pool.own(this.#pages[first], this);
      while (this.#pages.length * PAGE < this.tokens.length + count) {
        this.#pages.push(this.#pool.take(this));
      }
    } catch (error) {
      this.trim();
      throw error;
    }
  }

  truncate(length: number): void {
    if (length >= this.tokens.length) {
      this.#again.length = Math.min(this.#again.length, length - this.tokens.length);
      return this.trim();
    }
    const back = this.backTo(length);
    this.#again = this.tokens.slice(back, length);
    this.tokens.length = back;
    this.#states?.goBack(back);
    this.trim();
    if (back % PAGE > 0) this.#pool.resign(this.#pages.at(-1)!, this);
  }

  /** Gives pages back that were taken for tokens which then were not run. */
  trim(): void {
    const pages = Math.ceil(this.tokens.length / PAGE);
    for (const page of this.#pages.splice(pages)) this.#pool.give(page, this);
    if (pages === 0) this.#states?.goBack(0);
  }
}

/** Caches of closed sequences, the latest last. */
export class PrefixStore {
  readonly #most: number;
  #kept: CachedTokens[] = [];

  /** @param most Sequences that are kept. */
  constructor(most: number) {
    this.#most = most;
  }

  keep(cached: CachedTokens): void {
    cached.truncate(cached.tokens.length);
    if (cached.tokens.length === 0) return;
    // One that is the beginning of another is kept with that.
    const longer = this.#kept.find((other) => other.isInPlaceOf(cached));
    if (longer) {
      cached.truncate(0);
      this.remove(longer);
      this.#kept.push(longer);
      return;
    }
    // One that goes on where another ends makes that one needless.
    this.#kept = this.#kept.filter((other) => {
      const isPart = cached.isInPlaceOf(other);
      if (isPart) other.truncate(0);
      return !isPart;
    });
    this.#kept.push(cached);
    while (this.#kept.length > this.#most) this.drop();
  }

  /** Gives the oldest up. */
  drop(): boolean {
    const oldest = this.#kept.shift();
    oldest?.truncate(0);
    return oldest !== undefined;
  }

  /**
   * The one with the longest common beginning.
   *
   * @param others Caches that are looked at as well.
   */
  find(
    tokens: ArrayLike<number>,
    most: number,
    others: Iterable<CachedTokens> = [],
  ): { cached: CachedTokens; length: number } | undefined {
    let best: { cached: CachedTokens; length: number } | undefined;
    for (const cached of [...this.#kept, ...others]) {
      const common = Math.min(commonLength(cached.tokens, tokens), most);
      // One that is gone on with where it ends need not go back.
      const isWhole = common === cached.tokens.length && this.#kept.includes(cached);
      const length = isWhole ? common : cached.backTo(common);
      if (length > (best?.length ?? 0)) best = { cached, length };
    }
    return best;
  }

  /** Hands one out, to be gone on with. */
  remove(cached: CachedTokens): void {
    this.#kept = this.#kept.filter((other) => other !== cached);
  }
}
