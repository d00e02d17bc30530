/** Sequences that take turns: everyone gets their own, and nobody notices the others. @module */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { EngineModel, RunOptions, Sequence } from "../../src/engine/model.ts";
import { AbortError, MemoryBudgetError, ModelClosedError } from "../../src/errors.ts";
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
class Watched implements EngineModel {
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
    this.tokens += inner.length;
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
      const before = inner.length;
      try {
        return await inner.run(tokens, options);
      } finally {
        this.tokens += inner.length - before;
        this.#running.delete(number);
      }
    };
    return {
      get length() {
        return inner.length;
      },
      run,
      truncate: (length) => inner.truncate(length),
      close: () => {
        this.tokens -= inner.length;
        inner.close();
      },
    };
  }

  close(): Promise<void> {
    return this.#engine.close();
  }
}

/** A model whose next token depends on all tokens before it. */
function thinker(options: Partial<ToyOptions> = {}) {
  return babbler({
    logits: (tokens) => {
      const next = uniformNumbers(tokens.reduce((sum, token) => (31 * sum + token) % 65_521, 7));
      return Float32Array.from({ length: VOCABULARY }, () => 8 * next());
    },
    ...options,
  });
}

/** An engine of its own for everyone, and the one that all share. */
function shared(options: Partial<ToyOptions> = {}, room?: number, together?: number) {
  const turns = new Turns();
  const engine = new Watched(thinker({ ...options, together }), room);
  const model = turns.share(engine);
  const make = (prompt: readonly number[], how: GenerationOptions) =>
    take(generate(model, text, prompt, { ignoreEos: true, ...how }));
  return { turns, engine, model, make };
}

/** What a generation gives alone. */
function alone(prompt: readonly number[], how: GenerationOptions) {
  return take(generate(thinker(), text, prompt, { ignoreEos: true, ...how }));
}

/** So many tokens, others for another start. */
function tokens(count: number, start = 1): number[] {
  return Array.from({ length: count }, (_, i) => 1 + (start * 97 + i * 37) % 4000);
}

const pause = (milliseconds: number) =>
  new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** What a promise fails with. */
async function failure(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(() => undefined, (error) => error);
}

