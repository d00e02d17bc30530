/**
 * What a program asks of the sparse engine that serves several at once: figures of the cache, more kept
 * beginnings, runs in pieces of any size, and room that does not suffice.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import type { EngineModel } from "../../../src/engine/model.ts";
import type { SparseOptions } from "../../../src/engine/sparse/options.ts";
import { LONG } from "../../compile/support.ts";
import { codeOf, logitsInPieces, SparseWorkshop, tokensOf, withSparse } from "./engines.ts";
import { expectSameBits } from "./machine.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** Positions of a page. */
const PAGE = 64;

async function withModel<T>(
  options: SparseOptions,
  use: (model: EngineModel) => Promise<T>,
): Promise<T> {
  const folder = await workshop.compiled("tiny", { values: "int8", format: "nm" }, "8:16");
  return await withSparse(folder, options, use);
}

test("pieces of any size give the same bits", async () => {
  const tokens = tokensOf(1, 160);
  for (const kv of ["f32", "int8"] as const) {
    const options = { kv, activations: kv === "f32" ? "int16" : "int8", threads: 2 } as const;
    await withModel(options, async (model) => {
      const expected = await logitsInPieces(model, tokens);
      const { vocabulary } = model.info;
      for (const size of [1, 3, 7, 16, 100, 128, 200]) {
        const found = await logitsInPieces(model, tokens, [size]);
        expectSameBits([found], [expected], `all logits, pieces of ${size}, ${kv} cache`);
        const sequence = model.open();
        for (let at = 0; at < tokens.length; at += size) {
          const last = await sequence.run(tokens.slice(at, at + size));
          const end = Math.min(at + size, tokens.length);
          const row = expected.subarray((end - 1) * vocabulary, end * vocabulary);
          expectSameBits([last], [row], `token ${end}, pieces of ${size}, ${kv} cache`);
        }
        sequence.close();
      }
    });
  }
}, LONG);

describe("what the cache holds", () => {
  for (const background of [false, true]) {
    test(`is told, ${background ? "in the background" : "in the foreground"}`, async () => {
      const memory = 64 << 20;
      await withModel({ background, memory }, async (model) => {
        const perPage = model.info.cacheBytesPerToken * PAGE;
        const use = () => {
          const { limitBytes, ...rest } = model.cacheUse!()!;
          expect(limitBytes! % perPage).toBe(0);
          expect(limitBytes).toBeLessThan(memory);
          expect(limitBytes).toBeGreaterThan(rest.reservedBytes);
          return rest;
        };
        const nothing = { sequences: 0, tokens: 0, bytes: 0, keptBytes: 0, reservedBytes: 0 };
        expect(use()).toEqual(nothing);
        const prompt = tokensOf(1, 130);
        const one = model.open(prompt);
        expect(use()).toEqual({ ...nothing, sequences: 1 });
        await one.run(prompt);
        const first = {
          sequences: 1,
          tokens: 130,
          bytes: 3 * perPage,
          keptBytes: 0,
          // Eight are made at once.
          reservedBytes: 8 * perPage,
        };
        expect(use()).toEqual(first);
        // Two whole pages are shared.
        const other = [...prompt.slice(0, 128), ...tokensOf(2, 10)];
        const two = model.open(other);
        expect(two.length).toBe(128);
        await two.run(other.slice(128));
        expect(use()).toEqual({
          sequences: 2,
          tokens: 268,
          bytes: 4 * perPage,
          keptBytes: 0,
          reservedBytes: 8 * perPage,
        });
        two.close();
        const kept = { ...first, keptBytes: perPage };
        expect(use()).toEqual(kept);
        one.truncate(64);
        expect(use()).toEqual({ ...kept, tokens: 64, bytes: perPage, keptBytes: 2 * perPage });
        one.close();
        expect(use()).toMatchObject({ sequences: 0, tokens: 0, bytes: 0, keptBytes: 3 * perPage });
      });
    }, LONG);
  }
});

