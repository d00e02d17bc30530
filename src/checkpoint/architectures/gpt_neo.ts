/**
 * GPT-Neo and TinyStories: GPT-2 with matrices stored as they are multiplied, scores that nothing divides, and every
 * other layer a window.
 * @module
 */
import { quote } from "../../checks.ts";
import { ConfigError } from "../../errors.ts";
import { type GptNeoConfig, gptNeoConfig, parseConfig, withOtherNames } from "../config.ts";
import { gpt2Decoder } from "./gpt2.ts";
import type { DecoderSpec } from "./spec.ts";

/** Kinds of attention where a config names none. */
const USUAL_TYPES: NonNullable<GptNeoConfig["attention_types"]> = [[["global", "local"], 12]];

/** What fields are called in other models' configs, and sometimes here. */
const OTHER_NAMES = { num_attention_heads: "num_heads", num_hidden_layers: "num_layers" };

/**
 * The decoder that a `config.json` with `model_type` `gpt_neo` describes.
 *
 * @throws {ConfigError} When its kinds of attention are not those of every layer, or one is not known.
 */
export function gptNeo(json: unknown): DecoderSpec {
  const config = parseConfig(gptNeoConfig, withOtherNames(json, OTHER_NAMES));
  const kinds = kindsOf(config);
  const decoder = gpt2Decoder({
    ...config,
    n_embd: config.hidden_size,
    n_inner: config.intermediate_size,
    n_layer: config.num_layers,
    n_head: config.num_heads,
    n_positions: config.max_position_embeddings,
    scale_attn_weights: false,
    scale_attn_by_inverse_layer_idx: false,
    add_cross_attention: false,
  });
  return {
    ...decoder,
    names: { ...decoder.names, attention: "attn.attention" },
    attention: {
      ...decoder.attention,
      out: "out_proj",
      fused: undefined,
      inputBias: false,
      window: (layer) => kinds[layer] === "local" ? config.window_size : undefined,
    },
  };
}

/** The kind of every layer's attention: `attention_types` has them as patterns, each with how often it comes. */
function kindsOf({ num_layers: layers, attention_types: types }: GptNeoConfig): string[] {
  const kinds: string[] = [];
  for (const [pattern, times] of types ?? USUAL_TYPES) {
    // No more than are compared: a pattern may come as often as a file says.
    for (let i = 0; i < times && kinds.length <= layers; i++) kinds.push(...pattern);
  }
  if (kinds.length !== layers) {
    throw new ConfigError(
      `config.json: attention_types names ${
        kinds.length > layers ? "more than" : `${kinds.length} of`
      } num_layers ${layers}`,
    );
  }
  const other = kinds.find((kind) => kind !== "global" && kind !== "local");
  if (other === undefined) return kinds;
  throw new ConfigError(
    `config.json: attention_types: ${quote(other)} is not supported (global and local are)`,
  );
}
