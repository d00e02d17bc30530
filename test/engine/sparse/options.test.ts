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

  test("is taken at the ends of its range", async () => {
    for (
      const options of [{ threads: 1, context: 1, keptSequences: 0 }, { threads: 1, shortRun: 0 }]
    ) {
      // Then there is no model.
      expect((await rejectionOf(loadSparse(filesSource({}), options))).code).toBe(
        "FILE_UNREADABLE",
      );
    }
  });
});
