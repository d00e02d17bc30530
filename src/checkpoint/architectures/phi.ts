/**
 * Phi 1, 1.5 and 2: attention and MLP side by side behind one norm, biases everywhere, the head's included.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import { parseConfig, phiConfig } from "../config.ts";
import { activationOf, PLAIN } from "./activations.ts";
import { ropeOf, rotaryBy } from "./rotary.ts";
import { checkHeads, type DecoderSpec } from "./spec.ts";

/** The decoder that a `config.json` with `model_type` `phi` describes. */
export function phi(json: unknown): DecoderSpec {
  const config = parseConfig(phiConfig, json);
  if (config.qk_layernorm) {
    throw new ConfigError(
      "config.json: qk_layernorm is not supported: norms of queries and keys are those of no published Phi",
    );
  }
  const heads = config.num_attention_heads;
  const keyValueHeads = config.num_key_value_heads ?? heads;
  const headDim = config.head_dim ?? config.hidden_size / heads;
  checkHeads(config.hidden_size, heads, keyValueHeads, headDim);
  const rope = ropeOf(config);
  const partial_rotary_factor = rope.partial_rotary_factor ?? config.partial_rotary_factor;
  const rotary = rotaryBy({ ...rope, partial_rotary_factor }, {
    headDim,
    theta: config.rope_theta ?? 10_000,
    context: config.max_position_embeddings,
  });
  const norm = { before: "input_layernorm" };
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
    sideBySide: true,
    head: config.tie_word_embeddings ? "model.embed_tokens" : "lm_head",
    headBias: "lm_head",
    rotary: () => rotary,
    norm: {
      kind: "layer",
      epsilon: config.layer_norm_eps,
      affine: true,
      attention: norm,
      mlp: norm,
      final: "final_layernorm",
    },
    attention: { out: "dense", inputBias: true, outputBias: true, window: () => undefined },
    mlp: {
      up: "mlp.fc1",
      down: "mlp.fc2",
      bias: true,
      activation: activationOf(config.hidden_act, PLAIN),
    },
  };
}
