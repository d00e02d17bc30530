/**
 * What compile writes: the layout that transformers.js expects, the smallest formats, the same bytes
 * again.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { compile } from "../../compile/compile.ts";
import { operatorName } from "../../compile/functions.ts";
import { ROTARY_TABLES } from "../../compile/rotary_tables.ts";
import { inspectCompiled } from "../../compile/inspect.ts";
import { verify } from "../../compile/verify.ts";
import type { ProgressEvent } from "../../src/api/options.ts";
import { loadOrt } from "../../src/engine/ort/cached.ts";
import { BackendError } from "../../src/errors.ts";
import { externalRange } from "../../src/onnx/external.ts";
import {
  type ModelProto,
  TensorProto_DataType as DataType,
} from "../../src/onnx/generated/onnx_pb.ts";
import { VERSION } from "../../src/version.ts";
import {
  editJson,
  filesOf,
  parseSafetensors,
  readJsonOf,
  rejectionOf,
  safetensors,
} from "../checkpoint/support.ts";
import {
  cacheOf,
  checkpointLogits,
  compiledLogits,
  CompileWorkshop,
  distance,
  formatsFor,
  type How,
  LONG,
  modelOf,
  PATTERNS,
  sourceOf,
  specOf,
} from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

describe("the output folder", () => {
  test("is laid out as transformers.js loads it", async () => {
    const source = workshop.fresh("tiny");
    cpSync(await workshop.pruned("tiny", "8:16"), source, { recursive: true });
    writeFileSync(join(source, "LICENSE"), "do what you want");
    writeFileSync(join(source, "Notice.md"), "and say so");
    writeFileSync(join(source, "training_args.bin"), "not needed");
    const { output, bytes } = await workshop.compile(source, {});
    expect([...filesOf(output).keys()]).toEqual([
      "LICENSE",
      "Notice.md",
      "config.json",
      "espalier.json",
      "generation_config.json",
      "onnx/model.onnx",
      "onnx/model.onnx_data",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    expect(readJsonOf(output, "config.json")).toEqual({
      ...readJsonOf(source, "config.json"),
      "transformers.js_config": {
        dtype: "fp32",
        use_external_data_format: { "model.onnx": 1 },
      },
    });
    for (const name of ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]) {
      expect(readFileSync(join(output, name))).toEqual(readFileSync(join(source, name)));
    }
    const graphBytes = statSync(join(output, "onnx", "model.onnx")).size;
    expect(graphBytes).toBeLessThan(2_000_000);
    expect(bytes.graph).toBe(graphBytes);
    expect(bytes.data).toBe(statSync(join(output, "onnx", "model.onnx_data")).size);
  });

  test("says which layers convolve by the name that transformers.js knows, where its source has another", async () => {
    const source = sourceOf("lfm2");
    const { output } = await workshop.compile(source, {});
    const { layer_types, ...config } = readJsonOf(output, "config.json") as Record<string, unknown>;
    expect(layer_types).toEqual(["conv", "full_attention", "conv"]);
    expect(config).toMatchObject(readJsonOf(source, "config.json") as Record<string, unknown>);
    expect(readJsonOf(output, "espalier.json")).toMatchObject({ addedToConfig: ["layer_types"] });
    const newer = await workshop.compile(sourceOf("lfm3"), {});
    expect(readJsonOf(newer.output, "espalier.json")).not.toHaveProperty("addedToConfig");
  });

  test("has a record of what was done, without times and paths", async () => {
    const source = await workshop.pruned("tiny", "8:16");
    const report = await workshop.compile(source, { format: "nm", values: "f16" });
    const record = readJsonOf(report.output, "espalier.json");
    const { options, linears, sparsity, bytes } = JSON.parse(JSON.stringify(report));
    expect(record).toMatchObject({
      format: 1,
      kind: "compiled",
      espalier: VERSION,
      source: basename(source),
      dtype: "f16",
      options,
      sparsity,
      bytes,
      pruning: readJsonOf(source, "espalier.json"),
    });
    expect(record.linears).toEqual(linears);
    expect(linears).toHaveLength(56);
    expect(linears[0]).toEqual({
      name: "model.layers.0.self_attn.q_proj.weight",
      shape: [192, 192],
      format: "nm",
      pattern: "8:16",
      values: "f16",
      sparsity: 0.5,
      bytes: 192 * 192 / 2 * 2.5,
    });
    expect(JSON.stringify(record)).not.toContain(workshop.path);
  });

  test("counts what is gathered or multiplied as embeddings, and no norms, which heads may have their own of", async () => {
    // The norms of Command R+ have two dimensions.
    const { output, bytes } = await workshop.compile(sourceOf("cohere"), { values: "int8" });
    const lengths = modelOf(output).graph!.initializer
      .filter(({ name }) => name.includes("embed_tokens"))
      .map((tensor) => externalRange(tensor)!.length);
    expect(lengths.length).toBeGreaterThan(0);
    expect(bytes.embeddings).toBe(lengths.reduce((sum, length) => sum + length, 0));
  });

  test("has its tensors at pages of their own in the data file, small ones close together, none over another", async () => {
    const { output } = await workshop.compile(await workshop.pruned("opt", 0.7), {
      values: "int8",
      group: 16,
    });
    const ranges = modelOf(output).graph!.initializer.flatMap((tensor) => {
      const range = externalRange(tensor);
      return range ? [range] : [];
    }).sort((a, b) => a.offset - b.offset);
    expect(ranges.length).toBeGreaterThan(60);
    let end = 0;
    for (const { location, offset, length } of ranges) {
      expect(location).toBe("model.onnx_data");
      const unit = length < 4096 ? 64 : 4096;
      expect(offset).toBe(Math.ceil(end / unit) * unit);
      end = offset + length;
    }
    expect(end).toBe(statSync(join(output, "onnx", "model.onnx_data")).size);
  });

  for (const model of ["llama", "opt"]) {
    test(`has the inputs and outputs that transformers.js feeds and reads: ${model}`, async () => {
      const { output } = await workshop.compile(await workshop.pruned(model, "2:4"), {});
      const spec = specOf(output);
      const valuesOf = (infos: NonNullable<ModelProto["graph"]>["input"]) =>
        infos.map(({ name, type }) => {
          const tensor = type!.value;
          if (tensor.case !== "tensorType") throw new Error(name);
          const dims = tensor.value.shape!.dim.map(({ value }) =>
            value.case === "dimValue" ? Number(value.value) : value.value
          );
          return [name, DataType[tensor.value.elemType], ...dims];
        });
      const { graph } = modelOf(output);
      const cache = (side: "past" | "present", length: string) =>
        cacheOf(spec).map((part) => [part[side], "FLOAT", ...part.dims("batch_size", length)]);
      expect(valuesOf(graph!.input)).toEqual([
        ["input_ids", "INT64", "batch_size", "sequence_length"],
        ["attention_mask", "INT64", "batch_size", "total_sequence_length"],
        ["position_ids", "INT64", "batch_size", "sequence_length"],
        ...cache("past", "past_sequence_length"),
      ]);
      expect(valuesOf(graph!.output)).toEqual([
        ["logits", "FLOAT", "batch_size", "sequence_length", spec.vocabulary],
        ...cache("present", "total_sequence_length"),
      ]);
    });
  }

  test("has the same bytes when it is made again", async () => {
    for (const how of [{}, { values: "f16", format: "csr", logits: "last" }] as How[]) {
      const source = await workshop.pruned("llama-rope-scaled", 0.7);
      const [first, second] = [
        await workshop.compile(source, how),
        await workshop.compile(source, how),
      ];
      expect([...filesOf(second.output)]).toEqual([...filesOf(first.output)]);
      expect(second.linears).toEqual(first.linears);
    }
  });

  test("imports the operator sets that its nodes need, and no more", async () => {
    const source = await workshop.pruned("llama", 0.7);
    const imported = async (how: How) => {
      const model = modelOf((await workshop.compile(source, how)).output);
      const domains = new Set(model.graph!.node.map(({ domain }) => domain));
      expect(new Set(model.opsetImport.map(({ domain }) => domain))).toEqual(domains);
      const operators = model.graph!.node.filter(({ domain }) => domain === "ai.espalier");
      expect(new Set(model.functions.map(({ name }) => name)))
        .toEqual(new Set(operators.map(({ opType }) => opType)));
      for (const { domain, opsetImport } of model.functions) {
        expect(domain).toBe("ai.espalier");
        expect(opsetImport.map(({ domain, version }) => [domain, version])).toEqual([["", 17n]]);
      }
      return {
        sets: model.opsetImport.map(({ domain, version }) => `${domain} ${version}`),
        functions: model.functions.map(({ name }) => name),
      };
    };
    expect(await imported({ format: "bitmap" })).toEqual({
      sets: [" 17", "com.microsoft 1", "ai.espalier 1"],
      functions: [operatorName("bitmap", "row"), ROTARY_TABLES],
    });
    expect(await imported({ format: "csr", values: "f16" })).toEqual({
      sets: [" 17", "com.microsoft 1", "ai.espalier 1"],
      functions: [operatorName("csr", "none"), ROTARY_TABLES],
    });
    expect(await imported({ format: "dense" })).toEqual({
      sets: [" 17", "com.microsoft 1", "ai.espalier 1"],
      functions: [ROTARY_TABLES],
    });
  });
});

describe("an embedding", () => {
  const elements = 320 * 64;

  test("that is tied to the head is stored once", async () => {
    for (const [values, size] of [["f32", 4], ["f16", 2]] as const) {
      const { output, bytes } = await workshop.compile(await workshop.pruned("qwen3", "2:4"), {
        values,
      });
      expect(bytes.embeddings).toBe(size * elements);
      const names = modelOf(output).graph!.initializer.map(({ name }) => name);
      expect(names.filter((name) => /embed|head/.test(name))).toEqual([
        "model.embed_tokens.weight",
      ]);
    }
    const { bytes } = await workshop.compile(await workshop.pruned("qwen3", "2:4"), {
      values: "int8",
    });
    expect(bytes.embeddings).toBe(elements + 4 * 320);
  });

  test("is int8 where linears are int4, and int4 where that is asked for", async () => {
    const source = await workshop.pruned("qwen3", "2:4");
    const { options, bytes } = await workshop.compile(source, { values: "int4" });
    expect(options).toMatchObject({ values: "int4", group: 32, head: "int8" });
    expect(bytes.embeddings).toBe(elements + 4 * 320);
    const small = await workshop.compile(source, { values: "int4", head: "int4" });
    // Rows of 64 weights: two scales of a byte each, and their table.
    expect(small.bytes.embeddings).toBe(elements / 2 + 2 * 320 + 512);
    const graph = modelOf(small.output).graph!;
    const names = graph.initializer.map(({ name }) => name);
    expect(names.filter((name) => /embed|head/.test(name))).toEqual([
      "model.embed_tokens.values",
      "model.embed_tokens.scales",
      "model.embed_tokens.scale_table",
    ]);
    const operators = graph.node.filter(({ input }) =>
      input.includes(names.find((name) => name === "model.embed_tokens.values")!)
    ).map(({ opType }) => opType);
    expect(operators.sort()).toEqual(["GatherInt4", "MatMulInt4"]);
  });

  test("in int4 has groups of its own where linears are int8, whatever theirs are", async () => {
    const source = await workshop.pruned("qwen3", "2:4");
    const how = { values: "int8", head: "int4" } as const;
    const { bytes } = await workshop.compile(source, { ...how, group: 160 });
    expect(bytes.embeddings).toBe(elements / 2 + 2 * 320 + 512);
  });

  test("that is not tied is stored beside the head", async () => {
    const { bytes } = await workshop.compile(await workshop.pruned("llama", "2:4"), {
      values: "f16",
    });
    expect(bytes.embeddings).toBe(2 * 2 * elements);
  });

  test("is stored as --head says, whatever the linears are", async () => {
    const { options, bytes } = await workshop.compile(await workshop.pruned("llama", "2:4"), {
      head: "f32",
    });
    expect(options).toMatchObject({ values: "int8", head: "f32" });
    expect(bytes.embeddings).toBe(2 * 4 * elements);
  });

  test("goes without what the checkpoint holds and the model does not use", async () => {
    const source = workshop.copy("qwen3");
    const before = await workshop.compile(source, { values: "f16" });
    const path = join(source, "model.safetensors");
    const { header, data } = parseSafetensors(new Uint8Array(readFileSync(path)));
    const { data_offsets, ...like } = header["model.embed_tokens.weight"];
    const again = data.slice(...data_offsets as [number, number]);
    const [middle, end] = [data.length + again.length, data.length + again.length + 4 * elements];
    header["lm_head.weight"] = { ...like, data_offsets: [data.length, middle] };
    header["some.table"] = { dtype: "F32", shape: [64, 320], data_offsets: [middle, end] };
    const more = Buffer.concat([data, again, new Uint8Array(4 * elements)]);
    writeFileSync(path, safetensors(header, more));
    const after = await workshop.compile(source, { values: "f16" });
    expect(after.bytes).toEqual(before.bytes);
    expect(filesOf(after.output).get("onnx/model.onnx"))
      .toBe(filesOf(before.output).get("onnx/model.onnx"));
  });
});

describe("a checkpoint without zeros", () => {
  test("is compiled dense, and a note says so", async () => {
    const events: ProgressEvent[] = [];
    const source = sourceOf("llama");
    const output = workshop.fresh("compiled");
    const report = await compile({ model: source, output, values: "f32" }, {
      onProgress: (event) => events.push(event),
    });
    expect(report.notes).toHaveLength(1);
    expect(report.notes[0]).toContain("prune first");
    expect(events).toContainEqual({ type: "note", text: report.notes[0] });
    expect(new Set(report.linears.map(({ format }) => format))).toEqual(new Set(["dense"]));
    expect(report.linears).toHaveLength(21);
    expect(distance(await compiledLogits(output), await checkpointLogits(source)))
      .toBeLessThan(1e-4);
  });

  test("is not said to be dense where a format was asked for that takes any zeros", async () => {
    const { linears, notes } = await workshop.compile(sourceOf("llama"), { format: "bitmap" });
    expect(linears.every(({ format }) => format === "bitmap")).toBe(true);
    expect(notes).toEqual([
      "the linears hold hardly any zeros: dense they are smaller; prune first",
    ]);
  });

  test("gets no note when it has zeros", async () => {
    expect((await workshop.compile(await workshop.pruned("llama", "2:4"), {})).notes).toEqual([]);
  });
});

describe("a checkpoint with heads that ONNX Runtime does not take", () => {
  async function withSmallHeads(): Promise<string> {
    const source = workshop.fresh("small-heads");
    cpSync(await workshop.pruned("llama", "2:4"), source, { recursive: true });
    const heads = { head_dim: 4, num_attention_heads: 16, num_key_value_heads: 8 };
    editJson(source, "config.json", (config) => ({ ...config, ...heads }));
    return source;
  }
  const why = "heads of 4 elements: ONNX Runtime takes multiples of 8 only";

  test("is compiled for our own engine, and a note says so", async () => {
    const { notes } = await workshop.compile(await withSmallHeads(), {});
    expect(notes).toHaveLength(1);
    expect(notes[0]).toContain(why);
  });

  test("is refused by what would run it in ONNX Runtime, before the first token", async () => {
    const against = await withSmallHeads();
    const model = (await workshop.compile(against, {})).output;
    const loaded = await rejectionOf(loadOrt(model, { device: "wasm", threads: 1 }));
    expect(loaded).toBeInstanceOf(BackendError);
    expect(loaded.message).toContain(`${why}; the sparse engine runs this model`);
    const text = join(sourceOf("tiny"), "evaluation.txt");
    const verified = await rejectionOf(verify({ model, against, text }));
    expect(verified).toBeInstanceOf(BackendError);
    expect(verified.message).toContain(`${why}, and verify runs models in it: expand this one`);
  });
});

describe("--format auto", () => {
  for (const pattern of [...PATTERNS, 0.95, 0.2]) {
    for (
      const how of [
        { values: "int8" },
        { values: "f32" },
        { values: "int8", group: 16 },
        { values: "int4" },
      ] as How[]
    ) {
      test(`takes the smallest format: ${pattern}, ${JSON.stringify(how)}`, async () => {
        const source = await workshop.pruned("llama", pattern);
        const auto = await workshop.compile(source, how);
        const { linears, totals } = inspectCompiled(auto.output);
        expect(
          linears.map(({ name, format, pattern, bytes }) => [name, format, pattern, bytes]).sort(),
        )
          .toEqual(
            auto.linears.map(({ name, format, pattern, bytes }) => [
              name.replace(/\.weight$/, ""),
              format,
              pattern,
              bytes,
            ]).sort(),
          );
        expect(totals.bytes).toBe(auto.bytes.linears);
        // What int4 rounds to 0 is a 0 of what is stored.
        if (how.values === "int4") {
          expect(totals.sparsity).toBeGreaterThanOrEqual(auto.sparsity);
        } else expect(totals.sparsity).toBeCloseTo(auto.sparsity, 6);
        for (const format of formatsFor(pattern)) {
          const single = await workshop.compile(source, { ...how, format });
          expect(auto.bytes.linears).toBeLessThanOrEqual(single.bytes.linears);
          single.linears.forEach(({ bytes }, i) => {
            expect(auto.linears[i].bytes).toBeLessThanOrEqual(bytes);
          });
        }
      }, LONG);
    }
  }
});

describe("inspect of a compiled model", () => {
  // Their linears are named otherwise, or have norms of two dimensions beside them.
  for (const model of ["gpt2", "gpt-neo", "gpt-bigcode", "gpt-neox", "opt", "cohere", "llama"]) {
    for (const values of ["f16", "int8", "int4"] as const) {
      test(`finds the linears that compile stored dense: ${model}, ${values}`, async () => {
        const { output, linears, bytes } = await workshop.compile(sourceOf(model), { values });
        const found = inspectCompiled(output);
        const named = (all: readonly { name: string }[]) =>
          all.map(({ name }) => name.replace(/\.weight$/, "")).sort();
        expect(named(found.linears)).toEqual(named(linears));
        expect(found.totals.bytes).toBe(bytes.linears);
        if (values !== "int4") expect(found.totals.dense[values]).toBe(bytes.linears);
      }, LONG);
    }
  }
});
