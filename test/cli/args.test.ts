import { expect, test } from "bun:test";
import { z } from "zod";
import { readCommandLine } from "../../src/cli/args.ts";
import { UsageError } from "../../src/errors.ts";

const schema = z.object({ model: z.string(), port: z.int().default(1) });

test("whether JSON is printed can be said by a variable, which --json goes over", () => {
  const jsonOf = (words: string[], value: string | undefined) =>
    readCommandLine(["MODEL", ...words], schema, { environment: { ESPALIER_JSON: value } }).json;
  expect(jsonOf([], "1")).toBe(true);
  expect(jsonOf([], "false")).toBe(false);
  expect(jsonOf([], "")).toBe(false);
  expect(jsonOf([], undefined)).toBe(false);
  expect(jsonOf(["--json"], "0")).toBe(true);
  expect(() => jsonOf([], "perhaps")).toThrow(UsageError);
});