describe("beginnings of closed sequences", () => {
  /** How many tokens of each of some prompts are found after all have been run and closed. */
  async function found(options: SparseOptions, count: number): Promise<number[]> {
    return await withModel(options, async (model) => {
      const prompts = Array.from({ length: count }, (_, i) => tokensOf(i, 100));
      for (const prompt of prompts) {
        const sequence = model.open(prompt);
        await sequence.run(prompt.slice(sequence.length));
        sequence.close();
      }
      return prompts.map((prompt) => {
        const sequence = model.open(prompt);
        const { length } = sequence;
        sequence.close();
        return length;
      });
    });
  }

  test("are kept of as many as was asked for", async () => {
    expect(await found({ keptSequences: 0 }, 3)).toEqual([0, 0, 0]);
    expect(await found({ keptSequences: 20 }, 20)).toEqual(new Array(20).fill(99));
    expect((await found({ keptSequences: 3 }, 5)).slice(0, 2)).toEqual([0, 0]);
  }, LONG);

  test(
    "are kept of four, and of no more than fit into one context, unless more is asked for",
    async () => {
      expect((await found({}, 6)).slice(0, 2)).toEqual([0, 0]);
      // Three times two pages, where a context is four.
      const [first] = await found({ context: 256 }, 3);
      expect(first).toBe(0);
      expect(await found({ context: 256, keptSequences: 3 }, 3)).toEqual([99, 99, 99]);
    },
    LONG,
  );

  test("give way where memory is short", async () => {
    // The least in which one sequence fills its context.
    let memory = 0;
    for (let pages = 1; memory === 0; pages += 8) {
      const tried = pages * 65536;
      const options = { memory: tried, context: 256 };
      const code = await codeOf(
        withModel(options, (model) => model.open().run(tokensOf(1, 256))),
      );
      if (code === "") memory = tried;
      else expect(code).toBe("MEMORY_BUDGET");
    }
    await withModel({ memory, context: 256, keptSequences: 100 }, async (model) => {
      for (let i = 0; i < 20; i++) {
        const sequence = model.open();
        await sequence.run(tokensOf(i, 256));
        sequence.close();
      }
      const { reservedBytes, limitBytes } = model.cacheUse!()!;
      expect(reservedBytes).toBeLessThanOrEqual(limitBytes!);
      await model.open().run(tokensOf(1, 256));
    });
  }, LONG);
});

describe("where there is no room for a run", () => {
  for (const background of [false, true]) {
    test(
      `nothing has run, and all go on, ${background ? "background" : "foreground"}`,
      async () => {
        const alone = (tokens: number[]) =>
          withModel({}, async (model) => (await model.open().run(tokens)).slice());
        const [one, two, three] = [tokensOf(1, 200), tokensOf(2, 60), tokensOf(3, 100)];
        const expected = [await alone([...one, 9]), await alone([...two, 9])];
        // Six pages, of eight that all would need.
        const memory = await withModel({ context: 384 }, async (model) => {
          await model.open().run([1]);
          return model.info.memoryBytes! + 6.5 * model.cacheUse!()!.bytes;
        });
        await withModel({ context: 384, memory, background }, async (model) => {
          const sequences = [model.open(), model.open(), model.open()];
          await sequences[0].run(one);
          await sequences[1].run(two);
          const before = model.cacheUse!()!;
          expect(await codeOf(sequences[2].run(three))).toBe("MEMORY_BUDGET");
          expect(await codeOf(sequences[1].run(three, { logits: "all" }))).toBe("MEMORY_BUDGET");
          expect(sequences.map(({ length }) => length)).toEqual([200, 60, 0]);
          const { reservedBytes: _, ...after } = model.cacheUse!()!;
          expect(after).toEqual({
            sequences: 3,
            tokens: 260,
            bytes: before.bytes,
            keptBytes: 0,
            limitBytes: before.limitBytes,
          });
          const found = [
            (await sequences[0].run([9])).slice(),
            (await sequences[1].run([9])).slice(),
          ];
          expectSameBits(found, expected, "the others");
          // Room that comes free is enough for what was refused.
          sequences[0].truncate(0);
          sequences[0].close();
          const last = await sequences[2].run(three);
          expectSameBits([last], [await alone(three)], "what was refused");
        });
      },
      LONG,
    );
  }
});
