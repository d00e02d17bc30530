/**
 * A part of a model that has a memory, kernels and threads of its own: some of its steps, one after the other. Most
 * models are one shard; what WebAssembly cannot address in one memory is several (`plan/shards.ts`).
 * @module
 */
import { CONTROL } from "./layout.ts";
import type { Plan } from "./plan/plan.ts";
import { Runner } from "./runner.ts";
import type { Setup } from "./setup.ts";

/** A shard in its memory. */
export interface PlacedShard {
  readonly setup: Setup;
  readonly plan: Plan;
}

/** Most tokens of a run, of them with logits, of sequences, and of pages of a sequence. */
export interface RunSizes {
  readonly tokens: number;
  readonly logits: number;
  readonly sequences: number;
  readonly pages: number;
}

/** Of a sequence in a run: which tokens, at which positions, with which cache. */
export interface RunPiece {
  readonly tokens: readonly number[];
  /** Of the first of them. */
  readonly position: number;
  /** Tokens of it, the last ones, whose logits are wanted. */
  readonly rows: number;
  /** Where the sequence's pages and its state are in this shard's memory. */
  readonly pages: readonly number[];
  readonly state: number;
}

/** A shard that is run. */
export class Shard {
  readonly setup: Setup;
  readonly plan: Plan;
  readonly #runner: Runner;
  readonly #sizes: RunSizes;
  /** Addresses: token ids, positions, page lists of tokens; whose logits; lists of pages. */
  readonly #ids: number;
  readonly #positions: number;
  readonly #lists: number;
  readonly #wanted: number;
  readonly #pages: number;

  constructor({ setup, plan }: PlacedShard, sizes: RunSizes) {
    const { memory } = setup;
    this.setup = setup;
    this.plan = plan;
    this.#runner = new Runner(setup);
    this.#sizes = sizes;
    this.#ids = memory.reserve(sizes.tokens * 4);
    this.#positions = memory.reserve(sizes.tokens * 4);
    this.#lists = memory.reserve(sizes.tokens * 4);
    this.#wanted = memory.reserve(sizes.logits * 4);
    this.#pages = memory.reserve(sizes.sequences * (sizes.pages + 1) * 4);
    memory.set(CONTROL.PROGRAM, plan.program);
    memory.set(CONTROL.IDS, this.#ids);
    memory.set(CONTROL.POSITIONS, this.#positions);
    memory.set(CONTROL.PAGES, this.#lists);
    memory.set(CONTROL.LOGITS_OF, this.#wanted);
  }

  /** Writes what tokens have in tables that stay in their file. */
  async writeRows(pieces: Iterable<{ readonly tokens: readonly number[] }>): Promise<void> {
    for (const { table, width, to } of this.plan.rows) {
      let address = to.address;
      for (const { tokens } of pieces) {
        for (const token of tokens) {
          await table.read(token, this.setup.memory.floats(address, width));
          address += to.stride;
        }
      }
    }
  }

  /**
   * Writes down what is to be computed.
   *
   * @param within How far below the largest logit those may be that matter; below 0, all do.
   */
  write(pieces: readonly RunPiece[], within: number): void {
    const { memory } = this.setup, { tokens, logits, pages } = this.#sizes;
    const ids = memory.words(this.#ids, tokens);
    const positions = memory.words(this.#positions, tokens);
    const lists = memory.words(this.#lists, tokens);
    const wanted = memory.words(this.#wanted, logits);
    let token = 0, rows = 0;
    for (const [i, piece] of pieces.entries()) {
      // Before a list of pages is where the sequence's state lies.
      const list = this.#pages + (i * (pages + 1) + 1) * 4;
      memory.set(list - 4, piece.state);
      memory.words(list, piece.pages.length).set(piece.pages);
      const end = token + piece.tokens.length, first = end - piece.rows;
      for (let at = 0; token < end; token++, at++) {
        ids[token] = piece.tokens[at];
        positions[token] = piece.position + at;
        lists[token] = list;
        if (token >= first) wanted[rows++] = token;
      }
    }
    memory.set(CONTROL.TOKENS, token);
    memory.set(CONTROL.LOGITS, rows);
    memory.floats(CONTROL.WITHIN, 1)[0] = within;
  }

  /** Takes over what the shard before has made of so many tokens. */
  receive(before: Shard, tokens: number): void {
    for (const [i, to] of this.plan.given.entries()) {
      const from = before.plan.results[i], bytes = tokens * to.stride;
      this.setup.memory.bytes(to.address, bytes)
        .set(before.setup.memory.bytes(from.address, bytes));
    }
  }

  /**
   * Computes what is written down.
   *
   * @returns Whether it was done; false when a thread was lost.
   */
  run(tokens: number): Promise<boolean> {
    return this.#runner.run(tokens);
  }
}
