/**
 * The example, compiled in several ways, for stock runtimes to run.
 * @module
 */
import { join } from "node:path";
import { compile, prune } from "../../mod.ts";
import { openTokenizer } from "../../src/text/folder.ts";
import { fromRoot } from "../support/paths.ts";
import { type Greedy, greedy } from "./reference.ts";

/** What the models are given to go on from. */
export const PROMPT = "The population of the country";

/** The prompt's token ids. */
export const PROMPT_IDS = [...openTokenizer(fromRoot("examples/tiny")).encode(PROMPT)];

/** A compiled model. */
export interface Made {
  readonly name: string;
  readonly folder: string;
  /** What our own path computes from the prompt. */
  readonly expected: Greedy;
}

type Values = "f32" | "f16" | "int8";
type Format = "auto" | "nm" | "csr" | "bitmap" | "slots" | "dense";

/** Name, pattern that it is pruned to, values, format, inputs that share a scale. */
const VARIANTS: readonly [string, string, Values, Format, number?][] = [
  ["f32-csr", "unstructured", "f32", "csr"],
  ["f16-bitmap", "unstructured", "f16", "bitmap"],
  ["int8-auto", "unstructured", "int8", "auto"],
  ["int8-nm-8-16", "8:16", "int8", "nm"],
  ["int8-csr-group-64", "unstructured", "int8", "csr", 64],
  ["f16-nm-2-4", "2:4", "f16", "nm"],
  ["int8-slots", "slots", "int8", "slots"],
];

/**
 * Prunes the example, quickly, and compiles it.
 *
 * @param folder Where the models go.
 * @param steps Tokens to compute after the prompt.
 * @param only Names of those to make; all when left out.
 */
export async function makeModels(
  folder: string,
  steps: number,
  only?: readonly string[],
): Promise<Made[]> {
  const pruned = new Map<string, string>();
  const made: Made[] = [];
  for (const [name, pattern, values, format, group] of VARIANTS) {
    if (only && !only.includes(name)) continue;
    if (!pruned.has(pattern)) {
      const output = join(folder, `pruned-${pattern.replace(":", "-")}`);
      await prune({
        model: fromRoot("examples/tiny"),
        output,
        method: "magnitude",
        allocation: "uniform",
        pattern,
        ...pattern === "unstructured" ? { sparsity: 0.6 } : {},
      });
      pruned.set(pattern, output);
    }
    const output = join(folder, name);
    await compile({ model: pruned.get(pattern)!, output, values, format, group });
    made.push({ name, folder: output, expected: await greedy(output, PROMPT_IDS, steps) });
  }
  return made;
}
