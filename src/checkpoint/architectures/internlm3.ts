/** InternLM 3: Llama with other names for which linears have biases. @module */
import { z } from "zod";
import { ConfigError } from "../../errors.ts";
import { dimension, parseConfig, rotaryDecoderConfig, withOtherNames } from "../config.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

const internlm3Config = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.nullable().default(2),
  head_dim: dimension.nullable().default(128),
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
});

/** What its settings are called. */
const OTHER_NAMES = { qkv_bias: "attention_bias", bias: "mlp_bias" };

/**
 * The decoder that a `config.json` with `model_type` `internlm3` describes.
 *
 * @throws {ConfigError} When some of its linears have biases and others have none.
 */
export function internlm3(json: unknown): DecoderSpec {
  const config = parseConfig(internlm3Config, withOtherNames(json, OTHER_NAMES));
  const mlpBias = config.mlp_bias ?? false;
  if ((config.attention_bias ?? false) !== mlpBias) {
    throw new ConfigError(
      "config.json: qkv_bias that differs from bias is not supported: no published InternLM 3 has it",
    );
  }
  return rotaryDecoder(config, { ...attentionBiases(config), mlpBias });
}
