/** What the tests of sequences that take turns share. @module */
import type { EngineModel, RunOptions, Sequence } from "../../src/engine/model.ts";
import { MemoryBudgetError } from "../../src/errors.ts";
import { generate } from "../../src/generate/generate.ts";
import type { GenerationOptions } from "../../src/generate/options.ts";
import { Turns } from "../../src/generate/turns.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { babbler, take, text, VOCABULARY } from "./support.ts";
import type { ToyOptions } from "./toy_model.ts";

/** One run of an engine: the number of its sequence, and how many tokens. */
type Run = readonly [sequence: number, tokens: number];

/**
 * An engine that writes down whose runs it is given, so many at a time, and that has room for so many
 * tokens of all sequences together.
 */
export class Watched implements EngineModel {
  readonly runs: Run[] = [];
  /** Sequences that were run at once, in their order. */
  readonly batches: number[][] = [];
  readonly info;
  opened = 0;
  tokens = 0;
  readonly #running = new Set<number>();
  readonly #engine: EngineModel;
  readonly #room: number;
  readonly #noRoom: () => Error;

  constructor(
    engine: EngineModel,
    room = Infinity,
    noRoom: () => Error = () => new MemoryBudgetError("no room"),
  ) {
    this.#engine = engine;
    this.#room = room;
    this.#noRoom = noRoom;
    this.info = engine.info;
  }

  open(prompt?: ArrayLike<number>): Sequence {
    const number = this.opened++;
    const inner = this.#engine.open(prompt);
    // What another has left it, and it gives back.
    let held = inner.length;
    this.tokens += held;
    let isClosed = false;
    const count = () => {
      if (isClosed) return;
      this.tokens += inner.length - held;
      held = inner.length;
    };
    const run = async (tokens: ArrayLike<number>, options?: RunOptions) => {
      if (this.#running.size === (this.info.together ?? 1)) {
        throw new Error("too many runs at once");
      }
      if (this.#running.has(number)) throw new Error("two runs of a sequence at once");
      if (this.tokens + tokens.length > this.#room) throw this.#noRoom();
      if (this.#running.size === 0) this.batches.push([]);
      this.batches.at(-1)!.push(number);
      this.#running.add(number);
      this.runs.push([number, tokens.length]);
      try {
        return await inner.run(tokens, options);
      } finally {
        count();
        this.#running.delete(number);
      }
    };
    return {
      get length() {
        return inner.length;
      },
      run,
      truncate: (length) => {
        inner.truncate(length);
        count();
      },
      close: () => {
        this.tokens -= held;
        isClosed = true;
        inner.close();
      },
    };
  }

  close(): Promise<void> {
    return this.#engine.close();
  }
}

/** A model whose next token depends on all tokens before it. */
export function thinker(options: Partial<ToyOptions> = {}) {
  return babbler({
    logits: (tokens) => {
      const next = uniformNumbers(tokens.reduce((sum, token) => (31 * sum + token) % 65_521, 7));
      return Float32Array.from({ length: VOCABULARY }, () => 8 * next());
    },
    ...options,
  });
}

/** An engine of its own for everyone, and the one that all share. */
export function shared(
  options: Partial<ToyOptions> = {},
  room?: number,
  together?: number,
  now?: () => number,
) {
  const turns = new Turns(now);
  const engine = new Watched(thinker({ ...options, together }), room);
  const model = turns.share(engine);
  const make = (prompt: readonly number[], how: GenerationOptions) =>
    take(generate(model, text, prompt, { ignoreEos: true, ...how }));
  return { turns, engine, model, make };
}

/** What a generation gives alone. */
export function alone(prompt: readonly number[], how: GenerationOptions) {
  return take(generate(thinker(), text, prompt, { ignoreEos: true, ...how }));
}

/** So many tokens, others for another start. */
export function tokens(count: number, start = 1): number[] {
  return Array.from({ length: count }, (_, i) => 1 + (start * 97 + i * 37) % 4000);
}

export const pause = (milliseconds: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** What a promise fails with. */
export async function failure(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(() => undefined, (error) => error);
}

/** The same promise, which fails when it takes seconds. */
export async function within<T>(promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error("it waits for ever")), 2000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Nothing, a turn of the event loop, or a millisecond. */
export async function pauseOrNot(how: number): Promise<void> {
  if (how > 0) await pause(how - 1);
}
