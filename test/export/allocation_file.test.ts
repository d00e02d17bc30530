/**
 * Allocations read from files, damaged ones among them. The changes of the last test follow from a seed,
 * which every failure names: `ESPALIER_FUZZ_SEED=… bun test allocation_file` repeats it.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parse } from "yaml";
import { readAllocation } from "../../src/api/allocation_file.ts";
import { exportRecipe } from "../../src/api/export.ts";
import { AllocationFileError, EspalierError, UsageError } from "../../src/errors.ts";
import { Workshop } from "../checkpoint/support.ts";
import { caseCount, type Dice, fuzz, must } from "../support/fuzz.ts";
import { record, structured, unstructured } from "./support.ts";

const CASES = caseCount(20_000, 2_000);

const workshop = new Workshop();
afterAll(() => workshop.remove());

function write(content: unknown, name = "allocation.json"): string {
  const path = join(workshop.folder(), name);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

/** The error of ours that reading ends in. */
function failure(content: unknown): EspalierError {
  try {
    readAllocation(write(content));
  } catch (error) {
    if (error instanceof EspalierError) return error;
    throw error;
  }
  throw new Error(`it was read: ${JSON.stringify(content).slice(0, 200)}`);
}

describe("an allocation", () => {
  test("is not what its recipe is written over, named by itself or by its folder", () => {
    const place = write(record(unstructured()), "espalier.json");
    for (const allocation of [place, dirname(place)]) {
      const written = () =>
        exportRecipe({ allocation, method: "wanda", output: place, force: true });
      expect(written).toThrow(UsageError);
    }
    expect(readAllocation(place).shares.length).toBeGreaterThan(0);
  });

  test("is read from a report, a record, a folder with a record, and densities", () => {
    const report = unstructured();
    const expected = readAllocation(report);
    expect(expected.shares.map(({ density }) => density)).toEqual(
      report.blocks.map(({ density }) => density),
    );
    const place = write(record(report), "espalier.json");
    const densities = report.blocks.map(({ density }) => density);
    for (
      const from of [
        write(report),
        place,
        join(place, ".."),
        write(densities),
        write({ densities }),
        densities,
      ]
    ) {
      expect(readAllocation(from)).toEqual(expected);
    }
  });

  test("keeps pattern, numbers kept and names to skip", () => {
    const mixed = { ...structured("mixed:16", [8, 4], 16), skip: ["q_proj"] };
    expect(readAllocation(record(mixed))).toEqual({
      pattern: { kind: "mixed", m: 16 },
      shares: [{ density: 0.5, kept: 8 }, { density: 0.25, kept: 4 }],
      skip: ["q_proj"],
    });
    expect(readAllocation(structured("2:4", [2, 2], 4)).pattern).toEqual({
      kind: "nm",
      n: 2,
      m: 4,
    });
    // A block that was skipped as a whole.
    expect(readAllocation(structured("2:4", [2, 4], 4)).shares[1]).toEqual({ density: 1, kept: 4 });
  });
});

test("densities of linears are read where all blocks have them", () => {
  const block = (index: number, densities?: object) => ({ index, density: 0.4, densities });
  const linears = [{ q_proj: 0.5, k_proj: 0.3 }, { q_proj: 0.45, k_proj: 0.35 }];
  const found = readAllocation({ blocks: linears.map((each, i) => block(i, each)) });
  expect(found.linears).toEqual(linears);
  expect(found.shares).toEqual([{ density: 0.4 }, { density: 0.4 }]);
  expect(readAllocation({ blocks: [block(0, linears[0]), block(1)] }).linears).toBeUndefined();
});

