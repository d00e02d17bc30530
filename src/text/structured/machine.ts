/**
 * Automata of several: of what two have, of what one has not.
 * @module
 */
import type { Automaton } from "./automaton.ts";

/** An automaton, and the states between which its texts lie. The end is entered by a byte. */
export interface Machine {
  readonly automaton: Automaton;
  readonly start: number;
  readonly end: number;
}

/** Is told of work, in steps of about a comparison of two edges; it throws when that is too much. */
export type Spend = (steps: number) => void;

/**
 * The machine of the texts that two machines both have: its states are pairs of theirs.
 *
 * @param automaton An empty one, which it is built in.
 */
export function intersection(
  a: Machine,
  b: Machine,
  automaton: Automaton,
  spend: Spend,
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
  const [edgesOfA, edgesOfB] = [a, b].map(({ automaton }) => edgesBy(automaton, spend));
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
function edgesBy(automaton: Automaton, spend: Spend): (state: number) => readonly number[] {
  const known: number[][] = [];
  return (state) => {
    let edges = known[state];
    if (!edges) {
      const entered = [...automaton.entered([state])];
      known[state] = edges = entered.flatMap((one) => automaton.edges[one]);
      spend(entered.length + edges.length / 3);
    }
    return edges;
  };
}

/**
 * The machine of the texts that a machine has not, but for the empty one.
 *
 * @param automaton An empty one, which it is built in.
 */
export function complementOf(machine: Machine, automaton: Automaton, spend: Spend): Machine {
  const edgesOf = edgesBy(machine.automaton, spend);
  const sets: number[][] = [];
  const states = new Map<string, number>();
  const stateOf = (targets: readonly number[]): number => {
    const set = [...new Set(targets)].sort((a, b) => a - b);
    const key = set.join();
    let state = states.get(key);
    if (state === undefined) {
      states.set(key, state = automaton.state());
      sets[state] = set;
    }
    return state;
  };
  const end = automaton.state();
  const start = stateOf([machine.start]);
  // Sets of states come in as others are looked at; nothing leads out of the empty one.
  for (let state = start; state < automaton.edges.length; state++) {
    const edges = sets[state].flatMap(edgesOf);
    const lows = new Set([0]);
    for (let i = 0; i < edges.length; i += 3) lows.add(edges[i]).add(edges[i + 1] + 1);
    const sorted = [...lows].filter((low) => low < 256).sort((a, b) => a - b);
    spend(sorted.length * edges.length / 3);
    for (const [i, low] of sorted.entries()) {
      const high = (sorted[i + 1] ?? 256) - 1;
      const targets: number[] = [];
      for (let j = 0; j < edges.length; j += 3) {
        if (low >= edges[j] && low <= edges[j + 1]) targets.push(edges[j + 2]);
      }
      automaton.edge(state, low, high, stateOf(targets));
      if (!targets.includes(machine.end)) automaton.edge(state, low, high, end);
    }
  }
  return { automaton, start, end };
}
