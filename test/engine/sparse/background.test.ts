/**
 * The sparse engine in the background: it gives the bits that it gives in the foreground while the caller
 * does other things, among them all that sequences can be asked for during a run.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { setImmediate } from "node:timers";
import { folderSource } from "../../../src/engine/folder_source.ts";
import type { EngineModel, Sequence } from "../../../src/engine/model.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import type { SparseOptions } from "../../../src/engine/sparse/options.ts";
import { processors } from "../../../src/platform/machine.ts";
import { runtime } from "../../../src/platform/runtime.ts";
import { thrownBy } from "../../checkpoint/support.ts";
import { LONG } from "../../compile/support.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { codeOf, greedy, logitsInPieces, SparseWorkshop, tokensOf, withSparse } from "./engines.ts";
import { expectSameBits } from "./machine.ts";
import { watchThreads } from "./watch_threads.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** A model of 512 positions, in which a prompt takes several pieces. */
const compiled = () => workshop.compiled("tiny", { values: "int8", format: "nm" }, "8:16");

/** The last token's logits of a sequence of its own, in the foreground of a model of its own. */
async function alone(tokens: readonly number[]): Promise<Float32Array> {
  return await withSparse(
    await compiled(),
    {},
    async (model) => (await model.open().run(tokens)).slice(),
  );
}

async function inBackground<T>(
  options: SparseOptions,
  use: (model: EngineModel) => Promise<T>,
): Promise<T> {
  return await withSparse(await compiled(), { background: true, ...options }, use);
}

function immediate(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** A pause of some milliseconds, in which a piece has begun and has not ended. */
function moment(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 2));
}

describe("in the background logits are the same to the bit", () => {
  const prompt = tokensOf(1, 200);
  for (const kv of ["f32", "int8"] as const) {
    test(`of the last token and of all, on 1, 2 and 3 threads, ${kv} cache`, async () => {
      const folder = await compiled();
      const options = { kv, activations: kv === "f32" ? "int16" : "int8" } as const;
      const expected = await withSparse(
        folder,
        options,
        async (model) => [
          await logitsInPieces(model, prompt, [50, 1, 1, 3]),
          (await model.open().run(prompt)).slice(),
        ],
      );
      for (const threads of [1, 2, 3]) {
        await inBackground({ ...options, threads }, async (model) => {
          expect(model.info).toMatchObject({ background: true, threads });
          expect(model.info.device).toContain("in the background");
          const all = await logitsInPieces(model, prompt, [50, 1, 1, 3]);
          const last = await model.open().run(prompt);
          expectSameBits([all, last], expected, `${threads} threads`);
        });
      }
    }, LONG);
  }
});

test(
  "short runs where all processors compute need no leader, and let events in",
  async () => {
    const folder = await compiled();
    const prompt = tokensOf(3, 12);
    const expected = await alone(prompt);
    const { result: model, workers } = await watchThreads(() =>
      loadSparse(folderSource(folder), {
        threads: processors(),
        background: true,
        patience: 400,
        shortRun: 10_000,
      })
    );
    const sequence = model.open();
    let turns = 0;
    let counts = true;
    const count = () => {
      turns++;
      if (counts) setImmediate(count);
    };
    count();
    // The first of its size is measured.
    for (const token of prompt.slice(0, 6)) await sequence.run([token]);
    workers[0].terminate();
    const before = turns;
    let logits: Float32Array = new Float32Array(0);
    for (const token of prompt.slice(6)) logits = await sequence.run([token]);
    counts = false;
    expect(turns - before).toBeGreaterThanOrEqual(6);
    expectSameBits([logits], [expected], "without a leader");
    expect(await codeOf(sequence.run(tokensOf(4, 100)))).toBe("WORKER_LOST");
    await model.close();
  },
  LONG,
);

test("the event loop is free while a piece is computed", async () => {
  for (const threads of [1, 2]) {
    await inBackground({ threads }, async (model) => {
      const sequence = model.open();
      let isDone = false;
      const running = sequence.run(tokensOf(1, 128)).then(() => isDone = true);
      let turns = 0;
      while (!isDone) {
        await immediate();
        turns++;
      }
      await running;
      // In the foreground there would be one at most.
      expect(turns).toBeGreaterThan(10);
    });
  }
}, LONG);

