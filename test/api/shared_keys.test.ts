/** `prune` of a model whose last layers attend to keys of others, which blocks hand on (Gemma 4). @module */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile, evaluate, prune, type PruneOptions, verify } from "../../mod.ts";
import { matrixOf, Workshop } from "../checkpoint/support.ts";
import { FAST } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const model = fromRoot("test/fixtures/architectures/gemma4");
const file = (name: string, steps: readonly number[]) => {
  const path = join(workshop.path, name);
  const windows = steps.map((step) =>
    Array.from({ length: 32 }, (_, i) => 3 + (i * i * step) % 300)
  );
  writeFileSync(path, JSON.stringify({ windows }));
  return path;
};
const calibration = file("calibration.json", [3, 5, 7, 11]), text = file("text.json", [13, 17]);

const pruned = (options: Partial<PruneOptions>) =>
  prune({ ...options, model, output: workshop.fresh("out"), calibration, text, backend: FAST });

/** One linear of each kind, of layers that have keys and of one that has none. */
const LINEARS = [
  ...["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
  ...["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
  ...["per_layer_input_gate", "per_layer_projection"],
].map((name) => `model.layers.1.${name}.weight`)
  .concat(["self_attn.q_proj", "mlp.down_proj"].map((name) => `model.layers.4.${name}.weight`));

describe("a model whose blocks hand keys on", () => {
  for (const method of ["wanda", "sparsegpt", "espalier"] as const) {
    test(`is pruned by ${method} in all its linears, and measured as it was written`, async () => {
      const report = await pruned({ method, pattern: "8:16", distill: method === "wanda" ? 0 : 4 });
      expect(report.sparsity.reached).toBe(0.5);
      for (const name of LINEARS) {
        const { values } = matrixOf(report.output!, name), dense = matrixOf(model, name).values;
        for (let i = 0; i < values.length; i += 16) {
          expect(values.subarray(i, i + 16).filter((value) => value !== 0).length).toBe(8);
        }
        const isChanged = values.some((value, i) => value !== 0 && value !== dense[i]);
        expect([name, isChanged]).toEqual([name, method !== "wanda"]);
      }
      const again = await evaluate({ model: report.output!, text, backend: FAST });
      expect(again.perplexity).toBeCloseTo(report.perplexity!.pruned, 4);
    }, 120_000);
  }

  test("learns by distillation, through keys that other layers attend to", async () => {
    const { distillation } = await pruned({ method: "wanda", pattern: "4:16", distill: 16 });
    const { start, end } = distillation!.divergence;
    expect(end).toBeLessThan(0.6 * start);
  }, 120_000);

  test("is searched, and shares densities out as asked", async () => {
    const report = await pruned({ allocation: "search", searchBudget: 20, sparsity: 0.5 });
    const kept = LINEARS.map((name) => {
      const { values } = matrixOf(report.output!, name);
      return values.filter((value) => value !== 0).length / values.length;
    });
    expect(report.sparsity.reached).toBeCloseTo(0.5, 1);
    expect(new Set(kept).size).toBeGreaterThan(1);
  }, 120_000);

  test("is rounded to int4 with its tables, and compiled to what was written", async () => {
    const report = await pruned({
      ...{ method: "sparsegpt", pattern: "8:16", distill: 0 },
      ...{ values: "int4", head: "int4" },
    });
    const output = workshop.fresh("compiled");
    const { notes } = await compile({ model: report.output!, output });
    expect(notes.some((note) => note.includes("transformers.js does not load"))).toBe(true);
    const found = await verify({ model: output, against: report.output!, text, backend: FAST });
    // Of bfloat16, which levels lie near, and the projection beside the tables stays in int8.
    const { compiled, checkpoint } = found.perplexity;
    expect(Math.abs(compiled / checkpoint - 1)).toBeLessThan(0.005);
  }, 120_000);
});
