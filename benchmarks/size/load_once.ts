/**
 * Loads one compiled model in stock ONNX Runtime, generates a few tokens, and prints what that took as
 * one JSON object. A program of its own, so that each model has a process for itself.
 *
 *     load_once.ts node|wasm COMPILED_DIR THREADS TOKENS
 *
 * @module
 */
import type * as Ort from "onnxruntime-common";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";
import { median } from "../support/print.ts";

/** Tokens of the prompt. */
const PROMPT = 16;
/** Tokens that are generated before those that are timed: V8 compiles WebAssembly better as it runs. */
const WARM = 32;

/** What is printed. */
export interface Loaded {
  readonly product: string;
  /** Reading the files, optimizing, making the session. */
  readonly loadSeconds: number;
  /** Largest resident memory until the model was loaded; undefined where there is no /proc. */
  readonly loadPeakBytes?: number;
  /** Size of the WebAssembly memory, which never shrinks, when the model was loaded. */
  readonly wasmBytes?: number;
  readonly promptSeconds: number;
  /** Single tokens from a cache, by the median of their times. */
  readonly tokensPerSecond: number;
  /** The likeliest token each time. */
  readonly tokens: readonly number[];
}

/** Memories that are made from now on: onnxruntime-web keeps its own to itself. */
function watchMemories(): WebAssembly.Memory[] {
  const seen: WebAssembly.Memory[] = [];
  const Memory = WebAssembly.Memory;
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      seen.push(this);
    }
  };
  return seen;
}

function peak(): number | undefined {
  try {
    const found = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
    return found ? Number(found[1]) * 1024 : undefined;
  } catch {
    return undefined;
  }
}

/** Opens a model file as the documentation of each build says. */
async function open(engine: string, path: string, threads: number) {
  const common: Ort.InferenceSession.SessionOptions = {
    intraOpNumThreads: threads,
    logSeverityLevel: 3,
  };
  if (engine === "node") {
    const ort: typeof Ort = createRequire(import.meta.url)("onnxruntime-node");
    const session = await ort.InferenceSession.create(path, common);
    return { ort, session, product: `onnxruntime-node ${ort.env.versions.node}` };
  }
  const ort: typeof Ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(readFileSync(path), {
    ...common,
    executionProviders: ["wasm"],
    externalData: [{ path: "model.onnx_data", data: readFileSync(`${path}_data`) }],
  });
  return { ort, session, product: `onnxruntime-web ${ort.env.versions.web}` };
}

/** Runs tokens through a model that is loaded, one step at a time. */
function stepper(ort: typeof Ort, session: Ort.InferenceSession) {
  const int64 = (values: number[]) =>
    new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  const cache: Record<string, Ort.Tensor> = {};
  for (const input of session.inputMetadata) {
    if (!input.isTensor || !input.name.startsWith("past_key_values.")) continue;
    const [, heads, , width] = input.shape as number[];
    cache[input.name] = new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, width]);
  }
  let seen = 0;
  return async (given: number[]): Promise<number> => {
    const total = seen + given.length;
    const outputs = await session.run({
      input_ids: int64(given),
      attention_mask: int64(new Array(total).fill(1)),
      position_ids: int64(given.map((_, i) => seen + i)),
      ...cache,
    });
    for (const name of Object.keys(cache)) {
      cache[name] = outputs[name.replace("past_key_values", "present")];
    }
    seen = total;
    const data = outputs.logits.data as Float32Array;
    const last = data.subarray(data.length - outputs.logits.dims[2]);
    return last.reduce((best, logit, i) => logit > last[best] ? i : best, 0);
  };
}

const [engine, folder, threads, count] = process.argv.slice(2);
const memories = watchMemories();
const start = performance.now();
const { ort, session, product } = await open(
  engine,
  join(folder, "onnx", "model.onnx"),
  Number(threads),
);
const loaded = performance.now();
const loadPeakBytes = peak();
const wasmBytes = engine === "wasm"
  ? Math.max(...memories.map(({ buffer }) => buffer.byteLength))
  : undefined;
const step = stepper(ort, session);
const tokens = [await step(Array.from({ length: PROMPT }, (_, i) => i + 1))];
const promptSeconds = (performance.now() - loaded) / 1000;
const times: number[] = [];
for (let i = 0; i < WARM + Number(count); i++) {
  const from = performance.now();
  tokens.push(await step([tokens[i]]));
  times.push(performance.now() - from);
}
const result: Loaded = {
  product,
  loadSeconds: (loaded - start) / 1000,
  loadPeakBytes,
  wasmBytes,
  promptSeconds,
  tokensPerSecond: 1000 / median(times.slice(WARM)),
  tokens,
};
console.log(JSON.stringify(result));
process.exit();