describe("several sequences at once", () => {
  test("take turns, and each has logits of its own", async () => {
    const prompts = [1, 2, 3, 4].map((seed) => tokensOf(seed, 40 + 60 * seed));
    const expected = await Promise.all(
      prompts.map(async (prompt) => {
        const sequence: number[] = [...prompt];
        for (let i = 0; i < 5; i++) sequence.push(greedy(await alone(sequence)));
        return sequence.slice(prompt.length);
      }),
    );
    for (const threads of [1, 2]) {
      await inBackground({ threads }, async (model) => {
        const found = await Promise.all(prompts.map(async (prompt) => {
          const sequence = model.open();
          const tokens: number[] = [];
          let logits = await sequence.run(prompt);
          for (let i = 0; i < 5; i++) {
            // Others run before they are looked at.
            const before = logits.slice();
            await moment();
            expectSameBits([logits], [before], "after a while");
            tokens.push(greedy(logits));
            logits = await sequence.run([tokens[i]]);
          }
          return tokens;
        }));
        expect(found).toEqual(expected);
      });
    }
  }, LONG);

  test("may begin with what another is running", async () => {
    const common = tokensOf(7, 150);
    const prompts = [8, 9].map((seed) => [...common, ...tokensOf(seed, 120)]);
    const expected = await Promise.all(prompts.map(alone));
    await inBackground({ threads: 2 }, async (model) => {
      const one = model.open(prompts[0]);
      await one.run(prompts[0].slice(0, 150));
      const first = one.run(prompts[0].slice(150));
      await moment();
      const two = model.open(prompts[1]);
      expect(two.length).toBeGreaterThan(120);
      const second = two.run(prompts[1].slice(two.length));
      expectSameBits([await first, await second], expected, "both");
    });
  }, LONG);

  test("that come and go at random give each what it gives alone", async () => {
    const dice = new Dice(SEED);
    const beginnings = [1, 2].map((seed) => tokensOf(seed, 140));
    const prompts = Array.from({ length: 12 }, (_, i) => [
      ...dice.pick(beginnings).slice(0, 1 + dice.below(140)),
      ...tokensOf(10 + i, 1 + dice.below(30)),
    ]);
    const expected = await Promise.all(prompts.map(alone));
    await inBackground({ threads: 2 }, async (model) => {
      const waits = prompts.map(() => dice.below(12));
      const cuts = prompts.map(() => dice.below(3));
      await Promise.all(prompts.map(async (prompt, i) => {
        for (let wait = waits[i]; wait > 0; wait--) await moment();
        const sequence = model.open(prompt);
        if (cuts[i] === 0 && sequence.length > 0) sequence.truncate(sequence.length >> 1);
        const logits = await sequence.run(prompt.slice(sequence.length));
        expectSameBits([logits], [expected[i]], `prompt ${i}`);
        if (cuts[i] === 1) {
          // It is closed while it runs.
          const running = codeOf(sequence.run(tokensOf(50 + i, 100)));
          sequence.close();
          expect(["", "MODEL_CLOSED"]).toContain(await running);
        } else sequence.close();
      }));
      expect(model.cacheUse!()!).toMatchObject({ sequences: 0, tokens: 0, bytes: 0 });
    });
  }, LONG);
});

describe("during a run", () => {
  test("a sequence is not cut, in the background or not", async () => {
    for (const background of [true, false]) {
      await inBackground({ threads: 1, background }, async (model) => {
        const sequence = model.open();
        await sequence.run(tokensOf(1, 10));
        const running = sequence.run(tokensOf(2, 20));
        expect((thrownBy(() => sequence.truncate(5)) as { code?: string }).code).toBe("USAGE");
        await running;
        expect(sequence.length).toBe(30);
        sequence.truncate(5);
        expect(sequence.length).toBe(5);
      });
    }
  }, LONG);

  test("a sequence is closed when its piece has ended, and what it had is kept", async () => {
    const prompt = tokensOf(1, 300);
    const expected = await alone(prompt);
    for (const threads of [1, 2]) {
      await inBackground({ threads }, async (model) => {
        const sequence = model.open();
        const running = codeOf(sequence.run(prompt));
        await moment();
        sequence.close();
        expect(sequence.length).toBe(0);
        expect(model.cacheUse!()!.sequences).toBe(1);
        // It begins with nothing: the piece has not ended.
        const early = model.open(prompt);
        const found = await early.run(prompt.slice(early.length));
        expectSameBits([found], [expected], "one that was opened before it had ended");
        expect(await running).toBe("MODEL_CLOSED");
        early.close();
        const next = model.open(prompt);
        expect(next.length).toBe(299);
        expectSameBits([await next.run(prompt.slice(299))], [expected], "the next");
        expect(model.cacheUse!()!.sequences).toBe(1);
      });
    }
  }, LONG);

  test("a model is closed when the piece has ended; what waits is refused", async () => {
    const model = await loadSparse(folderSource(await compiled()), {
      threads: 2,
      background: true,
    });
    const [one, two] = [model.open(), model.open()];
    const runs = [one.run(tokensOf(1, 300)), two.run(tokensOf(2, 100))].map(codeOf);
    await moment();
    await model.close();
    expect(await Promise.all(runs)).toEqual(["MODEL_CLOSED", "MODEL_CLOSED"]);
    expect((thrownBy(() => model.open()) as { code?: string }).code).toBe("MODEL_CLOSED");
    one.close();
    await model.close();
  }, LONG);

  test("a signal stops after the piece, and the rest can be run", async () => {
    const prompt = tokensOf(1, 400);
    const expected = await alone(prompt);
    await inBackground({ threads: 2 }, async (model) => {
      const sequence = model.open();
      const controller = new AbortController();
      const running = codeOf(sequence.run(prompt, { signal: controller.signal }));
      await moment();
      controller.abort();
      expect(await running).toBe("ABORTED");
      const { length } = sequence;
      expect([128, 256]).toContain(length);
      // What was taken for the rest is given back.
      expect(model.cacheUse!()!.bytes).toBe(length * model.info.cacheBytesPerToken);
      expectSameBits([await sequence.run(prompt.slice(length))], [expected], "the rest");
    });
  }, LONG);

  test("a signal stops what waits for its turn", async () => {
    await inBackground({ threads: 1 }, async (model) => {
      const first = model.open().run(tokensOf(1, 128));
      const controller = new AbortController();
      const sequence = model.open();
      const second = codeOf(sequence.run([1, 2], { signal: controller.signal }));
      await moment();
      controller.abort();
      expect(await second).toBe("ABORTED");
      expect(sequence.length).toBe(0);
      await first;
    });
  }, LONG);
});

