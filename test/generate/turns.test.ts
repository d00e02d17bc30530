/** Sequences that take turns: everyone gets their own, and nobody notices the others. @module */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AbortError, ModelClosedError } from "../../src/errors.ts";
import { Turns } from "../../src/generate/turns.ts";
import { VOCABULARY } from "./support.ts";
import { alone, failure, pause, pauseOrNot, shared, thinker, tokens } from "./turns_support.ts";
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
    let time = 0;
    const compute = async (more: readonly number[]) => {
      time += more.length > 2 ? more.length : 1;
      await pause(1);
    };
    const { engine, make } = shared({ beforeRun: compute }, undefined, undefined, () => time);
    const other = make(tokens(2), { maxTokens: 40 });
    await pause(15);
    await make(tokens(120, 9), { maxTokens: 1 });
    await other;
    const pieces = engine.runs.filter(([number]) => number === 1).map(([, count]) => count);
    // A token takes a millisecond; 6 and a turn are what others can be kept waiting for.
    for (const piece of pieces.slice(1, -1)) expect(piece).toBe(4);
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

  test("are never had by sequences of two engines at once", async () => {
    const turns = new Turns();
    const computing = new Set<string>();
    let most = 0;
    const engineOf = (name: string) =>
      turns.share(thinker({
        together: 4,
        beforeRun: async () => {
          computing.add(name);
          most = Math.max(most, computing.size);
          await pause(1);
          computing.delete(name);
        },
      }));
    const sequences = ["a", "b"].flatMap((name) => {
      const engine = engineOf(name);
      return [engine.open(), engine.open()];
    });
    await Promise.all(sequences.map(async (sequence) => {
      for (let i = 0; i < 10; i++) await sequence.run([1 + i]);
    }));
    expect(most).toBe(1);
    for (const sequence of sequences) sequence.close();
  });

  test("tell the engine below which logits none matters", async () => {
    const { engine } = shared();
    const told: unknown[] = [];
    const telling = {
      info: engine.info,
      open: () => {
        const inner = engine.open();
        const run = inner.run.bind(inner);
        inner.run = (tokens, options) => {
          told.push(options?.within);
          return run(tokens, options);
        };
        return inner;
      },
      close: () => engine.close(),
    };
    const sequence = new Turns().share(telling).open();
    await sequence.run(tokens(10), { within: 5 });
    await sequence.run([1], { within: 5 });
    sequence.close();
    expect(told).toEqual([5, 5]);
  });

  test("wait for nobody who does not come back", async () => {
    const { engine, model } = shared({}, undefined, 8);
    const [idle, busy] = [model.open(), model.open()];
    await Promise.all([idle.run([5]), busy.run([6])]);
    for (let token = 1; token < 20; token++) await busy.run([token]);
    expect(engine.batches).toEqual([[0], ...new Array(20).fill([1])]);
    for (const sequence of [idle, busy]) sequence.close();
  });
});

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

  test("and is stopped hears of it at once, however long the others take", async () => {
    const stop = new AbortController();
    const { release, runs, waits, first, second } = await waiting(stop.signal);
    stop.abort();
    // The run that is held has not ended.
    expect(await Promise.race([failure(second), pause(5000)])).toBeInstanceOf(AbortError);
    release();
    await first;
    expect((await runs.run([2])).length).toBe(VOCABULARY);
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

  test("and is stopped while its own token is computed hears of it", async () => {
    const stop = new AbortController();
    const { model } = shared({ beforeRun: () => stop.abort() });
    const sequence = model.open();
    expect(await failure(sequence.run([1], { signal: stop.signal }))).toBeInstanceOf(AbortError);
    sequence.close();
  });

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
