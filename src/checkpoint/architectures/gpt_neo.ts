/**
 * GPT-Neo and TinyStories: GPT-2 with matrices stored as they are multiplied, scores that nothing divides, and every
 * other layer a window.
 * @module
 */
import { ConfigError, quote } from "../../errors.ts";
import { type GptNeoConfig, gptNeoConfig, parseConfig } from "../config.ts";
import { activationOf, PLAIN } from "./activations.ts";
import { checkHeads, type DecoderSpec } from "./spec.ts";

const ROOT = "transformer";
const NAMES = { embedding: "wte", positions: "wpe", layers: "h", attention: "attn.attention" };

/**
 * The decoder that a `config.json` with `model_type` `gpt_neo` describes.
 *
 * @throws {ConfigError} When its kinds of attention are not those of every layer, or one is not known.
 */
export function gptNeo(json: unknown): DecoderSpec {
  const config = parseConfig(gptNeoConfig, json);
  const { hidden_size: hidden, num_heads: heads, num_layers: layers } = config;
  const headDim = hidden / heads;
  checkHeads(hidden, heads, heads, headDim);
  const kinds = kindsOf(config);
  return {
    hidden,
    intermediate: config.intermediate_size ?? 4 * hidden,
    layers,
    heads,
    keyValueHeads: heads,
    headDim,
    vocabulary: config.vocab_size,
    context: config.max_position_embeddings,
    root: ROOT,
    names: NAMES,
    head: config.tie_word_embeddings ? `${ROOT}.${NAMES.embedding}` : "lm_head",
    learnedPositions: { offset: 0 },
    rotary: () => undefined,
    norm: {
      kind: "layer",
      epsilon: config.layer_norm_epsilon,
      affine: true,
      attention: { before: "ln_1" },
      mlp: { before: "ln_2" },
      final: "ln_f",
    },
    attention: {
      out: "out_proj",
      inputBias: false,
      outputBias: true,
      scale: 1,
      window: (layer) => kinds[layer] === "local" ? config.window_size : undefined,
    },
    mlp: {
      up: "mlp.c_fc",
      down: "mlp.c_proj",
      bias: true,
      activation: activationOf(config.activation_function, PLAIN, "activation_function"),
    },
  };
}

/** The kind of every layer's attention: `attention_types` has them as patterns, each with how often it comes. */
function kindsOf({ num_layers: layers, attention_types: types }: GptNeoConfig): string[] {
  const kinds: string[] = [];
  for (const [pattern, times] of types) {
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
