/**
 * OLMo: Llama with layer norms that have no weights. OLMo 2 and 3: Llama that norms what comes out of attention and
 * MLP instead of what goes in, and queries and keys as a whole. OLMo 3 has sliding windows, in three of four layers
 * where its config names none.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import {
  olmo2Config,
  olmo3Config,
  olmoConfig,
  parseConfig,
  type RotaryDecoderConfig,
} from "../config.ts";
import { attentionBiases, type Differences, rotaryDecoder } from "./llama.ts";
import { rotaryOfKinds } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { windowsOf } from "./windows.ts";

/** OLMo 3's base of rotary frequencies where its config names none. */
const USUAL_THETA = 500_000;

/**
 * The decoder that a `config.json` with `model_type` `olmo` describes.
 *
 * @throws {ConfigError} When it clips queries, keys and values.
 */
export function olmo(json: unknown): DecoderSpec {
  const config = parseConfig(olmoConfig, json);
  if (config.clip_qkv) {
    throw new ConfigError(
      `config.json: clip_qkv ${config.clip_qkv}: models that clip queries, keys and values are not supported`,
    );
  }
  return rotaryDecoder(config, {
    ...attentionBiases(config),
    norms: { kind: "layer", affine: false, epsilon: 1e-5 },
  });
}

/** The decoder that a `config.json` with `model_type` `olmo2` describes. */
export function olmo2(json: unknown): DecoderSpec {
  const config = parseConfig(olmo2Config, json);
  return rotaryDecoder(config, differencesOf(config));
}

/** The decoder that a `config.json` with `model_type` `olmo3` describes. */
export function olmo3(json: unknown): DecoderSpec {
  const config = parseConfig(olmo3Config, json);
  const window = windowsOf(config, (layer) => (layer + 1) % 4 !== 0);
  const isSliding = (layer: number) => window(layer) !== undefined;
  const theta = config.rope_theta ?? USUAL_THETA;
  const thetas = { full: theta, sliding: theta };
  return rotaryDecoder({ ...config, rope_parameters: undefined }, {
    ...differencesOf(config),
    window,
    rotary: (headDim) => rotaryOfKinds(config, headDim, isSliding, thetas),
  });
}

function differencesOf(config: Pick<RotaryDecoderConfig, "attention_bias">): Differences {
  return {
    ...attentionBiases(config),
    attentionNorm: "whole",
    norms: {
      attention: { after: "post_attention_layernorm" },
      mlp: { after: "post_feedforward_layernorm" },
    },
  };
}
