/** `prune` with methods that change the weights which stay. */
import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { UsageError } from "../../src/errors.ts";
import { gridScale, liesOnGrid } from "../../src/prune/int4_grid.ts";
import { fromRoot } from "../support/paths.ts";
import { exampleRuns } from "./support.ts";

const { folder, run } = exampleRuns("methods", 4, { threads: 1 });
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every linear's weights. */
function* linearsOf(
  path: string,
): Generator<{ name: string; values: Float32Array; width: number }> {
  const checkpoint = Checkpoint.open(path);
  for (const [name, { shape }] of checkpoint.tensors) {
    if (!name.includes("_proj")) continue;
    const values = new Float32Array(shape[0] * shape[1]);
    checkpoint.readFloats(name, values);
    yield { name, values, width: shape[1] };
  }
  checkpoint.close();
}

describe("prune --method espalier", () => {
  test(
    "ends below SparseGPT on text that it was not calibrated on, and writes the same bytes each time",
    async () => {
      const pattern = "4:16";
      const sparsegpt = await run({ method: "sparsegpt", pattern });
      const first = await run({ method: "espalier", pattern });
      const second = await run({ method: "espalier", pattern });
      expect(first.perplexity!.pruned).toBeLessThan(sparsegpt.perplexity!.pruned);
      for (const file of ["model.safetensors", "espalier.json"]) {
        expect(readFileSync(join(first.output!, file))).toEqual(
          readFileSync(join(second.output!, file)),
        );
      }
      for (const { values } of linearsOf(first.output!)) {
        for (let at = 0; at < values.length; at += 16) {
          expect(values.subarray(at, at + 16).filter((w) => w !== 0).length).toBeLessThanOrEqual(4);
        }
      }
    },
    300_000,
  );

  test("leaves what is skipped as it was, to the last bit", async () => {
    const report = await run({ method: "espalier", sparsity: 0.6, skip: ["*.down_proj"] });
    const before = new Map(
      [...linearsOf(fromRoot("examples/tiny"))].map(({ name, values }) => [name, values]),
    );
    for (const { name, values } of linearsOf(report.output!)) {
      if (name.includes("down_proj")) expect(values).toEqual(before.get(name)!);
      else expect(values).not.toEqual(before.get(name)!);
    }
  }, 300_000);

  for (const method of ["sparsegpt", "espalier"] as const) {
    test(`rounds what stays to int4 where ${method} is asked to, at next to no loss`, async () => {
      const options = { method, pattern: "8:16" };
      const plain = await run(options);
      const rounded = await run({ ...options, values: "int4" });
      expect(rounded.perplexity!.pruned / plain.perplexity!.pruned).toBeLessThan(1.05);
      const record = JSON.parse(readFileSync(join(rounded.output!, "espalier.json"), "utf8"));
      expect(record.compile).toEqual({ values: "int4", group: 32 });
      // 32 weights of 64 columns share a scale.
      for (const { name, values, width } of linearsOf(rounded.output!)) {
        for (let row = 0; row < values.length; row += width) {
          for (let at = row; at < row + width; at += 64) {
            const group = values.slice(at, Math.min(at + 64, row + width));
            if (!liesOnGrid(group, gridScale(group))) throw new Error(`${name} at ${at}`);
          }
        }
      }
    }, 300_000);
  }

  test("rounds a dense model, too", async () => {
    const report = await run({
      method: "sparsegpt",
      sparsity: 0,
      allocation: "uniform",
      values: "int4",
    });
    // Weights near 0 are rounded to it.
    expect(report.sparsity.reached!).toBeLessThan(0.2);
    expect(report.perplexity!.pruned / report.perplexity!.dense).toBeLessThan(1.03);
  }, 300_000);

  test("refuses to round where nothing makes up for it, and to prune nothing", async () => {
    await expect(run({ method: "wanda", values: "int4" })).rejects.toThrow(UsageError);
    await expect(run({ method: "wanda", sparsity: 0 })).rejects.toThrow(UsageError);
    await expect(run({ method: "sparsegpt", group: 48 })).rejects.toThrow(/32 or 64/);
  });
});
