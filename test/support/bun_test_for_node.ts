/**
 * The part of `bun:test` that the tests in `test/prune/` use, on top of `node:test` and
 * `@std/expect`. `scripts/test.ts` bundles those tests with this file in place of `bun:test` and
 * runs them in Node, to show that the pruning core needs no particular runtime.
 *
 * @module
 */

import {
  after,
  afterEach as nodeAfterEach,
  before,
  beforeEach as nodeBeforeEach,
  describe as nodeDescribe,
  test as nodeTest,
} from "node:test";
import type { expect as BunExpect } from "bun:test";
// @ts-ignore: deno-std ships no types; `expect` below has those of bun:test.
import { expect as stdExpect } from "@std/expect";
import { TEST_TIMEOUT_MS } from "./limit.ts";

/** The body of a test or a hook. */
type Body = () => void | Promise<unknown>;

/** Registers one test under a name. */
type Register = (name: string, body: Body, timeoutMs?: number) => void;

// node:test takes a body's parameters for a context and a callback, so `body` is never handed over
// itself. It also returns a promise of the test's end, which nothing here awaits.
const registerIf = (condition: boolean): Register => (name, body, timeoutMs) => {
  const timeout = timeoutMs ?? TEST_TIMEOUT_MS;
  void nodeTest(name, { skip: !condition, timeout }, async () => {
    await body();
  });
};

/** Registers a test. */
export const test: Register & { skip: Register; if: (condition: boolean) => Register } = Object
  .assign(registerIf(true), { skip: registerIf(false), if: registerIf });

/** Asserts something about a value: `expect(value).toBe(expected)`. */
export const expect: typeof BunExpect = stdExpect;

/**
 * Groups tests: hooks set in the block are theirs alone.
 *
 * @param name What the tests are about.
 * @param block Registers the tests. It must not be async.
 */
export function describe(name: string, block: () => void): void {
  void nodeDescribe(name, () => block());
}

type NodeHook = (fn: () => Promise<void>, options: { timeout: number }) => void;

const hook = (register: NodeHook) => (body: Body, timeoutMs: number = TEST_TIMEOUT_MS): void =>
  register(async () => {
    await body();
  }, { timeout: timeoutMs });

/** Runs `body` once, before the first test of the enclosing block. */
export const beforeAll = hook(before);
/** Runs `body` once, after the last test of the enclosing block. */
export const afterAll = hook(after);
/** Runs `body` before every test of the enclosing block. */
export const beforeEach = hook(nodeBeforeEach);
/** Runs `body` after every test of the enclosing block, also when it failed. */
export const afterEach = hook(nodeAfterEach);
