/** `prune` of a model with linear attention, whose gradients are not known. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { prune, type PruneOptions } from "../../mod.ts";
import { GraphError } from "../../src/errors.ts";
import { BackwardModel } from "../../src/engine/ort/backward.ts";
import { matrixOf, rejectionOf, Workshop } from "../checkpoint/support.ts";
import { FAST, load } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const model = fromRoot("test/fixtures/architectures/qwen3_5");
const calibration = join(workshop.path, "calibration.json");
writeFileSync(
  calibration,
  JSON.stringify({
    windows: [3, 5, 7].map((step) =>
      Array.from({ length: 32 }, (_, i) => 3 + (i * i * step) % 300)
    ),
  }),
);

const pruned = (options: Partial<PruneOptions>) =>
  prune({ ...options, model, output: workshop.fresh("out"), calibration, backend: FAST });

describe("a model with linear attention", () => {
  for (const method of ["wanda", "sparsegpt", "espalier"] as const) {
    test(`is pruned by ${method}, its linear attention too, and is not distilled`, async () => {
      const { output, notes, sparsity, distillation } = await pruned({ method, pattern: "8:16" });
      expect(sparsity.reached).toBe(0.5);
      expect(distillation).toBeUndefined();
      expect(notes.some((note) => note.startsWith("no distillation"))).toBe(method === "espalier");
      const name = "model.layers.0.linear_attn.in_proj_qkv.weight";
      const { values, width } = matrixOf(output!, name), dense = matrixOf(model, name).values;
      for (let i = 0; i < values.length; i += 16) {
        expect(values.subarray(i, i + 16).filter((value) => value !== 0).length).toBe(8);
      }
      const isChanged = values.some((value, i) => value !== 0 && value !== dense[i]);
      expect([width, isChanged]).toEqual([64, method !== "wanda"]);
    });
  }

  test("is refused a distillation and a search before any work, and gets all other allocations", async () => {
    for (const options of [{ distill: 1 }, { allocation: "search" }] as const) {
      const { code, message } = await rejectionOf(pruned(options));
      expect(code).toBe("USAGE");
      expect(message).toContain("gradients");
      expect(message).toContain("qwen3_5_text");
    }
    const { trials } = await pruned({ allocation: "auto", sparsity: 0.5 });
    expect(trials.length).toBeGreaterThan(3);
  });
});

test("gradients of an operator that has no rule are refused by its name", async () => {
  const { model: staged, close } = await load("test/fixtures/architectures/qwen3_5", FAST);
  try {
    const activations = await staged.embed({
      tokens: Int32Array.of(5, 6, 7),
      windows: 1,
      length: 3,
    });
    const weights = new Map(staged.readBlock(0));
    const out = new Float32Array(activations.hidden.length);
    const by = staged.blocks[0].linears.map(({ weight }) => weight);
    const error = await rejectionOf(
      new BackwardModel(staged).block(0, weights, activations, out, { by, hidden: true }),
    );
    expect(error).toBeInstanceOf(GraphError);
    expect(error.message).toContain("LinearAttention");
  } finally {
    await close();
  }
});
