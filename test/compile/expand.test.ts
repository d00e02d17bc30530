/**
 * Compiled models turned back into checkpoints: the same weights, bit by bit, where the value type has
 * kept them.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expand } from "../../compile/expand.ts";
import { inspect } from "../../src/api/inspect.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { type OutgoingTensor, writeSafetensors } from "../../src/checkpoint/safetensors_writer.ts";
import { editJson, filesOf, readJsonOf, rejectionOf } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";
import { checkpointLogits, CompileWorkshop, type How, LONG, ROOT, sourceOf } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

/** A checkpoint's tensors as they are stored. */
function tensorsOf(folder: string): Map<string, string> {
  const checkpoint = Checkpoint.open(folder);
  try {
    return new Map(
      [...checkpoint.tensors.values()].map(({ name, file, dtype, shape, offset, length }) => {
        const bytes = new Uint8Array(length);
        checkpoint.file(file).read(bytes, offset);
        return [name, `${dtype} [${shape}] ${Buffer.from(bytes).toString("base64")}`];
      }),
    );
  } finally {
    checkpoint.close();
  }
}

/** A checkpoint's tensors as they may be written, and its config. */
function readTensors(folder: string): { tensors: OutgoingTensor[]; config: unknown } {
  const checkpoint = Checkpoint.open(folder);
  try {
    const tensors = [...checkpoint.tensors.values()].map(({ name, shape }) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      checkpoint.readFloats(name, values);
      return { name, shape, read: () => values };
    });
    return { tensors, config: checkpoint.config };
  } finally {
    checkpoint.close();
  }
}

/**
 * Gemma 3 as the decoder of a model that reads images as well.
 *
 * @param change Its config, made of that of the decoder alone.
 * @returns The folder.
 */
async function withinLarger(change: (config: object) => object): Promise<string> {
  const model = workshop.copy("gemma3");
  const inner = readTensors(model).tensors.map((tensor) => ({
    ...tensor,
    name: tensor.name.replace(/^model/, "language_model.model"),
  }));
  await writeSafetensors(join(model, "model.safetensors"), inner, "f32");
  editJson(model, "config.json", change);
  return model;
}

