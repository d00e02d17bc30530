/**
 * SmolLM 3: Llama in which every fourth layer (others, where its config says so) does not turn queries and keys by
 * their positions.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import { parseConfig, smollm3Config } from "../config.ts";
import type { DecoderSpec } from "./spec.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import { rotaryOf } from "./rotary.ts";
import { windowsOf } from "./windows.ts";

/** The base of rotary frequencies where a config names none: transformers' default for this model. */
const USUAL_THETA = 2_000_000;

/**
 * The decoder that a `config.json` with `model_type` `smollm3` describes.
 *
 * @throws {ConfigError} When `no_rope_layers` names fewer layers than there are.
 */
export function smollm3(json: unknown): DecoderSpec {
  const config = parseConfig(smollm3Config, json);
  const { no_rope_layers: turned, no_rope_layer_interval: interval, num_hidden_layers } = config;
  if (turned && turned.length < num_hidden_layers) {
    throw new ConfigError(
      `config.json: no_rope_layers names ${turned.length} layers, num_hidden_layers ${num_hidden_layers}`,
    );
  }
  // The list says which layers do, whatever its name.
  const turns = (layer: number) => turned ? turned[layer] !== 0 : (layer + 1) % interval !== 0;
  const windows = windowsOf(config, (layer) => !turns(layer));
  // Whether there are windows at all is not asked where it says which layers have one.
  const slides = config.sliding_window && (config.use_sliding_window || config.layer_types);
  const settings = { ...config, rope_theta: config.rope_theta ?? USUAL_THETA };
  return rotaryDecoder(settings, {
    ...attentionBiases(config),
    mlpBias: config.mlp_bias ?? false,
    window: slides ? windows : () => undefined,
    rotary(headDim) {
      const rotary = rotaryOf(settings, headDim);
      return (layer) => turns(layer) ? rotary : undefined;
    },
  });
}
