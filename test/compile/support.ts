/**
 * What the tests of compiled models share: pruned and compiled checkpoints, and running them.
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { expect } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile, type CompileReport } from "../../compile/compile.ts";
import { expand } from "../../compile/expand.ts";
import type { CompileOptions } from "../../compile/options.ts";
import { prune } from "../../src/api/prune.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import type { DecoderSpec } from "../../src/checkpoint/architectures/spec.ts";
import {
  type Backend,
  openBackend,
  type Session,
  type Tensor,
} from "../../src/engine/ort/backend.ts";
import { type ModelProto, NodeProtoSchema } from "../../src/onnx/generated/onnx_pb.ts";
import { modelBytes, readModel } from "../../src/onnx/model_file.ts";
import { editSafetensors, readJsonOf, Workshop } from "../checkpoint/support.ts";
import { FAST, forward, load } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";

/** Where the fixtures of architectures are. */
export const ROOT = "test/fixtures/architectures";
/** A limit for tests of many models; Bun's own is 5 s. */
export const LONG = 120_000;
/** More than the window of 8 tokens that some of the models slide. */
export const TOKENS = Array.from({ length: 20 }, (_, i) => 3 + (i * 37) % 300);
/** The patterns that models are pruned to here: N:M, or a sparsity. */
export const PATTERNS = ["2:4", "8:16", 0.7] as const;

/** Where compiled models run in tests. */
export type BackendName = "node" | "wasm";
/** What compile is told beside the folders. */
export type How = Omit<CompileOptions, "model" | "output">;
/** Formats that linears are packed in. */
export type Format = "nm" | "csr" | "bitmap" | "slots" | "dense";

/** The formats that fit what a pattern leaves. */
export function formatsFor(pattern: string | number): Format[] {
  return typeof pattern === "string" && pattern !== "slots"
    ? ["nm", "csr", "bitmap", "slots", "dense"]
    : ["csr", "bitmap", "slots", "dense"];
}

/** The folder of a model by its name: the example, `tiny`, or a fixture. */
export function sourceOf(model: string): string {
  return fromRoot(model === "tiny" ? "examples/tiny" : `${ROOT}/${model}`);
}

/** The decoder that a folder's `config.json` describes. */
export function specOf(folder: string): DecoderSpec {
  return describeModel(readJsonOf(folder, "config.json"));
}

/** The graph of a compiled model. */
export function modelOf(folder: string): ModelProto {
  return readModel(join(folder, "onnx", "model.onnx"));
}

/** Has the logits of a compiled model pass through an operator that no decoder has. */
export function addUnknownOperator(folder: string): void {
  const model = modelOf(folder);
  const { node } = model.graph!;
  node.find(({ output }) => output[0] === "logits")!.output[0] = "before";
  node.push(create(NodeProtoSchema, { opType: "Elu", input: ["before"], output: ["logits"] }));
  writeFileSync(join(folder, "onnx", "model.onnx"), modelBytes(model));
}

/** A workshop in which models are pruned, compiled and expanded. */
export class CompileWorkshop extends Workshop {
  readonly #pruned = new Map<string, Promise<string>>();

  /** The folder of a model pruned by magnitude, made once: do not change it. */
  pruned(model: string, pattern: string | number): Promise<string> {
    const key = `${model} ${pattern}`;
    const made = this.#pruned.get(key) ?? this.#prune(key, model, pattern);
    this.#pruned.set(key, made);
    return made;
  }

  async #prune(key: string, model: string, pattern: string | number): Promise<string> {
    const output = join(this.path, key.replaceAll(/[ :.]/g, "-"));
    const how = typeof pattern === "number" ? { sparsity: pattern } : { pattern };
    const uniform = { method: "magnitude", allocation: "uniform" } as const;
    await prune({ model: sourceOf(model), output, ...uniform, ...how });
    return output;
  }

  /** A checkpoint in bfloat16 with one weight, 999,424, that float16 cannot hold. */
  withLargeWeight(): string {
    const model = this.copy("qwen2");
    editSafetensors(model, "model.safetensors", (header, data) => {
      const [start] = header["model.embed_tokens.weight"].data_offsets as number[];
      data.set([0x74, 0x49], start + 10);
    });
    return model;
  }

  /** Compiles a checkpoint into a new folder. */
  compile(model: string, how: How): Promise<CompileReport> {
    return compile({ model, output: this.fresh("compiled"), ...how });
  }

  /** Expands a compiled model into a new folder; returns that. */
  async expand(model: string, dtype?: "f32" | "f16" | "bf16"): Promise<string> {
    const output = this.fresh("expanded");
    await expand({ model, output, dtype });
    return output;
  }
}

