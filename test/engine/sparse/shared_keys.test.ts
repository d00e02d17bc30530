/**
 * Layers that attend to keys and values of earlier ones (Gemma 4): what lowering makes of them and refuses, and that
 * sequences of such models, whatever is cut, shared or run at once, give what their tokens give alone, to the bit.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { PAGE } from "../../../src/engine/sparse/layout.ts";
import { LONG } from "../../compile/support.ts";
import {
  alone,
  expectCutsToLeaveNothing,
  expectOthersNotToMatter,
  expectTurnsToLeaveNothing,
  run,
  SparseWorkshop,
  tokensOf,
  withSparse,
} from "./engines.ts";
import { expectSameBits } from "./machine.ts";
import { refusals } from "./refusing.ts";
import { type Files, filesOf, lowerBytes } from "./support.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** Models of 128 positions, two pages; layers 3 and 4 attend to keys of 2 and 1. */
const FLOATS = () => workshop.compiled("gemma4", { values: "f32", format: "csr" }, "2:4");
const INTEGERS = () => workshop.compiled("gemma4", { values: "int8", format: "nm" }, "8:16");

let files: Files;
beforeAll(async () => {
  files = filesOf(await FLOATS());
});

describe("a graph whose layers share keys", () => {
  test("has steps of attention without keys, of the layers that have them", () => {
    const { steps, layers } = lowerBytes(files.graph);
    const attentions = steps.filter((step) => step.op === "attention");
    expect(layers).toBe(3);
    expect(attentions.map(({ layer }) => layer)).toEqual([0, 1, 2, 2, 1]);
    expect(attentions.map(({ keys, values }) => [keys, values].map((value) => value === undefined)))
      .toEqual([0, 0, 0, 1, 1].map((is) => [!!is, !!is]));
    expect(attentions.map(({ window }) => window)).toEqual([8, undefined, 8, 8, undefined]);
    expect(attentions.map(({ headDim }) => headDim)).toEqual([16, 32, 16, 16, 32]);
  });

  const { unsupported, damaged } = refusals<"gemma4">(() => files);
  const attention = "GroupQueryAttention";

  for (const [place, what] of [[1, "keys"], [2, "values"]] as const) {
    unsupported(`with other ${what} for a cache that has some is refused`, "gemma4", (e) => {
      e.node(attention, 3).input[place] = e.node(attention, 0).input[place];
    }, "attends to the cache of layer 2 with other keys or values");
  }
  unsupported("with values for keys is refused", "gemma4", (e) => {
    const node = e.node(attention, 3);
    [node.input[1], node.input[2]] = [node.input[2], node.input[1]];
  }, "with other keys or values");
  damaged("with heads of another size than those in the cache is refused", "gemma4", (e) => {
    const [, other, , node] = [0, 1, 2, 3].map((nth) => e.node(attention, nth));
    for (const place of [3, 4]) node.input[place] = other.input[place];
  }, attention);
  unsupported("with a cache that nothing fills is refused", "gemma4", (e) => {
    const node = e.node(attention, 2);
    e.graph.output = e.graph.output.filter(({ name }) => !node.output.slice(1).includes(name));
    node.output.splice(1);
  }, "present.2.key");
});

describe("a sequence of a model whose layers share keys", () => {
  test("has in the cache what those layers keep that have keys", async () => {
    await withSparse(await FLOATS(), { kv: "f32" }, (model) => {
      // Two layers with two heads of 16 elements, one with two of 32.
      expect(model.info).toMatchObject({ cacheBytesPerToken: 2 * 2 * (16 + 16 + 32) * 4 });
      return Promise.resolve();
    });
  }, LONG);

  test("has for its last token the logits that it has among those of all", async () => {
    for (const folder of [await FLOATS(), await INTEGERS()]) {
      const prompt = tokensOf(1, PAGE + 23);
      await withSparse(folder, {}, async (model) => {
        const { vocabulary } = model.info;
        const rows = await model.open().run(prompt, { logits: "all" });
        for (const count of [1, 2, 9, PAGE, PAGE + 1, prompt.length]) {
          const last = await run(model.open(), prompt.slice(0, count));
          const among = rows.subarray((count - 1) * vocabulary, count * vocabulary);
          expectSameBits([last], [among], `of ${count} tokens`);
        }
      });
    }
  }, LONG);

  test("goes on after each cut as if what was cut had never been", async () => {
    const lengths = [0, 1, 2, 7, 8, 9, 63, 64, 65, 119, 120];
    await expectCutsToLeaveNothing(await FLOATS(), lengths);
    await expectCutsToLeaveNothing(await INTEGERS(), lengths, { threads: 2, kv: "int8" });
  }, LONG);

  test("gives at random cuts, shares and turns what its tokens give alone", async () => {
    await expectTurnsToLeaveNothing(await INTEGERS(), 79);
  }, LONG);

  test("gives at once with others what it gives alone, on any number of threads", async () => {
    for (const make of [FLOATS, INTEGERS]) await expectOthersNotToMatter(await make());
  }, LONG);

  test("gives at once with a prompt what it gives alone, wherever its tokens are", async () => {
    const folder = await INTEGERS();
    const [long, short] = [tokensOf(1, PAGE + 30), tokensOf(2, 5)];
    await withSparse(folder, {}, async (model) => {
      const [one, two, three] = [model.open(), model.open(), model.open()];
      await run(one, long);
      await run(two, short);
      const prompt = tokensOf(3, 40);
      const found = await Promise.all([run(three, prompt), run(one, [7]), run(two, [8])]);
      const tokens = [prompt, [...long, 7], [...short, 8]];
      const expected = await Promise.all(tokens.map((all) => alone(folder, all)));
      expectSameBits(found, expected, "at once");
    });
  }, LONG);
});
