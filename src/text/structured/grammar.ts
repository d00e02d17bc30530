/**
 * A grammar, and texts that follow it.
 * @module
 */
import { SchemaError, TokenRangeError } from "../../errors.ts";
import type { TokenConstraint } from "../constraint.ts";
import { Containers } from "./containers.ts";
import type { Place } from "./place.ts";
import { type State, States } from "./states.ts";
import type { Value } from "./value.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** What texts of a vocabulary may be. Many texts share it, and what it has found out. */
export class Grammar {
  readonly vocabulary: Vocabulary;
  readonly #start: Place;
  #states = new States();

  /** @param value What the whole text is. */
  constructor(value: Value, vocabulary: Vocabulary) {
    this.vocabulary = vocabulary;
    this.#start = new Containers().beforeValue(value);
  }

  /** A constraint for one text. */
  constraint(): TokenConstraint {
    return new GrammarConstraint(this, this.#states.begin(this.#start));
  }

  /** The state to go on with: the same one, or, where too many are kept, one among fewer. */
  current(state: State): State {
    if (this.#states.isFull) this.#states = new States();
    return state.states === this.#states ? state : this.#states.adopt(state);
  }
}

class GrammarConstraint implements TokenConstraint {
  begun = false;
  complete = false;
  readonly #grammar: Grammar;
  #state: State;

  constructor(grammar: Grammar, state: State) {
    this.#grammar = grammar;
    this.#state = state;
  }

  allowed(): Uint32Array {
    const { vocabulary } = this.#grammar;
    const state = this.#state;
    if (state.mask) return state.mask;
    const mask = vocabulary.allowed(state);
    if (mask.every((word) => word === 0)) {
      throw new SchemaError(
        "the text cannot go on: the tokenizer has no token that the schema allows here",
      );
    }
    state.states.keepMask(state, mask);
    return mask;
  }

  take(token: number): void {
    const { vocabulary } = this.#grammar;
    if (this.complete) throw new TokenRangeError(`token ${token}: the text is complete`);
    if (this.#state.mayEnd && vocabulary.endIds.includes(token)) {
      this.begun = this.complete = true;
      return;
    }
    let state: State | null = this.#grammar.current(this.#state);
    const bytes = vocabulary.bytesOf(token);
    for (const byte of bytes ?? []) state = state && state.step(byte);
    if (!bytes || !state) throw new TokenRangeError(`token ${token} is not allowed here`);
    this.begun = true;
    this.#state = state;
    this.complete = state.complete;
  }
}
