import { expect, test } from "bun:test";
import process from "node:process";
import { giveLargeBack } from "../../src/platform/malloc.ts";

test("large pieces of memory go back to the system where the runtime can say so, again and again", () => {
  const isDeno = "Deno" in globalThis && process.platform === "linux";
  expect([giveLargeBack(), giveLargeBack()]).toEqual([isDeno, isDeno]);
});
