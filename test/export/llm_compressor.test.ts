/**
 * Recipes for llm-compressor: what is in them. What its own code makes of them is checked by
 * `test/consumers/llm_compressor.ts`, which needs PyTorch.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { parse } from "yaml";
import { exportRecipe } from "../../src/api/export.ts";
import type { ExportOptions } from "../../src/api/options.ts";
import { AllocationError } from "../../src/errors.ts";
import { nameMatcher } from "../../src/prune/skip.ts";
import { DENSITIES, record, structured, unstructured } from "./support.ts";

interface Args {
  sparsity: number | number[];
  mask_structure: string;
  block_size?: number;
  targets: string[];
  ignore: string[];
}

test("a recipe says where linears had densities of their own, and gives each block their mean", () => {
  const allocation = {
    blocks: [0.5, 0.25].map((density, index) => ({
      index,
      density,
      densities: { q_proj: density - 0.125, k_proj: density + 0.125 },
    })),
  };
  const { notes } = exportRecipe({ allocation, method: "wanda" });
  expect(notes.join()).toContain("each block has their mean");
  expect(modifiersOf({ allocation, method: "wanda" })[0].args.sparsity).toEqual([0.5, 0.75]);
});

/** The modifiers of a recipe, read as its reader reads it: by the rules of YAML 1.1. */
function modifiersOf(options: ExportOptions): { group: string; type: string; args: Args }[] {
  const recipe = parse(exportRecipe(options).text, { version: "1.1" });
  expect(Object.keys(recipe)).toEqual(["prune_stage"]);
  return Object.entries(recipe.prune_stage as Record<string, Record<string, Args>>).map(
    ([group, modifiers]) => {
      const [[type, args], ...rest] = Object.entries(modifiers);
      expect(rest).toEqual([]);
      expect(group).toMatch(/_modifiers$/);
      return { group, type, args };
    },
  );
}

/** Whether one of its `re:` expressions fits a name, as Python's `re.match` does: from the start. */
function fits(expressions: readonly string[], name: string): boolean {
  return expressions.some((expression) => {
    expect(expression).toMatch(/^re:/);
    return new RegExp(`^(?:${expression.slice(3)})`).test(name);
  });
}

describe("a recipe of an unstructured allocation", () => {
  for (
    const [method, type] of [
      ["wanda", "WandaPruningModifier"],
      ["sparsegpt", "SparseGPTModifier"],
    ] as const
  ) {
    test(`has the sparsity of each block for ${type}`, () => {
      const [modifier, ...rest] = modifiersOf({ allocation: unstructured(), method });
      expect(rest).toEqual([]);
      expect(modifier.type).toBe(type);
      expect(modifier.args.mask_structure).toBe("0:0");
      expect(modifier.args.sparsity).toEqual([0.65, 0.55, 0.56, 0.75, 0.82, 0.85]);
      expect(modifier.args.block_size).toBeUndefined();
    });
  }

  test("is the same for the record of a pruned checkpoint and for a list of densities", () => {
    const { text } = exportRecipe({ allocation: unstructured() });
    expect(exportRecipe({ allocation: record(unstructured()) }).text).toBe(text);
    expect(exportRecipe({ allocation: DENSITIES }).text).toBe(text);
    expect(exportRecipe({ allocation: { densities: DENSITIES } }).text).toBe(text);
  });

  test("prunes what stands in blocks and nothing else", () => {
    const [{ args }] = modifiersOf({ allocation: unstructured() });
    for (const name of ["model.layers.0", "model.decoder.layers.5", "layers.12"]) {
      expect([name, fits(args.targets, name)]).toEqual([name, true]);
    }
    for (
      const name of [
        "lm_head",
        "model",
        "model.embed_tokens",
        "model.layers",
        "model.layers.0.mlp",
        "model.players.0",
      ]
    ) {
      expect([name, fits(args.targets, name)]).toEqual([name, false]);
    }
    expect(fits(args.ignore, "lm_head")).toBe(true);
    expect(fits(args.ignore, "model.embed_tokens")).toBe(true);
    expect(fits(args.ignore, "model.layers.0.mlp.down_proj")).toBe(false);
  });

  test("leaves out blocks that keep all their weights, and says which", () => {
    const allocation = [1, 0.5, 1 - 1e-9, 0.25, ...new Array(7).fill(1), 0.125];
    const [{ args }] = modifiersOf({ allocation });
    expect(args.sparsity).toEqual([0.5, 0.75, 0.875]);
    const targeted = allocation.map((_, i) => fits(args.targets, `model.layers.${i}`));
    expect(targeted.flatMap((is, i) => is ? [i] : [])).toEqual([1, 3, 11]);
    const report = exportRecipe({ allocation });
    expect(report.dense).toEqual([0, 2, 4, 5, 6, 7, 8, 9, 10]);
    expect(report.notes.join()).toContain("blocks 0, 2, 4");
    expect(report.text).toContain("- 0.875 # block 11\n");
  });

  test("never leaves a row a weight more than the share is, where that is a whole number", () => {
    for (const columns of [10, 96, 192, 512, 576, 1536, 4096, 11008]) {
      const pruned = [1, 2, 3, 7, columns >> 2, columns >> 1, columns - 1];
      const allocation = pruned.map((count) => 1 - count / columns);
      const { sparsity } = modifiersOf({ allocation })[0].args;
      const floors = (sparsity as number[]).map((share) => Math.floor(columns * share));
      expect(floors).toEqual(pruned);
    }
  });

  test("is plain ASCII, and the same whenever it is made", () => {
    const { text } = exportRecipe({ allocation: unstructured() });
    expect(text).toMatch(/^[\n -~]*$/);
    expect(exportRecipe({ allocation: unstructured() }).text).toBe(text);
  });

  test("is refused where there is nothing to prune", () => {
    expect(() => exportRecipe({ allocation: [1, 1] })).toThrow(AllocationError);
  });

  test("is refused where nothing of a block would be left: SparseGPT fails there", () => {
    expect(() => exportRecipe({ allocation: [0.5, 1e-12] })).toThrow("block 1");
  });
});

