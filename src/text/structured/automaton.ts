/**
 * Finite automata over bytes, made deterministic as far as a text goes into them.
 * @module
 */
import { ENDED, type Place, ScalarPlace } from "./place.ts";

/** States that the deterministic states which are kept may have together. */
const MOST_KEPT = 200_000;

/** An automaton, and the states between which its texts lie. */
export interface Machine {
  readonly automaton: Automaton;
  readonly start: number;
  readonly end: number;
}

/** A nondeterministic automaton that is being built. */
export class Automaton {
  /** For each state, three numbers an edge: first byte, last byte, next state. */
  readonly edges: number[][] = [];
  /** States that are entered together with a state. */
  readonly free: number[][] = [];
  readonly #most: number;
  readonly #tooLarge: () => Error;

  /** @param most Most states. @param tooLarge Makes the error for more of them. */
  constructor(most: number, tooLarge: () => Error) {
    this.#most = most;
    this.#tooLarge = tooLarge;
  }

  state(): number {
    if (this.edges.length >= this.#most) throw this.#tooLarge();
    this.edges.push([]);
    return this.free.push([]) - 1;
  }

  edge(from: number, low: number, high: number, to: number): void {
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

/**
 * The machine of the texts that two machines both have: its states are pairs of theirs.
 *
 * @param a Its end, as that of `b`, is entered by a byte.
 * @param automaton An empty one, which it is built in.
 * @param spend Is told of work before it is done, in comparisons of edges; it throws when that is too much.
 */
export function intersection(
  a: Machine,
  b: Machine,
  automaton: Automaton,
  spend: (comparisons: number) => void,
): Machine {
  const pairs: [first: number, second: number][] = [];
  const states = new Map<number, number>();
  const stateOf = (first: number, second: number): number => {
    const key = first * b.automaton.edges.length + second;
    let state = states.get(key);
    if (state === undefined) {
      states.set(key, state = automaton.state());
      pairs.push([first, second]);
    }
    return state;
  };
  const start = stateOf(a.start, b.start);
  const [edgesOfA, edgesOfB] = [a, b].map(({ automaton }) => edgesBy(automaton));
  // Pairs come in as others are looked at.
  for (let state = 0; state < pairs.length; state++) {
    const [first, second] = pairs[state];
    const [ours, theirs] = [edgesOfA(first), edgesOfB(second)];
    spend(ours.length * theirs.length / 9);
    for (let i = 0; i < ours.length; i += 3) {
      for (let j = 0; j < theirs.length; j += 3) {
        const low = Math.max(ours[i], theirs[j]);
        const high = Math.min(ours[i + 1], theirs[j + 1]);
        if (low <= high) automaton.edge(state, low, high, stateOf(ours[i + 2], theirs[j + 2]));
      }
    }
  }
  const end = stateOf(a.end, b.end);
  automaton.prune(end);
  return { automaton, start, end };
}

/** The edges from a state and from those that are entered with it: pairs of all of those would be many more. */
function edgesBy(automaton: Automaton): (state: number) => readonly number[] {
  const known: number[][] = [];
  return (state) =>
    known[state] ??= [...automaton.entered([state])].flatMap((one) => automaton.edges[one]);
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
