/**
 * Hunyuan, the dense models of 2025: Llama with an RMS norm over each head of queries and keys once they are turned.
 * Long contexts are had by a larger base of rotary frequencies.
 * @module
 */
import { z } from "zod";
import { quote } from "../../checks.ts";
import { ConfigError } from "../../errors.ts";
import { parseConfig, rotaryDecoderConfig } from "../config.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import { ropeOf, ropeTypeOf, rotaryOf } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";

const hunyuanConfig = rotaryDecoderConfig.extend({
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
  use_qk_norm: z.boolean().nullish(),
  use_cla: z.boolean().nullish(),
});

type HunyuanConfig = z.infer<typeof hunyuanConfig>;

/**
 * The decoder that a `config.json` with `model_type` `hunyuan_v1_dense` describes.
 *
 * @throws {ConfigError} When queries and keys have no norms, or layers share keys and values.
 */
export function hunyuan(json: unknown): DecoderSpec {
  const config = parseConfig(hunyuanConfig, json);
  if (config.use_qk_norm === false) {
    throw new ConfigError("config.json: use_qk_norm false is not supported in Hunyuan");
  }
  if (config.use_cla) {
    throw new ConfigError(
      "config.json: use_cla is not supported: each layer has keys and values of its own",
    );
  }
  const decoder = rotaryDecoder(config, {
    ...attentionBiases(config),
    attentionNorm: "turned",
    rotary(headDim) {
      const rotary = rotaryOf(stretched(config, headDim), headDim);
      return () => rotary;
    },
  });
  const normNames = { q: "query_layernorm", k: "key_layernorm" };
  return { ...decoder, attention: { ...decoder.attention, normNames } };
}

/** The config with the base that its `alpha` makes: what is called dynamic there is the same for all lengths. */
function stretched(config: HunyuanConfig, headDim: number): HunyuanConfig {
  const rope = ropeOf(config);
  const { alpha } = rope;
  if (ropeTypeOf(rope) !== "dynamic" || !alpha) return config;
  if (typeof alpha !== "number" || alpha < 0 || headDim < 4) {
    throw new ConfigError(
      `config.json: the rotary settings' alpha ${quote(String(alpha))} stretches no frequencies ` +
        `of heads of ${headDim} elements`,
    );
  }
  const theta = rope.rope_theta ?? config.rope_theta ?? 10_000;
  const rope_theta = theta * alpha ** (headDim / (headDim - 2));
  return {
    ...config,
    rope_scaling: undefined,
    rope_parameters: { rope_type: "default", rope_theta },
  };
}