describe("a recipe of an N:M pattern", () => {
  const cases = [["2:4", "2:4", 0.5], ["1:4", "3:4", 0.75], ["8:16", "8:16", 0.5], [
    "4:16",
    "12:16",
    0.75,
  ]] as const;
  for (const [pattern, structure, sparsity] of cases) {
    test(`of ${pattern} kept has ${structure} pruned`, () => {
      const [n, m] = pattern.split(":").map(Number);
      const allocation = structured(pattern, [n, n, n], m);
      const [{ args }, ...rest] = modifiersOf({ allocation });
      expect(rest).toEqual([]);
      // YAML 1.1 would take 8:16 for 496, were it not a string.
      expect(args.mask_structure).toBe(structure);
      expect(args.sparsity).toBe(sparsity);
    });
  }

  test("keeps SparseGPT's groups inside the columns that it takes at a time", () => {
    const of = (pattern: string, n: number, m: number, method: "wanda" | "sparsegpt") =>
      modifiersOf({ allocation: structured(pattern, [n, n], m), method })[0].args.block_size;
    expect(of("12:24", 12, 24, "sparsegpt")).toBe(120);
    expect(of("1:3", 1, 3, "sparsegpt")).toBe(126);
    expect(of("8:16", 8, 16, "sparsegpt")).toBeUndefined();
    expect(of("12:24", 12, 24, "wanda")).toBeUndefined();
  });
});

describe("a recipe of a mixed pattern", () => {
  const allocation = structured("mixed:16", [8, 4, 8, 16, 3, 4], 16);

  test("has a modifier for each N, each with its own blocks", () => {
    const modifiers = modifiersOf({ allocation });
    expect(modifiers.map(({ group, args }) => [group, args.mask_structure])).toEqual([
      ["keep_3_of_16_modifiers", "13:16"],
      ["keep_4_of_16_modifiers", "12:16"],
      ["keep_8_of_16_modifiers", "8:16"],
    ]);
    const blocks = modifiers.map(({ args }) =>
      allocation.blocks.map(({ index }) => index).filter((index) =>
        fits(args.targets, `model.layers.${index}`)
      )
    );
    expect(blocks).toEqual([[4], [1, 5], [0, 2]]);
    expect(modifiers.map(({ args }) => args.sparsity)).toEqual([[0.8125], [0.75, 0.75], [
      0.5,
      0.5,
    ]]);
    expect(exportRecipe({ allocation }).dense).toEqual([3]);
  });

  test("says that all of them must run together", () => {
    const { notes, text } = exportRecipe({ allocation });
    expect(notes[0]).toContain('pipeline="sequential"');
    expect(text).toContain('pipeline="sequential"');
  });
});

describe("names to skip", () => {
  const names = [
    "model.layers.3.mlp.down_proj",
    "model.layers.13.mlp.down_proj",
    "model.layers.3.self_attn.q_proj",
    "model.decoder.layers.3.fc1",
  ];
  const globs = [
    "down_proj",
    "*.down_proj",
    "layers.3.*",
    "layers.?.mlp.*",
    "q_pro?",
    "fc1",
    "a+b",
  ];

  test("fit in a recipe what they fit in prune", () => {
    for (const glob of globs) {
      const [{ args }] = modifiersOf({ allocation: { ...unstructured(), skip: [glob] } });
      const expected = names.map((name) => nameMatcher([glob])(`${name}.weight`));
      expect([glob, names.map((name) => fits(args.ignore, name))]).toEqual([glob, expected]);
    }
  });

  test("of the allocation and of the caller go together", () => {
    const allocation = { ...unstructured(), skip: ["q_proj", "fc1"] };
    const report = exportRecipe({ allocation, skip: ["fc1", "*.down_proj"] });
    expect(report.skip).toEqual(["q_proj", "fc1", "*.down_proj"]);
    expect(exportRecipe({ allocation: record(allocation) }).skip).toEqual(["q_proj", "fc1"]);
  });

  test("are text in the recipe, whatever is in them", () => {
    const skip = [
      "a: b # c",
      "- x",
      "'",
      '"',
      "a\nprune_stage: {}",
      "\u2028",
      "!!python/none",
      "[x",
    ];
    const [{ args }] = modifiersOf({ allocation: { ...unstructured(), skip } });
    // Behind those that are always left out.
    const skipped = args.ignore.slice(-skip.length);
    for (const [i, name] of skip.entries()) {
      expect(fits([skipped[i]], name)).toBe(true);
    }
  });
});
