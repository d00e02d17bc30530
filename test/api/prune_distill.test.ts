/** `prune --distill`. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { prune, type PruneReport } from "../../mod.ts";
import { distillSteps, parseOptions, pruneSchema } from "../../src/api/options.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { MemoryBudgetError } from "../../src/errors.ts";
import { liesOnGrid, matrixGrid } from "../../src/prune/int4_grid.ts";
import { fromRoot } from "../support/paths.ts";
import { exampleRuns } from "./support.ts";

const { folder, text, run } = exampleRuns("distill", 4, { threads: 1 }, 4);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every tensor of a checkpoint. */
function tensorsOf({ output }: PruneReport): Map<string, { values: Float32Array; width: number }> {
  const checkpoint = Checkpoint.open(output!);
  const all = Array.from(checkpoint.tensors, ([name, { shape }]) => {
    const values = new Float32Array(shape.reduce((product, dim) => product * dim, 1));
    checkpoint.readFloats(name, values);
    return [name, { values, width: shape.at(-1)! }] as const;
  });
  checkpoint.close();
  return new Map(all);
}

const recordOf = ({ output }: PruneReport) =>
  JSON.parse(readFileSync(join(output!, "espalier.json"), "utf8"));

describe("prune --distill", () => {
  test(
    "moves the weights that Wanda keeps and those of the last norm, lowers perplexity, and gives the same bytes each time",
    async () => {
      const plain = await run({ sparsity: 0.6, allocation: "uniform" });
      const first = await run({ sparsity: 0.6, allocation: "uniform", distill: 12 });
      const second = await run({ sparsity: 0.6, allocation: "uniform", distill: 12 });
      expect(first.perplexity!.pruned).toBeLessThan(0.9 * plain.perplexity!.pruned);
      for (const file of ["model.safetensors", "espalier.json"]) {
        const [one, other] = [first, second].map(({ output }) => readFileSync(join(output!, file)));
        expect([file, one.equals(other)]).toEqual([file, true]);
      }
      const before = tensorsOf(plain);
      for (const [name, { values }] of tensorsOf(first)) {
        const was = before.get(name)!.values;
        const moves = name.includes("_proj") || name === "model.norm.weight";
        const sameZeros = values.every((value, i) => (value === 0) === (was[i] === 0));
        expect([name, sameZeros]).toEqual([name, true]);
        expect([name, values.some((value, i) => value !== was[i])]).toEqual([name, moves]);
      }
      expect(first.sparsity).toEqual(plain.sparsity);
    },
    300_000,
  );

  test("leaves at 0 what was 0 before, though it is not the run that pruned it", async () => {
    const before = await run({ pattern: "8:16" });
    const again = { model: before.output!, allocation: "atp", sparsity: 0.5 } as const;
    const after = tensorsOf(await run({ ...again, distill: 3 }));
    let zeros = 0;
    for (const [name, { values }] of tensorsOf(before)) {
      const now = after.get(name)!.values;
      const revived = values.filter((value, i) => value === 0 && now[i] !== 0).length;
      expect([name, revived]).toEqual([name, 0]);
      zeros += values.filter((value) => value === 0).length;
    }
    expect(zeros).toBeGreaterThan(100_000);
  }, 300_000);

  test(
    "rounds a head that is rounded alone by what the weights give it that have learned",
    async () => {
      const { output, seconds } = await run({
        ...{ method: "espalier", pattern: "4:16", head: "int4", distill: 4 },
      });
      const phases = Object.keys(seconds);
      expect(phases.indexOf("distill")).toBeGreaterThan(-1);
      expect(phases.indexOf("round head")).toBeGreaterThan(phases.indexOf("distill"));
      const checkpoint = Checkpoint.open(output!);
      const [rows, columns] = checkpoint.tensors.get("model.embed_tokens.weight")!.shape;
      const values = new Float32Array(rows * columns);
      checkpoint.readFloats("model.embed_tokens.weight", values);
      checkpoint.close();
      const { scales } = matrixGrid(values, columns, 32);
      const groups = Array.from(
        scales,
        (scale, i) => liesOnGrid(values.subarray(i * 32, (i + 1) * 32), scale),
      );
      expect([columns % 32, groups.length, groups.every(Boolean)])
        .toEqual([0, values.length / 32, true]);
    },
    300_000,
  );

  test("is told in the report, in espalier.json and in the model's card", async () => {
    const report = await run({ method: "espalier", pattern: "4:16", distill: 8 });
    const { steps, divergence } = report.distillation!;
    expect(steps).toBe(8);
    expect(divergence.end).toBeLessThan(divergence.start);
    const record = recordOf(report);
    expect(record.distillation).toEqual({ steps, divergence });
    expect(record.modelCard).toContain("distilled from it in 8 steps");
    const plain = await run({ method: "espalier", pattern: "4:16" });
    expect(plain.distillation).toBeUndefined();
    expect(recordOf(plain).modelCard).toContain("without training");
    const { dense, pruned } = plain.perplexity!;
    expect(recordOf(plain).modelCard)
      .toContain(`| ${dense.toFixed(2)} before, ${pruned.toFixed(2)} after |`);
    expect(report.perplexity!.pruned).toBeLessThan(plain.perplexity!.pruned);
  }, 300_000);

  test("leaves what is skipped as it was", async () => {
    const report = await run({ sparsity: 0.5, skip: ["*.down_proj", "*.layers.0.*"], distill: 3 });
    const dense = tensorsOf({ ...report, output: fromRoot("examples/tiny") });
    for (const [name, { values }] of tensorsOf(report)) {
      const learns = name.includes("_proj") || name === "model.norm.weight";
      const kept = !learns || name.includes("down_proj") || name.includes("layers.0.");
      if (!kept) continue;
      const was = dense.get(name)!.values;
      expect([name, values.every((value, i) => value === was[i])]).toEqual([name, true]);
    }
  }, 120_000);

  test("rounds to int4 what has learned, on the grid that compile finds", async () => {
    const options = { method: "espalier", pattern: "8:16", values: "int4" } as const;
    const plain = await run(options);
    const before = tensorsOf(plain);
    const report = await run({ ...options, distill: 12 });
    expect(report.perplexity!.pruned).toBeLessThan(plain.perplexity!.pruned);
    const { perplexity } = await run({ ...options, values: undefined, distill: 12 });
    expect(report.perplexity!.pruned).toBeLessThan(1.05 * perplexity!.pruned);
    expect(report.sparsity.reached).toBeGreaterThanOrEqual(0.5);
    let moved = 0;
    for (const [name, { values, width }] of tensorsOf(report)) {
      if (!name.includes("_proj")) continue;
      const was = before.get(name)!.values;
      moved += values.filter((value, i) => value !== was[i]).length;
      const { scales } = matrixGrid(values, width, 64);
      const groups = Math.ceil(width / 64);
      for (const [i, scale] of scales.entries()) {
        const row = Math.floor(i / groups) * width;
        const at = row + (i % groups) * 64;
        const group = values.subarray(at, Math.min(at + 64, row + width));
        expect([name, i, liesOnGrid(group, scale)]).toEqual([name, i, true]);
      }
    }
    expect(moved).toBeGreaterThan(1000);
  }, 300_000);

  test("is part of espalier unless it is turned off, and of no other method unless it is asked for", () => {
    const steps = (options: object) =>
      distillSteps(parseOptions(pruneSchema, { model: "m", ...options }));
    expect(steps({ method: "espalier" })).toBe(96);
    expect(steps({ method: "espalier", distill: 0 })).toBe(0);
    expect(steps({ method: "espalier", sparsity: 0, values: "int4" })).toBe(0);
    expect(steps({ method: "espalier", sparsity: 0, values: "int4", distill: 5 })).toBe(5);
    expect(steps({ method: "wanda" })).toBe(0);
    expect(steps({ method: "magnitude", distill: 5 })).toBe(5);
  });

  test("needs calibration text whatever the method", async () => {
    const model = fromRoot("examples/tiny");
    await expect(
      prune({ model, output: join(folder, "none"), method: "magnitude", distill: 1, text }),
    ).rejects.toThrow("--calibration");
  });

  test("that does not fit into --memory is refused before anything is written", async () => {
    const report = run({
      output: join(folder, "small"),
      sparsity: 0.5,
      distill: 2,
      memory: "600MB",
    });
    await expect(report).rejects.toThrow(MemoryBudgetError);
    await expect(report).rejects.toThrow("--distill 0");
    expect(existsSync(join(folder, "small"))).toBe(false);
  }, 120_000);
});
