/**
 * Sequences of the sparse engine: each gives what it would give alone, to the bit, whatever others do;
 * what cannot be run is refused, and everything goes on after that.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import process from "node:process";
import { setImmediate } from "node:timers";
import type { EngineModel } from "../../../src/engine/model.ts";
import { folderSource } from "../../../src/engine/folder_source.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import { rejectionOf, thrownBy } from "../../checkpoint/support.ts";
import { LONG } from "../../compile/support.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import {
  alone,
  codeOf,
  expectCutsToLeaveNothing,
  greedy,
  leave,
  run,
  SparseWorkshop,
  tokensOf,
  withSparse,
} from "./engines.ts";
import { expectSameBits } from "./machine.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** A model of 128 positions, and one of 512 in which a prompt takes several runs. */
const SMALL = () => workshop.compiled("qwen2-sliding", { values: "f32", format: "csr" }, "2:4");
const LARGE = () => workshop.compiled("tiny", { values: "int8", format: "nm" }, "8:16");

describe("several sequences in one model", () => {
  for (const threads of [1, 2]) {
    test(`give by turns what each gives alone, on ${threads} threads`, async () => {
      const folder = await SMALL();
      const prompts = [1, 2, 3].map((seed) => tokensOf(seed, 40 + 35 * (seed - 1)));
      await withSparse(folder, { threads }, async (model) => {
        const sequences = prompts.map(() => model.open());
        const done = prompts.map(() => 0);
        const dice = new Dice(SEED);
        const last: Float32Array[] = [];
        while (done.some((count, i) => count < prompts[i].length)) {
          const i = dice.below(prompts.length);
          const piece = prompts[i].slice(done[i], done[i] + 1 + dice.below(12));
          if (piece.length === 0) continue;
          last[i] = await run(sequences[i], piece);
          done[i] += piece.length;
          expect(sequences[i].length).toBe(done[i]);
        }
        for (const [i, prompt] of prompts.entries()) {
          expectSameBits([last[i]], [await alone(folder, prompt)], `sequence ${i}`);
        }
      });
    }, LONG);
  }

  test("two runs of one sequence are run one after the other", async () => {
    const folder = await LARGE();
    const [first, second] = [tokensOf(1, 250), tokensOf(2, 200)];
    await withSparse(folder, {}, async (model) => {
      const sequence = model.open();
      const given = [...second];
      const runs = [run(sequence, first), run(sequence, given)];
      // What was given was given when it was.
      given.fill(0);
      const [, last] = await Promise.all(runs);
      expect(sequence.length).toBe(450);
      expectSameBits([last], [await alone(folder, [...first, ...second])], "the second");
      // Together they do not fit, and the second does not run.
      const codes = await Promise.all([
        codeOf(sequence.run(first.slice(0, 40))),
        codeOf(sequence.run(second.slice(0, 40))),
      ]);
      expect(codes).toEqual(["", "CONTEXT_OVERFLOW"]);
      expect(sequence.length).toBe(490);
    });
  }, LONG);
});

describe("a sequence that is cut", () => {
  test("goes on as if what was cut had never been", async () => {
    await expectCutsToLeaveNothing(await SMALL(), [0, 1, 3, 4, 63, 64, 65, 100, 119, 120]);
  }, LONG);

  test("cannot be cut to what it has not", async () => {
    await withSparse(await SMALL(), {}, async (model) => {
      const sequence = model.open();
      await sequence.run(tokensOf(1, 10));
      for (const length of [-1, 11, 2.5, NaN]) {
        const error = thrownBy(() => sequence.truncate(length)) as { code?: string };
        expect([length, error.code]).toEqual([length, "USAGE"]);
      }
      expect(sequence.length).toBe(10);
    });
  }, LONG);
});

