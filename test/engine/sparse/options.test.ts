import { describe, expect, test } from "bun:test";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import type { SparseOptions } from "../../../src/engine/sparse/options.ts";
import { filesSource } from "../../../src/engine/source.ts";
import { rejectionOf } from "../../checkpoint/support.ts";

describe("an option of the sparse engine", () => {
  const WRONG: [keyof SparseOptions, ...number[]][] = [
    ["threads", 0, -1, 1.5, 257, NaN],
    ["context", 0, -5, 2.5, Infinity, 2 ** 21],
    ["keptSequences", -1, 0.5, NaN, 10_001],
    ["memory", -1, NaN],
    ["shortRun", -1, NaN],
    ["patience", -1, NaN],
  ];
  for (const [name, ...values] of WRONG) {
    test(`is refused where it is out of its range: ${name}`, async () => {
      for (const value of values) {
        const error = await rejectionOf(loadSparse(filesSource({}), { [name]: value }));
        expect(error.code).toBe("USAGE");
        expect(error.message).toContain(`${name}: ${value} is no`);
      }
    });
  }

  test("is refused where it is no word that there is", async () => {
    // As a script writes it, which has no types.
    for (
      const [name, word] of [["kv", "int4"], ["kv", "f16"], ["kv", null], ["activations", "int4"]]
    ) {
      const wrong = { [name!]: word } as SparseOptions;
      const error = await rejectionOf(loadSparse(filesSource({}), wrong));
      expect(error.code).toBe("USAGE");
      expect(error.message).toContain(`${name}: "${word}" is none of auto, `);
    }
  });

  test("is refused where it is neither true nor false, or no signal", async () => {
    const controller = new AbortController();
    for (
      const [name, value] of [["background", "yes"], ["sketch", 1], ["signal", controller]] as const
    ) {
      const wrong = { [name]: value } as SparseOptions;
      const error = await rejectionOf(loadSparse(filesSource({}), wrong));
      expect(error.code).toBe("USAGE");
      expect(error.message).toContain(name);
    }
  });

  test("is taken at the ends of its range", async () => {
    for (
      const options of [
        { threads: 1, context: 1, keptSequences: 0 },
        { threads: 1, shortRun: 0 },
        { threads: 1, kv: "int8", activations: "int16" },
        { threads: 1, kv: undefined, activations: "auto" },
      ] as const
    ) {
      // Then there is no model.
      expect((await rejectionOf(loadSparse(filesSource({}), options))).code).toBe(
        "FILE_UNREADABLE",
      );
    }
  });
});