const backends = new Map<BackendName, Promise<Backend>>();

function backendOf(name: BackendName): Promise<Backend> {
  const opened = backends.get(name) ?? openBackend(name, 1);
  backends.set(name, opened);
  return opened;
}

/** The logits that the graph of calibration gives for a checkpoint. */
export async function checkpointLogits(folder: string): Promise<Float32Array> {
  const loaded = await load(folder, await backendOf(FAST));
  try {
    return await forward(loaded.model, TOKENS);
  } finally {
    await loaded.close();
  }
}

/** A compiled model that runs, and the cache that its last run left. */
export class Running {
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
    for (const { past, present, dims } of cacheOf(spec)) {
      const empty = dims(batch, 0);
      feeds[past] = this.#past?.[present] ??
        backend.floats(new Float32Array(empty.reduce((a, b) => a * b, 1)), empty);
    }
    const outputs = await this.session.run(feeds);
    for (const { present, dims } of cacheOf(spec)) {
      expect([...outputs[present].dims]).toEqual(dims(batch, total));
    }
    this.#past = outputs;
    this.#length = total;
    return outputs.logits.data as Float32Array;
  }

  async close(): Promise<void> {
    await this.session.release();
  }
}

/** What a compiled model reads of its cache, what it gives for the next run, and their dimensions. */
export function cacheOf(spec: DecoderSpec) {
  const { layers, hidden, convolutions, recurrent, attention } = spec;
  const part = (past: string, present: string, fixed: number[]) => ({
    past,
    present,
    dims: <T>(batch: T, _length: T): (number | T)[] => [batch, ...fixed],
  });
  return Array.from({ length: layers }, (_, i) => {
    const convolves = (channels: number, length: number) =>
      part(`past_conv.${i}`, `present_conv.${i}`, [channels, length]);
    if (convolutions?.isIn(i)) return [convolves(hidden, convolutions.length)];
    if (recurrent?.isIn(i)) {
      const { keyHeads, valueHeads, keyDim, valueDim, length } = recurrent;
      const state = [valueHeads, keyDim, valueDim];
      const name = recurrent.kind === "state space" ? "ssm" : "recurrent";
      return [
        convolves(2 * keyHeads * keyDim + valueHeads * valueDim, length),
        part(`past_${name}.${i}`, `present_${name}.${i}`, state),
      ];
    }
    if (attention.keysOf?.(i) !== undefined) return [];
    const { keyValueHeads, headDim } = attention.headsIn?.(i) ?? spec;
    return ["key", "value"].map((name) => ({
      past: `past_key_values.${i}.${name}`,
      present: `present.${i}.${name}`,
      dims: <T>(batch: T, length: T): (number | T)[] => [batch, keyValueHeads, length, headDim],
    }));
  }).flat();
}

/** The logits of a compiled model with an empty cache. */
export async function compiledLogits(
  folder: string,
  backend: BackendName = FAST,
): Promise<Float32Array> {
  const running = await Running.open(folder, backend);
  try {
    return await running.step(TOKENS);
  } finally {
    await running.close();
  }
}

/** The largest difference of two logits over the largest logit. */
export function distance(found: Float32Array, expected: Float32Array): number {
  expect(found.length).toBe(expected.length);
  let largest = 0;
  let top = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(found[i] - expected[i]);
    largest = Math.max(largest, Number.isNaN(difference) ? Infinity : difference);
    top = Math.max(top, Math.abs(expected[i]));
  }
  return largest / top;
}

/** Changes one bit in the middle of a file; a second time it is what it was. */
export function flipBit(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(path, bytes);
}

/** Takes the hashes out of a compiled model's record, so that its files can be changed. */
export function forgetHashes(folder: string): void {
  const path = join(folder, "espalier.json");
  const { files: _, ...record } = JSON.parse(readFileSync(path, "utf8"));
  writeFileSync(path, JSON.stringify(record));
}
