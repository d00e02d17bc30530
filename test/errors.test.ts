/** Errors of modules that are built apart, as the package's exports are. @module */
import { expect, test } from "bun:test";
import * as errors from "../src/errors.ts";

// As `espalier/run` has it beside `espalier`: the same classes once more.
const copied = "../src/errors.ts?copy";
const others: typeof errors = await import(copied);

test("an error is an EspalierError whichever export has thrown it, and of its own class only", () => {
  for (const [a, b] of [[errors, others], [others, errors]]) {
    const error = new a.IntegrityError("it is damaged");
    const found = [b.EspalierError, b.IntegrityError, b.AbortError].map((one) =>
      error instanceof one
    );
    expect(found).toEqual([true, true, false]);
  }
});

test("what is below a class is of it in another export, too", () => {
  class NarrowerError extends others.SchemaError {}
  const error: unknown = new NarrowerError("too large");
  expect(error instanceof errors.SchemaError).toBe(true);
  expect(error instanceof errors.UsageError).toBe(false);
  class ForeignError extends errors.SchemaError {}
  expect(error instanceof ForeignError).toBe(false);
  expect(new errors.SchemaError("") instanceof ForeignError).toBe(false);
});

test("names that a minifier has made, which are alike by chance, make no error one of another's class", () => {
  const mangled = class a extends errors.SchemaError {};
  const error = new (class a extends others.UsageError {})("wrong");
  expect(error instanceof mangled).toBe(false);
  expect(error instanceof errors.EspalierError).toBe(true);
});

test("what only looks like such an error is none", () => {
  const alike = Object.assign(new Error("it is damaged"), { code: "INTEGRITY" });
  alike.name = "IntegrityError";
  class IntegrityError extends Error {}
  for (const other of [alike, new IntegrityError(), {}, null, undefined, "INTEGRITY", 7]) {
    const found = [errors.EspalierError, errors.IntegrityError].map((one) => other instanceof one);
    expect(found).toEqual([false, false]);
  }
  // Nor does a class show what it is known by.
  expect(Reflect.ownKeys(new errors.IntegrityError("x")).filter((key) => typeof key === "symbol"))
    .toEqual([]);
});
