/** The longest sequence of a compiled model. @module */
import { expect, test } from "bun:test";
import { contextOf } from "../../compile/graph.ts";
import type { DecoderSpec } from "../../src/checkpoint/architectures/spec.ts";

test("the longest sequence is the model's, 32768 at most unless more is asked for, and never more than the model's", () => {
  const of = (context: number, asked?: number) => contextOf({ context } as DecoderSpec, asked);
  expect(of(131_072)).toBe(32_768);
  expect(of(2048)).toBe(2048);
  expect(of(131_072, 65_536)).toBe(65_536);
  expect(of(2048, 4096)).toBe(2048);
  expect(of(2048, 16)).toBe(16);
});
