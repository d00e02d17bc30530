/**
 * The part of `bun:test` that this project's tests use, on top of `Deno.test` and `@std/expect`.
 *
 * `deno.json` maps the specifier `bun:test` to this file, so a test file runs unchanged under
 * `bun test` and `deno test`. Only matchers whose meaning is the same in both are declared; two
 * differences remain that types cannot show, so do not lean on them: Bun's `toEqual` tells `-0`
 * from `0` and finds a `Float32Array` with `NaN` unequal to its copy, `@std/expect` does neither.
 *
 * @module
 */

import { Buffer } from "node:buffer";
// @ts-ignore: deno-std ships no types; `expect` below gets its signature by hand.
import { expect as stdExpect } from "@std/expect";
import { TEST_TIMEOUT_MS } from "./limit.ts";

/** The body of a test or a hook. */
export type Body = () => void | Promise<unknown>;

/** Registers one test under a name. */
export type Register = (name: string, body: Body, timeoutMs?: number) => void;

/** `test`, with the two ways to leave a test out. */
export interface Test extends Register {
  /** Registers the test as ignored. */
  skip: Register;
  /** Registers the test as usual if `condition` holds, else as ignored. */
  if(condition: boolean): Register;
}

/** The matchers of `expect(value)`; `R` is `void`, or a promise after `resolves` and `rejects`. */
export interface Matchers<R> {
  toBe(expected: unknown): R;
  toBeCloseTo(expected: number, digits?: number): R;
  toBeDefined(): R;
  toBeFalsy(): R;
  toBeGreaterThan(expected: number | bigint): R;
  toBeGreaterThanOrEqual(expected: number | bigint): R;
  toBeInstanceOf(expected: object): R;
  toBeLessThan(expected: number | bigint): R;
  toBeLessThanOrEqual(expected: number | bigint): R;
  toBeNaN(): R;
  toBeNull(): R;
  toBeTruthy(): R;
  toBeUndefined(): R;
  toContain(expected: unknown): R;
  toContainEqual(expected: unknown): R;
  toEqual(expected: unknown): R;
  toHaveLength(expected: number): R;
  toHaveProperty(path: string | readonly (string | number)[], value?: unknown): R;
  toMatch(expected: string | RegExp): R;
  toMatchObject(expected: object): R;
  toStrictEqual(expected: unknown): R;
  toThrow(expected?: unknown): R;
}

/** What `expect(value)` returns. */
export interface Expectation extends Matchers<void> {
  not: Matchers<void>;
  rejects: Matchers<Promise<void>> & { not: Matchers<Promise<void>> };
  resolves: Matchers<Promise<void>> & { not: Matchers<Promise<void>> };
}

/** `expect`, with the asymmetric matchers that stand for a value inside `toEqual` and its kin. */
export interface Expect {
  (value: unknown, message?: string): Expectation;
  any(constructor: object): unknown;
  anything(): unknown;
  arrayContaining(expected: readonly unknown[]): unknown;
  closeTo(expected: number, digits?: number): unknown;
  objectContaining(expected: object): unknown;
  stringContaining(expected: string): unknown;
  stringMatching(expected: string | RegExp): unknown;
}

/** Whether two values are arrays of the same kind of numbers, with the same bytes. */
function haveSameBytes(one: unknown, other: unknown): boolean {
  if (!ArrayBuffer.isView(one) || !ArrayBuffer.isView(other)) return false;
  if (one.constructor !== other.constructor) return false;
  const [bytes, others] = [one, other].map(({ buffer, byteOffset, byteLength }) =>
    new Uint8Array(buffer, byteOffset, byteLength)
  );
  return Buffer.compare(bytes, others) === 0;
}

/**
 * Asserts something about a value: `expect(value).toBe(expected)`.
 *
 * `@std/expect` compares arrays number by number, a minute for some megabytes; those of the same bytes are equal.
 */
export const expect: Expect = new Proxy(stdExpect, {
  apply(target: Expect, _, [value, message]: [unknown, string | undefined]): Expectation {
    const asserted = target(value, message);
    if (!ArrayBuffer.isView(value)) return asserted;
    return Object.create(asserted, {
      toEqual: {
        value: (expected: unknown) => {
          if (!haveSameBytes(value, expected)) asserted.toEqual(expected);
        },
      },
    });
  },
});

