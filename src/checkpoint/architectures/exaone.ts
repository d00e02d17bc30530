/** EXAONE 3, 3.5 and Deep: Llama, whose tensors and settings have GPT-2's names. @module */
import { z } from "zod";
import { dimension, parseConfig, rotaryDecoderConfig, withOtherNames } from "../config.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

/** The base of rotary frequencies where a config names none. */
const USUAL_THETA = 500_000;

const exaoneConfig = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.nullable().default(8),
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
});

/** What its settings are called. */
const OTHER_NAMES = {
  num_layers: "num_hidden_layers",
  layer_norm_epsilon: "rms_norm_eps",
  activation_function: "hidden_act",
};

/** The decoder that a `config.json` with `model_type` `exaone` describes. */
export function exaone(json: unknown): DecoderSpec {
  const config = parseConfig(exaoneConfig, withOtherNames(json, OTHER_NAMES));
  const decoder = rotaryDecoder({ ...config, rope_theta: config.rope_theta ?? USUAL_THETA }, {
    ...attentionBiases(config),
    mlpBias: config.mlp_bias ?? false,
    norms: { attention: { before: "ln_1" }, mlp: { before: "ln_2" } },
  });
  return {
    ...decoder,
    root: "transformer",
    names: { embedding: "wte", layers: "h", attention: "attn.attention" },
    head: config.tie_word_embeddings ? "transformer.wte" : "lm_head",
    norm: { ...decoder.norm, final: "ln_f" },
    attention: { ...decoder.attention, out: "out_proj" },
    mlp: { ...decoder.mlp, gate: "mlp.c_fc_0", up: "mlp.c_fc_1", down: "mlp.c_proj" },
  };
}
