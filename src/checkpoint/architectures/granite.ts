/**
 * Granite: Llama with factors of its embedding, its residual stream, its attention and its logits. Granite 4 without
 * state-space layers and experts (350M, 1B, Micro): the same, whose gate and up are one matrix.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import {
  type GraniteConfig,
  graniteConfig,
  graniteHybridConfig,
  parseConfig,
  withOtherNames,
} from "../config.ts";
import { attentionBiases, type Differences, rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

/** The decoder that a `config.json` with `model_type` `granite` describes. */
export function granite(json: unknown): DecoderSpec {
  const config = parseConfig(graniteConfig, json);
  return rotaryDecoder(config, { ...factorsOf(config), mlpBias: config.mlp_bias ?? false });
}

/**
 * The decoder that a `config.json` with `model_type` `granitemoehybrid` describes.
 *
 * @throws {ConfigError} When it has experts, or layers other than those of attention.
 */
export function graniteHybrid(json: unknown): DecoderSpec {
  const config = parseConfig(
    graniteHybridConfig,
    withOtherNames(json, { layers_block_type: "layer_types" }),
  );
  const { num_hidden_layers: layers, layer_types: kinds, num_local_experts: experts } = config;
  if (experts > 0) {
    throw new ConfigError(
      `config.json: num_local_experts ${experts}: mixtures of experts are not supported; ` +
        "of Granite 4, those without are: 350M, 1B and Micro",
    );
  }
  const other = Array.from({ length: layers }, (_, layer) => kinds?.[layer] ?? "mamba")
    .find((kind) => kind !== "attention" && kind !== "full_attention");
  if (other !== undefined) {
    throw new ConfigError(
      `config.json: layer_types: layers of kind ${JSON.stringify(other)} are not supported; ` +
        "of Granite 4, those of attention alone are: 350M, 1B and Micro, not those named H",
    );
  }
  const decoder = rotaryDecoder(
    { ...config, intermediate_size: config.shared_intermediate_size },
    {
      ...factorsOf(config),
      ...(config.position_embedding_type === "rope" ? {} : { rotary: () => () => undefined }),
    },
  );
  return {
    ...decoder,
    mlp: {
      ...decoder.mlp,
      fused: "shared_mlp.input_linear",
      down: "shared_mlp.output_linear",
    },
  };
}

/** What both have that Llama has not. */
export function factorsOf(config: GraniteConfig): Differences {
  return {
    ...attentionBiases(config),
    attentionScale: config.attention_multiplier,
    scales: {
      embedding: config.embedding_multiplier,
      residual: config.residual_multiplier,
      logits: 1 / config.logits_scaling,
    },
  };
}
