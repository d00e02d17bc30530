/**
 * Granite: Llama with factors of its embedding, its residual stream, its attention and its logits. Granite 4 without
 * state-space layers and experts (350M, 1B, Micro): the same, whose gate and up are one matrix. And Granite with sliding
 * windows: the same with a sink for each head.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import {
  type GraniteConfig,
  graniteConfig,
  graniteHybridConfig,
  graniteSwaConfig,
  parseConfig,
  type RotaryDecoderConfig,
  withOtherNames,
} from "../config.ts";
import { attentionBiases, type Differences, rotaryDecoder } from "./llama.ts";
import { ropeOf, rotaryOf } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { windowsOf } from "./windows.ts";

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

/** The window of models whose config names none, and how many layers have one for each that sees everything. */
const USUAL = { window: 128, period: 4 };

/**
 * The decoder that a `config.json` with `model_type` `granite_swa` describes.
 *
 * @throws {ConfigError} When `layer_rope_theta` is not that of every layer.
 */
export function graniteSwa(json: unknown): DecoderSpec {
  const config = parseConfig(graniteSwaConfig, json);
  const { num_hidden_layers: layers, layer_rope_theta: thetas } = config;
  if (thetas && thetas.length !== layers) {
    throw new ConfigError(
      `config.json: layer_rope_theta names ${thetas.length} layers, num_hidden_layers ${layers}`,
    );
  }
  const { sliding_window: window = USUAL.window } = config;
  const windows = windowsOf(
    { ...config, sliding_window: window },
    (layer) => layer % USUAL.period !== 0,
  );
  const decoder = rotaryDecoder(config, {
    ...factorsOf(config),
    mlpBias: config.mlp_bias ?? false,
    window: windows,
    ...(thetas ? { rotary: (headDim) => rotaryByLayer(config, headDim, thetas) } : {}),
  });
  return { ...decoder, attention: { ...decoder.attention, sinks: "sinks" } };
}

/** How layers turn, each by a base of its own, or not at all; those of the same base turn alike. */
function rotaryByLayer(
  config: RotaryDecoderConfig,
  headDim: number,
  thetas: readonly number[],
): DecoderSpec["rotary"] {
  const turning = [...new Set(thetas)].filter((theta) => theta !== 0);
  const rotaries = new Map(turning.map((theta) => {
    const settings = { ...ropeOf(config), rope_theta: theta };
    return [theta, rotaryOf({ ...config, rope_scaling: settings }, headDim)];
  }));
  return (layer) => rotaries.get(thetas[layer]);
}

/** What all have that Llama has not. */
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
