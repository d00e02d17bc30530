/**
 * Sequences of models that convolve their tokens, of whose inputs pages keep only the last: whatever is cut, shared or
 * run at once, each gives what its tokens give alone, to the bit.
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

/** Models of 128 positions: two pages. */
const FLOATS = () => workshop.compiled("lfm2", { values: "f32", format: "csr" }, "2:4");
const INTEGERS = () => workshop.compiled("lfm3", { values: "int8", format: "nm" }, "8:16");

/** Where a page ends at a length or before it. */
const wholePages = (length: number) => length - length % PAGE;

describe("a sequence of a model that convolves", () => {
  test("goes on after each cut as if what was cut had never been", async () => {
    const lengths = [0, 1, 2, 3, 62, 63, 64, 65, 66, 100, 119, 120];
    await expectCutsToLeaveNothing(await FLOATS(), lengths);
    await expectCutsToLeaveNothing(await INTEGERS(), lengths, { threads: 2 });
  }, LONG);

  test("may be cut again before it goes on, and gives rows of new tokens only", async () => {
    const folder = await FLOATS();
    const prompt = tokensOf(1, 120);
    await withSparse(folder, {}, async (model) => {
      const sequence = model.open();
      await sequence.run(prompt);
      for (const length of [110, 109, 80, 70, 66, 40]) {
        sequence.truncate(length);
        expect(sequence.length).toBe(length);
        // It has not what was cut before.
        expect(() => sequence.truncate(length + 1)).toThrow("cannot be cut");
      }
      const rest = tokensOf(2, 30);
      const rows = await sequence.run(rest, { logits: "all" });
      const { vocabulary } = model.info;
      expect(rows.length).toBe(30 * vocabulary);
      const whole = await model.open().run([...prompt.slice(0, 40), ...rest], { logits: "all" });
      expectSameBits([rows], [whole.slice(40 * vocabulary)], "all rows");
    });
  }, LONG);

  test("is as it was when it is stopped while it goes back, and goes on from there", async () => {
    const folder = await FLOATS();
    const prompt = tokensOf(1, 120), rest = tokensOf(2, 5);
    await withSparse(folder, {}, async (model) => {
      const sequence = model.open();
      await sequence.run(prompt);
      sequence.truncate(100);
      expect(await codeOf(sequence.run(rest, { signal: AbortSignal.abort() }))).toBe("ABORTED");
      expect(await codeOf(sequence.run([100_000]))).toBe("TOKEN_OUT_OF_RANGE");
      // What is computed again counts.
      expect(await codeOf(sequence.run(tokensOf(3, 29)))).toBe("CONTEXT_OVERFLOW");
      expect(sequence.length).toBe(100);
      const whole = [...prompt.slice(0, 100), ...rest];
      expectSameBits([await run(sequence, rest)], [await alone(folder, whole)], "after that");
      sequence.truncate(90);
      sequence.close();
      // It left what had been computed, and not what was still to be.
      expect(model.open(prompt).length).toBe(PAGE);
    });
  }, LONG);

  test("begins with whole pages of what another had, or with all of it", async () => {
    const folder = await FLOATS();
    const first = tokensOf(1, 100);
    for (const common of [0, 5, 30, 63, 64, 70, 99, 100]) {
      for (const isOpen of [false, true]) {
        await withSparse(folder, {}, async (model) => {
          const other = model.open();
          await other.run(first);
          if (!isOpen) other.close();
          const prompt = [...first.slice(0, common), ...tokensOf(2, 110 - common)];
          const sequence = model.open(prompt);
          const isAll = common === first.length && !isOpen;
          expect([common, isOpen, sequence.length])
            .toEqual([common, isOpen, isAll ? common : wholePages(common)]);
          const found = await run(sequence, prompt.slice(sequence.length));
          expectSameBits([found], [await alone(folder, prompt)], `${common} in common`);
          if (!isOpen) return;
          // The other goes on in its own page.
          const rest = tokensOf(3, 20);
          const wanted = await alone(folder, [...first, ...rest]);
          expectSameBits([await run(other, rest)], [wanted], `${common}, the other`);
        });
      }
    }
  }, LONG);

  test(
    "takes a whole one that ends before it over a longer one of which it shares less than a page",
    async () => {
      await withSparse(await FLOATS(), {}, async (model) => {
        const prompt = tokensOf(1, 60);
        for (const [seed, length] of [[5, 50], [0, 30], [6, 25]]) {
          await leave(model, [...prompt.slice(0, length), ...seed > 0 ? tokensOf(seed, 10) : []]);
        }
        expect(model.open(prompt).length).toBe(30);
      });
    },
    LONG,
  );

  test("gives at random cuts, shares and turns what its tokens give alone", async () => {
    await expectTurnsToLeaveNothing(await FLOATS(), 77);
  }, LONG);

  test("gives at once with others what it gives alone, on any number of threads", async () => {
    for (const folder of [await FLOATS(), await INTEGERS()]) await expectOthersNotToMatter(folder);
  }, LONG);

  test("has pages of keys, values and the last inputs, and says so", async () => {
    await withSparse(await FLOATS(), { kv: "f32" }, (model) => {
      // One layer of two heads of 16 elements; two of two inputs of 64 channels.
      const bytes = PAGE * 2 * 2 * 16 * 4 + 2 * 2 * 64 * 4;
      expect(model.info.cacheBytesPerToken).toBe(bytes / PAGE);
      return Promise.resolve();
    });
  }, LONG);
});
