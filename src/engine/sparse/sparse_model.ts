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
import type { Plan } from "./plan/plan.ts";
import { SparseSequence } from "./sequence.ts";
import type { Setup } from "./setup.ts";

/** Caches of closed sequences that are kept unless the caller says how many. */
const KEPT = 4;

/** What a {@linkcode SparseModel} is made of. */
export interface SparseParts {
  readonly setup: Setup;
  readonly plan: Plan;
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
  readonly #setup: Setup;
  readonly #plan: Plan;
  readonly #pool: PagePool;
  readonly #prefixes: PrefixStore;
  /** Caches of open sequences. */
  readonly #running = new Set<CachedTokens>();
  readonly #tokenIds: number;
  readonly #batches: Batches;
  #state: "open" | "lost" | "closed" = "open";

  constructor({ setup, plan, info, tokenIds, keptSequences }: SparseParts) {
    const { memory } = setup;
    const pagesOfContext = Math.ceil(info.context / PAGE);
    this.#setup = setup;
    this.#plan = plan;
    this.info = info;
    this.#tokenIds = tokenIds;
    this.#batches = new Batches({
      setup,
      plan,
      pagesOfContext,
      assertOpen: () => this.#assertOpen(),
      onLost: () => {
        if (this.#state === "open") this.#state = "lost";
      },
    });
    const plenty = keptSequences === undefined ? pagesOfContext : Infinity;
    this.#pool = new PagePool(memory, plan.pages, plenty);
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
      background: this.#setup.background,
    });
  }

  cacheUse(): CacheUse {
    const held = new Set<number>();
    let tokens = 0;
    for (const cached of this.#running) {
      tokens += cached.tokens.length;
      for (const page of cached.pages) held.add(page);
    }
    const { bytes: pageBytes, stateBytes = 0 } = this.#plan.pages;
    const { states } = this.#pool;
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
    const { most } = this.#pool, { bytes } = this.#plan.pages;
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
    this.#setup.team.stop();
    for (const { table } of this.#plan.rows) table.close();
  }

  #assertOpen(): void {
    if (this.#state === "closed") throw new ModelClosedError("the model has been closed");
    if (this.#state === "lost") throw this.#setup.team.lost();
  }
}
