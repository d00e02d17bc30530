/**
 * Finite automata over bytes, made deterministic as far as a text goes into them.
 * @module
 */
import { ENDED, type Place, ScalarPlace } from "./place.ts";

/** States that the deterministic states which are kept may have together. */
const MOST_KEPT = 200_000;

/** A nondeterministic automaton that is being built. */
export class Automaton {
  /** For each state, three numbers an edge: first byte, last byte, next state. */
  readonly edges: number[][] = [];
  /** States that are entered together with a state. */
  readonly free: number[][] = [];
  /** Edges that have been made. */
  made = 0;
  readonly #most: number;
  readonly #mostEdges: number;
  readonly #tooLarge: () => Error;

  /**
   * @param most Most states.
   * @param mostEdges Most edges.
   * @param tooLarge Makes the error for more of them.
   */
  constructor(most: number, mostEdges: number, tooLarge: () => Error) {
    this.#most = most;
    this.#mostEdges = mostEdges;
    this.#tooLarge = tooLarge;
  }

  state(): number {
    if (this.edges.length >= this.#most) throw this.#tooLarge();
    this.edges.push([]);
    return this.free.push([]) - 1;
  }

  edge(from: number, low: number, high: number, to: number): void {
    if (++this.made > this.#mostEdges) throw this.#tooLarge();
    this.edges[from].push(low, high, to);
  }

  /**
   * The place before a value of this automaton.
   *
   * @returns Undefined when nothing leads from `start` to `end`.
   */
  place(start: number, end: number): Place | undefined {
    return this.prune(end)[start] ? new Places(this, end).at([start]) : undefined;
  }

  /**
   * Takes away what leads to no end.
   *
   * @returns For each state, whether something leads from there to the end.
   */
  prune(end: number): Uint8Array {
    const useful = this.#leadingTo(end);
    this.edges.forEach((edges, from) => {
      const kept: number[] = [];
      for (let i = 0; i < edges.length; i += 3) {
        if (useful[edges[i + 2]]) kept.push(edges[i], edges[i + 1], edges[i + 2]);
      }
      this.edges[from] = kept;
      this.free[from] = this.free[from].filter((to) => useful[to]);
    });
    return useful;
  }

  /** A state, and all that are entered together with it. */
  entered(states: readonly number[]): Set<number> {
    const all = new Set<number>();
    const waiting = [...states];
    for (let state = waiting.pop(); state !== undefined; state = waiting.pop()) {
      if (all.has(state)) continue;
      all.add(state);
      waiting.push(...this.free[state]);
    }
    return all;
  }

  /** Which states can come to an end. */
  #leadingTo(end: number): Uint8Array {
    const before: number[][] = this.edges.map(() => []);
    this.edges.forEach((edges, from) => {
      for (let i = 2; i < edges.length; i += 3) before[edges[i]].push(from);
      for (const to of this.free[from]) before[to].push(from);
    });
    const useful = new Uint8Array(this.edges.length);
    const waiting = [end];
    for (let state = waiting.pop(); state !== undefined; state = waiting.pop()) {
      if (useful[state]) continue;
      useful[state] = 1;
      waiting.push(...before[state]);
    }
    return useful;
  }
}

/** The deterministic states of one automaton. */
class Places {
  readonly #places = new Map<string, AutomatonPlace>();
  #kept = 0;

  constructor(readonly automaton: Automaton, readonly end: number) {}

  /** The state of some states, and all that are entered with them. */
  at(states: readonly number[]): AutomatonPlace {
    const all = this.automaton.entered(states);
    // States that only lead on without a byte tell nothing.
    const telling = [...all].filter((state) =>
      state === this.end || this.automaton.edges[state].length > 0
    ).sort((a, b) => a - b);
    const key = telling.join();
    let place = this.#places.get(key);
    if (place) return place;
    if ((this.#kept += telling.length) > MOST_KEPT) {
      this.#places.clear();
      this.#kept = telling.length;
    }
    this.#places.set(key, place = new AutomatonPlace(this, telling));
    return place;
  }
}

class AutomatonPlace extends ScalarPlace {
  readonly mayEnd: boolean;
  override readonly weight: number;
  readonly #next = new Map<number, AutomatonPlace | typeof ENDED | undefined>();

  constructor(readonly places: Places, readonly states: readonly number[]) {
    super();
    this.mayEnd = states.includes(places.end);
    this.weight = Math.max(1, states.length);
  }

  /** Whether nothing can follow. */
  get isLast(): boolean {
    return this.mayEnd && this.states.length === 1 &&
      this.places.automaton.edges[this.places.end].length === 0;
  }

  protected override after(byte: number): Place | typeof ENDED | undefined {
    if (!this.#next.has(byte)) this.#next.set(byte, this.#find(byte));
    return this.#next.get(byte);
  }

  #find(byte: number): AutomatonPlace | typeof ENDED | undefined {
    const targets: number[] = [];
    for (const state of this.states) {
      const edges = this.places.automaton.edges[state];
      for (let i = 0; i < edges.length; i += 3) {
        if (byte >= edges[i] && byte <= edges[i + 1]) targets.push(edges[i + 2]);
      }
    }
    if (targets.length === 0) return undefined;
    const place = this.places.at(targets);
    return place.isLast ? ENDED : place;
  }
}
