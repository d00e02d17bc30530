/**
 * Llama 1 to 3, SmolLM, TinyLlama and their many relatives: the plain decoder with rotary positions.
 * The other rotary decoders are stated as what they change in it.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import {
  parseConfig,
  type RotaryDecoderConfig,
  rotaryDecoderConfig,
  rotaryFrequencies,
} from "../config.ts";
import { checkHeads, type DecoderSpec } from "./spec.ts";

/** The decoder that a `config.json` with `model_type` `llama` describes. */
export function llama(json: unknown): DecoderSpec {
  const config = parseConfig(rotaryDecoderConfig, json);
  return rotaryDecoder(config, {
    inputBias: config.attention_bias ?? false,
    outputBias: config.attention_bias ?? false,
    mlpBias: config.mlp_bias ?? false,
  });
}

/**
 * A decoder with rotary embeddings, RMS norms and a gated MLP.
 *
 * @param config Its config.
 * @param differs What its architecture has that Llama has not.
 */
export function rotaryDecoder(
  config: RotaryDecoderConfig,
  differs: {
    inputBias?: boolean;
    outputBias?: boolean;
    mlpBias?: boolean;
    headNorm?: boolean;
    window?: (layer: number) => number | undefined;
    turns?: (layer: number) => boolean;
  } = {},
): DecoderSpec {
  const heads = config.num_attention_heads;
  const keyValueHeads = config.num_key_value_heads ?? heads;
  const headDim = config.head_dim ?? config.hidden_size / heads;
  checkHeads(config.hidden_size, heads, keyValueHeads, headDim);
  if (config.hidden_act !== "silu") {
    throw new ConfigError(
      `config.json: hidden_act ${JSON.stringify(config.hidden_act)} is not supported (silu is)`,
    );
  }
  return {
    hidden: config.hidden_size,
    intermediate: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads,
    keyValueHeads,
    headDim,
    vocabulary: config.vocab_size,
    context: config.max_position_embeddings,
    root: "model",
    head: config.tie_word_embeddings ? "model.embed_tokens" : "lm_head",
    rotary: rotaryFrequencies(config, headDim),
    norm: {
      kind: "rms",
      epsilon: config.rms_norm_eps,
      affine: true,
      first: true,
      attention: "input_layernorm",
      mlp: "post_attention_layernorm",
      final: "norm",
    },
    attention: {
      out: "o_proj",
      inputBias: differs.inputBias ?? false,
      outputBias: differs.outputBias ?? false,
      headNorm: differs.headNorm ?? false,
      window: differs.window ?? (() => undefined),
      turns: differs.turns ?? (() => true),
    },
    mlp: {
      gate: "mlp.gate_proj",
      up: "mlp.up_proj",
      down: "mlp.down_proj",
      bias: differs.mlpBias ?? false,
      activation: "silu",
    },
  };
}