describe("the beginning of a prompt that a closed sequence had", () => {
  test("is not run again, and gives the same", async () => {
    const folder = await SMALL();
    const first = tokensOf(1, 100);
    for (const common of [0, 5, 30, 64, 70, 80, 99]) {
      await withSparse(folder, {}, async (model) => {
        await leave(model, first);
        const prompt = [...first.slice(0, common), ...tokensOf(2, 110 - common)];
        const sequence = model.open(prompt);
        // Less than eight tokens of a page are run again.
        expect(sequence.length).toBeLessThanOrEqual(common);
        expect(sequence.length).toBeGreaterThan(common - 8);
        const found = await run(sequence, prompt.slice(sequence.length));
        expectSameBits([found], [await alone(folder, prompt)], `${common} in common`);
      });
    }
  }, LONG);

  test("is found when the prompt goes on, and when it is the same", async () => {
    const folder = await SMALL();
    const first = tokensOf(1, 90);
    await withSparse(folder, {}, async (model) => {
      await leave(model, first);
      const longer = [...first, ...tokensOf(2, 10)];
      const sequence = model.open(longer);
      expect(sequence.length).toBe(90);
      const found = await run(sequence, longer.slice(90));
      expectSameBits([found], [await alone(folder, longer)], "longer");
      sequence.close();
      // Its last token has to be run, for its logits.
      const same = model.open(longer);
      expect(same.length).toBe(99);
      expectSameBits([await run(same, longer.slice(99))], [found], "the same");
      same.close();
      expect(model.open(longer.slice(0, 1)).length).toBe(0);
      expect(model.open([]).length).toBe(0);
      expect(model.open().length).toBe(0);
    });
  }, LONG);

  test("serves several that go on in different ways", async () => {
    const folder = await SMALL();
    const system = tokensOf(1, 80);
    await withSparse(folder, {}, async (model) => {
      await leave(model, [...system, ...tokensOf(9, 15)]);
      const prompts = [2, 3, 4].map((seed) => [...system, ...tokensOf(seed, 20)]);
      const sequences = prompts.map((prompt) => model.open(prompt));
      expect(sequences[0].length).toBe(80);
      // A page that two have begun with is each one's own as soon as one writes.
      for (const at of [0, 1, 2]) {
        const prompt = prompts[at];
        const rest = prompt.slice(sequences[at].length);
        const found = await run(sequences[at], rest);
        expectSameBits([found], [await alone(folder, prompt)], `the ${at}th`);
      }
      // They go back into what they share, and on from there.
      for (const [at, sequence] of sequences.entries()) {
        sequence.truncate(50 + at);
        const rest = tokensOf(20 + at, 30);
        const whole = [...prompts[at].slice(0, 50 + at), ...rest];
        const found = await run(sequence, rest);
        expectSameBits([found], [await alone(folder, whole)], `the ${at}th, cut`);
      }
    });
  }, LONG);

  test("is that of the tokens that were run, not of those that were refused", async () => {
    const folder = await SMALL();
    const prompt = tokensOf(1, 60);
    await withSparse(folder, {}, async (model) => {
      const sequence = model.open();
      await sequence.run(prompt.slice(0, 40));
      expect(await codeOf(sequence.run([...prompt.slice(40), 100_000]))).toBe("TOKEN_OUT_OF_RANGE");
      sequence.close();
      const again = model.open(prompt);
      expect(again.length).toBe(40);
      const found = await run(again, prompt.slice(40));
      expectSameBits([found], [await alone(folder, prompt)], "after the refusal");
    });
  }, LONG);
});

describe("the beginning of a prompt that an open sequence has", () => {
  test("is not run again, gives the same, and leaves that sequence as it was", async () => {
    const folder = await LARGE();
    const common = tokensOf(7, 100);
    const [first, second] = [[...common, ...tokensOf(8, 20)], [...common, ...tokensOf(9, 20)]];
    const wanted = await Promise.all([first, second].map((tokens) => alone(folder, tokens)));
    await withSparse(folder, {}, async (model) => {
      const one = model.open(first);
      await one.run(first.slice(0, 110));
      const two = model.open(second);
      expect(two.length).toBe(100);
      expectSameBits([await run(two, second.slice(100))], [wanted[1]], "the second");
      expectSameBits([await run(one, first.slice(110))], [wanted[0]], "the first");
    });
  });
});

