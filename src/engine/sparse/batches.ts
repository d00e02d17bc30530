/**
 * Runs of the program: pieces of sequences, several of which may be computed at once.
 *
 * Every weight is read once for all tokens of a run, so that several sequences which generate take little
 * longer together than one of them alone. What each gets does not depend on the others, to the bit.
 * @module
 */
import { BackendError } from "../../errors.ts";
import type { CachedTokens } from "./cache.ts";
import { CONTROL } from "./layout.ts";
import type { Plan } from "./plan/plan.ts";
import { Runner } from "./runner.ts";
import type { Setup } from "./setup.ts";
import { foundBySketch } from "./weights/sketch.ts";

/** Most tokens that are computed in one run. */
export const BATCH = 128;
/** Most of them whose logits are computed. */
export const BATCH_WITH_LOGITS = 16;
/** Most sequences that they belong to. */
export const BATCH_OF_SEQUENCES = BATCH_WITH_LOGITS;

/** Some tokens of a sequence that the model is to compute in one run. */
export interface Piece {
  /** At most `BATCH`, and `BATCH_WITH_LOGITS` where all logits are wanted. */
  readonly tokens: readonly number[];
  /** Tokens of the sequence's whole run from here on: room for all is made before any is computed. */
  readonly rest: number;
  /** Whose logits are wanted. */
  readonly logits: "none" | "last" | "all";
  /** How far below the largest those may be that matter; see `RunOptions` in `engine/model.ts`. */
  readonly within?: number;
  /** Throws when nothing is to be computed any more; asked when it is the piece's turn. */
  assertGoingOn(): void;
  /** Whether a copy of the sequence's state is kept behind it. */
  readonly keepsPoint?: boolean;
  /**
   * Takes the rows of logits, out of memory that the next run, of any sequence, overwrites.
   *
   * @param likeliest The number of the largest, where it is known without looking.
   */
  take(rows: Float32Array, likeliest: number | undefined): void;
}

/** A piece that waits to be computed. */
interface Waiting {
  readonly cached: CachedTokens;
  readonly piece: Piece;
  readonly done: () => void;
  readonly fail: (error: unknown) => void;
}

/** What runs are made with. */
export interface BatchParts {
  readonly setup: Setup;
  readonly plan: Plan;
  /** Most pages of a sequence. */
  readonly pagesOfContext: number;
  /** Throws when the model computes no more. */
  readonly assertOpen: () => void;
  /** A thread was lost: what has been waiting is told, and the model computes no more. */
  readonly onLost: () => void;
}

/** Computes pieces in the order in which they came, those at once that fit together. */
export class Batches {
  readonly #parts: BatchParts;
  readonly #runner: Runner;
  /** Addresses: token ids, positions, page lists of tokens; whose logits; lists of pages. */
  readonly #ids: number;
  readonly #positions: number;
  readonly #lists: number;
  readonly #wanted: number;
  readonly #pages: number;
  readonly #waiting: Waiting[] = [];
  /** Settles when all that waits has been computed. */
  #running: Promise<void> | undefined;

