/**
 * StableLM 2 and 3B: Llama with layer norms, of whose heads a quarter is turned, and, where its config says so, with
 * biases on queries, keys and values.
 * @module
 */
import { z } from "zod";
import { ConfigError } from "../../errors.ts";
import { dimension, parseConfig, rotaryDecoderConfig } from "../config.ts";
import { rotaryDecoder } from "./llama.ts";
import { rotaryOfPart } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";

/** What configs call the two things that StableLM 2 12B has and its smaller ones have not. */
const UNSUPPORTED = ["qk_layernorm", "use_parallel_residual"] as const;

const stablelmConfig = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.default(32),
  layer_norm_eps: z.number().positive().max(1).default(1e-5),
  partial_rotary_factor: z.number().positive().max(1).default(0.25),
  use_qkv_bias: z.boolean().default(false),
  qk_layernorm: z.boolean().nullish(),
  use_parallel_residual: z.boolean().nullish(),
});

/**
 * The decoder that a `config.json` with `model_type` `stablelm` describes.
 *
 * @throws {ConfigError} When heads have norms of their own, or attention and MLP stand side by side.
 */
export function stablelm(json: unknown): DecoderSpec {
  const config = parseConfig(stablelmConfig, json);
  const found = UNSUPPORTED.find((field) => config[field]);
  if (found) {
    throw new ConfigError(
      `config.json: ${found} is set, as in StableLM 2 12B: models without are supported`,
    );
  }
  return rotaryDecoder({ ...config, head_dim: undefined }, {
    inputBias: config.use_qkv_bias,
    norms: { kind: "layer", epsilon: config.layer_norm_eps },
    rotary(headDim) {
      const rotary = rotaryOfPart(config, headDim);
      return () => rotary;
    },
  });
}
