/**
 * GPT-NeoX, Pythia and their relatives (Dolly 2, RedPajama, StableLM alpha, Polyglot): attention and MLP side by side,
 * each with a norm of its own, or one after the other; queries, keys and values are one matrix, head by head.
 * @module
 */
import { gptNeoxConfig, parseConfig } from "../config.ts";
import { activationOf, PLAIN } from "./activations.ts";
import { ropeOf, rotaryBy } from "./rotary.ts";
import { checkHeads, type DecoderSpec } from "./spec.ts";

/** The decoder that a `config.json` with `model_type` `gpt_neox` describes. */
export function gptNeox(json: unknown): DecoderSpec {
  const config = parseConfig(gptNeoxConfig, json);
  const heads = config.num_attention_heads;
  const headDim = config.hidden_size / heads;
  checkHeads(config.hidden_size, heads, heads, headDim);
  const rope = ropeOf(config);
  const rotary = rotaryBy(
    { ...rope, partial_rotary_factor: rope.partial_rotary_factor ?? config.rotary_pct },
    { headDim, theta: config.rotary_emb_base, context: config.max_position_embeddings },
  );
  const names = { embedding: "embed_in", attention: "attention" };
  const root = "gpt_neox";
  return {
    hidden: config.hidden_size,
    intermediate: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads,
    keyValueHeads: heads,
    headDim,
    vocabulary: config.vocab_size,
    context: config.max_position_embeddings,
    root,
    names,
    sideBySide: config.use_parallel_residual,
    head: config.tie_word_embeddings ? `${root}.${names.embedding}` : "embed_out",
    rotary: () => rotary,
    norm: {
      kind: "layer",
      epsilon: config.layer_norm_eps,
      affine: true,
      attention: { before: "input_layernorm" },
      mlp: { before: "post_attention_layernorm" },
      final: "final_layer_norm",
    },
    attention: {
      out: "dense",
      fused: "query_key_value",
      byHead: true,
      inputBias: config.attention_bias,
      outputBias: config.attention_bias,
      window: () => undefined,
    },
    mlp: {
      up: "mlp.dense_h_to_4h",
      down: "mlp.dense_4h_to_h",
      bias: true,
      activation: activationOf(config.hidden_act, PLAIN),
    },
  };
}
