/**
 * Where a text stands as a whole: all stacks together, and what bytes lead to.
 *
 * States are made as texts come to them, and kept: most texts of a grammar meet the same ones.
 *
 * @module
 */
import { type Cell, END_PLACE, type Place, type Steps } from "./place.ts";

/** Most stacks that are followed. More of them are left out: what is written is right all the same. */
const MOST_CELLS = 64;
/** Cells and states after which all are forgotten that no text needs. */
const MOST_KEPT = 10_000;
/** The same for the weight of their places, which grows with what they hold. */
const MOST_WEIGHT = 200_000;
/** Bytes from which on a state has a table of all of them. */
const MOST_IN_MAP = 16;
/** Masks that are kept. */
const MOST_MASKS = 256;

interface KeptCell extends Cell {
  readonly id: number;
  readonly below: KeptCell | undefined;
  readonly above: Map<Place, KeptCell>;
}

/** Where a text may stand. */
export class State {
  readonly mayEnd: boolean;
  /** Whether nothing can follow. */
  readonly complete: boolean;
  /** What a step costs. */
  readonly weight: number;
  /** By byte; null where it is not allowed. */
  #next: (State | null | undefined)[] | undefined;
  /** The same for states that few bytes were tried in: there are many, and a table has 2 kB. */
  #few: Map<number, State | null> | undefined;
  /** The walk that was here last, and a bit for each byte that it has come by. */
  #walk: unknown;
  #walked: Uint32Array | undefined;
  /** The tokens that may follow, once they are known. */
  mask: Uint32Array | undefined;

  constructor(readonly states: States, readonly cells: readonly KeptCell[]) {
    this.mayEnd = cells.some(({ place, below }) => !below && place.mayEnd);
    this.complete = cells.every(({ place }) => place === END_PLACE);
    this.weight = cells.reduce((sum, { place }) => sum + place.weight, 0);
  }

  /** Whether a walk comes by a byte for the first time. */
  isFirst(walk: unknown, byte: number): boolean {
    if (this.#walk !== walk) {
      this.#walk = walk;
      if (this.#walked) this.#walked.fill(0);
      else this.#walked = new Uint32Array(8);
    }
    const word = this.#walked![byte >> 5];
    const bit = 1 << (byte & 31);
    this.#walked![byte >> 5] = word | bit;
    return (word & bit) === 0;
  }

  /** The state after a byte; null where it is not allowed. */
  step(byte: number): State | null {
    const known = this.#next ? this.#next[byte] : this.#few?.get(byte);
    if (known !== undefined) return known;
    const next = this.states.after(this, byte);
    if (this.#next) {
      this.#next[byte] = next;
    } else if ((this.#few ??= new Map()).set(byte, next).size > MOST_IN_MAP) {
      this.#next = new Array(256);
      for (const [byte, next] of this.#few) this.#next[byte] = next;
      this.#few = undefined;
    }
    return next;
  }
}

/** All states of a grammar that are kept. */
export class States implements Steps {
  readonly #bottom = new Map<Place, KeptCell>();
  readonly #states = new Map<string, State>();
  readonly #withMask: State[] = [];
  #cells = 0;
  #weight = 0;
  #found = new Set<KeptCell>();

  /** Whether it holds more than is worth keeping. */
  get isFull(): boolean {
    return this.#cells + this.#states.size > MOST_KEPT || this.#weight > MOST_WEIGHT;
  }

  /** The state of a text that begins at a place. */
  begin(place: Place): State {
    return this.#state([this.cell(place, undefined)]);
  }

  /** The same state among these ones. */
  adopt(state: State): State {
    return this.#state(state.cells.map((cell) => {
      // A cell for each level of a text, of which there may be thousands.
      const places: Place[] = [];
      for (let at: KeptCell | undefined = cell; at; at = at.below) places.push(at.place);
      return places.reduceRight<KeptCell | undefined>(
        (below, place) => this.cell(place, below),
        undefined,
      )!;
    }));
  }

  after(state: State, byte: number): State | null {
    const found = this.#found;
    found.clear();
    for (const { place, below } of state.cells) {
      place.step(byte, below, this);
      if (found.size >= MOST_CELLS) break;
    }
    return found.size === 0 ? null : this.#state([...found].slice(0, MOST_CELLS));
  }

  keepMask(state: State, mask: Uint32Array): void {
    if (this.#withMask.length >= MOST_MASKS) this.#withMask.shift()!.mask = undefined;
    state.mask = mask;
    this.#withMask.push(state);
  }

  cell(place: Place, below: KeptCell | undefined): KeptCell {
    const above = below?.above ?? this.#bottom;
    let cell = above.get(place);
    if (!cell) {
      above.set(place, cell = { id: this.#cells++, place, below, above: new Map() });
      this.#weight += place.weight;
    }
    return cell;
  }

  add(cell: KeptCell): void {
    this.#found.add(cell);
  }

  end(below: KeptCell | undefined): void {
    this.#found.add(below ?? this.cell(END_PLACE, undefined));
  }

  /** The order of cells matters: it says which are left out. */
  #state(cells: readonly KeptCell[]): State {
    const key = cells.length === 1 ? `${cells[0].id}` : cells.map(({ id }) => id).join();
    let state = this.#states.get(key);
    if (!state) this.#states.set(key, state = new State(this, cells));
    return state;
  }
}