describe("a thread that is lost", () => {
  async function expectLost(model: EngineModel, sequence: Sequence): Promise<void> {
    const before = performance.now();
    expect(await codeOf(sequence.run([4]))).toBe("WORKER_LOST");
    expect((thrownBy(() => model.open()) as { code?: string }).code).toBe("WORKER_LOST");
    sequence.close();
    await model.close();
    expect(performance.now() - before).toBeLessThan(1000);
  }

  const RUN_AND_FAIL = "(exports.lead(), fail())";
  const ways: [string, string, string, number][] = [
    // After a run: an error that overtakes "ready" is that of a thread that did not start.
    ["the leader, with an error, is noticed at once", "exports.lead()", RUN_AND_FAIL, 60_000],
    ["the leader, silently, is noticed in time", "exports.lead()) >= 0", "1) < 0", 400],
    ["the leader, before it tells, is noticed in time", "self.postMessage(ended)", "0", 400],
    ["another, silently, is noticed in time", "exports.work(thread)", "0", 400],
  ];
  for (const [what, from, to, patience] of ways) {
    for (const threads of [1, 2]) {
      if (threads === 1 && from.includes("work")) continue;
      test(`${what}, with ${threads}`, async () => {
        const folder = await compiled();
        const { result: model, workers } = await watchThreads(
          () => loadSparse(folderSource(folder), { threads, background: true, patience }),
          (script) => {
            expect(script).toContain(from);
            return script.replace(from, to);
          },
        );
        expect(workers.length).toBe(threads);
        const sequence = model.open();
        const waiting = model.open();
        const before = performance.now();
        const codes = await Promise.all([
          codeOf(sequence.run([1, 2, 3])),
          codeOf(waiting.run([1])),
        ]);
        expect(codes).toEqual(["WORKER_LOST", "WORKER_LOST"]);
        expect(performance.now() - before).toBeLessThan(20_000);
        expect(sequence.length).toBe(0);
        await expectLost(model, sequence);
      }, LONG);
    }
  }

  test("between runs is noticed by the next", async () => {
    const folder = await compiled();
    const { result: model, workers } = await watchThreads(() =>
      loadSparse(folderSource(folder), { threads: 1, background: true, patience: 400 })
    );
    const sequence = model.open();
    await sequence.run([1, 2, 3]);
    workers[0].terminate();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await codeOf(sequence.run([4]))).toBe("WORKER_LOST");
    await expectLost(model, sequence);
  }, LONG);
});

test("where no thread starts the caller's computes alone, and the model says so", async () => {
  const folder = await compiled();
  const expected = await alone([1, 2, 3]);
  const { result: model } = await watchThreads(
    () => loadSparse(folderSource(folder), { threads: 2, background: true }),
    () => `throw new Error("not here")`,
  );
  expect(model.info).toMatchObject({ background: false, threads: 1 });
  expect(model.info.device).toContain("1 thread, not in the background");
  expect(model.info.device).toContain("did not start");
  expectSameBits([await model.open().run([1, 2, 3])], [expected], runtime().name);
  await model.close();
}, LONG);
