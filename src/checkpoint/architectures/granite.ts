/** Granite: Llama with factors of its embedding, its residual stream, its attention and its logits. @module */
import { graniteConfig, parseConfig } from "../config.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

/** The decoder that a `config.json` with `model_type` `granite` describes. */
export function granite(json: unknown): DecoderSpec {
  const config = parseConfig(graniteConfig, json);
  return rotaryDecoder(config, {
    ...attentionBiases(config),
    mlpBias: config.mlp_bias ?? false,
    attentionScale: config.attention_multiplier,
    scales: {
      embedding: config.embedding_multiplier,
      residual: config.residual_multiplier,
      logits: 1 / config.logits_scaling,
    },
  });
}
