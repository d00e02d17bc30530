/**
 * The part of the engine that opens and closes sequences, without what computes.
 * @module
 */
import {
  CachedTokens,
  type PageLayout,
  PagePool,
  PrefixStore,
} from "../../../src/engine/sparse/cache.ts";
import { EngineMemory, MemoryBudget } from "../../../src/engine/sparse/memory.ts";

export class OpenSequences {
  readonly memory: EngineMemory;
  readonly pool: PagePool;
  readonly kept = new PrefixStore(4);
  readonly open: CachedTokens[] = [];

  /** @param most Bytes that memory may have; see {@linkcode PagePool} for `plenty`. */
  constructor(most: number | undefined, layout: PageLayout, plenty = 0) {
    this.memory = new EngineMemory(false, new MemoryBudget(most));
    this.pool = new PagePool([{ memory: this.memory, layout }], plenty);
    this.pool.onShortage(() => this.kept.drop());
  }

  begin(prompt: readonly number[]): CachedTokens {
    const found = this.kept.find(prompt, prompt.length - 1, this.open);
    let cached = new CachedTokens(this.pool);
    const isEnded = found && !this.open.includes(found.cached);
    if (isEnded && found.length === found.cached.tokens.length) {
      cached = found.cached;
      this.kept.remove(cached);
    } else if (found) cached.share(found.cached, found.length);
    this.open.push(cached);
    return cached;
  }

  end(cached: CachedTokens): void {
    this.open.splice(this.open.indexOf(cached), 1);
    this.kept.keep(cached);
  }
}
