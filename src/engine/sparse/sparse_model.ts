/**
 * A model in the sparse engine's memory: its sequences, their caches, and the runs of its program.
 * @module
 */
import { MemoryBudgetError, ModelClosedError } from "../../errors.ts";
import type { CacheUse, EngineModel, ModelInfo, Sequence } from "../model.ts";
import { assertRunnable } from "../tokens.ts";
import { Batches } from "./batches.ts";
import { CachedTokens, PagePool, PrefixStore } from "./cache.ts";
import { PAGE } from "./layout.ts";
import { SparseSequence } from "./sequence.ts";
import type { PlacedShard } from "./shard.ts";

/** Caches of closed sequences that are kept unless the caller says how many. */
const KEPT = 4;

/** What a {@linkcode SparseModel} is made of. */
export interface SparseParts {
  /** In the order of the model. */
  readonly shards: readonly PlacedShard[];
  readonly info: ModelInfo;
  /** Token ids are below it. */
  readonly tokenIds: number;
  /**
   * Closed sequences whose cache is kept; when left out, some, and no more than fit beside the open ones
   * into the pages of one context.
   */
  readonly keptSequences: number | undefined;
}

export class SparseModel implements EngineModel {
  readonly info: ModelInfo;
  readonly #shards: readonly PlacedShard[];
  readonly #pool: PagePool;
  readonly #prefixes: PrefixStore;
  /** Caches of open sequences. */
  readonly #running = new Set<CachedTokens>();
  readonly #tokenIds: number;
  readonly #batches: Batches;
  #state: "open" | "lost" | "closed" = "open";

  constructor({ shards, info, tokenIds, keptSequences }: SparseParts) {
    const pagesOfContext = Math.ceil(info.context / PAGE);
    this.#shards = shards;
    this.info = info;
    this.#tokenIds = tokenIds;
    this.#batches = new Batches({
      shards,
      pagesOfContext,
      assertOpen: () => this.#assertOpen(),
      onLost: () => {
        if (this.#state === "open") this.#state = "lost";
      },
    });
    const plenty = keptSequences === undefined ? pagesOfContext : Infinity;
    const places = shards.map(({ setup: { memory }, plan: { pages } }) => ({
      memory,
      layout: pages,
    }));
    this.#pool = new PagePool(places, plenty);
    this.#prefixes = new PrefixStore(keptSequences ?? KEPT);
    this.#pool.onShortage(() => this.#prefixes.drop());
  }

  open(prompt: ArrayLike<number> = []): Sequence {
    this.#assertOpen();
    // The last token has to be run, for its logits.
    const found = this.#prefixes.find(prompt, prompt.length - 1, this.#running);
    let cached = new CachedTokens(this.#pool);
    const isEnded = found && !this.#running.has(found.cached);
    if (isEnded && found.length === found.cached.tokens.length) {
      // It goes on where the former ended.
      cached = found.cached;
      this.#prefixes.remove(cached);
    } else if (found) cached.share(found.cached, found.length);
    this.#running.add(cached);
    return new SparseSequence(cached, {
      check: (tokens) => {
        this.#assertOpen();
        assertRunnable(tokens, cached.length, this.#tokenIds, this.info.context);
      },
      step: (piece) => this.#batches.compute(cached, piece),
      keep: () => {
        this.#running.delete(cached);
        if (this.#state === "open") this.#prefixes.keep(cached);
      },
      vocabulary: this.info.vocabulary,
      background: this.info.background ?? false,
    });
  }

  cacheUse(): CacheUse {
    const held = new Set<number>();
    let tokens = 0;
    for (const cached of this.#running) {
      tokens += cached.tokens.length;
      for (const page of cached.pages) held.add(page);
    }
    const { states, bytes: pageBytes } = this.#pool, stateBytes = states.bytes;
    const running = new Set([...this.#running].flatMap(({ states }) => states?.held ?? [])).size;
    return {
      sequences: this.#running.size,
      tokens,
      bytes: held.size * pageBytes + running * stateBytes,
      keptBytes: (this.#pool.held - held.size) * pageBytes + (states.held - running) * stateBytes,
      reservedBytes: this.#pool.made * pageBytes + states.made * stateBytes,
      limitBytes: this.#pool.most * pageBytes + Math.max(1, states.made) * stateBytes,
    };
  }

  /** @throws {MemoryBudgetError} When a sequence of so many tokens would find no room for its keys and values. */
  assertRoomFor(tokens: number): void {
    const { most, bytes } = this.#pool;
    if (most * PAGE >= tokens) return;
    throw new MemoryBudgetError(
      `beside the model there is room for a cache of ${
        most * PAGE
      } tokens, and one of ${tokens} takes ` +
        `${
          Math.ceil(tokens / PAGE) * bytes
        } bytes: take a shorter context, allow more memory, or keep ` +
        `keys and values as int8`,
    );
  }

  async close(): Promise<void> {
    this.#state = "closed";
    // Threads are stopped when they no longer compute.
    await this.#batches.ended();
    for (const { setup, plan } of this.#shards) {
      setup.team.stop();
      for (const { table } of plan.rows) table.close();
    }
  }

  #assertOpen(): void {
    if (this.#state === "closed") throw new ModelClosedError("the model has been closed");
    if (this.#state === "lost") throw this.#shards[0].setup.team.lost();
  }
}