describe("two conversations by turns", () => {
  test("find what they had, each time", async () => {
    const folder = await LARGE();
    await withSparse(folder, { context: 256 }, async (model) => {
      const conversations = [tokensOf(10, 70), tokensOf(11, 70)];
      for (const turn of [0, 1, 2]) {
        for (const tokens of conversations) {
          const sequence = model.open(tokens);
          if (turn > 0) expect(sequence.length).toBe(tokens.length - 4);
          await sequence.run(tokens.slice(sequence.length));
          sequence.close();
          tokens.push(...tokensOf(12 + turn, 4));
        }
      }
    });
  });
});

describe("what cannot be run", () => {
  test("because the context is full is refused before anything has run", async () => {
    const folder = await SMALL();
    const prompt = tokensOf(1, 128);
    await withSparse(folder, {}, async (model) => {
      expect(model.info.context).toBe(128);
      const sequence = model.open();
      await sequence.run(prompt.slice(0, 100));
      const error = await rejectionOf(sequence.run(prompt.slice(0, 29)));
      expect(error.code).toBe("CONTEXT_OVERFLOW");
      expect(error.message).toContain("128");
      expect(sequence.length).toBe(100);
      const last = await run(sequence, prompt.slice(100));
      expectSameBits([last], [await alone(folder, prompt)], "to the end");
      expect(await codeOf(sequence.run([5]))).toBe("CONTEXT_OVERFLOW");
      sequence.truncate(127);
      expectSameBits([await run(sequence, prompt.slice(127))], [last], "the last one again");
    });
    await withSparse(folder, { context: 10 }, async (model) => {
      expect(await codeOf(model.open().run(prompt.slice(0, 11)))).toBe("CONTEXT_OVERFLOW");
      await model.open().run(prompt.slice(0, 10));
    });
    expect(await codeOf(loadSparse(folderSource(folder), { context: 129 }))).toBe(
      "CONTEXT_OVERFLOW",
    );
  }, LONG);

  test("because there is no such token is refused before anything has run", async () => {
    await withSparse(await SMALL(), {}, async (model) => {
      const sequence = model.open();
      for (const token of [-1, 320, 1.5, NaN, 2 ** 32, Infinity]) {
        expect(await codeOf(sequence.run([1, token, 2]))).toBe("TOKEN_OUT_OF_RANGE");
      }
      expect(sequence.length).toBe(0);
      await sequence.run([0, 319]);
      expect(sequence.length).toBe(2);
      // No token at all.
      expect(await codeOf(sequence.run([]))).toBe("USAGE");
    });
  }, LONG);

  test("because it is closed is refused, and closing twice is closing", async () => {
    const folder = await SMALL();
    const prompt = tokensOf(1, 80);
    await withSparse(folder, {}, async (model) => {
      const sequence = model.open();
      await sequence.run(prompt);
      sequence.close();
      sequence.close();
      expect(sequence.length).toBe(0);
      expect(await codeOf(sequence.run([1]))).toBe("MODEL_CLOSED");
      expect((thrownBy(() => sequence.truncate(3)) as { code?: string }).code).toBe("MODEL_CLOSED");
      // Another has its cache now.
      const next = model.open(prompt);
      expect(next.length).toBe(79);
      sequence.close();
      expectSameBits([await run(next, prompt.slice(79))], [await alone(folder, prompt)], "next");
    });
  }, LONG);

  test("because the model is closed is refused", async () => {
    const model = await loadSparse(folderSource(await SMALL()), { threads: 2 });
    const sequence = model.open();
    await sequence.run([1, 2, 3]);
    await model.close();
    await model.close();
    expect(await codeOf(sequence.run([1]))).toBe("MODEL_CLOSED");
    expect((thrownBy(() => model.open()) as { code?: string }).code).toBe("MODEL_CLOSED");
    sequence.close();
  }, LONG);
});

