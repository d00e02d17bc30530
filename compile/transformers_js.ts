/**
 * What transformers.js has to be told of a compiled model, and which models it does not load.
 * @module
 */
import type { DecoderSpec } from "../src/checkpoint/architectures/spec.ts";

/**
 * Types of models that transformers.js 4.3 does not know, or whose caches it names otherwise. All other supported types
 * were tried there, and wrote what Python's transformers writes.
 */
const UNKNOWN: ReadonlySet<unknown> = new Set([
  "exaone4",
  "gemma4",
  "gemma4_text",
  "glm4",
  "gpt_bigcode",
  "granite_swa",
  "hyperclovax",
  "internlm3",
  "jais2",
  "lfm3",
  "mistral3",
  "nemotron",
  "qwen3_5",
  "qwen3_5_text",
]);

/** What it calls the layers of Granite 4; transformers 5 writes other names. */
const GRANITE_LAYERS: readonly unknown[] = ["attention", "mamba"];

/** A word on a model that transformers.js does not load, by its config; nothing where it does. */
export function unknownToTransformersJs(
  { model_type: type, layer_types: kinds }: {
    readonly model_type?: unknown;
    readonly layer_types?: unknown;
  },
): string | undefined {
  const isRenamed = type === "granitemoehybrid" && Array.isArray(kinds) &&
    kinds.some((kind) => !GRANITE_LAYERS.includes(kind));
  if (isRenamed) {
    return "transformers.js knows the layers of this model as attention and mamba, and layer_types in its config " +
      "names them otherwise, as transformers 5 does: our own engine runs it, and ONNX Runtime";
  }
  if (!UNKNOWN.has(type)) return undefined;
  return `transformers.js does not load models of type ${type}: our own engine runs it, and ONNX Runtime`;
}

/**
 * What transformers.js needs of a config and it lacks: which layers convolve, which is known there by `layer_types`
 * alone; the makers of LFM 2 say it otherwise.
 */
export function missingInConfig(
  config: Record<string, unknown>,
  { layers, convolutions, attention }: DecoderSpec,
): Record<string, unknown> {
  if (!convolutions || config.layer_types) return {};
  const kind = (layer: number) => {
    if (convolutions.isIn(layer)) return "conv";
    return attention.window(layer) === undefined ? "full_attention" : "sliding_attention";
  };
  return { layer_types: Array.from({ length: layers }, (_, layer) => kind(layer)) };
}

/** The config of a compiled model, with how transformers.js is to load it: without a suffix, and one data file. */
export function configForTransformersJs(
  config: Record<string, unknown>,
  missing: Record<string, unknown>,
): Record<string, unknown> {
  return {
    ...config,
    ...missing,
    "transformers.js_config": {
      dtype: "fp32",
      use_external_data_format: { "model.onnx": 1 },
    },
  };
}
