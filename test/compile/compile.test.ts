/**
 * Compiled models: through ONNX Runtime they compute what the pruned checkpoint computes, they are laid
 * out as transformers.js expects, and they can be turned back.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { compile, type CompileReport } from "../../compile/compile.ts";
import { CompiledModel } from "../../compile/compiled_model.ts";
import { expand } from "../../compile/expand.ts";
import { operatorName } from "../../compile/functions.ts";
import { inspectCompiled } from "../../compile/inspect.ts";
import type { CompileOptions } from "../../compile/options.ts";
import { verify } from "../../compile/verify.ts";
import { inspect } from "../../src/api/inspect.ts";
import type { ProgressEvent } from "../../src/api/options.ts";
import { prune } from "../../src/api/prune.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import type { DecoderSpec } from "../../src/checkpoint/architectures/spec.ts";
import { Checkpoint, type CheckpointTensor } from "../../src/checkpoint/checkpoint.ts";
import {
  type Backend,
  hasNode,
  openBackend,
  type Session,
  type Tensor,
} from "../../src/engine/ort/backend.ts";
import { externalRange } from "../../src/onnx/external.ts";
import {
  type ModelProto,
  TensorProto_DataType as DataType,
} from "../../src/onnx/generated/onnx_pb.ts";
import { readModel } from "../../src/onnx/model_file.ts";
import { VERSION } from "../../src/version.ts";
import {
  editSafetensors,
  parseSafetensors,
  readJsonOf,
  rejectionOf,
  safetensors,
  Workshop,
} from "../checkpoint/support.ts";
import { FAST, forward, load } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const ROOT = "test/fixtures/architectures";
const ARCHITECTURES = readdirSync(fromRoot(ROOT));
const TINY = "examples/tiny";
const TINY_TEXT = fromRoot(`${TINY}/evaluation.txt`);
/** A limit for tests of many models; Bun's own is 5 s. */
const LONG = 120_000;

/** More than the window of 8 tokens that some of the models slide. */
const TOKENS = Array.from({ length: 20 }, (_, i) => 3 + (i * 37) % 300);

type BackendName = "node" | "wasm";
const BACKENDS: readonly BackendName[] = hasNode() ? ["wasm", "node"] : ["wasm"];

const backends = new Map<BackendName, Promise<Backend>>();
function backendOf(name: BackendName): Promise<Backend> {
  if (!backends.has(name)) backends.set(name, openBackend(name, 1));
  return backends.get(name)!;
}

/** What compile is told beside the folders. */
type How = Omit<CompileOptions, "model" | "output">;

function sourceOf(model: string): string {
  return fromRoot(model === "tiny" ? TINY : `${ROOT}/${model}`);
}

const prunings = new Map<string, Promise<string>>();
/** The folder of a pruned checkpoint, made once. `pattern` is `2:4`, or a sparsity. */
function pruned(model: string, pattern: string | number): Promise<string> {
  const key = `${model} ${pattern}`;
  if (!prunings.has(key)) {
    const output = join(workshop.path, key.replaceAll(/[ :.]/g, "-"));
    const options = typeof pattern === "number" ? { sparsity: pattern } : { pattern };
    prunings.set(
      key,
      prune({
        model: sourceOf(model),
        output,
        method: "magnitude",
        allocation: "uniform",
        ...options,
      }).then(() => output),
    );
  }
  return prunings.get(key)!;
}

/** Compiles a checkpoint into a new folder. */
async function compiled(model: string, how: How): Promise<CompileReport> {
  return await compile({ model, output: workshop.fresh("compiled"), ...how });
}

function specOf(folder: string): DecoderSpec {
  return describeModel(readJsonOf(folder, "config.json"));
}

function modelOf(folder: string): ModelProto {
  return readModel(join(folder, "onnx", "model.onnx"));
}

/** The logits that the graph of calibration gives for a checkpoint. */
async function checkpointLogits(folder: string): Promise<Float32Array> {
  const loaded = await load(folder, await backendOf(FAST));
  try {
    return await forward(loaded.model, TOKENS);
  } finally {
    await loaded.close();
  }
}