/** The same promise, which fails when it takes seconds. */
async function within<T>(promise: Promise<T>): Promise<T> {
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

describe("turns", () => {
  test("let a short answer end while a long one is being written", async () => {
    const { engine, make } = shared();
    const long = make(tokens(3), { maxTokens: 80 });
    await pause(1);
    await make(tokens(3, 2), { maxTokens: 10 });
    const before = engine.runs.findIndex(([number]) => number === 1);
    const meanwhile = engine.runs.slice(before).filter(([number]) => number === 0).length;
    expect(engine.runs.filter(([number]) => number === 1).length).toBe(10);
    expect(meanwhile).toBeLessThanOrEqual(13);
    expect((await long).tokens).toEqual((await alone(tokens(3), { maxTokens: 80 })).tokens);
  });

  test("are shared out evenly among those who generate", async () => {
    const { engine, make } = shared();
    await Promise.all([1, 2, 3, 4].map((start) => make(tokens(2, start), { maxTokens: 30 })));
    for (let i = 0; i + 12 <= engine.runs.length; i += 4) {
      const counts = [0, 0, 0, 0];
      for (const [number] of engine.runs.slice(0, i + 12)) counts[number]++;
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2);
    }
  });

  test("give a long prompt in pieces, and between two of them one to everybody who generates", async () => {
    const { engine, make } = shared();
    const others = [1, 2, 3].map((start) => make(tokens(2, start), { maxTokens: 60 }));
    await pause(5);
    const prompt = tokens(500, 9);
    const { end } = await make(prompt, { maxTokens: 1 });
    expect(end.promptTokens).toBe(500);
    await Promise.all(others);
    const places = engine.runs.flatMap(([number], i) => number === 3 ? [i] : []);
    const pieces = places.map((place) => engine.runs[place][1]);
    expect(pieces.reduce((sum, piece) => sum + piece, 0)).toBe(500);
    expect(pieces.length).toBeGreaterThanOrEqual(4);
    expect(Math.max(...pieces)).toBeLessThanOrEqual(128);
    for (const [i, place] of places.entries()) {
      if (i === 0) continue;
      const between = engine.runs.slice(places[i - 1] + 1, place).map(([number]) => number);
      expect(new Set(between)).toEqual(new Set([0, 1, 2]));
    }
  });

  test("make pieces so small that those who generate are not held up for long", async () => {
    const { engine, make } = shared({
      beforeRun: (more) => pause(more.length > 2 ? more.length : 1),
    });
    const other = make(tokens(2), { maxTokens: 40 });
    await pause(15);
    await make(tokens(120, 9), { maxTokens: 1 });
    await other;
    const pieces = engine.runs.filter(([number]) => number === 1).map(([, count]) => count);
    // A token takes a millisecond or more; 14 and a turn are what others can be kept waiting for.
    for (const piece of pieces.slice(1)) expect(piece).toBeLessThanOrEqual(24);
    // Whole packs of four, as far as there are any.
    for (const piece of pieces.slice(0, -1)) expect(piece % 4).toBe(0);
  });

  test("run prompts one after the other, the first one first", async () => {
    const { engine, make } = shared();
    await Promise.all([1, 2, 3].map((start) => make(tokens(300, start), { maxTokens: 1 })));
    const order = engine.runs.map(([number]) => number);
    expect(order).toEqual([...order].sort());
    expect(order.length).toBe(9);
  });

  test("of one who is alone are as long as can be", async () => {
    const { engine, make } = shared();
    await make(tokens(300), { maxTokens: 3 });
    expect(engine.runs.map(([, count]) => count)).toEqual([128, 128, 44, 1, 1]);
  });

  test("change nothing of what anybody generates, however they come", async () => {
    const reused = (length: number, wait: number) => (
      { length, start: 50, maxTokens: 1, seed: 0, wait, logprobs: false }
    );
    const generation = fc.record({
      length: fc.integer({ min: 1, max: 200 }),
      start: fc.integer({ min: 1, max: 50 }),
      maxTokens: fc.integer({ min: 1, max: 12 }),
      seed: fc.integer({ min: 0, max: 1000 }),
      wait: fc.integer({ min: 0, max: 4 }),
      logprobs: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(generation, { minLength: 1, maxLength: 5 }),
        fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 8 }),
        fc.constantFrom(1, 2, 16),
        async (generations, delays, together) => {
          const how = {
            reusesPrefix: true,
            beforeRun: (_: unknown, run: number) => pauseOrNot(delays[run % delays.length]),
          };
          const { turns, engine, make } = shared(how, undefined, together);
          const options = generations.map(({ maxTokens, seed, logprobs }) => ({
            maxTokens,
            seed,
            temperature: 0.9,
            ...(logprobs ? { logprobs: 2 } : {}),
          }));
          const found = await Promise.all(generations.map(async ({ length, start, wait }, i) => {
            for (let turn = 0; turn < wait; turn++) await pauseOrNot(1);
            return await make(tokens(length, start), options[i]);
          }));
          for (const [i, { length, start }] of generations.entries()) {
            const expected = await alone(tokens(length, start), options[i]);
            expect(found[i].text).toBe(expected.text);
            expect(found[i].pieces).toEqual(expected.pieces);
          }
          expect([turns.open, engine.tokens]).toEqual([0, 0]);
        },
      ),
      // The second one begins with what the first has left.
      { numRuns: 30, examples: [[[reused(2, 2), reused(1, 0)], [1], 1]] },
    );
  });

  for (const together of [3, 8]) {
    test(`are had together where the engine computes ${together} sequences at once`, async () => {
      const { engine, make } = shared({ beforeRun: () => pause(1) }, undefined, together);
      const starts = [1, 2, 3, 4, 5];
      const found = await Promise.all(
        starts.map((start) => make(tokens(2, start), { maxTokens: 30 })),
      );
      for (const [i, start] of starts.entries()) {
        expect(found[i].tokens).toEqual((await alone(tokens(2, start), { maxTokens: 30 })).tokens);
      }
      // Two turns for five of whom three fit, one for all who fit; and some at the beginning.
      expect(engine.batches.length).toBeLessThanOrEqual(together === 3 ? 65 : 35);
      // Nobody has a turn twice before everybody had one.
      for (let i = 0; i + 15 <= engine.runs.length; i += 5) {
        const numbers = engine.runs.slice(0, i + 15).map(([number]) => number);
        const counts = starts.map((_, n) => numbers.filter((number) => number === n).length);
        expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2);
      }
    });
  }

  test("wait for nobody who does not come back", async () => {
    const { engine, model } = shared({}, undefined, 8);
    const [idle, busy] = [model.open(), model.open()];
    await Promise.all([idle.run([5]), busy.run([6])]);
    for (let token = 1; token < 20; token++) await busy.run([token]);
    expect(engine.batches).toEqual([[0], ...new Array(20).fill([1])]);
    for (const sequence of [idle, busy]) sequence.close();
  });
});

