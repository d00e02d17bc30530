/**
 * Sequences of models with linear attention, whose state is that behind the last token, and copies of which are kept at
 * some points: whatever is cut, shared or run at once, each gives what its tokens give alone, to the bit.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { PAGE } from "../../../src/engine/sparse/layout.ts";
import { LONG } from "../../compile/support.ts";
import {
  alone,
  codeOf,
  expectCutsToLeaveNothing,
  expectOthersNotToMatter,
  expectTurnsToLeaveNothing,
  leave,
  run,
  SparseWorkshop,
  tokensOf,
  withSparse,
} from "./engines.ts";
import { expectSameBits } from "./machine.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** A model of 128 positions: two pages. */
const FLOATS = () => workshop.compiled("qwen3_5", { values: "f32", format: "csr" }, "2:4");
const INTEGERS = () => workshop.compiled("qwen3_5", { values: "int8", format: "nm" }, "8:16");
/** The same with state spaces. */
const SPACES = () => workshop.compiled("granite4-h", { values: "int8", format: "bitmap" }, 0.7);

describe("a sequence of a model with linear attention", () => {
  test("goes on after each cut as if what was cut had never been", async () => {
    const lengths = [0, 1, 2, 63, 64, 65, 100, 119, 120];
    await expectCutsToLeaveNothing(await FLOATS(), lengths);
    await expectCutsToLeaveNothing(await INTEGERS(), lengths, { threads: 2 });
    await expectCutsToLeaveNothing(await SPACES(), lengths, { threads: 2 });
  }, LONG);

  test("is as it was when it is stopped while it goes back, and goes on from there", async () => {
    const folder = await FLOATS();
    const prompt = tokensOf(1, 120), rest = tokensOf(2, 5);
    await withSparse(folder, {}, async (model) => {
      const sequence = model.open();
      await sequence.run(prompt);
      sequence.truncate(40);
      expect(await codeOf(sequence.run(rest, { signal: AbortSignal.abort() }))).toBe("ABORTED");
      expect(await codeOf(sequence.run([100_000]))).toBe("TOKEN_OUT_OF_RANGE");
      // What is computed again counts.
      expect(await codeOf(sequence.run(tokensOf(3, 89)))).toBe("CONTEXT_OVERFLOW");
      expect(sequence.length).toBe(40);
      const whole = [...prompt.slice(0, 40), ...rest];
      expectSameBits([await run(sequence, rest)], [await alone(folder, whole)], "after that");
    });
  }, LONG);

  test(
    "begins with what another had at a point before the end of its prompt, or with all of it",
    async () => {
      const folder = await FLOATS();
      const first = tokensOf(1, 100);
      for (const common of [0, 5, 63, 64, 70, 99, 100]) {
        for (const isOpen of [false, true]) {
          await withSparse(folder, {}, async (model) => {
            const other = model.open();
            await other.run(first);
            if (!isOpen) other.close();
            const prompt = [...first.slice(0, common), ...tokensOf(2, 110 - common)];
            const sequence = model.open(prompt);
            const isAll = common === first.length && !isOpen;
            const wanted = isAll ? common : common >= PAGE ? PAGE : 0;
            expect([common, isOpen, sequence.length]).toEqual([common, isOpen, wanted]);
            const found = await run(sequence, prompt.slice(sequence.length));
            expectSameBits([found], [await alone(folder, prompt)], `${common} in common`);
            if (!isOpen) return;
            // The other goes on with a state of its own.
            const rest = tokensOf(3, 20);
            const alike = await alone(folder, [...first, ...rest]);
            expectSameBits([await run(other, rest)], [alike], `${common}, the other`);
          });
        }
      }
    },
    LONG,
  );

  test(
    "keeps no point of prompts that are no longer than a page, or of tokens that it writes",
    async () => {
      await withSparse(await FLOATS(), {}, async (model) => {
        const short = tokensOf(1, 71);
        await leave(model, short);
        expect(model.open([...short.slice(0, 70), 5]).length).toBe(0);
        const written = model.open();
        for (const token of tokensOf(2, 90)) await written.run([token]);
        expect(model.open([...tokensOf(2, 80), 5]).length).toBe(0);
      });
    },
    LONG,
  );

  test("gives at random cuts, shares and turns what its tokens give alone", async () => {
    await expectTurnsToLeaveNothing(await FLOATS(), 78);
  }, LONG);

  test("gives at once with others what it gives alone, on any number of threads", async () => {
    for (const make of [FLOATS, INTEGERS, SPACES]) await expectOthersNotToMatter(await make());
  }, LONG);

  test("has pages of keys, values and inputs and a state, and says so", async () => {
    await withSparse(await FLOATS(), { kv: "f32" }, async (model) => {
      // One layer of two heads of 16 elements; two of three inputs of 160 channels, and of four states of 16 × 24, in 32s.
      const page = PAGE * 2 * 2 * 16 * 4 + 2 * 3 * 160 * 4, state = 2 * 4 * 4 * 16 * 32;
      expect(model.info).toMatchObject({ cacheBytesPerToken: page / PAGE, stateBytes: state });
      const nothing = { sequences: 0, tokens: 0, bytes: 0, keptBytes: 0, reservedBytes: 0 };
      expect(model.cacheUse!()).toMatchObject(nothing);
      const sequence = model.open();
      await sequence.run(tokensOf(1, 100));
      // And a copy of it, at its point.
      expect(model.cacheUse!()).toMatchObject({ bytes: 2 * page + 2 * state, keptBytes: 0 });
      sequence.close();
      expect(model.cacheUse!()).toMatchObject({ bytes: 0, keptBytes: 2 * page + 2 * state });
    });
  }, LONG);
});
