/**
 * ONNX Runtime with its own JavaScript interface: onnxruntime-node (variant `node`) or onnxruntime-web
 * in WebAssembly (variant `wasm`).
 *
 * A step is `session.run` and the argmax over its logits. What `run` returns goes back in as the cache:
 * onnxruntime-web copies it out of WebAssembly's memory and in again, which its interface leaves no way
 * around for this provider.
 * @module
 */
import type * as Ort from "onnxruntime-common";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import type { Engine, EngineConfig } from "./engine.ts";
import { engineOfSteps, likeliest, type Steps } from "./steps.ts";

/** Loads a model file. */
export async function open(config: EngineConfig): Promise<Engine> {
  const { ort, session, product } = config.variant === "node"
    ? await openNode(config)
    : await openWasm(config);
  return engineOfSteps(product, () => sequence(ort, session), () => session.release());
}

async function openNode({ model, threads, packages }: EngineConfig) {
  const ort: typeof Ort = createRequire(join(packages!, "package.json"))("onnxruntime-node");
  const session = await ort.InferenceSession.create(model, {
    intraOpNumThreads: threads,
    logSeverityLevel: 3,
  });
  return { ort, session, product: `onnxruntime-node ${ort.env.versions.node}` };
}

async function openWasm({ model, threads }: EngineConfig) {
  const ort: typeof Ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = threads;
  const data = `${model}_data`;
  const session = await ort.InferenceSession.create(readFileSync(model), {
    executionProviders: ["wasm"],
    logSeverityLevel: 3,
    ...existsSync(data)
      ? { externalData: [{ path: basename(data), data: readFileSync(data) }] }
      : {},
  });
  return { ort, session, product: `onnxruntime-web ${ort.env.versions.web}` };
}

function sequence(ort: typeof Ort, session: Ort.InferenceSession): Steps {
  const int64 = (values: readonly number[]) =>
    new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  let cache: Record<string, Ort.Tensor> = {};
  for (const input of session.inputMetadata) {
    if (!input.isTensor || !input.name.startsWith("past_key_values.")) continue;
    const [, heads, , width] = input.shape as number[];
    cache[input.name] = new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, width]);
  }
  const names = Object.keys(cache);
  let seen = 0;
  return {
    async run(tokens) {
      const total = seen + tokens.length;
      const outputs = await session.run({
        input_ids: int64(tokens),
        attention_mask: int64(new Array(total).fill(1)),
        position_ids: int64(tokens.map((_, i) => seen + i)),
        ...cache,
      });
      cache = Object.fromEntries(
        names.map((name) => [name, outputs[name.replace("past_key_values", "present")]]),
      );
      seen = total;
      const logits = outputs.logits.data as Float32Array;
      return likeliest(logits.subarray(logits.length - outputs.logits.dims[2]));
    },
    mark() {
      const kept = { cache, seen };
      return () => ({ cache, seen } = kept);
    },
    close() {
      cache = {};
    },
  };
}