/** A `describe` block, or the file itself. */
interface Group {
  readonly name: string;
  readonly parent?: Group;
  readonly beforeAll: Body[];
  readonly afterAll: Body[];
  readonly beforeEach: Body[];
  readonly afterEach: Body[];
  /** Tests registered in this block and below it that have not ended yet. */
  pending: number;
  /** Settles once `beforeAll` has run; undefined until the first test of the block begins. */
  setup?: Promise<void>;
}

function newGroup(name: string, parent?: Group): Group {
  return { name, parent, beforeAll: [], afterAll: [], beforeEach: [], afterEach: [], pending: 0 };
}

// `deno test` loads each test file into an isolate of its own, so this state is one file's.
const groups: Group[] = [newGroup("")];
let current: Group = groups[0];

/** The groups around `group`, itself included, outermost first. */
function chainOf(group: Group): Group[] {
  return group.parent ? [...chainOf(group.parent), group] : [group];
}

/** Runs `body`, and rejects if it is not done in time. */
async function withTimeout(body: Body, timeoutMs: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out after ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    await Promise.race([body(), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function runAll(bodies: readonly Body[]): Promise<void> {
  for (const body of bodies) await body();
}

/** Ends a block if it has begun: its `afterAll` hooks run once. */
async function endGroup(group: Group): Promise<void> {
  if (group.setup === undefined) return;
  group.setup = undefined;
  await runAll(group.afterAll);
}

async function runTest(group: Group, body: Body): Promise<void> {
  const outermostFirst = chainOf(group);
  const innermostFirst = outermostFirst.toReversed();
  const errors: unknown[] = [];
  const attempt = async (step: Body) => {
    try {
      await step();
    } catch (error) {
      errors.push(error);
    }
  };

  await attempt(async () => {
    for (const each of outermostFirst) await (each.setup ??= runAll(each.beforeAll));
    for (const each of outermostFirst) await runAll(each.beforeEach);
    await body();
  });
  // Cleaning up goes on whatever failed before it, or one broken test would break the next ones.
  for (const each of innermostFirst) await attempt(() => runAll(each.afterEach));
  for (const each of innermostFirst) {
    each.pending--;
    if (each.pending === 0) await attempt(() => endGroup(each));
  }

  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) throw new AggregateError(errors, "the test and its hooks failed");
}

function register(name: string, body: Body, timeoutMs: number | undefined, ignore: boolean): void {
  const group = current;
  const chain = chainOf(group);
  if (!ignore) { for (const each of chain) each.pending++; }
  Deno.test({
    name: [...chain.slice(1).map((each) => each.name), name].join(" > "),
    ignore,
    // onnxruntime keeps its Workers between sessions, which the sanitizers would report as leaks.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: () => runTest(group, () => withTimeout(body, timeoutMs ?? TEST_TIMEOUT_MS)),
  });
}

// Under --filter some tests of a block never run, so their count never comes down to zero.
Deno.test.afterAll(async () => {
  for (const group of groups.toReversed()) await endGroup(group);
});

const run: Register = (name, body, timeoutMs) => register(name, body, timeoutMs, false);
const ignored: Register = (name, body, timeoutMs) => register(name, body, timeoutMs, true);

/** Registers a test. */
export const test: Test = Object.assign(run, {
  skip: ignored,
  if: (condition: boolean): Register => condition ? run : ignored,
});

/**
 * Groups tests: their names begin with the block's, and hooks set in the block are theirs alone.
 *
 * @param name What the tests are about.
 * @param block Registers the tests. It must not be async.
 */
export function describe(name: string, block: () => void): void {
  const outer = current;
  current = newGroup(name, outer);
  groups.push(current);
  try {
    const result: unknown = block();
    if (result instanceof Promise) {
      // Its tests would land in whichever block is open when they are registered.
      throw new TypeError(`describe("${name}"): the block must not be async`);
    }
  } finally {
    current = outer;
  }
}

function hook(kind: "beforeAll" | "afterAll" | "beforeEach" | "afterEach") {
  return (body: Body, timeoutMs: number = TEST_TIMEOUT_MS): void => {
    current[kind].push(() => withTimeout(body, timeoutMs));
  };
}

/** Runs `body` once, before the first test of the enclosing block. */
export const beforeAll = hook("beforeAll");
/** Runs `body` once, after the last test of the enclosing block. */
export const afterAll = hook("afterAll");
/** Runs `body` before every test of the enclosing block. */
export const beforeEach = hook("beforeEach");
/** Runs `body` after every test of the enclosing block, also when it failed. */
export const afterEach = hook("afterEach");
