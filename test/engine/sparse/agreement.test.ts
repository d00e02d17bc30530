/**
 * The example model in int8, as it is loaded when nothing else is asked for: text and perplexity of the
 * sparse engine against ONNX Runtime on the same file.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import process from "node:process";
import { prune } from "../../../src/api/prune.ts";
import { folderSource } from "../../../src/engine/folder_source.ts";
import type { EngineModel } from "../../../src/engine/model.ts";
import { loadOrt } from "../../../src/engine/ort/cached.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import { perplexityOf } from "../../../src/generate/perplexity.ts";
import { readText } from "../../../src/platform/files.ts";
import { openTokenizer } from "../../../src/text/folder.ts";
import { sourceOf } from "../../compile/support.ts";
import { greedy, SparseWorkshop } from "./engines.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** Tests of minutes; nothing else takes as long. */
const MINUTES = 900_000;
const LONG_TEST = ["1", "true"].includes(process.env.ESPALIER_TEST_LONG ?? "");
/** Prompts, and windows for perplexity. */
const PROMPTS = LONG_TEST ? 100 : 20;
const WINDOWS = LONG_TEST ? 32 : 4;

const EVALUATION = `${sourceOf("tiny")}/evaluation.txt`;

/** Folders of the example, pruned and compiled: a pattern, a sparsity, and nothing pruned. */
const MODELS: Record<string, () => Promise<string>> = {
  "8:16": () => compiledOf("8:16"),
  "4:16": () => compiledOf("4:16"),
  "70 % sparse": () => compiledOf(0.7),
  dense: () => workshop.compiled("tiny", { values: "int8" }),
};
const folders = new Map<string, Promise<string>>();

function folderOf(name: string): Promise<string> {
  const made = folders.get(name) ?? MODELS[name]();
  folders.set(name, made);
  return made;
}

async function compiledOf(pattern: string | number): Promise<string> {
  const output = workshop.fresh("pruned");
  await prune({
    model: sourceOf("tiny"),
    output,
    method: "wanda",
    allocation: "uniform",
    calibration: `${sourceOf("tiny")}/calibration.txt`,
    samples: 8,
    seqlen: 128,
    ...typeof pattern === "number" ? { sparsity: pattern } : { pattern },
  });
  return (await workshop.compile(output, { values: "int8" })).output;
}

function textTokens(): Int32Array {
  return openTokenizer(sourceOf("tiny")).encode(readText(EVALUATION, 1 << 20));
}

async function withBoth<T>(
  name: string,
  use: (ours: EngineModel, theirs: EngineModel) => Promise<T>,
): Promise<T> {
  const folder = await folderOf(name);
  const ours = await loadSparse(folderSource(folder), { threads: 1 });
  try {
    const theirs = await loadOrt(folder, { threads: 1 });
    try {
      return await use(ours, theirs);
    } finally {
      await theirs.close();
    }
  } finally {
    await ours.close();
  }
}

/** The prompt's most likely continuation. */
async function continued(model: EngineModel, prompt: Int32Array, count: number): Promise<number[]> {
  const sequence = model.open();
  const tokens: number[] = [];
  let logits = await sequence.run(prompt);
  while (tokens.length < count) {
    tokens.push(greedy(logits));
    if (tokens.length < count) logits = await sequence.run(tokens.slice(-1));
  }
  sequence.truncate(0);
  sequence.close();
  return tokens;
}

describe("the example model in int8", () => {
  // All of them in a long test only: pruning takes seconds.
  for (const name of LONG_TEST ? Object.keys(MODELS) : ["8:16"]) {
    test(`${name}, has the perplexity that ONNX Runtime gives it, within 1 %`, async () => {
      const tokens = textTokens();
      const windows = Array.from(
        { length: WINDOWS },
        (_, i) => tokens.slice(i * 1000, i * 1000 + 256),
      );
      await withBoth(name, async (ours, theirs) => {
        const [found, expected] = [
          await perplexityOf(ours, windows),
          await perplexityOf(theirs, windows),
        ];
        if (LONG_TEST) console.log(`${name}: perplexity ${found}, ONNX Runtime ${expected}`);
        expect(Math.abs(found / expected - 1)).toBeLessThan(0.01);
      });
    }, MINUTES);

    test(`${name}, writes the text that ONNX Runtime writes, in 95 of 100 cases`, async () => {
      const tokens = textTokens();
      const apart = Math.floor((tokens.length - 100) / PROMPTS);
      await withBoth(name, async (ours, theirs) => {
        let same = 0;
        for (let i = 0; i < PROMPTS; i++) {
          const prompt = tokens.slice(i * apart, i * apart + 8 + i % 40);
          const [found, expected] = [
            await continued(ours, prompt, 64),
            await continued(theirs, prompt, 64),
          ];
          if (found.join() === expected.join()) same++;
        }
        if (LONG_TEST) console.log(`${name}: ${same} of ${PROMPTS} texts are the same`);
        expect(same).toBeGreaterThanOrEqual(Math.floor(0.95 * PROMPTS));
      });
    }, MINUTES);
  }
});
