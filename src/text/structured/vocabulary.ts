/**
 * The tokens of a vocabulary, beginning by beginning, so that a grammar can go through all of them
 * without reading a beginning twice.
 * @module
 */
import type { Tokenizer } from "../tokenizer.ts";
import type { State } from "./states.ts";

/** Bytes of the longest token that is used; those of text are shorter. */
const LONGEST_TOKEN = 256;
/**
 * Work on the tokens after one state, as a multiple of the beginnings that there are. Behind it tokens of several
 * bytes are left out, always the same ones: whatever a schema asks for, a token takes no longer than this. Those of
 * one byte never are, so that a text can go on, and end, as it could without.
 */
const MOST_WORK = 4;

/** Tokens that stand for text, and those that end it. */
export class Vocabulary {
  /** 32-bit words of a bit set of all tokens. */
  readonly words: number;
  readonly endIds: readonly number[];
  readonly #tokenizer: Tokenizer;
  /** Of each beginning, in the order of a walk: its last byte, how many it has, and the next one that does not go on from it. */
  readonly #byte: Uint8Array;
  readonly #depth: Uint16Array;
  readonly #next: Uint32Array;
  /** Where its tokens begin in `#tokens`. */
  readonly #first: Uint32Array;
  readonly #tokens: Uint32Array;

  /** @param size Logits of a token of the model; the tokenizer may know fewer. */
  constructor(tokenizer: Tokenizer, size: number) {
    this.#tokenizer = tokenizer;
    this.words = Math.ceil(size / 32);
    this.endIds = [...tokenizer.endIds].filter((id) => id < size);
    const tokens: { readonly id: number; readonly text: string }[] = [];
    let bytesInAll = 0;
    for (let id = 0; id < size; id++) {
      const bytes = this.bytesOf(id);
      if (!bytes) continue;
      bytesInAll += bytes.length;
      // A letter for each byte: so they are sorted by bytes, and quickly.
      tokens.push({ id, text: String.fromCharCode(...bytes) });
    }
    tokens.sort((a, b) => a.text < b.text ? -1 : a.text > b.text ? 1 : a.id - b.id);

    const byte = new Uint8Array(bytesInAll);
    const depth = new Uint16Array(bytesInAll);
    const next = new Uint32Array(bytesInAll);
    const first = new Uint32Array(bytesInAll + 1);
    const open: number[] = [];
    let count = 0;
    let before = "";
    tokens.forEach(({ text }, i) => {
      let shared = 0;
      while (shared < before.length && before[shared] === text[shared]) shared++;
      while (open.length > shared) next[open.pop()!] = count;
      for (let at = shared; at < text.length; at++) {
        byte[count] = text.charCodeAt(at);
        depth[count] = at;
        // Tokens of longer beginnings come behind: this one has those up to the next beginning's.
        first[count] = i;
        open.push(count++);
      }
      before = text;
    });
    while (open.length > 0) next[open.pop()!] = count;
    first[count] = tokens.length;
    this.#byte = byte.slice(0, count);
    this.#depth = depth.slice(0, count);
    this.#next = next.slice(0, count);
    this.#first = first.slice(0, count + 1);
    this.#tokens = Uint32Array.from(tokens, ({ id }) => id);
  }

  /** Bytes of a token that may be a part of a text; undefined for others. */
  bytesOf(id: number): Uint8Array | undefined {
    if (this.#tokenizer.specialIds.has(id) || this.#tokenizer.endIds.has(id)) return undefined;
    const bytes = this.#tokenizer.bytesOf(id);
    return bytes.length > 0 && bytes.length <= LONGEST_TOKEN ? bytes : undefined;
  }

  /** The tokens that may come next, and those that end a text where it may end. */
  allowed(state: State): Uint32Array {
    const mask = new Uint32Array(this.words);
    if (state.mayEnd) { for (const id of this.endIds) mask[id >>> 5] |= 1 << (id & 31); }
    const walk = new Walk(MOST_WORK * this.#byte.length);
    const take = (at: number) => {
      for (let i = this.#first[at]; i < this.#first[at + 1]; i++) {
        const id = this.#tokens[i];
        mask[id >>> 5] |= 1 << (id & 31);
      }
    };
    for (let at = 0; at < this.#byte.length; at = this.#next[at]) {
      if (walk.step(state, this.#byte[at])) take(at);
    }
    const states: State[] = [state];
    for (let at = 0; at < this.#byte.length && walk.goesOn;) {
      const depth = this.#depth[at];
      const to = walk.step(states[depth], this.#byte[at]);
      if (to === null) {
        at = this.#next[at];
        continue;
      }
      states[depth + 1] = to;
      take(at++);
    }
    return mask;
  }
}

/** Counts what a walk through beginnings takes, the same whatever is known from walks before. */
class Walk {
  #left: number;

  /** @param most Steps. */
  constructor(most: number) {
    this.#left = most;
  }

  get goesOn(): boolean {
    return this.#left > 0;
  }

  /** The state after a byte, as `State.step` gives it: what was looked up in this walk is known. */
  step(from: State, byte: number): State | null {
    this.#left -= from.weight > 1 && from.isFirst(this, byte) ? from.weight : 1;
    return from.step(byte);
  }
}
