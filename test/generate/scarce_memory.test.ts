/** Sequences that take turns in memory that is not enough for all of them. @module */
import { afterAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AbortError, MemoryBudgetError, ModelClosedError } from "../../src/errors.ts";
import { load } from "../../src/generate/load.ts";
import type { LoadOptions } from "../../src/generate/load_options.ts";
import type { Model } from "../../src/generate/model.ts";
import { Turns } from "../../src/generate/turns.ts";
import { CompileWorkshop } from "../compile/support.ts";
import { fromRoot } from "../support/paths.ts";
import { VOCABULARY } from "./support.ts";
import {
  alone,
  failure,
  pause,
  pauseOrNot,
  shared,
  thinker,
  tokens,
  Watched,
  within,
} from "./turns_support.ts";

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

  test("nobody gives way because those of another engine wait as well", async () => {
    const { turns, model, engine } = shared({}, 50);
    const elsewhere = new Watched(thinker(), 50);
    const other = turns.share(elsewhere);
    // Of each engine one waits, and one has what it waits for.
    const here = [model.open(), model.open()];
    const there = [other.open(), other.open()];
    for (const holder of [here[0], there[0]]) await holder.run(tokens(30));
    for (const small of [here[1], there[1]]) await small.run(tokens(10, 2));
    const runs = [here[1], there[1]].map((sequence) => sequence.run(tokens(20, 3)));
    for (const run of runs) run.catch(() => {});
    await pause(20);
    expect([engine.opened, engine.tokens]).toEqual([2, 40]);
    expect([elsewhere.opened, elsewhere.tokens]).toEqual([2, 40]);
    for (const holder of [here[0], there[0]]) holder.close();
    for (const run of runs) expect((await within(run)).length).toBe(VOCABULARY);
    for (const sequence of [here[1], there[1]]) sequence.close();
    expect([turns.open, engine.tokens, elsewhere.tokens]).toEqual([0, 0, 0]);
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

  test("one that is stopped while its run finds no memory does not wait for any", async () => {
    const stop = new AbortController();
    const { model } = shared({}, 50);
    const [one, two] = [model.open(), model.open()];
    await one.run(tokens(30));
    await two.run(tokens(20));
    // Runs of a token look at their signals before they come, and not again.
    const waits = failure(within(two.run([1], { signal: stop.signal })));
    stop.abort();
    expect(await waits).toBeInstanceOf(AbortError);
    two.close();
    one.close();
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

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

const SPARSE: LoadOptions = { engine: "sparse", threads: 1, context: 512 };
/** Bytes; what a model takes is found to one page of its cache. */
const STEP = 100_000;

/** The model in the least memory in which it can be loaded. */
async function loadScarcely(folder: string): Promise<Model> {
  for (let memory = 40 * STEP;; memory += STEP) {
    try {
      return await load(folder, { ...SPARSE, memory });
    } catch (error) {
      if ((error as { code?: string }).code !== "MEMORY_BUDGET") throw error;
    }
  }
}

/** The tokens of a long text, another for each number. */
async function write(model: Model, number: number): Promise<number[]> {
  const prompt = Array.from({ length: 40 }, (_, i) => 5 + number * 90 + i);
  const tokens: number[] = [];
  const options = { maxTokens: 300, temperature: 1, seed: number, ignoreEos: true };
  for await (const piece of model.generate(prompt, options)) {
    if (piece.type === "text") tokens.push(...piece.tokens);
  }
  return tokens;
}

test("where there is room for one long text, four at once are what each is alone", async () => {
  const { output } = await workshop.compile(fromRoot("examples/tiny"), { values: "int8" });
  await using scarce = await loadScarcely(output);
  const turns = new Turns();
  const shared = scarce.through((engine) => turns.share(engine));
  const texts = await Promise.all([1, 2, 3, 4].map((number) => write(shared, number)));
  await using plenty = await load(output, SPARSE);
  for (const [i, tokens] of texts.entries()) {
    expect(tokens.length).toBe(300);
    expect(tokens).toEqual(await write(plenty, i + 1));
  }
  expect(scarce.cacheUse()).toMatchObject({ sequences: 0 });
  // The room was scarce, indeed: for one of them at once, and not for two.
  const { limitBytes } = scarce.cacheUse()!;
  expect(limitBytes).toBeLessThan(2 * plenty.cacheUse()!.reservedBytes);
});
