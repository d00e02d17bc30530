/**
 * GLM 4: Llama in which neighbouring elements of queries and keys are turned together, as a rule those of the first
 * half of each head; gate and up are one matrix. Models of April 2025 (`glm4`) norm what comes out of attention and
 * MLP, too.
 * @module
 */
import { glmConfig, parseConfig } from "../config.ts";
import { type Differences, rotaryDecoder } from "./llama.ts";
import { ropeOf, rotaryBy } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";

/** The decoder that a `config.json` with `model_type` `glm` describes. */
export function glm(json: unknown): DecoderSpec {
  return decoderWith(json);
}

/** The decoder that a `config.json` with `model_type` `glm4` describes. */
export function glm4(json: unknown): DecoderSpec {
  return decoderWith(json, {
    attention: { before: "input_layernorm", after: "post_self_attn_layernorm" },
    mlp: { before: "post_attention_layernorm", after: "post_mlp_layernorm" },
  });
}

function decoderWith(json: unknown, norms?: Differences["norms"]): DecoderSpec {
  const config = parseConfig(glmConfig, json);
  const rope = ropeOf(config);
  const settings = {
    ...rope,
    partial_rotary_factor: rope.partial_rotary_factor ?? config.partial_rotary_factor ?? 1,
  };
  const decoder = rotaryDecoder(config, {
    inputBias: config.attention_bias ?? false,
    norms,
    rotary(headDim) {
      const theta = config.rope_theta ?? 10_000, context = config.max_position_embeddings;
      const rotary = { ...rotaryBy(settings, { headDim, theta, context }), interleaved: true };
      return () => rotary;
    },
  });
  return { ...decoder, mlp: { ...decoder.mlp, fused: "mlp.gate_up_proj" } };
}
