/**
 * Sketches of heads: the likeliest tokens are found by them without computing all logits, and their logits
 * are those that all rows would give, to the bit.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import type { EngineModel, Sequence } from "../../../src/engine/model.ts";
import type { SparseOptions } from "../../../src/engine/sparse/options.ts";
import { type Build, BUILDS } from "../../../src/engine/sparse/kernels.ts";
import { BackendError } from "../../../src/errors.ts";
import { LONG } from "../../compile/support.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { type DecoderSizes, greedy, SparseWorkshop, withSparse } from "./engines.ts";
import { expectSameBits } from "./machine.ts";
import { normal } from "./kernel_support.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

const SIZES = { hidden: 128, intermediate: 64, heads: 2, keyValueHeads: 1, headDim: 32 };
const INT8: SparseOptions = { activations: "int8", kv: "int8" };

/** A compiled model of int8 with a head of this form. */
function modelOf(sizes: Partial<DecoderSizes> & { vocabulary: number }): Promise<string> {
  const checkpoint = workshop.checkpoint({ ...SIZES, ...sizes });
  return workshop.compiled(checkpoint, { values: "int8", format: "nm" });
}

/** Weights of heads that a sketch may find hard. */
const HEADS: Readonly<Record<string, (row: number, column: number, dice: Dice) => number>> = {
  "normal weights": (_row, _column, dice) => normal(dice),
  "rows that are nearly alike": (row, column, dice) =>
    Math.sin(column * 7) + 0.01 * Math.sin(row * column) + 0.001 * dice.next(),
  "equal rows": (row, column) => Math.sin((row % 5) * 100 + column),
  "rows that are all the same": (_row, column) => Math.sin(column),
  "nothing but 0": () => 0,
  "rows of 0 among others": (row, _column, dice) => row % 3 === 0 ? 0 : normal(dice),
  "one large weight a row": (row, column, dice) =>
    column === row % 128 ? 30 * (row % 2 ? 1 : -1) : normal(dice),
  "rows of all sizes": (row, _column, dice) => normal(dice) * 10 ** (row % 7 - 3),
  "one sign": (_row, _column, dice) => 1 + dice.next(),
  "columns of a large mean": (_row, column, dice) => normal(dice) + (column % 31 === 5 ? 12 : 0),
};

/** What a run gives, in an array of its own. */
async function logitsOf(
  sequence: Sequence,
  tokens: readonly number[],
  within?: number,
): Promise<Float32Array> {
  return (await sequence.run(tokens, { within })).slice();
}

/**
 * Checks logits of which only those within reach of the largest matter against all logits; within 0 only the first of
 * the largest does.
 *
 * @returns How many are the same.
 */
function expectWithin(
  found: Float32Array,
  all: Float32Array,
  within: number,
  what: string,
): number {
  const limit = Math.max(...all) - within, likeliest = greedy(all);
  let same = 0;
  for (const [id, logit] of all.entries()) {
    const matters = within === 0 ? id === likeliest : logit >= limit;
    if (found[id] === logit) same++;
    else if (matters || found[id] >= limit) {
      throw new Error(`${what}: token ${id} has ${found[id]} for ${logit}, the limit is ${limit}`);
    }
  }
  expect(greedy(found), what).toBe(likeliest);
  return same;
}

/** Runs some tokens in two models, one with a sketch and one without. */
async function compare(
  folder: string,
  options: SparseOptions,
  tokens: readonly number[],
  withins: readonly number[],
): Promise<number> {
  return await withSparse(
    folder,
    { ...options, sketch: false },
    (plain) =>
      withSparse(folder, { ...options, sketch: true }, async (sketched) => {
        const [one, other] = [plain.open(), sketched.open()];
        let same = 0;
        for (const [i, token] of tokens.entries()) {
          const within = withins[i % withins.length];
          const all = await logitsOf(one, [token]);
          const found = await logitsOf(other, [token], within);
          // Of equal ones the first.
          expect(other.likeliest, `token ${i}`).toBe(all.indexOf(Math.max(...all)));
          expect(one.likeliest).toBeUndefined();
          same += expectWithin(found, all, within, `token ${i}, within ${within}`);
        }
        return same / tokens.length / plain.info.vocabulary;
      }),
  );
}

function tokensBelow(count: number, vocabulary: number): number[] {
  const dice = new Dice(SEED);
  return Array.from({ length: count }, () => dice.below(vocabulary));
}