describe("what is no allocation is refused with its field", () => {
  const block = { index: 0, density: 0.5 };
  const cases: [what: string, content: unknown, ...parts: string[]][] = [
    ["another JSON", { model: "x" }, "holds no allocation", "--dry-run --json"],
    ["null", null, "holds no allocation"],
    ["a number", 3, "holds no allocation"],
    ["a compiled model's record", { kind: "compiled", linears: [] }, "compiled model"],
    ["no blocks", { blocks: [] }, "blocks"],
    ["blocks that are text", { blocks: "all" }, "blocks"],
    ["no densities", [], "allocation.json"],
    ["a density of 0", [0.5, 0], "1: "],
    ["a density above 1", { densities: [1.5] }, "0: "],
    ["a density of 1e999", '{"densities":[1e999]}', "0: "],
    ["a density that is text", { blocks: [{ index: 0, density: "0.5" }] }, "blocks.0.density"],
    ["a linear's density of 0", { blocks: [{ ...block, densities: { q: 0 } }] }, "densities.q"],
    ["blocks out of order", { blocks: [{ ...block, index: 1 }, block] }, "blocks.0", "order"],
    ["a block twice", { blocks: [block, block] }, "blocks.1", "index 0"],
    ["another format", { format: 2, blocks: [block] }, "format"],
    ["an unknown pattern", { pattern: "3d", blocks: [block] }, "pattern", "no pattern"],
    ["a pattern of M = 64", { pattern: "2:64", blocks: [block] }, "pattern", "32"],
    ["skip that is text", { skip: "q_proj", blocks: [block] }, "skip"],
    ["an empty name", { skip: [""], blocks: [block] }, "skip.0"],
    ["a mixed pattern without kept", { pattern: "mixed:16", blocks: [block] }, "blocks.0", "kept"],
    [
      "a mixed pattern that keeps none",
      {
        pattern: "mixed:16",
        blocks: [{ index: 0, density: 1e-7, kept: 0 }],
      },
      "blocks.0",
      "kept",
    ],
    ["2:4 that keeps 1", structured("2:4", [2, 1], 4), "blocks.1", "1 kept of 4"],
    ["mixed:4 that keeps 8", structured("mixed:4", [8], 16), "blocks.0", "8 kept of 4"],
    ["a density that is not N of M", {
      pattern: "mixed:16",
      blocks: [{ index: 0, density: 0.3, kept: 8 }],
    }, "0.3"],
    ["more blocks than any model has", new Array(5000).fill(0.5), "4096"],
    ["a pattern of a megabyte", { pattern: "x".repeat(1 << 20), blocks: [block] }, "pattern"],
  ];
  for (const [what, content, ...parts] of cases) {
    test(what, () => {
      const error = failure(content);
      expect(error).toBeInstanceOf(AllocationFileError);
      expect(error.code).toBe("ALLOCATION_INVALID");
      for (const part of parts) expect(error.message).toContain(part);
      expect(error.message).toContain("allocation.json");
      expect(error.message.length).toBeLessThan(1000);
    });
  }

  test("and what is no JSON, or not there, as a file that cannot be read", () => {
    for (const content of ["", "{", "densities: 1", "[".repeat(100_000), "\u0000"]) {
      expect(failure(content).code).toBe("FILE_UNREADABLE");
    }
    expect(() => readAllocation(join(workshop.folder(), "none.json"))).toThrow("none.json");
    expect(() => readAllocation(workshop.folder())).toThrow("espalier.json");
  });
});

/** Values that a part of an allocation is replaced by, as text. */
const ODD = [
  "null",
  "true",
  "0",
  "-0",
  "-1",
  "0.5",
  "1",
  "1e-320",
  "1e999",
  "0.9999999999",
  "8",
  "33",
  '""',
  '"0.5"',
  '"2:4"',
  '"mixed:16"',
  '"mixed:1"',
  '"0:0"',
  '"4:4"',
  '"999999999999:4"',
  '"a\\nb"',
  '"(((((*a*a*a*a*a*"',
  "[]",
  "{}",
  "[[]]",
  '{"__proto__":{"density":0.5}}',
  '{"length":3}',
];

/** Replaces, doubles or removes one value at random. */
function change(text: string, dice: Dice): string {
  const values = [...text.matchAll(/"[^"]*"(?!\s*:)|-?\d[\d.e-]*|\[[^[\]]*\]|\{[^{}]*\}/g)];
  if (values.length === 0) return text;
  const { 0: value, index } = dice.pick(values);
  const instead = dice.below(6) === 0 ? `${value},${value}` : dice.pick(ODD);
  return text.slice(0, index) + instead + text.slice(index + value.length);
}

test("changed at random, an allocation ends in a recipe that is YAML, or in an error of ours", () => {
  const texts = [
    unstructured(),
    record(unstructured()),
    { ...structured("mixed:16", [8, 4, 16, 3], 16), skip: ["*.down_proj"] },
    record(structured("2:4", [2, 2, 2], 4)),
    { densities: [0.5, 0.25, 1] },
  ].map((each) => JSON.stringify(each));
  const endings = fuzz(CASES, (dice) => {
    let text = dice.pick(texts);
    for (let left = 1 + dice.below(3); left > 0; left--) text = change(text, dice);
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof json !== "object" || json === null) return;
    const report = exportRecipe({ allocation: json, method: dice.pick(["wanda", "sparsegpt"]) });
    const recipe = parse(report.text, { version: "1.1" });
    const modifiers = Object.values<Record<string, { sparsity: unknown }>>(recipe.prune_stage);
    for (const { sparsity } of modifiers.flatMap((each) => Object.values(each))) {
      for (const share of [sparsity].flat()) {
        must(typeof share === "number" && share > 0 && share < 1, `a sparsity of ${share}`);
      }
    }
  });
  expect(endings.get("result")).toBeGreaterThan(CASES / 20);
  expect(endings.get("ALLOCATION_INVALID")).toBeGreaterThan(CASES / 20);
});
