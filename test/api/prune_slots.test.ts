/** From `prune --pattern slots` to text: the example, pruned, compiled, read back and run. */
import { afterAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { compile, load } from "../../mod.ts";
import { expand } from "../../compile/expand.ts";
import { inspectCompiled } from "../../compile/inspect.ts";
import { verify } from "../../compile/verify.ts";
import { exportRecipe } from "../../src/api/export.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { PatternError, UsageError } from "../../src/errors.ts";
import { rejectionOf } from "../checkpoint/support.ts";
import { exampleRuns } from "./support.ts";

const { folder, text, run } = exampleRuns("slots", 8, { allocation: "uniform" });
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const LONG = 300_000;

/** Slots that the windows of a checkpoint's linears need; fails where a window is no whole slots. */
function slotsIn(path: string): { slots: number; all: number } {
  const checkpoint = Checkpoint.open(path);
  let [slots, all] = [0, 0];
  for (const [name, { shape: [rows, columns] }] of checkpoint.tensors) {
    if (!name.includes("_proj")) continue;
    const values = new Float32Array(rows * columns);
    checkpoint.readFloats(name, values);
    for (let r = 0; r < rows; r += 4) {
      for (let c = 0; c < columns; c += 16) {
        const kept = [0, 1, 2, 3].map((i) => {
          const start = (r + i) * columns + c;
          return values.subarray(start, start + 16).filter((w) => w !== 0).length;
        });
        slots += Math.ceil(Math.max(...kept) / 4);
        all += 4;
      }
    }
  }
  checkpoint.close();
  return { slots, all };
}

describe("prune --pattern slots", () => {
  for (const method of ["wanda", "magnitude", "sparsegpt"] as const) {
    test(`keeps as many slots as the sparsity says: ${method}`, async () => {
      const report = await run({ method, pattern: "slots", sparsity: 0.6 });
      const { slots, all } = slotsIn(report.output!);
      // Half a slot a block, or a linear's piece, at most.
      expect(Math.abs(slots / all - 0.4)).toBeLessThan(1e-3);
      expect(Math.abs(report.sparsity.reached! - 0.6)).toBeLessThan(2e-3);
      expect(report.pattern).toBe("slots");
    }, LONG);
  }

  test("keeps more of what the model knows than 8:16 does", async () => {
    const slots = await run({ pattern: "slots", sparsity: 0.5 });
    const fixed = await run({ pattern: "8:16" });
    expect(slots.perplexity!.pruned).toBeLessThan(fixed.perplexity!.pruned);
  }, LONG);

  test("follows an allocation", async () => {
    const report = await run({
      pattern: "slots",
      sparsity: 0.5,
      allocation: "atp",
      text: undefined,
    });
    for (const { density, sparsity } of report.blocks) {
      expect(Math.abs(1 - density - sparsity!)).toBeLessThan(2e-3);
    }
    expect(report.blocks[0].density).toBeGreaterThan(report.blocks[7].density);
  }, LONG);

  test("cannot be handed over to llm-compressor, which has no such pattern", async () => {
    const report = await run({ pattern: "slots", method: "magnitude", text: undefined });
    expect(() => exportRecipe({ allocation: report })).toThrow(PatternError);
    expect(await rejectionOf(run({ pattern: "slot" }))).toBeInstanceOf(UsageError);
  }, LONG);
});

describe("a model in slots", () => {
  test(
    "is compiled, read back, verified, expanded and run: its text is ONNX Runtime's",
    async () => {
      const pruned = await run({ pattern: "slots", sparsity: 0.75, text: undefined });
      const output = join(folder, "compiled");
      const report = await compile({ model: pruned.output!, output, format: "slots" });
      expect(new Set(report.linears.map(({ format }) => format))).toEqual(new Set(["slots"]));
      const found = inspectCompiled(output);
      expect(found.totals.bytes).toBe(report.bytes.linears);
      // A value for each weight kept, at most two bytes of bits for sixteen, and a scale a row.
      expect(found.totals.bytesPerWeight).toBeLessThan(0.25 + 0.125 + 0.01 + 4 / 192);
      const checked = await verify({ model: output, against: pruned.output!, text, windows: 2 });
      expect(Math.abs(checked.perplexity.compiled / checked.perplexity.checkpoint - 1))
        .toBeLessThan(0.02);

      const dense = join(folder, "expanded");
      await expand({ model: output, output: dense });
      expect(slotsIn(dense).slots).toBeLessThanOrEqual(slotsIn(pruned.output!).slots);

      const texts: string[] = [];
      for (const engine of ["sparse", "ort"] as const) {
        const model = await load(output, { engine, threads: 1 });
        let written = "";
        for await (
          const piece of model.generate("The river", { maxTokens: 24, temperature: 0 })
        ) {
          if (piece.type === "text") written += piece.text;
        }
        await model.close();
        texts.push(written);
      }
      expect(texts[0].length).toBeGreaterThan(20);
      expect(texts[0]).toBe(texts[1]);
    },
    LONG,
  );
});