/** Nothing, a turn of the event loop, or a millisecond. */
async function pauseOrNot(how: number): Promise<void> {
  if (how > 0) await pause(how - 1);
}

describe("who waits for a turn", () => {
  /** An engine whose first run is held, and a second sequence's run that waits. */
  async function waiting(signal?: AbortSignal) {
    let release = () => {};
    const held = new Promise<void>((resolve) => release = resolve);
    const { engine, model, turns } = shared({
      beforeRun: (_, run) => run === 1 ? held : undefined,
    });
    const [runs, waits] = [model.open(), model.open()];
    const first = runs.run([1]);
    await pause(1);
    const second = waits.run(tokens(20), { signal });
    second.catch(() => {});
    await pause(1);
    expect(engine.runs).toEqual([[0, 1]]);
    return { engine, turns, release, runs, waits, first, second };
  }

  test("and is closed has never run", async () => {
    const { engine, turns, release, runs, waits, first, second } = await waiting();
    waits.close();
    expect(await failure(second)).toBeInstanceOf(ModelClosedError);
    expect(await failure(waits.run([1]))).toBeInstanceOf(ModelClosedError);
    release();
    await first;
    expect([engine.runs.length, turns.open]).toEqual([1, 1]);
    waits.close();
    runs.close();
    expect([turns.open, engine.tokens]).toEqual([0, 0]);
  });

  test("and is stopped has never run", async () => {
    const stop = new AbortController();
    const { engine, release, runs, waits, first, second } = await waiting(stop.signal);
    stop.abort();
    release();
    await first;
    expect(await failure(second)).toBeInstanceOf(AbortError);
    expect(engine.runs.length).toBe(1);
    // The sequence is as it was.
    expect((await waits.run([1, 2])).length).toBe(VOCABULARY);
    expect(waits.length).toBe(2);
    for (const sequence of [runs, waits]) sequence.close();
  });

  for (const together of [1, 4]) {
    test(`is not hurt by another's failure, ${together} at once`, async () => {
      const breaks = (more: readonly number[]) => {
        if (more[0] === 13) throw new Error("it broke");
      };
      const { model } = shared({ beforeRun: breaks }, undefined, together);
      const [one, two] = [model.open(), model.open()];
      const [bad, good] = await Promise.allSettled([one.run([13]), two.run([5])]);
      expect([bad.status, good.status]).toEqual(["rejected", "fulfilled"]);
      expect((await one.run([5])).length).toBe(VOCABULARY);
      for (const sequence of [one, two]) sequence.close();
    });
  }

  test("and is stopped in the middle of a prompt has the pieces that were run", async () => {
    const stop = new AbortController();
    const { model, engine } = shared({
      beforeRun: (_, run) => {
        if (run === 2) stop.abort();
      },
    });
    const sequence = model.open();
    expect(await failure(sequence.run(tokens(400), { signal: stop.signal }))).toBeInstanceOf(
      AbortError,
    );
    expect([sequence.length, engine.runs.length]).toEqual([128, 2]);
    sequence.close();
  });
});

