/**
 * OPT: learned positions (with two rows before the first), layer norms with biases, a plain MLP.
 * OPT-350M normalises after each sublayer and has an embedding narrower than its hidden states.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import { optConfig, parseConfig } from "../config.ts";
import { type Activation, checkHeads, type DecoderSpec } from "./spec.ts";

const ACTIVATIONS = new Map<string, Activation>([["relu", "relu"], ["gelu", "gelu"]]);

/** The decoder that a `config.json` with `model_type` `opt` describes. */
export function opt(json: unknown): DecoderSpec {
  const config = parseConfig(optConfig, json);
  const heads = config.num_attention_heads;
  const headDim = config.hidden_size / heads;
  checkHeads(config.hidden_size, heads, heads, headDim);
  const activation = ACTIVATIONS.get(config.activation_function);
  if (!activation) {
    throw new ConfigError(
      `config.json: activation_function ${
        JSON.stringify(config.activation_function)
      } is not supported (relu and gelu are)`,
    );
  }
  const root = "model.decoder";
  const place = config.do_layer_norm_before ? "before" : "ofSum";
  return {
    hidden: config.hidden_size,
    intermediate: config.ffn_dim,
    layers: config.num_hidden_layers,
    heads,
    keyValueHeads: heads,
    headDim,
    vocabulary: config.vocab_size,
    context: config.max_position_embeddings,
    root,
    head: config.tie_word_embeddings ? `${root}.embed_tokens` : "lm_head",
    embeddingWidth: config.word_embed_proj_dim ?? config.hidden_size,
    learnedPositions: { offset: 2 },
    rotary: () => undefined,
    norm: {
      kind: "layer",
      epsilon: 1e-5,
      affine: config.layer_norm_elementwise_affine,
      attention: { [place]: "self_attn_layer_norm" },
      mlp: { [place]: "final_layer_norm" },
      final: config.do_layer_norm_before && !config._remove_final_layer_norm
        ? "final_layer_norm"
        : undefined,
    },
    attention: {
      out: "out_proj",
      inputBias: config.enable_bias,
      outputBias: config.enable_bias,
      window: () => undefined,
    },
    mlp: { up: "fc1", down: "fc2", bias: config.enable_bias, activation },
  };
}
