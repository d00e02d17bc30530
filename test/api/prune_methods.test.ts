/** `prune` with methods that change the weights which stay. */
import { afterAll, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { evaluate, prune } from "../../mod.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { CheckpointWriter } from "../../src/checkpoint/writer.ts";
import { MemoryBudgetError, UsageError } from "../../src/errors.ts";
import { gridScale, liesOnGrid, roundToGrid } from "../../src/prune/int4_grid.ts";
import { matrixOf, parseSafetensors, safetensors } from "../checkpoint/support.ts";
import { FAST, forward, load } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";
import { exampleRuns } from "./support.ts";

/** The output head, and the embedding as well. */
const HEAD = "model.embed_tokens.weight";

const { folder, text, run, once } = exampleRuns("methods", 4, { threads: 1 });
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

/** A copy of a checkpoint with other values in the place of a tensor's. */
async function copyWith(path: string, name: string, values: Float32Array): Promise<string> {
  const copy = mkdtempSync(join(folder, "copy-"));
  const checkpoint = Checkpoint.open(path);
  const writer = new CheckpointWriter(checkpoint, copy);
  await writer.copy(() => {});
  writer.replace(name, values);
  writer.close();
  checkpoint.close();
  return copy;
}

test("methods that mend tell of each linear that they have solved for, with little text, too", async () => {
  const model = fromRoot("examples/tiny");
  for (const method of ["sparsegpt", "espalier"] as const) {
    const done: number[] = [];
    const how = {
      samples: 1,
      seqlen: 32,
      allocation: "uniform",
      distill: 0,
    } as const;
    const output = join(folder, `told-${method}`);
    const calibration = join(model, "calibration.txt");
    await prune({ model, output, calibration, method, backend: FAST, ...how }, {
      onProgress: (event) => {
        if (event.type === "progress" && event.phase === "prune blocks") done.push(event.done);
      },
    });
    expect(done).toEqual(done.toSorted((a, b) => a - b));
    const blocks = Math.max(...done);
    expect(new Set(done).size / blocks).toBeGreaterThan(10);
  }
});

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

  test("copes with a linear into which nothing ever comes", async () => {
    const name = "model.layers.2.self_attn.v_proj.weight";
    const { values } = matrixOf(fromRoot("examples/tiny"), name);
    const model = await copyWith(fromRoot("examples/tiny"), name, values.fill(0));
    for (const how of [{ pattern: "4:16" }, { pattern: "8:16", values: "int4" }] as const) {
      const report = await run({ ...how, model, method: "espalier" });
      expect(report.perplexity!.pruned).toBeLessThan(3 * report.perplexity!.dense);
      expect(report.blocks[2].linears!["self_attn.o_proj"]).toBeGreaterThan(0.49);
    }
  }, 300_000);

  test(
    "takes decoders that norm after each half of a block, where linears read what comes in",
    async () => {
      const model = fromRoot("test/fixtures/architectures/opt-post-norm");
      const windows = join(folder, "windows.json");
      const ids = Array.from(
        { length: 8 },
        (_, w) => Array.from({ length: 32 }, (_, t) => (7 + 89 * w + 41 * t * t) % 320),
      );
      writeFileSync(windows, JSON.stringify({ windows: ids }));
      const how = { model, pattern: "2:4", calibration: windows, text: undefined } as const;
      const logits = async (path: string) => {
        const { model, close } = await load(path, FAST);
        const result = await forward(model, ids[0]);
        await close();
        return result;
      };
      const dense = await logits(model);
      const distance = async (method: "wanda" | "espalier") => {
        const pruned = await logits((await run({ ...how, method })).output!);
        return pruned.reduce((sum, value, i) => sum + (value - dense[i]) ** 2, 0);
      };
      expect(await distance("espalier")).toBeLessThan(0.5 * await distance("wanda"));
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
      const plain = await once(options);
      const rounded = await once({ ...options, values: "int4" });
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

  test("rounds a dense model, too: nothing is pruned, and nothing distilled", async () => {
    for (const method of ["sparsegpt", "espalier"] as const) {
      const options = { method, sparsity: 0, values: "int4", distill: undefined } as const;
      const report = await run(options);
      expect(report.allocation).toBe("uniform");
      expect(report.blocks.every(({ density }) => density === 1)).toBe(true);
      expect(report.distillation).toBeUndefined();
      // Weights near 0 are rounded to it.
      expect(report.sparsity.reached!).toBeLessThan(0.2);
      expect(report.perplexity!.pruned / report.perplexity!.dense).toBeLessThan(1.03);
    }
  }, 300_000);

  test("rounds what another run has pruned, and leaves that at 0", async () => {
    const before = await once({ method: "wanda", pattern: "8:16" });
    for (const method of ["sparsegpt", "espalier"] as const) {
      for (const distill of [0, 2]) {
        const how = { model: before.output!, sparsity: 0, values: "int4", distill } as const;
        const { output } = await run({ ...how, method });
        const after = new Map(linearsOf(output!).map((linear) => [linear.name, linear]));
        for (const { name, values, width } of linearsOf(before.output!)) {
          const rounded = after.get(name)!.values;
          const revived = rounded.filter((value, i) => value !== 0 && values[i] === 0);
          expect([method, distill, name, revived.length]).toEqual([method, distill, name, 0]);
          // As many columns share a scale as hold 32 of the weights that stay.
          const on = values.some((_, at) => {
            if (at % width % 64 !== 0) return false;
            const group = rounded.slice(at, at + Math.min(64, width - at % width));
            return !liesOnGrid(group, gridScale(group));
          });
          expect([method, distill, name, on]).toEqual([method, distill, name, false]);
        }
      }
    }
  }, 300_000);

  test(
    "makes nothing of another run's zeros where it is to prune no more than that has",
    async () => {
      const before = await once({ method: "wanda", pattern: "8:16" });
      for (const method of ["sparsegpt", "espalier"] as const) {
        for (const how of [{ sparsity: 0.3 }, { pattern: "12:16" }, { pattern: "8:16" }] as const) {
          const { output } = await run({
            ...how,
            model: before.output!,
            method,
            allocation: "uniform",
          });
          const after = new Map(linearsOf(output!).map((linear) => [linear.name, linear.values]));
          for (const { name, values } of linearsOf(before.output!)) {
            const same = after.get(name)!.every((value, i) => (value === 0) === (values[i] === 0));
            expect([method, how, name, same]).toEqual([method, how, name, true]);
          }
        }
      }
    },
    300_000,
  );

  test(
    "rounds the head by what comes into it: most of what rounding to nearest loses stays",
    async () => {
      const options = { method: "espalier", pattern: "8:16", values: "int4" } as const;
      const plain = await once(options);
      const rounded = await run({ ...options, head: "int4" });
      const record = JSON.parse(readFileSync(join(rounded.output!, "espalier.json"), "utf8"));
      expect(record.compile).toEqual({ values: "int4", group: 32, head: "int4" });
      const [before, after] = [plain, rounded].map(({ output }) => matrixOf(output!, HEAD));
      const { width } = before;
      const nearest = before.values.slice();
      for (let at = 0; at < nearest.length; at += 32) {
        const group = nearest.subarray(at, at + 32);
        const scale = gridScale(group);
        group.set(group.map((w) => roundToGrid(w, scale)));
      }
      // To the last row, on the grid that compile looks for.
      expect(after.values.length).toBe(nearest.length);
      for (let at = 0; at < after.values.length; at += 32) {
        const group = after.values.slice(at, at + 32);
        if (!liesOnGrid(group, gridScale(group))) throw new Error(`row ${Math.floor(at / width)}`);
      }
      for (const { name, values } of linearsOf(plain.output!)) {
        expect(matrixOf(rounded.output!, name).values).toEqual(values);
      }
      const losses = [];
      for (const values of [nearest, after.values]) {
        const model = await copyWith(plain.output!, HEAD, values);
        const { perplexity } = await evaluate({ model, text, backend: FAST, threads: 1 });
        losses.push(Math.log(perplexity / plain.perplexity!.pruned));
      }
      expect(losses[1]).toBeLessThan(0.6 * losses[0]);
    },
    300_000,
  );

  test("rounds a tied head in both places where it is stored twice", async () => {
    const model = mkdtempSync(join(folder, "twice-"));
    cpSync(fromRoot("test/fixtures/architectures/qwen3"), model, { recursive: true });
    const path = join(model, "model.safetensors");
    const { header, data } = parseSafetensors(new Uint8Array(readFileSync(path)));
    const { data_offsets, ...like } = header[HEAD];
    const more = data.slice(...data_offsets as [number, number]);
    header["lm_head.weight"] = { ...like, data_offsets: [data.length, data.length + more.length] };
    writeFileSync(path, safetensors(header, Buffer.concat([data, more])));
    const calibration = join(folder, "windows.json");
    writeFileSync(calibration, JSON.stringify({ windows: [[1, 5, 9, 200, 31, 77, 3, 12]] }));
    const how = { model, calibration, text: undefined, sparsity: 0.5 } as const;
    const { output } = await run({ ...how, method: "sparsegpt", values: "int4", head: "int4" });
    const { values } = matrixOf(output!, HEAD);
    expect(values).not.toEqual(matrixOf(model, HEAD).values);
    expect(matrixOf(output!, "lm_head.weight").values).toEqual(values);
  });

  test("rounds an embedding that is not the head as it will be stored: what is measured is what is compiled", async () => {
    const model = fromRoot("test/fixtures/architectures/phi3");
    const calibration = join(folder, "ids.json");
    writeFileSync(calibration, JSON.stringify({ windows: [[1, 5, 9, 200, 31, 77, 3, 12]] }));
    const how = { model, calibration, text: undefined, sparsity: 0, distill: 0 } as const;
    const { output } = await run({ ...how, method: "sparsegpt", values: "int4", head: "int4" });
    const [before, after] = [model, output!].map((place) => matrixOf(place, HEAD));
    for (let at = 0; at < before.values.length; at += before.width) {
      for (let first = at; first < at + before.width; first += 32) {
        const end = Math.min(first + 32, at + before.width);
        const scale = gridScale(before.values.subarray(first, end));
        for (let i = first; i < end; i++) {
          // bfloat16 is what the checkpoint has.
          const nearest = roundToGrid(before.values[i], scale);
          expect(Math.abs(after.values[i] - nearest)).toBeLessThanOrEqual(
            2 ** -8 * Math.abs(nearest),
          );
        }
      }
    }
  });

  test("that does not fit into --memory is refused before any work is done", async () => {
    const begun: string[] = [];
    const options = {
      model: fromRoot("examples/tiny"),
      output: join(folder, "small"),
      method: "espalier",
      distill: 0,
      calibration: text,
      samples: 2,
      seqlen: 32,
      text,
      memory: "700MB",
      backend: "wasm",
      threads: 1,
    } as const;
    const refused = prune(options, {
      onProgress: (event) => void (event.type === "progress" && begun.push(event.phase)),
    });
    await expect(refused).rejects.toThrow(MemoryBudgetError);
    await expect(refused).rejects.toThrow("what --method espalier sums up and leaves behind");
    expect(begun).toEqual([]);
    // The allocation alone takes less.
    expect((await prune({ ...options, dryRun: true })).blocks).toHaveLength(8);
  }, 120_000);

  test("refuses to round where nothing makes up for it, and to prune nothing", async () => {
    await expect(run({ method: "wanda", values: "int4" })).rejects.toThrow(UsageError);
    await expect(run({ method: "wanda", head: "int4" })).rejects.toThrow(/--head int4/);
    await expect(run({ method: "espalier", head: "int4", fit: "3MB" })).rejects.toThrow(/--head/);
    await expect(run({ method: "wanda", sparsity: 0 })).rejects.toThrow(UsageError);
    await expect(run({ method: "sparsegpt", group: 48 })).rejects.toThrow(/32 or 64/);
  });
});
