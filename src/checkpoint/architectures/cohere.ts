/**
 * Cohere's models: attention and MLP side by side, of one layer norm without biases; neighbouring elements of queries
 * and keys are turned together. Command R7B and Command A (`cohere2`) have windows in three of four layers, which
 * alone turn queries and keys. Command R+ norms each head of queries and keys, with weights of its own.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import { cohere2Config, cohereConfig, parseConfig, type RotaryDecoderConfig } from "../config.ts";
import { attentionBiases, type Differences, rotaryDecoder } from "./llama.ts";
import { rotaryOf } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { windowsOf } from "./windows.ts";

/** The base of Command R's rotary frequencies where a config names none. */
const USUAL_THETA = 500_000;
/** Attention and MLP read what one norm gives. */
const NORM = { before: "input_layernorm" };

/** The decoder that a `config.json` with `model_type` `cohere` describes. */
export function cohere(json: unknown): DecoderSpec {
  const config = parseConfig(cohereConfig, json);
  const settings = { ...config, rope_theta: config.rope_theta ?? USUAL_THETA };
  return sideBySide(settings, {
    interleaved: true,
    attentionNorm: config.use_qk_norm ? "own" : undefined,
  });
}

/** The decoder that a `config.json` with `model_type` `cohere2` describes. */
export function cohere2(json: unknown): DecoderSpec {
  const config = parseConfig(cohere2Config, json);
  const window = windowsOf(config, (layer) => (layer + 1) % config.sliding_window_pattern !== 0);
  if (config.use_qk_norm) {
    // transformers does not read the field, and norms nothing.
    throw new ConfigError(
      "config.json: use_qk_norm is not supported in cohere2, of which no model norms queries and keys: " +
        "set it to false",
    );
  }
  return sideBySide(config, {
    window,
    rotary(headDim) {
      const rotary = { ...rotaryOf(config, headDim), interleaved: true };
      return (layer) => window(layer) === undefined ? undefined : rotary;
    },
  });
}

function sideBySide(
  config: RotaryDecoderConfig & {
    readonly layer_norm_eps: number;
    readonly logit_scale: number;
  },
  differs: Differences,
): DecoderSpec {
  const decoder = rotaryDecoder(config, {
    ...attentionBiases(config),
    ...differs,
    norms: { attention: NORM, mlp: NORM },
    scales: { logits: config.logit_scale },
  });
  const norm = {
    ...decoder.norm,
    kind: "layer",
    epsilon: config.layer_norm_eps,
    biased: false,
  } as const;
  return { ...decoder, sideBySide: true, norm };
}
