/** The architectures that Espalier reads, by the `model_type` of `config.json`. @module */
import { quote } from "../../checks.ts";
import { ArchitectureError, ConfigError } from "../../errors.ts";
import type { GraphProto } from "../../onnx/generated/onnx_pb.ts";
import type { Checkpoint } from "../checkpoint.ts";
import { arcee } from "./arcee.ts";
import { WindowAttention } from "./attention.ts";
import { cohere, cohere2 } from "./cohere.ts";
import { buildDecoder } from "./decoder.ts";
import { ernie45 } from "./ernie4_5.ts";
import { exaone } from "./exaone.ts";
import { exaone4 } from "./exaone4.ts";
import { gemma, gemma2, gemma3, gemma3OfImages, vaultGemma } from "./gemma.ts";
import { gemma4, gemma4OfImages } from "./gemma4.ts";
import { gpt2, gptBigcode } from "./gpt2.ts";
import { gptj } from "./gptj.ts";
import { gptNeo } from "./gpt_neo.ts";
import { gptNeox } from "./gpt_neox.ts";
import { glm, glm4 } from "./glm.ts";
import { granite, graniteHybrid, graniteSwa } from "./granite.ts";
import { helium } from "./helium.ts";
import { hunyuan } from "./hunyuan.ts";
import { hyperclovax } from "./hyperclovax.ts";
import { internlm3 } from "./internlm3.ts";
import { jais2 } from "./jais2.ts";
import { lfm2, lfm3 } from "./lfm.ts";
import { llama } from "./llama.ts";
import { ministral3, mistral, mistralOfImages } from "./mistral.ts";
import { nanochat } from "./nanochat.ts";
import { nemotron } from "./nemotron.ts";
import { olmo, olmo2, olmo3 } from "./olmo.ts";
import { opt } from "./opt.ts";
import { withOwnHead } from "./own_head.ts";
import { withOwnRoot } from "./own_root.ts";
import { phi } from "./phi.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";
import { qwen35, qwen35OfImages } from "./qwen3_5.ts";
import { smollm3 } from "./smollm3.ts";
import type { DecoderSpec } from "./spec.ts";
import { stablelm } from "./stablelm.ts";
import { starcoder2 } from "./starcoder2.ts";
import { CheckpointWeights } from "./weights.ts";

const ARCHITECTURES = new Map<string, (config: unknown) => DecoderSpec>([
  ["arcee", arcee],
  ["cohere", cohere],
  ["cohere2", cohere2],
  ["ernie4_5", ernie45],
  ["exaone", exaone],
  ["exaone4", exaone4],
  ["gemma", gemma],
  ["gemma2", gemma2],
  ["gemma3", gemma3OfImages],
  ["gemma3_text", gemma3],
  ["gemma4", gemma4OfImages],
  ["gemma4_text", gemma4],
  ["glm", glm],
  ["glm4", glm4],
  ["gpt2", gpt2],
  ["gpt_bigcode", gptBigcode],
  ["gpt_neo", gptNeo],
  ["gpt_neox", gptNeox],
  ["gptj", gptj],
  ["granite", granite],
  ["granite_swa", graniteSwa],
  ["granitemoehybrid", graniteHybrid],
  ["helium", helium],
  ["hunyuan_v1_dense", hunyuan],
  ["hyperclovax", hyperclovax],
  ["internlm3", internlm3],
  ["jais2", jais2],
  ["lfm2", lfm2],
  ["lfm3", lfm3],
  ["llama", llama],
  // What transformers makes of a Mistral with `layer_types` when it saves it.
  ["ministral", mistral],
  ["ministral3", ministral3],
  ["mistral", mistral],
  ["mistral3", mistralOfImages],
  ["nanochat", nanochat],
  ["nemotron", nemotron],
  ["olmo", olmo],
  ["olmo2", olmo2],
  ["olmo3", olmo3],
  ["opt", opt],
  ["phi", phi],
  ["phi3", phi3],
  ["qwen2", qwen2],
  ["qwen3", qwen3],
  ["qwen3_5", qwen35OfImages],
  ["qwen3_5_text", qwen35],
  ["smollm3", smollm3],
  ["stablelm", stablelm],
  ["starcoder2", starcoder2],
  ["vaultgemma", vaultGemma],
]);

/** Every supported `model_type`, sorted. */
export const SUPPORTED = [...ARCHITECTURES.keys()].sort();

/**
 * Describes the decoder of a checkpoint: by its config, and by its files where those hold a head that the config
 * does not know of, or have other names for a decoder inside of a larger model.
 *
 * @throws {ArchitectureError} For a `model_type` that is not supported.
 * @throws {ConfigError} When the config does not describe such a decoder.
 */
export function decoderOf(checkpoint: Checkpoint): DecoderSpec {
  return withOwnHead(checkpoint, withOwnRoot(checkpoint, describe(checkpoint.config)));
}

/**
 * Describes a decoder by the `model_type` of its config: never by its path.
 *
 * @throws {ArchitectureError} For a `model_type` that is not supported.
 * @throws {ConfigError} When the config does not describe such a decoder.
 */
export function describe(config: Record<string, unknown>): DecoderSpec {
  const type = config.model_type;
  if (typeof type !== "string") throw new ConfigError("config.json: model_type is missing");
  if (config.quantization_config) {
    throw new ConfigError(
      "config.json: the checkpoint is quantized; prune the unquantized weights",
    );
  }
  for (const part of [config, config.text_config]) refuseBothDirections(part);
  const architecture = ARCHITECTURES.get(type);
  if (!architecture) {
    throw new ArchitectureError(
      `model_type ${quote(type)} is not supported; these are: ${SUPPORTED.join(", ")}`,
    );
  }
  return withinAngles(architecture(config));
}

/** Embedding models made of decoders read texts in both directions: they write none. */
function refuseBothDirections(config: unknown): void {
  const { is_causal: isCausal = true } = (config ?? {}) as { is_causal?: unknown };
  if (isCausal === true) return;
  throw new ConfigError("config.json: is_causal is false: the model reads texts and writes none");
}

/** The decoder with a context that ends where sequences would be turned by other angles. */
function withinAngles(spec: DecoderSpec): DecoderSpec {
  const ends = Array.from({ length: spec.layers }, (_, layer) => spec.rotary(layer)?.positions);
  return { ...spec, context: Math.min(spec.context, ...ends.filter((end) => end !== undefined)) };
}

/**
 * Builds the ONNX graph of a checkpoint for whole windows, as calibration and evaluation run it.
 *
 * @param checkpoint An open checkpoint; its tensors are referred to, not read.
 * @param spec Its decoder.
 * @param length The longest window that will be run.
 * @throws {TensorMissingError} When the checkpoint lacks a tensor.
 * @throws {TensorShapeError} When a tensor's shape does not fit the spec.
 * @throws {TensorTypeError} When a tensor is not stored as float32, float16 or bfloat16.
 */
export function buildGraph(
  checkpoint: { readonly tensors: Checkpoint["tensors"] },
  spec: DecoderSpec,
  length: number,
): GraphProto {
  return buildDecoder(spec, new CheckpointWeights(checkpoint.tensors), new WindowAttention(length));
}