describe("a model that is expanded", () => {
  const cases: [
    model: string,
    pattern: string | number,
    how: How,
    dtype: "f32" | "f16" | "bf16",
  ][] = [
    ["llama", "2:4", { format: "nm", values: "f32" }, "f16"],
    ["llama", "2:4", { format: "nm", values: "f16" }, "f16"],
    ["llama", 0.7, { format: "csr", values: "f16" }, "f16"],
    ["llama", 0.7, { format: "slots", values: "f16" }, "f16"],
    ["qwen2", 0.7, { format: "slots", values: "f32" }, "bf16"],
    ["opt-post-norm", 0.7, { format: "bitmap", values: "f16" }, "f16"],
    ["opt", "8:16", { format: "dense", values: "f16" }, "f16"],
    ["qwen2", 0.7, { format: "bitmap", values: "f32" }, "bf16"],
    ["mistral-sliding", "8:16", { format: "nm", values: "f32" }, "bf16"],
    ["llama-rope-scaled", 0.7, { format: "csr", values: "f32" }, "bf16"],
    ["qwen3", "2:4", { format: "nm", values: "f32" }, "f32"],
    ["llama-bias-linear-rope", 0.7, { format: "csr", values: "f32" }, "f32"],
    // Norms of heads have weights in rows.
    ["cohere", "2:4", { format: "nm", values: "f32" }, "bf16"],
    // Sinks are called neither weight nor bias.
    ["granite_swa", "2:4", { format: "nm", values: "f32" }, "bf16"],
  ];
  for (const [model, pattern, how, dtype] of cases) {
    test(`is the pruned checkpoint, bit by bit: ${model}, ${JSON.stringify(how)}`, async () => {
      const source = await workshop.pruned(model, pattern);
      const { output } = await workshop.compile(source, how);
      const dense = workshop.fresh("expanded");
      const report = await expand({ model: output, output: dense });
      const [found, expected] = [tensorsOf(dense), tensorsOf(source)];
      expect(report).toMatchObject({ output: dense, dtype, tensors: expected.size });
      expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
      for (const [name, tensor] of expected) {
        if (found.get(name) !== tensor) throw new Error(`${name} is another`);
      }
      expect(readJsonOf(dense, "config.json")).toEqual(readJsonOf(source, "config.json"));
      expect(existsSync(join(dense, "onnx"))).toBe(false);
      // It loads, and runs.
      expect(inspect({ model: dense }).linears.sparsity)
        .toBe(inspect({ model: source }).linears.sparsity);
      expect(await checkpointLogits(dense)).toEqual(await checkpointLogits(source));
    });
  }

  test("has each tensor in the type that it had, where norms have another one than matrices", async () => {
    const source = workshop.fresh("mixed");
    mkdirSync(source);
    const { tensors, config } = readTensors(sourceOf("llama"));
    writeFileSync(join(source, "config.json"), JSON.stringify(config));
    const mixed = tensors.map((tensor) => ({
      ...tensor,
      type: tensor.shape.length === 1 ? "f32" as const : undefined,
      // Not to be had in 16 bits.
      read: () => tensor.shape.length === 1 ? tensor.read().map((x) => x + 1e-5) : tensor.read(),
    }));
    await writeSafetensors(join(source, "model.safetensors"), mixed, "bf16");
    const { output } = await workshop.compile(source, { values: "f32" });
    const dense = workshop.fresh("expanded");
    await expand({ model: output, output: dense });
    expect(tensorsOf(dense)).toEqual(tensorsOf(source));
    const narrow = workshop.fresh("expanded");
    await expand({ model: output, output: narrow, dtype: "bf16" });
    const types = [...tensorsOf(narrow).values()].map((tensor) => tensor.split(" ")[0]);
    expect(new Set(types)).toEqual(new Set(["BF16"]));
  });

  test("has what is neither embedding nor head as in int8, where those are in int4", async () => {
    for (const model of ["opt", "opt-post-norm"]) {
      const source = await workshop.pruned(model, "8:16");
      const [found, expected] = await Promise.all((["int4", "int8"] as const).map(async (head) => {
        const { output } = await workshop.compile(source, { values: "int4", head });
        return tensorsOf(await workshop.expand(output, "f32"));
      }));
      const others = [...expected.keys()].filter((name) => found.get(name) !== expected.get(name));
      expect(others).toEqual(["model.decoder.embed_tokens.weight"]);
    }
  });

  test("keeps its zeros, and is near the rest, when values were rounded to int8", async () => {
    const source = await workshop.pruned("qwen3", 0.7);
    const [byRow, byGroup] = [
      await workshop.compile(source, {}),
      await workshop.compile(source, { group: 16 }),
    ];
    const original = Checkpoint.open(source);
    const error = new Map<string, number>();
    for (const { output } of [byRow, byGroup]) {
      const dense = await workshop.expand(output);
      const expanded = Checkpoint.open(dense);
      let [sum, squares] = [0, 0];
      for (const { name, shape } of original.tensors.values()) {
        const size = shape.reduce((a, b) => a * b, 1);
        const [a, b] = [new Float32Array(size), new Float32Array(size)];
        original.readFloats(name, a);
        expanded.readFloats(name, b);
        if (!name.includes("_proj")) continue;
        a.forEach((value, i) => {
          if (value === 0 && b[i] !== 0) throw new Error(`${name}: a zero became ${b[i]}`);
          sum += (value - b[i]) ** 2;
          squares += value ** 2;
        });
      }
      error.set(output, Math.sqrt(sum / squares));
      expanded.close();
    }
    original.close();
    expect(error.get(byRow.output)!).toBeLessThan(0.01);
    expect(error.get(byGroup.output)!).toBeLessThan(error.get(byRow.output)!);
  });

  for (const model of readdirSync(fromRoot(ROOT))) {
    test(`has the config of the checkpoint as it was written, whole floats too: ${model}`, async () => {
      const { output } = await workshop.compile(sourceOf(model), { format: "csr", values: "f32" });
      const dense = workshop.fresh("expanded");
      await expand({ model: output, output: dense });
      const [found, expected] = [dense, sourceOf(model)].map((folder) =>
        readFileSync(join(folder, "config.json"), "utf8").replace(/\s+/g, "")
      );
      expect(found).toBe(expected);
      expect(readFileSync(join(output, "config.json"), "utf8").replace(/\s+/g, ""))
        .toContain(expected.slice(0, -1));
    });
  }

  test("says that what reads images is missing, where a decoder is a part of such a model", async () => {
    const model = await withinLarger((config) => ({ model_type: "gemma3", text_config: config }));
    const { output } = await workshop.compile(model, { format: "csr", values: "f32" });
    const { notes } = await expand({ model: output, output: workshop.fresh("expanded") });
    expect(notes.join()).toContain("what reads the rest is missing");
    const alone = await workshop.compile(sourceOf("gemma3"), { format: "csr", values: "f32" });
    const other = await expand({ model: alone.output, output: workshop.fresh("expanded") });
    expect(other.notes).toEqual([]);
  });

  test("takes another type where that is asked for, and carries the tokenizer", async () => {
    const { output } = await workshop.compile(await workshop.pruned("tiny", "2:4"), {
      values: "f16",
    });
    const dense = workshop.fresh("expanded");
    const report = await expand({ model: output, output: dense, dtype: "bf16" });
    expect(report.dtype).toBe("bf16");
    expect(inspect({ model: dense }).blocks[0].linears[0].dtype).toBe("BF16");
    const config = readJsonOf(dense, "config.json");
    expect([config.dtype, config.torch_dtype].filter(Boolean)).toEqual(["bfloat16"]);
    expect(readdirSync(dense).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
  });

  test("says another type wherever its config says one, in that of a decoder inside, too", async () => {
    const model = await withinLarger((config) => ({
      model_type: "gemma3",
      dtype: "float32",
      text_config: { ...config, dtype: "float32" },
    }));
    const { output } = await workshop.compile(model, { format: "csr", values: "f32" });
    const dense = workshop.fresh("expanded");
    await expand({ model: output, output: dense, dtype: "bf16" });
    const { dtype, text_config } = readJsonOf(dense, "config.json");
    expect([dtype, (text_config as { dtype: string }).dtype]).toEqual(["bfloat16", "bfloat16"]);
  });

  test("cannot take a type that does not hold its weights", async () => {
    const source = workshop.withLargeWeight();
    const { output: model } = await workshop.compile(source, { values: "f32" });
    const place = workshop.folder();
    const options = { model, output: join(place, "out") };
    const error = await rejectionOf(expand({ ...options, dtype: "f16" }));
    expect(error.code).toBe("FORMAT_UNFIT");
    expect(error.message).toContain('"model.embed_tokens.weight" has 999424 at element 5');
    expect(readdirSync(place)).toEqual([]);
    await expand(options);
    expect(tensorsOf(options.output)).toEqual(tensorsOf(source));
  });

  test("can be compiled again, to the same bytes", async () => {
    const { output } = await workshop.compile(await workshop.pruned("llama", "2:4"), {
      values: "f16",
    });
    const dense = await workshop.expand(output);
    const again = await workshop.compile(dense, { values: "f16" });
    for (const file of ["onnx/model.onnx", "onnx/model.onnx_data"]) {
      expect(filesOf(again.output).get(file)).toBe(filesOf(output).get(file));
    }
  });

  test("is on a grid after int4, and can be compiled again with the same weights", async () => {
    const source = await workshop.pruned("tiny", "8:16");
    for (const head of ["int8", "int4"] as const) {
      const { output } = await workshop.compile(source, { values: "int4", head });
      for (const dtype of ["f32", "f16", "bf16"] as const) {
        const dense = workshop.fresh("expanded");
        await expand({ model: output, output: dense, dtype });
        // Asking for other groups changes nothing: those that were rounded with are found.
        const again = await workshop.compile(dense, { values: "int4", head, group: 32 });
        const twice = workshop.fresh("expanded");
        await expand({ model: again.output, output: twice, dtype });
        const [before, after] = [dense, twice].map((folder) => Checkpoint.open(folder));
        for (const { name, shape } of before.tensors.values()) {
          if (!/_proj|embed/.test(name) || (head === "int8" && name.includes("embed"))) continue;
          const size = shape.reduce((a, b) => a * b, 1);
          const [a, b] = [new Float32Array(size), new Float32Array(size)];
          before.readFloats(name, a);
          after.readFloats(name, b);
          // The rounding of a checkpoint's type, once for weights and once for a scale.
          const bound = { f32: 2 ** -11, f16: 2 ** -10, bf16: 2 ** -6 }[dtype];
          a.forEach((value, i) => {
            if (Math.abs(value - b[i]) > bound * Math.abs(value)) {
              throw new Error(`${name}, ${dtype}: ${value} became ${b[i]}`);
            }
          });
        }
        before.close();
        after.close();
      }
    }
  }, LONG);

  test("must be a compiled model", async () => {
    const place = workshop.folder();
    for (const model of [sourceOf("llama"), join(place, "nowhere")]) {
      const error = await rejectionOf(expand({ model, output: join(place, "out") }));
      expect(error.code).toBe("CHECKPOINT_NOT_FOUND");
    }
    const { output } = await workshop.compile(await workshop.pruned("llama", "2:4"), {});
    mkdirSync(join(place, "onnx"));
    writeFileSync(
      join(place, "onnx", "model.onnx"),
      readFileSync(join(output, "onnx", "model.onnx")),
    );
    const error = await rejectionOf(expand({ model: place, output: join(place, "out") }));
    expect(error.code).toBe("CHECKPOINT_NOT_FOUND");
    expect(error.message).toContain("espalier.json");
    expect(readdirSync(place)).toEqual(["onnx"]);
  });
});
