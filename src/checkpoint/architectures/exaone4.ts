/**
 * EXAONE 4: norms behind attention and MLP as in OLMo 2, of queries and keys by head as in Qwen 3. Where it has sliding
 * windows, its layers of full attention do not turn queries and keys by their positions.
 * @module
 */
import { z } from "zod";
import { ConfigError } from "../../errors.ts";
import { dimension, parseConfig, rotaryDecoderConfig } from "../config.ts";
import { rotaryDecoder } from "./llama.ts";
import { rotaryOf } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { windowsOf } from "./windows.ts";

const exaone4Config = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.default(32),
  max_position_embeddings: dimension.default(2048),
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
  sliding_window_pattern: z.union([dimension, z.string().regex(/^[LG]+$/), z.literal(0), z.null()])
    .default(4),
});

type Exaone4Config = z.infer<typeof exaone4Config>;

/**
 * The decoder that a `config.json` with `model_type` `exaone4` describes.
 *
 * @throws {ConfigError} When it names a window and not which layers have it.
 */
export function exaone4(json: unknown): DecoderSpec {
  const config = parseConfig(exaone4Config, json);
  const window = windowsOf(config, slidesOf(config));
  const turns = (layer: number) => config.sliding_window === null || window(layer) !== undefined;
  return rotaryDecoder(config, {
    attentionNorm: "heads",
    norms: {
      attention: { after: "post_attention_layernorm" },
      mlp: { after: "post_feedforward_layernorm" },
    },
    window,
    rotary(headDim) {
      const rotary = rotaryOf(config, headDim);
      return (layer) => turns(layer) ? rotary : undefined;
    },
  });
}

/** Which layers slide where a config has no `layer_types`: all but every so many, or the L of a repeated LLLG. */
function slidesOf(config: Exaone4Config): (layer: number) => boolean {
  const { sliding_window, sliding_window_pattern: pattern, layer_types, num_hidden_layers } =
    config;
  if (sliding_window === null || layer_types) return () => false;
  if (!pattern) {
    throw new ConfigError(
      "config.json: sliding_window is set, and neither layer_types nor sliding_window_pattern says which layers have it",
    );
  }
  if (typeof pattern === "number") return (layer) => (layer + 1) % pattern !== 0;
  return (layer) => layer !== num_hidden_layers - 1 && pattern[layer % pattern.length] === "L";
}
