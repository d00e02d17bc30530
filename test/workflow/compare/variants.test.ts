/** How variants are written. @module */
import { describe, expect, test } from "bun:test";
import { compileSchema } from "../../../compile/options.ts";
import { pruneSchema } from "../../../src/api/options.ts";
import {
  defaultVariants,
  type Variant,
  variantList,
} from "../../../src/workflow/compare/variants.ts";
import { uniformNumbers } from "../../../src/text/windows.ts";

const DEFAULTS = { method: "wanda", allocation: "dlp" } as const;

function read(words: string | string[]): Variant[] {
  return variantList.parse(words)(DEFAULTS);
}

function refusal(words: string): string {
  const { error, success } = variantList.safeParse(words);
  expect({ words, success }).toEqual({ words, success: false });
  return error!.issues[0].message;
}

describe("a variant", () => {
  test("is dense, a pattern with what follows in any order, or a fit", () => {
    expect(read("dense:f16, 8:16:f16,mixed:16@60%:uniform:int8:magnitude,unstructured@.7,fit@60MB"))
      .toEqual([
        { name: "dense:f16", kind: "dense", values: "f16" },
        {
          name: "8:16:f16",
          kind: "sparse",
          values: "f16",
          pruning: { ...DEFAULTS, pattern: "8:16" },
        },
        {
          name: "mixed:16@0.6:int8:magnitude:uniform",
          kind: "sparse",
          values: "int8",
          pruning: {
            pattern: "mixed:16",
            sparsity: 0.6,
            method: "magnitude",
            allocation: "uniform",
          },
        },
        {
          name: "unstructured@0.7:int8",
          kind: "sparse",
          values: "int8",
          pruning: { ...DEFAULTS, pattern: "unstructured", sparsity: 0.7 },
        },
        { name: "fit@60MB", kind: "fit", fit: { bytes: 6e7, ...DEFAULTS } },
      ]);
  });

  test("may be dense and rounded by a method that makes up for it", () => {
    const [rounded] = read("dense:int4:sparsegpt");
    expect(rounded.kind).toBe("dense");
    expect(rounded.values).toBe("int4");
    expect(rounded.pruning).toMatchObject({ sparsity: 0, method: "sparsegpt" });
  });

  test("may have its head in int4", () => {
    const [dense, sparse, rounded] = read(
      "dense:int8:int4-head,8:16:int4-head:int4,dense:int4:espalier:int4-head",
    );
    expect(dense).toMatchObject({ kind: "dense", values: "int8", head: "int4" });
    expect(sparse).toMatchObject({ name: "8:16:int4:int4-head", values: "int4", head: "int4" });
    expect(rounded).toMatchObject({ head: "int4", pruning: { method: "espalier" } });
  });

  test("has one name however it is written, and is there once", () => {
    const names = read("8:16,8:16:int8,8:16:dlp:int8:wanda,fit@2.5MB,fit@2500kB").map(({ name }) =>
      name
    );
    expect(names).toEqual(["8:16:int8", "fit@2.5MB"]);
    const fits = read("fit@2.5MB:magnitude,fit@2.5MB:dlp:wanda,fit@2.5MB:uniform:espalier");
    expect(fits.map(({ name }) => name))
      .toEqual(["fit@2.5MB:magnitude", "fit@2.5MB", "fit@2.5MB:espalier:uniform"]);
    for (const { name } of read("8:16,mixed:4@0.5:f32:atp,fit@2.5MB:uniform,dense:f32")) {
      expect(read(name).map(({ name }) => name)).toEqual([name]);
    }
  });

  test("takes every value type of compile, method and allocation of prune", () => {
    for (const values of compileSchema.shape.values.unwrap().options) {
      expect(read(`2:4:${values},dense:${values}`).map((variant) => variant.values))
        .toEqual([values, values]);
    }
    for (const method of pruneSchema.shape.method.unwrap().options) {
      expect(read(`2:4:${method}`)[0].pruning!.method).toBe(method);
    }
    for (const allocation of pruneSchema.shape.allocation.unwrap().options) {
      expect(read(`mixed:8@0.5:${allocation}`)[0].pruning!.allocation).toBe(allocation);
    }
  });

  test("that is wrong is refused with what is wrong", () => {
    const cases = [
      ["dense", "dense is stored as"],
      ["dense:int3", "dense is stored as"],
      ["fit@60MB:int4-head", "a fit looks for the head"],
      ["int4-head", "begins with no pattern"],
      ["8:16:int4-head:int4-head", "int4-head"],
      ["dense:int4:wanda", "a method that rounds dense values"],
      ["dense:int8:espalier", "a method that rounds dense values"],
      ["dense:int4:espalier:uniform", "a method that rounds dense values"],
      ["unstructured", "needs a sparsity"],
      ["unstructured@0", "needs a sparsity"],
      ["unstructured@101%", "needs a sparsity"],
      ["8:16@0.5", "says its sparsity by itself"],
      ["16:16", "prunes nothing"],
      ["8:16:int8:f16", "two value types"],
      ["8:16:wanda:magnitude", "two methods"],
      ["8:16:int9", '"int9" is neither'],
      ["sparse", "begins with no pattern"],
      ["fit@lots", "no amount of memory"],
      ["fit@60MB:int8", "values by itself"],
      ["8:16,,8:17x", "begins with no pattern"],
      [" , ", "no variant"],
    ];
    for (const [words, what] of cases) expect(refusal(words)).toContain(what);
  });

  test("of letters at random is refused or read, and never anything else", () => {
    const pieces = [
      ...["8:16", "mixed:16", "unstructured", "@0.5", "@50%", ":int8", ":f16", ":magnitude"],
      ...[":uniform", "dense", "fit@6MB", ",", ":", "@", "x"],
    ];
    const next = uniformNumbers(3);
    let read = 0;
    for (let i = 0; i < 5000; i++) {
      const count = 1 + Math.floor(next() * 7);
      const words = Array.from({ length: count }, () => pieces[Math.floor(next() * pieces.length)]);
      const { success, data } = variantList.safeParse(words.join(""));
      if (!success) continue;
      read++;
      for (const { name } of data(DEFAULTS)) {
        expect(variantList.parse(name)(DEFAULTS).map((variant) => variant.name)).toEqual([name]);
      }
    }
    expect(read).toBeGreaterThan(10);
  });
});

test("what is compared by default is dense and pruned, in names that are read again", () => {
  const variants = defaultVariants(DEFAULTS);
  expect(variants.filter(({ kind }) => kind === "dense").length).toBeGreaterThan(1);
  expect(variants.filter(({ kind }) => kind === "sparse").length).toBeGreaterThan(4);
  expect(read(variants.map(({ name }) => name))).toEqual(variants);
  const mending = defaultVariants({ ...DEFAULTS, method: "espalier" });
  expect(mending.map(({ name }) => name)).toContain("dense:int4:espalier");
  expect(mending.filter(({ head }) => head).map(({ name }) => name)).toEqual([
    "dense:int4:espalier:int4-head",
    "8:16:int4:int4-head",
  ]);
});
