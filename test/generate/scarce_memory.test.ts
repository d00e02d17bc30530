/** Sequences of the engine in memory that is not enough for all of them. @module */
import { afterAll, expect, test } from "bun:test";
import { load } from "../../src/generate/load.ts";
import type { LoadOptions } from "../../src/generate/load_options.ts";
import type { Model } from "../../src/generate/model.ts";
import { Turns } from "../../src/generate/turns.ts";
import { CompileWorkshop } from "../compile/support.ts";
import { fromRoot } from "../support/paths.ts";

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