/**
 * Rows of which two give nearly as much with the input, and their root mean square is 1.
 *
 * @param amplitude Of row 7, by columns.
 * @param likeness Cosine of the input, row 5, and row 7.
 * @param less Part by which row 333 gives less than row 7.
 */
function alikeRows(
  columns: number,
  amplitude: (column: number) => number,
  likeness: number,
  less: number,
): Map<number, Float64Array> {
  const dice = new Dice(SEED + 3);
  const product = (a: Float64Array, b: Float64Array) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const random = () => Float64Array.from({ length: columns }, () => normal(dice));
  const unit = (v: Float64Array) => {
    const size = Math.sqrt(product(v, v) / columns);
    return v.map((x) => x / size);
  };
  const without = (v: Float64Array, u: Float64Array) => {
    const part = product(v, u) / product(u, u);
    return v.map((x, i) => x - part * u[i]);
  };
  const likeliest = unit(random().map((x, c) => x * amplitude(c)));
  const beside = unit(without(random(), likeliest));
  const input = likeliest.map((x, c) => likeness * x + Math.sqrt(1 - likeness ** 2) * beside[c]);
  const other = unit(without(without(random(), input), likeliest));
  const rival = input.map((x, c) => (1 - less) * likeness * x + 0.7 * other[c]);
  return new Map([[5, input], [7, likeliest], [333, rival]]);
}

