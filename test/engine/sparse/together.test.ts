/**
 * Sequences of the sparse engine that run at once: they are computed in one run, and each gets what it
 * would get alone, to the bit.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { LONG } from "../../compile/support.ts";
import { alone, codeOf, run, SparseWorkshop, tokensOf, withSparse } from "./engines.ts";
import { expectSameBits } from "./machine.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** A model of 512 positions, in which a prompt takes several runs. */
const LARGE = () => workshop.compiled("tiny", { values: "int8", format: "nm" }, "8:16");

describe("sequences at once", () => {
  test("that are asked for at once are run as if one had waited for the other", async () => {
    const folder = await LARGE();
    const prompts = [tokensOf(1, 300), tokensOf(2, 280)];
    await withSparse(folder, { kv: "int8" }, async (model) => {
      const found = await Promise.all(prompts.map(async (prompt) => {
        const sequence = model.open();
        return [await run(sequence, prompt), await run(sequence, [7])];
      }));
      for (const [i, [first, second]] of found.entries()) {
        const options = { kv: "int8" } as const;
        expectSameBits([first], [await alone(folder, prompts[i], options)], `prompt ${i}`);
        expectSameBits([second], [await alone(folder, [...prompts[i], 7], options)], `next ${i}`);
      }
    });
  }, LONG);

  const precisions = [
    { values: "int8", format: "nm", pattern: "8:16", options: { kv: "int8", activations: "int8" } },
    {
      values: "int4",
      format: "nm",
      pattern: "8:16",
      options: { kv: "int8", activations: "int16" },
    },
    { values: "f32", format: "nm", pattern: "8:16", options: { kv: "f32" } },
  ] as const;
  for (const { values, format, pattern, options } of precisions) {
    for (const threads of [1, 2]) {
      const what = `${values}, ${threads} thread${threads > 1 ? "s" : ""}`;
      test(
        `that generate at once are computed in one run, to the same bits (${what})`,
        async () => {
          const folder = await workshop.compiled("tiny", { values, format }, pattern);
          const prompts = Array.from({ length: 19 }, (_, i) => tokensOf(i, 1 + (i * 37) % 150));
          await withSparse(folder, { threads, ...options }, async (model) => {
            expect(model.info.together).toBe(16);
            const rows: Float32Array[][] = [];
            // More than fit into one run, and prompts among those that generate.
            for (const many of [2, 3, 5, 16, 19]) {
              const sequences = prompts.slice(0, many).map(() => model.open());
              await Promise.all(
                sequences.slice(1).map((sequence, i) => run(sequence, prompts[i + 1])),
              );
              for (let token = 0; token < 3; token++) {
                const found = await Promise.all(
                  sequences.map((sequence, i) =>
                    run(sequence, token === 0 && i === 0 ? prompts[0] : [7 * i + token + 3])
                  ),
                );
                rows.push(found);
              }
              for (const sequence of sequences) sequence.close();
            }
            const expected: Float32Array[] = [];
            for (const [i, prompt] of prompts.entries()) {
              const sequence = model.open();
              if (i > 0) await run(sequence, prompt);
              for (let token = 0; token < 3; token++) {
                expected.push(
                  await run(sequence, token === 0 && i === 0 ? prompt : [7 * i + token + 3]),
                );
              }
              sequence.close();
            }
            for (const [n, found] of rows.entries()) {
              const wanted = found.map((_, i) => expected[3 * i + n % 3]);
              expectSameBits(found, wanted, `${found.length} sequences, token ${n % 3}`);
            }
          });
        },
        LONG,
      );
    }
  }

  test("that ask for a token at once have their logits at once", async () => {
    await withSparse(await LARGE(), { threads: 1 }, async (model) => {
      const sequences = Array.from({ length: 8 }, () => model.open());
      // One run of the program, and not eight: who asks last has its logits with the first.
      let ended = 0;
      const order: number[] = [];
      await Promise.all(sequences.map(async (sequence, i) => {
        await sequence.run([5 + i]);
        ended++;
        await undefined;
        order.push(ended);
      }));
      expect(order).toEqual(new Array(8).fill(8));
      for (const sequence of sequences) sequence.close();
    });
  }, LONG);

  test(
    "one for which there is no room, or which is stopped, leaves the others what they get",
    async () => {
      const folder = await LARGE();
      const stop = new AbortController();
      await withSparse(folder, {}, async (model) => {
        const [one, two, three, four] = [1, 2, 3, 4].map(() => model.open());
        stop.abort();
        const closed = codeOf(four.run([9]));
        four.close();
        const codes = [
          codeOf(two.run([5], { signal: stop.signal })),
          codeOf(three.run([100_000])),
        ];
        expectSameBits([await run(one, [5, 6])], [await alone(folder, [5, 6])], "the first");
        expect(await Promise.all([...codes, closed])).toEqual([
          "ABORTED",
          "TOKEN_OUT_OF_RANGE",
          "MODEL_CLOSED",
        ]);
        expectSameBits([await run(two, [5])], [await alone(folder, [5])], "the second");
      });
    },
    LONG,
  );
});
