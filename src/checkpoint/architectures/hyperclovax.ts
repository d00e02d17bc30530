/**
 * HyperCLOVA X SEED Think: Granite, whose logits are multiplied where Granite's are divided, and whose attention and MLP
 * are normed behind, too.
 * @module
 */
import { z } from "zod";
import { graniteConfig, parseConfig } from "../config.ts";
import { factorsOf } from "./granite.ts";
import { rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

const hyperclovaxConfig = graniteConfig.extend({
  /** 1 over the root of a head's elements where there is none. */
  attention_multiplier: graniteConfig.shape.attention_multiplier.unwrap().nullish(),
  use_post_norm: z.boolean().default(true),
});

/** The decoder that a `config.json` with `model_type` `hyperclovax` describes. */
export function hyperclovax(json: unknown): DecoderSpec {
  const config = parseConfig(hyperclovaxConfig, json);
  const headDim = config.head_dim ?? config.hidden_size / config.num_attention_heads;
  const attention_multiplier = config.attention_multiplier ?? headDim ** -0.5;
  const { scales, ...factors } = factorsOf({ ...config, attention_multiplier });
  const after = (name: string) => config.use_post_norm ? name : undefined;
  return rotaryDecoder(config, {
    ...factors,
    scales: { ...scales, logits: config.logits_scaling },
    mlpBias: config.mlp_bias ?? false,
    norms: {
      attention: { before: "input_layernorm", after: after("post_norm1") },
      mlp: { before: "post_attention_layernorm", after: after("post_norm2") },
    },
  });
}