describe("a sketch", () => {
  for (const [what, embedding] of Object.entries(HEADS)) {
    test(`finds the largest logits of heads with ${what}`, async () => {
      const folder = await modelOf({ vocabulary: 1003, embedding });
      for (const activations of ["int8", "int16"] as const) {
        const options = { ...INT8, activations };
        await compare(folder, options, tokensBelow(60, 1003), [0, 1e-6, 0.5, 4, 1e6]);
      }
    }, LONG);
  }

  test("finds the largest logits where what is lost of a row goes the input's way", async () => {
    // The input is as good as the embedding of token 7; row 1234 has more of the same, in 64 columns or in one.
    const sign = (c: number) => [1, 4, 32].filter((bit) => c & bit).length % 2 ? -1 : 1;
    const likes = {
      "columns of a Hadamard matrix": (column: number) => column >> 6 === 2 ? sign(column) : 0,
      "one column": (column: number) => column === 300 ? 8 : 0,
    };
    for (const [what, like] of Object.entries(likes)) {
      for (const [noise, times] of [[0.3, 2], [0.3, 3.4], [0.6, 3.4], [0.6, 4]]) {
        const embedding = (row: number, column: number, dice: Dice) => {
          const size = like(column);
          if (row === 7) return size || noise * normal(dice);
          if (row === 1234) return times * size + 0.1 * normal(dice);
          return 0.3 * normal(dice);
        };
        const folder = await modelOf({ vocabulary: 2000, hidden: 576, embedding });
        expect(await compare(folder, INT8, [7], [1e-6]), what).toBeLessThan(0.1);
      }
    }
  }, LONG);

  test(
    "finds the largest logit where the input goes its row's way, and rows are louder in some blocks",
    async () => {
      // A row is normal in one block of 64 columns of `every`, and a part of that elsewhere. The input is the row of token
      // 5: that of token 7, more or less. Row 333 gives a little less than row 7 does.
      const cases = [[576, 3, 0], [768, 4, 0], [1024, 4, 0], [1024, 2, 0.2], [2048, 4, 0.3], [
        8192,
        1,
        1,
      ]];
      for (const [columns, every, quiet] of cases) {
        for (const [likeness, less] of [[1, 0.005], [1, 0.02], [0.9, 0.06], [0.7, 0.06]]) {
          const rows = alikeRows(
            columns,
            (c) => (c >> 6) % every === 0 ? 1 : quiet,
            likeness,
            less,
          );
          const folder = await modelOf({
            ...{
              hidden: columns,
              intermediate: 8,
              heads: 1,
              headDim: 8,
              layers: 1,
              vocabulary: 400,
            },
            // Nothing but the head: what it is given is the input.
            zeros: 1,
            lastNorm: 25 / columns,
            embedding: (row, column, dice) => rows.get(row)?.[column] ?? 0.3 * normal(dice),
          });
          const [found, all] = await Promise.all(
            [true, false].map((sketch) =>
              withSparse(folder, { ...INT8, sketch }, async (model) => {
                const sequence = model.open();
                const logits = await logitsOf(sequence, [5], sketch ? 1e-6 : undefined);
                return { logits, likeliest: sequence.likeliest };
              })
            ),
          );
          expectWithin(found.logits, all.logits, 1e-6, `${columns} columns, ${quiet}, ${likeness}`);
          expect(found.likeliest).toBe(greedy(all.logits));
        }
      }
    },
    LONG,
  );

  test("leaves most of a head alone where few tokens are likely", async () => {
    // What a token is followed by points the same way as its own embedding.
    const embedding = (row: number, column: number) => normal(new Dice(row * 1000 + column));
    const folder = await modelOf({ vocabulary: 4000, embedding });
    const part = await compare(folder, INT8, tokensBelow(20, 4000), [1e-6]);
    expect(part).toBeLessThan(0.25);
  }, LONG);

  test(
    "finds the largest of capped logits, and those near to it, which caps bring nearer",
    async () => {
      const folder = await workshop.compiled("gemma2", { values: "int8", format: "nm" }, "2:4");
      const tokens = tokensBelow(60, 320);
      for (const options of [INT8, { ...INT8, threads: 3 }]) {
        await compare(folder, options, tokens, [0, 1e-6, 0.1, 0.5, 2]);
      }
      expect(await compare(folder, INT8, tokens, [0.1])).toBeLessThan(0.9);
      // There is something to miss: logits that are near to the largest, and were not before they were capped.
      let brought = 0;
      await withSparse(folder, INT8, async (model) => {
        const sequence = model.open(), uncapped = (logit: number) => 4 * Math.atanh(logit / 4);
        for (const token of tokens) {
          const all = await logitsOf(sequence, [token]), top = Math.max(...all);
          brought += all.filter((logit) =>
            logit >= top - 0.1 && uncapped(top) - uncapped(logit) > 0.1
          ).length;
        }
      });
      expect(brought).toBeGreaterThan(10);
    },
    LONG,
  );

  test("serves vocabularies that fill no group of rows, with all logits below 0", async () => {
    const embedding = HEADS["rows that are nearly alike"];
    for (const vocabulary of [3, 17, 33, 100]) {
      const folder = await modelOf({ vocabulary, embedding, lastNorm: -1 });
      const tokens = tokensBelow(30, vocabulary);
      await withSparse(folder, INT8, async (model) => {
        expect(Math.max(...await logitsOf(model.open(), tokens)), "the largest").toBeLessThan(0);
      });
      for (const threads of [1, 3]) {
        await compare(folder, { ...INT8, threads }, tokens, [0, 1]);
      }
    }
  }, LONG);

  test("gives the same in every build and with any number of threads", async () => {
    const folder = await modelOf({ vocabulary: 2011, embedding: HEADS["normal weights"] });
    const tokens = tokensBelow(20, 2011);
    for (const build of BUILDS) {
      for (const threads of [1, 2, 4]) {
        try {
          await compare(folder, { ...INT8, build, threads }, tokens, [0, 2]);
        } catch (error) {
          if (!(error instanceof BackendError) || isPlain(build)) throw error;
        }
      }
    }
  }, LONG);

  test("serves the last token of a prompt, and widths of several blocks", async () => {
    for (const hidden of [64, 192, 576]) {
      const folder = await modelOf({ vocabulary: 700, hidden, embedding: HEADS["normal weights"] });
      await withSparse(folder, { ...INT8, sketch: true }, async (model) => {
        const prompt = tokensBelow(150, 700);
        const all = await logitsOf(model.open(), prompt);
        const sequence = model.open();
        const other = (await sequence.run(prompt, { within: 1 })).slice();
        expect(sequence.likeliest).toBe(greedy(all));
        // Not that of a run before.
        await sequence.run([3]);
        expect(sequence.likeliest).toBeUndefined();
        expectWithin(other, all, 1, `${hidden} columns`);
      });
    }
  }, LONG);

  test("is not used where several sequences run at once, or all logits are wanted", async () => {
    const folder = await modelOf({ vocabulary: 700, embedding: HEADS["normal weights"] });
    await withSparse(folder, { ...INT8, sketch: true }, async (model) => {
      const alone = [await logitsOf(model.open(), [1, 2]), await logitsOf(model.open(), [3])];
      const one = model.open(), other = model.open();
      const together = await Promise.all([
        logitsOf(one, [1, 2], 0),
        logitsOf(other, [3], 0),
      ]);
      expectSameBits(together, alone, "at once");
      expect([one.likeliest, other.likeliest]).toEqual([undefined, undefined]);
      const rows = (await model.open().run([1, 2], { logits: "all", within: 0 })).slice();
      expectSameBits([rows.subarray(700)], [alone[0]], "all logits");
    });
  }, LONG);

  test("gives what all rows give where inputs are 0, or no numbers any more", async () => {
    for (const lastNorm of [0, 1e38]) {
      const folder = await modelOf({
        vocabulary: 300,
        embedding: HEADS["normal weights"],
        lastNorm,
      });
      const [all, found] = await Promise.all(
        [false, true].map((sketch) =>
          withSparse(folder, { ...INT8, sketch }, async (model) => {
            const [largest, sequence] = [model.open(), model.open()];
            const [one, logits] = [
              await logitsOf(largest, [7], 0),
              await logitsOf(sequence, [7], 1e-6),
            ];
            expect(largest.likeliest).toBe(sequence.likeliest);
            if (sequence.likeliest !== undefined) {
              expect(logits[sequence.likeliest]).toBe(Math.max(...logits));
              expect(one[sequence.likeliest]).toBe(Math.max(...logits));
            }
            return logits;
          })
        ),
      );
      expect(all.every((logit) => logit === 0)).toBe(lastNorm === 0);
      expectSameBits([found], [all], `times ${lastNorm}`);
    }
  }, LONG);

  test("gives no logit but the largest where that alone matters, token after token", async () => {
    const folder = await modelOf({ vocabulary: 700, embedding: HEADS["normal weights"] });
    await withSparse(folder, { ...INT8, sketch: true }, async (model) => {
      const sequence = model.open();
      for (const token of tokensBelow(20, 700)) {
        const logits = await sequence.run([token], { within: 0 });
        const given = [...logits.entries()].filter(([, logit]) => logit > -Infinity);
        expect(given.map(([id]) => id)).toEqual([sequence.likeliest!]);
      }
      // And all of them to the next who asks for them.
      expect((await sequence.run([2])).every(Number.isFinite)).toBe(true);
    });
  }, LONG);

  test("is not made of heads of other forms", async () => {
    const embedding = HEADS["normal weights"];
    const narrow = await modelOf({ vocabulary: 300, hidden: 96, embedding });
    const checkpoint = workshop.checkpoint({ ...SIZES, vocabulary: 300, embedding });
    const floats = await workshop.compiled(checkpoint, { values: "f32", format: "nm" });
    // Its head has biases, which a sketch knows nothing of.
    const biased = await workshop.compiled("phi", { values: "int8", format: "dense" });
    for (const folder of [narrow, floats, biased]) {
      const [plain, sketched] = await Promise.all(
        [false, true].map((sketch) =>
          withSparse(folder, { sketch }, async (model) => {
            const sequence = model.open();
            return [model.info.weightBytes, await logitsOf(sequence, [7], 0)] as const;
          })
        ),
      );
      expect(sketched[0]).toBe(plain[0]);
      expectSameBits([sketched[1]], [plain[1]], folder);
    }
  }, LONG);

  test("is made by itself of large heads, where memory is left for it", async () => {
    const embedding = (row: number, column: number) => Math.sin(row * 31 + column * 17);
    const folder = await modelOf({ vocabulary: 70_000, hidden: 64, positions: 64, embedding });
    const bytes = (options: SparseOptions) =>
      withSparse(folder, options, (model: EngineModel) => Promise.resolve(model.info));
    const plain = await bytes({ sketch: false });
    const made = await bytes({ build: "relaxed" });
    expect(made.weightBytes - plain.weightBytes).toBe(70_000 * (64 / 2 + 12 + 16));
    expect(made.tokenBytes).toBeLessThan(plain.tokenBytes!);
    expect(plain.weightBytes).toBe((await bytes({ build: "simd" })).weightBytes);
    const memory = plain.memoryBytes! + 16e6;
    expect((await bytes({ build: "relaxed", memory })).weightBytes).toBe(plain.weightBytes);
    const small = await modelOf({ vocabulary: 1003, embedding: HEADS["normal weights"] });
    const infos = await Promise.all(
      [undefined, false].map((sketch) =>
        withSparse(small, { sketch }, (model) => Promise.resolve(model.info.weightBytes))
      ),
    );
    expect(infos[0]).toBe(infos[1]);
  }, LONG);
});

/** Whether a build runs everywhere. */
function isPlain(build: Build): boolean {
  return build === "simd";
}