describe("where memory runs out", () => {
  test("a sequence waits until another ends", async () => {
    const { model, engine } = shared({}, 50);
    const [one, two] = [model.open(), model.open()];
    await one.run(tokens(40));
    const waits = two.run(tokens(20));
    await pause(5);
    // Who has room goes on in the meantime.
    await one.run([1]);
    expect(engine.runs.length).toBe(2);
    one.close();
    expect((await waits).length).toBe(VOCABULARY);
    expect(two.length).toBe(20);
    two.close();
    expect(engine.tokens).toBe(0);
  });

  test("one who is alone fails", async () => {
    const { make, turns } = shared({}, 50);
    expect(await failure(make(tokens(60), {}))).toBeInstanceOf(MemoryBudgetError);
    expect(turns.open).toBe(0);
  });

  test("the one that came last gives way when all wait, and everyone writes what they write alone", async () => {
    const { make, engine, turns } = shared({}, 100);
    const asked = [1, 2, 3].map((start) => make(tokens(10, start), { maxTokens: 38 }));
    const given = await Promise.all(asked);
    for (const [i, { tokens: written }] of given.entries()) {
      expect(written).toEqual((await alone(tokens(10, i + 1), { maxTokens: 38 })).tokens);
    }
    expect([turns.open, engine.tokens]).toEqual([0, 0]);
    // One had to be opened again.
    expect(engine.opened).toBe(4);
  });

  test("one that gave way is as long as it was, can be cut, and goes on", async () => {
    const { model, engine, turns } = shared({}, 50);
    const [one, two] = [model.open(), model.open()];
    await Promise.all([one.run(tokens(20, 1)), two.run(tokens(20, 2))]);
    const first = one.run(tokens(20, 3));
    const stop = new AbortController();
    const second = failure(two.run(tokens(20, 4), { signal: stop.signal }));
    await within(first);
    expect([engine.tokens, two.length]).toEqual([40, 20]);
    stop.abort();
    expect(await second).toBeInstanceOf(AbortError);
    two.truncate(15);
    expect(two.length).toBe(15);
    one.close();
    const again = await within(two.run(tokens(4, 5)));
    expect([two.length, engine.tokens]).toEqual([19, 19]);

    const other = thinker().open();
    await other.run(tokens(20, 2));
    other.truncate(15);
    expect(again).toEqual(await other.run(tokens(4, 5)));
    two.close();
    expect([turns.open, engine.tokens]).toEqual([0, 0]);
  });

  test("nobody waits for who has another engine", async () => {
    const { turns, model } = shared({}, 50);
    const other = turns.share(new Watched(thinker()));
    // Somebody is there all the time.
    const busy = other.open();
    await busy.run(tokens(10));

    const alone = model.open();
    expect(await failure(within(alone.run(tokens(60))))).toBeInstanceOf(MemoryBudgetError);
    alone.close();

    const [one, two] = [model.open(), model.open()];
    await Promise.all([one.run(tokens(20)), two.run(tokens(20))]);
    const runs = [one.run(tokens(20)), two.run(tokens(20))];
    expect((await within(runs[0])).length).toBe(VOCABULARY);
    one.close();
    expect((await within(runs[1])).length).toBe(VOCABULARY);
    two.close();
    busy.close();
    expect(turns.open).toBe(0);
  });

  test("waits as well whose engine another module has made, with classes of errors of its own", async () => {
    const turns = new Turns();
    const foreign = () => Object.assign(new Error("no room"), { code: "MEMORY_BUDGET" });
    const model = turns.share(new Watched(thinker(), 50, foreign));
    const [one, two] = [model.open(), model.open()];
    await one.run(tokens(40));
    const waiting = two.run(tokens(40));
    const ended = await Promise.race([failure(waiting), pause(20)]);
    expect(ended).toBeUndefined();
    one.close();
    expect((await within(waiting)).length).toBe(VOCABULARY);
    two.close();
  });

  test("one that waits may be stopped, or closed", async () => {
    for (const how of ["stopped", "closed"]) {
      const stop = new AbortController();
      const { model, engine } = shared({}, 50);
      const [one, two] = [model.open(), model.open()];
      await one.run(tokens(40));
      const waits = failure(two.run(tokens(20), { signal: stop.signal }));
      await pause(5);
      if (how === "stopped") stop.abort();
      else two.close();
      const expected = how === "stopped" ? AbortError : ModelClosedError;
      expect(await waits).toBeInstanceOf(expected);
      expect((await one.run([1])).length).toBe(VOCABULARY);
      two.close();
      one.close();
      expect(engine.tokens).toBe(0);
    }
  });

  test("nobody waits for ever, whoever is stopped or closed at whatever moment", async () => {
    const run = fc.record({
      length: fc.integer({ min: 1, max: 150 }),
      start: fc.integer({ min: 0, max: 8 }),
      end: fc.integer({ min: 0, max: 12 }),
      how: fc.constantFrom("stopped", "closed", "left alone"),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 100, max: 400 }),
        fc.array(run, { minLength: 2, maxLength: 6 }),
        fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 5 }),
        fc.constantFrom(1, 2, 16),
        async (room, runs, delays, together) => {
          const beforeRun = (_: unknown, run: number) => pauseOrNot(delays[run % delays.length]);
          const { model, turns, engine } = shared({ beforeRun }, room, together);
          await Promise.all(runs.map(async ({ length, start, end, how }, i) => {
            for (let turn = 0; turn < start; turn++) await pauseOrNot(1);
            const stop = new AbortController();
            const sequence = model.open();
            const works = failure((async () => {
              await sequence.run(tokens(length, i), { signal: stop.signal });
              for (let token = 1; token < 10; token++) {
                await sequence.run([token], { signal: stop.signal });
              }
            })());
            for (let turn = 0; turn < end; turn++) await pauseOrNot(1);
            if (how === "stopped") stop.abort();
            if (how === "closed") sequence.close();
            const error = await works;
            sequence.close();
            if (error === undefined) return;
            const expected = how === "stopped" ? AbortError : ModelClosedError;
            expect([error instanceof MemoryBudgetError, error instanceof expected]).toContain(true);
          }));
          // What was being computed when its sequence was closed ends by itself.
          await pause(5);
          expect([turns.open, engine.tokens]).toEqual([0, 0]);
          expect((await model.open().run([1])).length).toBe(VOCABULARY);
        },
      ),
      { numRuns: 25 },
    );
  });

  test("whatever the room, everyone for whom it is enough writes what they write alone", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 60, max: 200 }),
        fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 2, maxLength: 5 }),
        fc.constantFrom(1, 2, 16),
        async (room, lengths, together) => {
          const { make, turns, engine } = shared({}, room, together);
          const how = { maxTokens: 20 };
          const asked = lengths.map((length, i) => make(tokens(length, i + 1), how));
          const outcomes = await within(Promise.allSettled(asked));
          for (const [i, outcome] of outcomes.entries()) {
            // The last token that is written is not run.
            const fits = lengths[i] + how.maxTokens - 1 <= room;
            if (outcome.status === "rejected") {
              expect([fits, outcome.reason]).toEqual([false, expect.any(MemoryBudgetError)]);
            } else {
              expect(fits).toBe(true);
              const expected = await alone(tokens(lengths[i], i + 1), how);
              expect(outcome.value.tokens).toEqual(expected.tokens);
            }
          }
          expect([turns.open, engine.tokens]).toEqual([0, 0]);
        },
      ),
      { numRuns: 40 },
    );
  });
});
