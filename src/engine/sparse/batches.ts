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
import { type PlacedShard, Shard } from "./shard.ts";
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
  /** In the order of the model. */
  readonly shards: readonly PlacedShard[];
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
  readonly #shards: readonly Shard[];
  readonly #waiting: Waiting[] = [];
  /** Settles when all that waits has been computed. */
  #running: Promise<void> | undefined;

  constructor(parts: BatchParts) {
    this.#parts = parts;
    const sizes = {
      tokens: BATCH,
      logits: BATCH_WITH_LOGITS,
      sequences: BATCH_OF_SEQUENCES,
      pages: parts.pagesOfContext,
    };
    this.#shards = parts.shards.map((shard) => new Shard(shard, sizes));
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
      const pieces = batch.map(({ piece }) => piece);
      for (const shard of this.#shards) await shard.writeRows(pieces);
    } catch (error) {
      // Nothing has run.
      for (const { fail } of batch) fail(error);
      return;
    }
    try {
      // Pages change hands, and memory grows, only when no thread computes.
      this.#end(batch, await this.#runShards(batch));
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

  /** Computes a batch, shard by shard; whether it was done: not where a thread was lost. */
  async #runShards(batch: readonly Waiting[]): Promise<boolean> {
    const tokens = batch.reduce((sum, { piece }) => sum + piece.tokens.length, 0);
    const rows = batch.reduce((sum, { piece }) => sum + rowsOf(piece), 0);
    const within = batch.find(({ piece }) => rowsOf(piece) > 0)?.piece.within;
    for (const [i, shard] of this.#shards.entries()) {
      const pieces = batch.map(({ cached, piece }) => ({
        tokens: piece.tokens,
        position: cached.tokens.length,
        rows: rowsOf(piece),
        pages: cached.pagesIn(i),
        state: cached.states?.at(i) ?? 0,
      }));
      shard.write(pieces, rows === 1 && within !== undefined ? within : -1);
      if (i > 0) shard.receive(this.#shards[i - 1], tokens);
      if (!await shard.run(tokens)) return false;
    }
    return true;
  }

  /** The number of the largest logit, where the run has looked for it. */
  #likeliest(): number | undefined {
    const { setup: { memory }, plan: { sketchRooms } } = this.#shards.at(-1)!;
    const isSketched = sketchRooms !== undefined && memory.floats(CONTROL.WITHIN, 1)[0] >= 0;
    return isSketched ? foundBySketch(memory, sketchRooms, memory.get(CONTROL.THREADS)) : undefined;
  }

  /** Hands out what was computed. */
  #end(batch: readonly Waiting[], isDone: boolean): void {
    const { setup: { memory, team }, plan } = this.#shards.at(-1)!;
    const [{ address, stride }] = plan.results;
    if (!isDone) this.#parts.onLost();
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
