/**
 * What every engine that is measured looks like to `child.mjs`.
 *
 * An adapter exports `open(config)`. Those in TypeScript run under Deno or Bun, the others under Node,
 * where their packages belong.
 * @module
 */

/** What an engine is started with. */
export interface EngineConfig {
  /** The model: a folder or a file, as the engine takes it. */
  readonly model: string;
  readonly threads: number;
  /** Most tokens of a sequence. */
  readonly context: number;
  /** The folder whose `node_modules` has the engine. */
  readonly packages?: string;
  /** What tells the variants of one adapter apart. */
  readonly variant?: string;
  /** Where a Chromium lies. */
  readonly chromium?: string;
}

/** What a model goes on from: the same in tokens and in text, for engines that take only one. */
export interface Prompt {
  readonly tokens: readonly number[];
  readonly text: string;
}

/** Tokens, and the seconds that each of them took. The first one's are the prompt's. */
export interface Generated {
  readonly tokens: number[];
  readonly seconds: number[];
}

/** A loaded model. */
export interface Engine {
  /** Name and version, with what it runs on. */
  readonly product: string;
  /** Bytes of weights that a token reads, where the engine says it. */
  readonly tokenBytes?: number;
  /** What loading took, where that is not all that `open` took. */
  readonly loadSeconds?: number;
  /** Runs a prompt from an empty cache, then `steps` of its likeliest tokens one by one. */
  generate(prompt: Prompt, steps: number): Promise<Generated>;
  /** Runs a prompt and keeps its cache; how long that takes is not looked at. */
  hold(prompt: Prompt): Promise<Generated>;
  /** Goes on from the kept cache by `steps` tokens, as often as it is called. */
  resume(steps: number): Promise<Generated>;
  /** Largest resident memory so far, where that is not this process's. */
  peakBytes?(): number | undefined;
  close(): Promise<void>;
}