  constructor(parts: BatchParts) {
    const { memory } = parts.setup;
    this.#parts = parts;
    this.#runner = new Runner(parts.setup);
    this.#ids = memory.reserve(BATCH * 4);
    this.#positions = memory.reserve(BATCH * 4);
    this.#lists = memory.reserve(BATCH * 4);
    this.#wanted = memory.reserve(BATCH_WITH_LOGITS * 4);
    this.#pages = memory.reserve(BATCH_OF_SEQUENCES * (parts.pagesOfContext + 1) * 4);
    memory.set(CONTROL.PROGRAM, parts.plan.program);
    memory.set(CONTROL.IDS, this.#ids);
    memory.set(CONTROL.POSITIONS, this.#positions);
    memory.set(CONTROL.PAGES, this.#lists);
    memory.set(CONTROL.LOGITS_OF, this.#wanted);
  }

  /**
   * Computes a piece: with others that are asked for in the same turn of the event loop, or in the
   * background while another run is computed. A sequence has one piece here at a time.
   *
   * @throws What the piece's own check throws.
   * @throws {MemoryBudgetError} When there is no room for its keys and values.
   * @throws {WorkerLostError} When a thread was lost.
   * @throws {BackendError} When the program broke off.
   */
  compute(cached: CachedTokens, piece: Piece): Promise<void> {
    const result = new Promise<void>((done, fail) => {
      this.#waiting.push({ cached, piece, done, fail });
    });
    this.#running ??= this.#run();
    return result;
  }

  /** Settles when nothing is computed any more. */
  async ended(): Promise<void> {
    while (this.#running) await this.#running;
  }

  async #run(): Promise<void> {
    // Others who ask now are let in.
    await undefined;
    try {
      while (this.#waiting.length > 0) {
        const batch = this.#nextBatch();
        if (batch.length > 0) await this.#compute(batch);
      }
    } finally {
      this.#running = undefined;
    }
  }

  /** Computes a batch; whatever happens, all who wait for it hear of its end. */
  async #compute(batch: readonly Waiting[]): Promise<void> {
    try {
      await this.#writeRows(batch);
    } catch (error) {
      // Nothing has run.
      for (const { fail } of batch) fail(error);
      return;
    }
    try {
      // Pages change hands, and memory grows, only when no thread computes.
      this.#end(batch, await this.#runner.run(this.#write(batch)));
    } catch (cause) {
      // A trap: what is in memory is of no meaning any more.
      this.#parts.onLost();
      const what = cause instanceof Error ? cause.message : String(cause);
      const error = new BackendError(
        `the engine broke off (${what}): close the model and load it again`,
        { cause },
      );
      for (const { fail } of batch) fail(error);
    }
  }

  /** Takes out those that come first and fit together, with room made for them. */
  #nextBatch(): Waiting[] {
    const batch: Waiting[] = [];
    let tokens = 0, rows = 0;
    for (let next = this.#waiting[0]; next; next = this.#waiting[0]) {
      const { cached, piece, fail } = next;
      tokens += piece.tokens.length;
      rows += rowsOf(piece);
      const fits = tokens <= BATCH && rows <= BATCH_WITH_LOGITS &&
        batch.length < BATCH_OF_SEQUENCES;
      if (!fits && batch.length > 0) break;
      this.#waiting.shift();
      try {
        piece.assertGoingOn();
        this.#parts.assertOpen();
        cached.grow(piece.rest);
        batch.push(next);
      } catch (error) {
        tokens -= piece.tokens.length;
        rows -= rowsOf(piece);
        fail(error);
      }
    }
    return batch;
  }

  /** Writes what tokens have in tables that stay in their file. */
  async #writeRows(batch: readonly Waiting[]): Promise<void> {
    const { setup: { memory }, plan: { rows } } = this.#parts;
    for (const { table, width, to } of rows) {
      let address = to.address;
      for (const { piece } of batch) {
        for (const token of piece.tokens) {
          await table.read(token, memory.floats(address, width));
          address += to.stride;
        }
      }
    }
  }

  /** Writes down what is to be computed; returns how many tokens that are. */
  #write(batch: readonly Waiting[]): number {
    const { setup: { memory }, pagesOfContext } = this.#parts;
    const ids = memory.words(this.#ids, BATCH);
    const positions = memory.words(this.#positions, BATCH);
    const lists = memory.words(this.#lists, BATCH);
    const wanted = memory.words(this.#wanted, BATCH_WITH_LOGITS);
    let token = 0, rows = 0;
    for (const [i, { cached, piece }] of batch.entries()) {
      // Before a list of pages is where the sequence's state lies.
      const list = this.#pages + (i * (pagesOfContext + 1) + 1) * 4;
      memory.set(list - 4, cached.states?.current ?? 0);
      memory.words(list, cached.pages.length).set(cached.pages);
      const end = token + piece.tokens.length, first = end - rowsOf(piece);
      for (let position = cached.tokens.length; token < end; token++, position++) {
        ids[token] = piece.tokens[position - cached.tokens.length];
        positions[token] = position;
        lists[token] = list;
        if (token >= first) wanted[rows++] = token;
      }
    }
    memory.set(CONTROL.TOKENS, token);
    memory.set(CONTROL.LOGITS, rows);
    const within = batch.find(({ piece }) => rowsOf(piece) > 0)?.piece.within;
    memory.floats(CONTROL.WITHIN, 1)[0] = rows === 1 && within !== undefined ? within : -1;
    return token;
  }

  /** The number of the largest logit, where the run has looked for it. */
  #likeliest(): number | undefined {
    const { setup: { memory }, plan: { sketchRooms } } = this.#parts;
    const isSketched = sketchRooms !== undefined && memory.floats(CONTROL.WITHIN, 1)[0] >= 0;
    return isSketched ? foundBySketch(memory, sketchRooms, memory.get(CONTROL.THREADS)) : undefined;
  }

  /** Hands out what was computed. */
  #end(batch: readonly Waiting[], isDone: boolean): void {
    const { setup: { memory, team }, plan: { logits: { address, stride } }, onLost } = this.#parts;
    if (!isDone) onLost();
    const likeliest = isDone ? this.#likeliest() : undefined;
    let row = 0;
    for (const { cached, piece, done, fail } of batch) {
      if (!isDone) {
        fail(team.lost());
        continue;
      }
      const rows = rowsOf(piece);
      cached.add(piece.tokens);
      if (piece.keepsPoint) cached.keepPoint();
      piece.take(
        memory.floats(address + row * stride, rows * stride / 4),
        rows > 0 ? likeliest : undefined,
      );
      row += rows;
      done();
    }
  }
}

/** Tokens of a piece, the last ones, whose logits are wanted. */
function rowsOf({ logits, tokens }: Piece): number {
  return logits === "all" ? tokens.length : logits === "last" ? 1 : 0;
}