describe("a run that is stopped", () => {
  test("before it begins has done nothing", async () => {
    await withSparse(await SMALL(), {}, async (model) => {
      const sequence = model.open();
      for (const logits of ["last", "all"] as const) {
        const signal = AbortSignal.abort();
        expect(await codeOf(sequence.run([1, 2], { signal, logits }))).toBe("ABORTED");
        expect(sequence.length).toBe(0);
      }
    });
  }, LONG);

  for (const logits of ["last", "all"] as const) {
    test(
      `in the middle of a prompt has done a part of it, and goes on (${logits} logits)`,
      async () => {
        const folder = await LARGE();
        const prompt = tokensOf(1, 400);
        await withSparse(folder, {}, async (model) => {
          const sequence = model.open();
          const controller = new AbortController();
          const running = sequence.run(prompt, { signal: controller.signal, logits });
          setImmediate(() => controller.abort());
          expect(await codeOf(running)).toBe("ABORTED");
          const { length } = sequence;
          expect(length).toBeGreaterThan(0);
          expect(length).toBeLessThan(400);
          const found = await run(sequence, prompt.slice(length));
          expectSameBits([found], [await alone(folder, prompt)], `after ${length}`);
        });
      },
      LONG,
    );
  }

  test("by closing its sequence, or its model, ends with that", async () => {
    const prompt = tokensOf(1, 400);
    const model = await loadSparse(folderSource(await LARGE()), { threads: 1 });
    const sequence = model.open();
    const running = sequence.run(prompt);
    setImmediate(() => sequence.close());
    expect(await codeOf(running)).toBe("MODEL_CLOSED");
    // What it had is the beginning of the next.
    const next = model.open(prompt);
    expect(next.length).toBeGreaterThan(0);
    const other = next.run(prompt.slice(next.length));
    setImmediate(() => void model.close());
    expect(await codeOf(other)).toBe("MODEL_CLOSED");
  }, LONG);
});

describe("memory", () => {
  /** The least memory, in pages of WebAssembly, with which one sequence can fill its context. */
  async function leastMemory(folder: string, tokens: readonly number[]): Promise<number> {
    for (let pages = 1;; pages++) {
      const memory = pages * 65536;
      try {
        await withSparse(folder, { memory }, (model) => model.open().run(tokens));
        return memory;
      } catch (error) {
        if ((error as { code?: string }).code !== "MEMORY_BUDGET") throw error;
      }
    }
  }

  /** Some with a beginning in common, some cut, some that go on where others ended. */
  async function generations(model: EngineModel, count: number): Promise<void> {
    const dice = new Dice(SEED);
    const beginnings = [tokensOf(1, 30), tokensOf(2, 90), tokensOf(3, 5)];
    for (let i = 0; i < count; i++) {
      const beginning = dice.pick(beginnings);
      const prompt = [
        ...beginning.slice(0, 1 + dice.below(beginning.length)),
        ...tokensOf(dice.below(4), 1 + dice.below(20)),
      ];
      const sequence = model.open(prompt);
      let token = greedy(await sequence.run(prompt.slice(sequence.length)));
      for (let n = dice.below(4); n > 0; n--) token = greedy(await sequence.run([token]));
      if (dice.below(3) === 0) sequence.truncate(dice.below(sequence.length));
      sequence.close();
    }
  }

  const LONG_TEST = ["1", "true"].includes(process.env.ESPALIER_TEST_LONG ?? "");
  const COUNT = LONG_TEST ? 10_000 : 2_000;

  test(`of ${COUNT} generations one after the other is that of the first`, async () => {
    const folder = await SMALL();
    const memory = await leastMemory(folder, tokensOf(1, 128));
    await withSparse(folder, { memory }, async (model) => {
      await generations(model, COUNT);
      // All of the context can still be had.
      await model.open().run(tokensOf(7, 128));
    });
  }, 10 * LONG);

  test(
    "that does not suffice for a sequence is an error, and another can still be run",
    async () => {
      const folder = await SMALL();
      const memory = await leastMemory(folder, tokensOf(1, 128));
      await withSparse(folder, { memory }, async (model) => {
        const [one, other] = [model.open(), model.open()];
        const prompt = tokensOf(1, 70);
        await one.run(prompt);
        expect(await codeOf(other.run(tokensOf(2, 128)))).toBe("MEMORY_BUDGET");
        expect(other.length).toBe(0);
        other.close();
        const found = await run(one, [9]);
        expectSameBits([found], [await alone(folder, [...prompt, 9])], "the first");
        one.truncate(0);
        one.close();
        await model.open().run(tokensOf(2, 128));
      });
    },
    LONG,
  );
});