/** A compiled model that runs, and the cache that its last run left. */
class Running {
  #past: Record<string, Tensor> | undefined;
  #length = 0;

  private constructor(
    readonly spec: DecoderSpec,
    readonly backend: Backend,
    readonly session: Session,
  ) {}

  static async open(folder: string, name: BackendName = FAST): Promise<Running> {
    const backend = await backendOf(name);
    const session = await backend.loadFile(join(folder, "onnx", "model.onnx"));
    return new Running(specOf(folder), backend, session);
  }

  /** Forgets the cache. */
  reset(): void {
    this.#past = undefined;
    this.#length = 0;
  }

  /** Runs tokens after those of the runs before; rows of a batch have the same length. */
  async step(...rows: (readonly number[])[]): Promise<Float32Array> {
    const { backend, spec } = this;
    const [batch, length] = [rows.length, rows[0].length];
    const total = this.#length + length;
    const int64 = (values: readonly number[], width: number) =>
      backend.int64(BigInt64Array.from(values, BigInt), [batch, width]);
    const positions = Array.from({ length }, (_, i) => this.#length + i);
    const feeds: Record<string, Tensor> = {
      input_ids: int64(rows.flat(), length),
      attention_mask: int64(new Array(batch * total).fill(1), total),
      position_ids: int64(rows.flatMap(() => positions), length),
    };
    const empty = [batch, spec.keyValueHeads, 0, spec.headDim];
    for (const name of cacheNames(spec)) {
      feeds[`past_key_values.${name}`] = this.#past?.[`present.${name}`] ??
        backend.floats(new Float32Array(0), empty);
    }
    const outputs = await this.session.run(feeds);
    for (const name of cacheNames(spec)) {
      expect([...outputs[`present.${name}`].dims]).toEqual(empty.with(2, total));
    }
    this.#past = outputs;
    this.#length = total;
    return outputs.logits.data as Float32Array;
  }

  async close(): Promise<void> {
    await this.session.release();
  }
}

/** `0.key`, `0.value`, `1.key` … */
function cacheNames({ layers }: DecoderSpec): string[] {
  return Array.from({ length: layers }, (_, i) => [`${i}.key`, `${i}.value`]).flat();
}

async function compiledLogits(folder: string, backend: BackendName = FAST): Promise<Float32Array> {
  const running = await Running.open(folder, backend);
  try {
    return await running.step(TOKENS);
  } finally {
    await running.close();
  }
}

/** The largest difference of two logits over the largest logit. */
function distance(found: Float32Array, expected: Float32Array): number {
  expect(found.length).toBe(expected.length);
  let largest = 0;
  let top = 0;
  for (let i = 0; i < expected.length; i++) {
    // Written so that NaN is the largest of all.
    if (!(Math.abs(found[i] - expected[i]) <= largest)) largest = Math.abs(found[i] - expected[i]);
    top = Math.max(top, Math.abs(expected[i]));
  }
  return largest / top;
}

/** All files under a folder with their bytes. */
function filesOf(folder: string): Map<string, string> {
  const names = readdirSync(folder, { recursive: true }).map(String).sort();
  return new Map(
    names.filter((name) => statSync(join(folder, name)).isFile()).map((name) => [
      name.replaceAll("\\", "/"),
      readFileSync(join(folder, name)).toString("base64"),
    ]),
  );
}

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

/** A tensor of a checkpoint, to know its type by. */
function firstTensor(folder: string): CheckpointTensor {
  const checkpoint = Checkpoint.open(folder);
  checkpoint.close();
  return checkpoint.tensors.values().next().value!;
}

type Format = "nm" | "csr" | "bitmap" | "dense";
const PATTERNS = ["2:4", "8:16", 0.7] as const;
const VALUES: readonly How[] = [
  { values: "f32" },
  { values: "f16" },
  { values: "int8" },
  { values: "int8", group: 16 },
];
/** Largest difference of a logit, over the largest logit, where the same weights are computed with. */
const SAME = 1e-4;
/** The same where float16 has rounded them: bfloat16 loses what is below 2^-14. */
const NEAR = 2e-3;

/** The formats that fit what a pattern leaves. */
function formatsFor(pattern: string | number): Format[] {
  return typeof pattern === "string"
    ? ["nm", "csr", "bitmap", "dense"]
    : ["csr", "bitmap", "dense"];
}

/** Architectures that are compiled in every way; the others take each way of storing values in turn. */
const IN_EVERY_WAY = ["llama", "opt"];

function waysFor(model: string, pattern: string | number): (How & { on: BackendName })[] {
  const place = ARCHITECTURES.indexOf(model) + PATTERNS.findIndex((p) => p === pattern);
  return formatsFor(pattern).flatMap((format, i) => {
    const values = IN_EVERY_WAY.includes(model)
      ? VALUES
      : [VALUES[(place + i) % VALUES.length], VALUES[(place + i + 2) % VALUES.length]].slice(i % 2);
    return values.map((value, j) => ({
      format,
      ...value,
      on: (place + i + j) % 4 === 0 ? "wasm" : FAST,
    }));
  });
}

describe("a compiled model gives the logits of its pruned checkpoint", () => {
  for (const model of ARCHITECTURES) {
    for (const pattern of PATTERNS) {
      test(`${model}, pruned to ${pattern}`, async () => {
        const folder = await pruned(model, pattern);
        const masked = await checkpointLogits(folder);
        const { type } = firstTensor(folder);
        /** Where values are rounded, what that leaves is the truth: the same in all formats. */
        const rounded = new Map<string, Float32Array>();
        for (const { on, ...way } of waysFor(model, pattern)) {
          const { output, linears } = await compiled(folder, way);
          expect(new Set(linears.map(({ format }) => format))).toEqual(new Set([way.format]));
          let expected = masked;
          let bound = way.values === "f16" ? NEAR : SAME;
          if (way.values === "int8" || (way.values === "f16" && type === "f32")) {
            bound = SAME;
            // Dense linears have a scale a row, whatever the group is.
            const key = `${way.values} ${way.format === "dense" ? undefined : way.group}`;
            if (!rounded.has(key)) {
              const dense = workshop.fresh("expanded");
              await expand({ model: output, output: dense, dtype: "f32" });
              rounded.set(key, await checkpointLogits(dense));
            }
            expected = rounded.get(key)!;
          }
          const found = distance(await compiledLogits(output, on), expected);
          if (!(found < bound)) {
            throw new Error(`${JSON.stringify(way)} on ${on}: ${found}`);
          }
        }
      }, LONG);
    }
  }
});

describe("the example, compiled,", () => {
  const ways: [pattern: string | number, how: How, on: BackendName][] = [
    ["2:4", { format: "nm", values: "f32" }, FAST],
    ["2:4", { format: "auto", values: "int8" }, "wasm"],
    ["8:16", { format: "nm", values: "f16" }, FAST],
    ["8:16", { format: "auto", values: "int8", group: 64 }, FAST],
    [0.7, { format: "csr", values: "int8" }, FAST],
    [0.7, { format: "bitmap", values: "f16" }, "wasm"],
    [0.7, { format: "bitmap", values: "f32" }, FAST],
    [0.7, { format: "dense", values: "int8" }, FAST],
    [0.7, { format: "auto", values: "int8", head: "f16" }, FAST],
  ];
  for (const [pattern, how, on] of ways) {
    test(`foretells what its checkpoint does: ${pattern}, ${JSON.stringify(how)}`, async () => {
      const against = await pruned("tiny", pattern);
      const { output } = await compiled(against, how);
      const report = await verify({
        model: output,
        against,
        text: TINY_TEXT,
        windows: 2,
        seqlen: 96,
        backend: on,
        threads: 1,
      });
      expect(report.windows).toBe(2);
      const ratio = report.perplexity.compiled / report.perplexity.checkpoint;
      if (how.values === "int8") {
        expect(Math.abs(ratio - 1)).toBeLessThan(0.01);
        expect(report.agreement).toBeGreaterThan(0.9);
      } else {
        expect(report.relativeDifference).toBeLessThan(how.values === "f32" ? SAME : NEAR);
        expect(Math.abs(ratio - 1)).toBeLessThan(how.values === "f32" ? 1e-4 : 2e-3);
        expect(report.agreement).toBeGreaterThan(0.98);
      }
    }, LONG);
  }

  test("with logits for the last position alone cannot be verified, and says so", async () => {
    const against = await pruned("tiny", "2:4");
    const { output } = await compiled(against, { values: "f16", logits: "last" });
    const options = { model: output, against, text: TINY_TEXT, windows: 1, seqlen: 16 };
    const error = await rejectionOf(verify({ ...options, backend: FAST, threads: 1 }));
    expect(error.code).toBe("ONNX_INVALID");
    expect(error.message).toContain("--logits all");
  });
});

describe("a cache of keys and values", () => {
  for (const model of ["llama", "mistral-sliding", "qwen2-sliding", "qwen3", "opt"]) {
    const names: readonly BackendName[] = model === "mistral-sliding" ? BACKENDS : [FAST];
    for (const name of names) {
      test(`changes nothing: ${model}, ${name}`, async () => {
        const { output } = await compiled(await pruned(model, "2:4"), { values: "f32" });
        const running = await Running.open(output, name);
        try {
          const { vocabulary } = running.spec;
          const whole = await running.step(TOKENS);
          expect(whole.length).toBe(TOKENS.length * vocabulary);
          // One by one, past the window that slides.
          running.reset();
          const steps = new Float32Array(whole.length);
          for (const [i, token] of TOKENS.entries()) {
            steps.set(await running.step([token]), i * vocabulary);
          }
          expect(distance(steps, whole)).toBeLessThan(1e-4);
          // A prompt, then one by one, as a chat does it.
          running.reset();
          const prompt = 11;
          const chat = new Float32Array(whole.length);
          chat.set(await running.step(TOKENS.slice(0, prompt)));
          for (let i = prompt; i < TOKENS.length; i++) {
            chat.set(await running.step([TOKENS[i]]), i * vocabulary);
          }
          expect(distance(chat, whole)).toBeLessThan(1e-4);
        } finally {
          await running.close();
        }
      });
    }
  }

  test("goes on after a prompt in two parts", async () => {
    const { output } = await compiled(await pruned("llama", "2:4"), { values: "f32" });
    const running = await Running.open(output);
    try {
      const whole = await running.step(TOKENS);
      running.reset();
      const parts = new Float32Array(whole.length);
      parts.set(await running.step(TOKENS.slice(0, 12)));
      parts.set(await running.step(TOKENS.slice(12)), 12 * running.spec.vocabulary);
      expect(distance(parts, whole)).toBeLessThan(1e-4);
    } finally {
      await running.close();
    }
  });

  for (const name of BACKENDS) {
    test(`serves two rows at a time as each alone: ${name}`, async () => {
      const { output } = await compiled(await pruned("llama", "2:4"), { values: "f32" });
      const running = await Running.open(output, name);
      try {
        const { vocabulary } = running.spec;
        const one = await running.step(TOKENS);
        running.reset();
        const two = await running.step(TOKENS, TOKENS);
        expect(two.length).toBe(2 * one.length);
        expect(distance(two.subarray(0, one.length), one)).toBeLessThan(1e-5);
        expect(two.slice(one.length)).toEqual(two.slice(0, one.length));
        const next = await running.step([7], [7]);
        expect(next.slice(vocabulary)).toEqual(next.slice(0, vocabulary));
      } finally {
        await running.close();
      }
    });
  }
});

describe("logits for the last position alone", () => {
  test("are those of all positions there", async () => {
    const folder = await pruned("qwen3", "8:16");
    const all = await compiledLogits((await compiled(folder, { values: "f32" })).output);
    const { output, options } = await compiled(folder, { values: "f32", logits: "last" });
    expect(options.logits).toBe("last");
    const running = await Running.open(output);
    try {
      const { vocabulary } = running.spec;
      const last = await running.step(TOKENS);
      expect(last.length).toBe(vocabulary);
      expect(distance(last, all.slice(-vocabulary))).toBeLessThan(1e-5);
      expect((await running.step([5])).length).toBe(vocabulary);
      running.reset();
      const two = await running.step(TOKENS, TOKENS);
      expect(two.length).toBe(2 * vocabulary);
      expect(distance(two.slice(vocabulary), last)).toBeLessThan(1e-5);
    } finally {
      await running.close();
    }
  });
});

describe("the output folder", () => {
  test("is laid out as transformers.js loads it", async () => {
    const source = await pruned("tiny", "8:16");
    writeFileSync(join(source, "LICENSE"), "do what you want");
    writeFileSync(join(source, "training_args.bin"), "not needed");
    const { output, bytes } = await compiled(source, {});
    expect([...filesOf(output).keys()]).toEqual([
      "LICENSE",
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

  test("has a record of what was done, without times and paths", async () => {
    const source = await pruned("tiny", "8:16");
    const report = await compiled(source, { format: "nm", values: "f16" });
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

  test("has its tensors at pages of their own in the data file, none over another", async () => {
    const { output } = await compiled(await pruned("opt", 0.7), { values: "int8", group: 16 });
    const ranges = modelOf(output).graph!.initializer.flatMap((tensor) => {
      const range = externalRange(tensor);
      return range ? [range] : [];
    }).sort((a, b) => a.offset - b.offset);
    expect(ranges.length).toBeGreaterThan(60);
    let end = 0;
    for (const { location, offset, length } of ranges) {
      expect(location).toBe("model.onnx_data");
      expect(offset % 4096).toBe(0);
      expect(offset).toBe(Math.ceil(end / 4096) * 4096);
      end = offset + length;
    }
    expect(end).toBe(statSync(join(output, "onnx", "model.onnx_data")).size);
  });

  for (const model of ["llama", "opt"]) {
    test(`has the inputs and outputs that transformers.js feeds and reads: ${model}`, async () => {
      const { output } = await compiled(await pruned(model, "2:4"), {});
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
      const cache = (prefix: string, length: string) =>
        cacheNames(spec).map((name) => [
          `${prefix}.${name}`,
          "FLOAT",
          "batch_size",
          spec.keyValueHeads,
          length,
          spec.headDim,
        ]);
      expect(valuesOf(graph!.input)).toEqual([
        ["input_ids", "INT64", "batch_size", "sequence_length"],
        ["attention_mask", "INT64", "batch_size", "total_sequence_length"],
        ["position_ids", "INT64", "batch_size", "sequence_length"],
        ...cache("past_key_values", "past_sequence_length"),
      ]);
      expect(valuesOf(graph!.output)).toEqual([
        ["logits", "FLOAT", "batch_size", "sequence_length", spec.vocabulary],
        ...cache("present", "total_sequence_length"),
      ]);
    });
  }

  test("has the same bytes when it is made again", async () => {
    for (const how of [{}, { values: "f16", format: "csr", logits: "last" }] as How[]) {
      const source = await pruned("llama-rope-scaled", 0.7);
      const [first, second] = [await compiled(source, how), await compiled(source, how)];
      expect([...filesOf(second.output)]).toEqual([...filesOf(first.output)]);
      expect(second.linears).toEqual(first.linears);
    }
  });

  test("imports the operator sets that its nodes need, and no more", async () => {
    const source = await pruned("llama", 0.7);
    const imported = async (how: How) => {
      const model = modelOf((await compiled(source, how)).output);
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
      functions: [operatorName("bitmap", "row")],
    });
    expect(await imported({ format: "csr", values: "f16" })).toEqual({
      sets: [" 17", "com.microsoft 1", "ai.espalier 1"],
      functions: [operatorName("csr", "none")],
    });
    expect(await imported({ format: "dense" })).toEqual({
      sets: [" 17", "com.microsoft 1"],
      functions: [],
    });
  });
});

describe("an embedding", () => {
  const elements = 320 * 64;

  test("that is tied to the head is stored once", async () => {
    for (const [values, size] of [["f32", 4], ["f16", 2]] as const) {
      const { output, bytes } = await compiled(await pruned("qwen3", "2:4"), { values });
      expect(bytes.embeddings).toBe(size * elements);
      const names = modelOf(output).graph!.initializer.map(({ name }) => name);
      expect(names.filter((name) => /embed|head/.test(name))).toEqual([
        "model.embed_tokens.weight",
      ]);
    }
    const { bytes } = await compiled(await pruned("qwen3", "2:4"), { values: "int8" });
    expect(bytes.embeddings).toBe(elements + 4 * 320);
  });

  test("that is not tied is stored beside the head", async () => {
    const { bytes } = await compiled(await pruned("llama", "2:4"), { values: "f16" });
    expect(bytes.embeddings).toBe(2 * 2 * elements);
  });

  test("is stored as --head says, whatever the linears are", async () => {
    const { options, bytes } = await compiled(await pruned("llama", "2:4"), { head: "f32" });
    expect(options).toMatchObject({ values: "int8", head: "f32" });
    expect(bytes.embeddings).toBe(2 * 4 * elements);
  });

  test("goes without what the checkpoint holds and the model does not use", async () => {
    const source = workshop.copy("qwen3");
    const before = await compiled(source, { values: "f16" });
    const path = join(source, "model.safetensors");
    const { header, data } = parseSafetensors(new Uint8Array(readFileSync(path)));
    const end = data.length;
    const size = 4 * elements;
    header["lm_head.weight"] = {
      dtype: "F32",
      shape: [320, 64],
      data_offsets: [end, end + size],
    };
    header["some.table"] = {
      dtype: "F32",
      shape: [64, 320],
      data_offsets: [end + size, end + 2 * size],
    };
    const more = new Uint8Array(end + 2 * size);
    more.set(data);
    writeFileSync(path, safetensors(header, more));
    const after = await compiled(source, { values: "f16" });
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

  test("gets no note when it has zeros", async () => {
    expect((await compiled(await pruned("llama", "2:4"), {})).notes).toEqual([]);
  });
});

describe("--format auto", () => {
  for (const pattern of [...PATTERNS, 0.95, 0.2]) {
    for (
      const how of [{ values: "int8" }, { values: "f32" }, { values: "int8", group: 16 }] as How[]
    ) {
      test(`takes the smallest format: ${pattern}, ${JSON.stringify(how)}`, async () => {
        const source = await pruned("llama", pattern);
        const auto = await compiled(source, how);
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
        expect(totals.sparsity).toBeCloseTo(auto.sparsity, 6);
        for (const format of formatsFor(pattern)) {
          const single = await compiled(source, { ...how, format });
          expect(auto.bytes.linears).toBeLessThanOrEqual(single.bytes.linears);
          single.linears.forEach(({ bytes }, i) => {
            expect(auto.linears[i].bytes).toBeLessThanOrEqual(bytes);
          });
        }
      }, LONG);
    }
  }
});

describe("what cannot be compiled", () => {
  /** Compiles; returns the error, and checks that nothing is left. */
  async function refused(options: CompileOptions): Promise<Error & { code?: string }> {
    const place = workshop.folder();
    const error = await rejectionOf(compile({ output: join(place, "deep", "out"), ...options }));
    expect(readdirSync(place)).toEqual([]);
    return error;
  }

  test("is a linear without N:M as N:M; it is named with what to do", async () => {
    const error = await refused({ model: await pruned("llama", 0.1), format: "nm" });
    expect(error.code).toBe("FORMAT_UNFIT");
    for (const part of ["model.layers.0.self_attn.q_proj.weight", "10.0 %", "8:16", "bitmap"]) {
      expect(error.message).toContain(part);
    }
  });

  test("is a linear whose rows the group does not divide", async () => {
    const error = await refused({ model: await pruned("llama", 0.7), group: 48 });
    expect(error.code).toBe("FORMAT_UNFIT");
    expect(error.message).toContain("--group 48");
    expect(error.message).toContain("model.layers.0.self_attn.q_proj.weight");
  });

  test("is a weight that float16 cannot hold, as float16", async () => {
    const model = workshop.copy("qwen2");
    editSafetensors(model, "model.safetensors", (header, data) => {
      const [start] = header["model.embed_tokens.weight"].data_offsets as number[];
      data.set([0x74, 0x49], start + 10); // 999,424 in bfloat16.
    });
    const error = await refused({ model, values: "f16" });
    expect(error.code).toBe("FORMAT_UNFIT");
    expect(error.message).toContain('"model.embed_tokens.weight" has 999424 at row 0, column 5');

    // As float32 it can; and then not be expanded to float16.
    const { output } = await compiled(model, { values: "f32" });
    const place = workshop.folder();
    const options = { model: output, output: join(place, "out") };
    const second = await rejectionOf(expand({ ...options, dtype: "f16" }));
    expect(second.code).toBe("FORMAT_UNFIT");
    expect(second.message).toContain('"model.embed_tokens.weight" has 999424');
    expect(readdirSync(place)).toEqual([]);
    await expand(options);
    expect(tensorsOf(options.output)).toEqual(tensorsOf(model));
  });

  test("is a weight that is not a number", async () => {
    const model = workshop.copy("qwen2");
    editSafetensors(model, "model.safetensors", (header, data) => {
      const [start] = header["model.layers.1.mlp.up_proj.weight"].data_offsets as number[];
      data.set([0xc0, 0x7f], start);
    });
    const error = await refused({ model });
    expect(error.code).toBe("NOT_FINITE");
    expect(error.message).toContain("model.layers.1.mlp.up_proj.weight");
  });

  test("is what is no checkpoint, or options that are none", async () => {
    expect((await refused({ model: workshop.folder() })).code).toBe("CHECKPOINT_NOT_FOUND");
    const model = sourceOf("llama");
    expect((await refused({ model, format: "coo" as "csr" })).code).toBe("USAGE");
    expect((await refused({ model, group: 1 })).code).toBe("USAGE");
    const { output } = await compiled(await pruned("llama", "2:4"), {});
    expect((await refused({ model: output })).code).toBe("CHECKPOINT_NOT_FOUND");
  });
});

describe("an output folder that is there", () => {
  test("is kept, or replaced where that is asked for", async () => {
    const model = await pruned("llama", "2:4");
    const output = workshop.folder();
    writeFileSync(join(output, "notes.txt"), "mine");
    for (const force of [false, true]) {
      const error = await rejectionOf(compile({ model, output, force }));
      expect(error.code).toBe("OUTPUT_EXISTS");
      expect(readdirSync(output)).toEqual(["notes.txt"]);
    }
    writeFileSync(join(output, "config.json"), "{}");
    await compile({ model, output, force: true });
    expect(readdirSync(output).sort()).toEqual([
      "config.json",
      "espalier.json",
      "generation_config.json",
      "onnx",
    ]);
    expect((await rejectionOf(compile({ model, output }))).code).toBe("OUTPUT_EXISTS");
    await compile({ model, output, force: true });
  });

  test("is never the folder that is read", async () => {
    const model = workshop.copy("llama");
    const before = filesOf(model);
    for (const output of [model, join(model, "onnx"), join(model, "..")]) {
      const error = await rejectionOf(compile({ model, output, force: true }));
      expect(error.code).toBe("OUTPUT_EXISTS");
      expect(error.message).toContain("in one another");
    }
    expect(filesOf(model)).toEqual(before);

    const { output } = await compiled(model, {});
    const after = filesOf(output);
    const error = await rejectionOf(expand({ model: output, output, force: true }));
    expect(error.message).toContain("in one another");
    expect(filesOf(output)).toEqual(after);
  });
});

describe("work that is stopped in the middle", () => {
  for (const phase of ["pack linears", "pack embeddings"]) {
    test(`leaves nothing: ${phase}`, async () => {
      const place = workshop.folder();
      const stop = new AbortController();
      let unfinished = false;
      const error = await rejectionOf(
        compile({ model: await pruned("llama", "2:4"), output: join(place, "new", "out") }, {
          signal: stop.signal,
          onProgress: (event) => {
            if (event.type !== "progress" || event.phase !== phase || event.done < 1) return;
            unfinished = readdirSync(join(place, "new")).length === 1;
            stop.abort();
          },
        }),
      );
      expect(error.code).toBe("ABORTED");
      expect(unfinished).toBe(true);
      expect(readdirSync(place)).toEqual([]);
    });
  }

  test("leaves nothing of a checkpoint that is expanded, either", async () => {
    const { output: model } = await compiled(await pruned("llama", "2:4"), {});
    const place = workshop.folder();
    const stop = new AbortController();
    const error = await rejectionOf(
      expand({ model, output: join(place, "out") }, {
        signal: stop.signal,
        onProgress: (event) => {
          if (event.type === "progress" && event.done === 3) stop.abort();
        },
      }),
    );
    expect(error.code).toBe("ABORTED");
    expect(readdirSync(place)).toEqual([]);
  });
});

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
    ["opt-post-norm", 0.7, { format: "bitmap", values: "f16" }, "f16"],
    ["opt", "8:16", { format: "dense", values: "f16" }, "f16"],
    ["qwen2", 0.7, { format: "bitmap", values: "f32" }, "bf16"],
    ["mistral-sliding", "8:16", { format: "nm", values: "f32" }, "bf16"],
    ["llama-rope-scaled", 0.7, { format: "csr", values: "f32" }, "bf16"],
    ["qwen3", "2:4", { format: "nm", values: "f32" }, "f32"],
    ["llama-bias-linear-rope", 0.7, { format: "csr", values: "f32" }, "f32"],
  ];
  for (const [model, pattern, how, dtype] of cases) {
    test(`is the pruned checkpoint, bit by bit: ${model}, ${JSON.stringify(how)}`, async () => {
      const source = await pruned(model, pattern);
      const { output } = await compiled(source, how);
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

  test("keeps its zeros, and is near the rest, when values were rounded to int8", async () => {
    const source = await pruned("qwen3", 0.7);
    const [byRow, byGroup] = [await compiled(source, {}), await compiled(source, { group: 16 })];
    const original = Checkpoint.open(source);
    const error = new Map<string, number>();
    for (const { output } of [byRow, byGroup]) {
      const dense = workshop.fresh("expanded");
      await expand({ model: output, output: dense });
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

  test("takes another type where that is asked for, and carries the tokenizer", async () => {
    const { output } = await compiled(await pruned("tiny", "2:4"), { values: "f16" });
    const dense = workshop.fresh("expanded");
    const report = await expand({ model: output, output: dense, dtype: "bf16" });
    expect(report.dtype).toBe("bf16");
    expect(inspect({ model: dense }).blocks[0].linears[0].dtype).toBe("BF16");
    expect(readdirSync(dense).sort()).toEqual(
      [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
      ].concat(existsSync(join(output, "LICENSE")) ? ["LICENSE"] : []).sort(),
    );
  });

  test("can be pruned and compiled again, to the same bytes", async () => {
    const { output } = await compiled(await pruned("llama", "2:4"), { values: "f16" });
    const dense = workshop.fresh("expanded");
    await expand({ model: output, output: dense });
    const again = await compiled(dense, { values: "f16" });
    for (const file of ["onnx/model.onnx", "onnx/model.onnx_data"]) {
      expect(filesOf(again.output).get(file)).toBe(filesOf(output).get(file));
    }
  });

  test("must be a compiled model", async () => {
    const place = workshop.folder();
    for (const model of [sourceOf("llama"), join(place, "nowhere")]) {
      const error = await rejectionOf(expand({ model, output: join(place, "out") }));
      expect(error.code).toBe("CHECKPOINT_NOT_FOUND");
    }
    const { output } = await compiled(await pruned("llama", "2:4"), {});
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

describe("a compiled model that is read back", () => {
  test("has the linears that were packed, with shape, format and bytes", async () => {
    const report = await compiled(await pruned("qwen2", "8:16"), { values: "int8", group: 16 });
    const model = CompiledModel.open(report.output);
    try {
      expect(model.dtype).toBe("bf16");
      expect(
        model.linears().map(({ rows, columns, ...linear }) => ({
          shape: [rows, columns],
          ...linear,
        })),
      )
        .toEqual(
          report.linears.map(({ name, shape, format, pattern, values, bytes }) => ({
            name: name.replace(/\.weight$/, ""),
            shape: [...shape],
            format: format as "nm",
            pattern,
            values: values as "int8",
            bytes,
          })),
        );
      expect(() => model.plain("nothing")).toThrow('there is no tensor "nothing"');
    } finally {
      model.close();
    }
  });
});
