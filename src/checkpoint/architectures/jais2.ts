/** Jais 2: Llama with layer norms, biases on every linear, and a plain MLP that squares what ReLU leaves. @module */
import { z } from "zod";
import { parseConfig, rotaryDecoderConfig } from "../config.ts";
import { SQUARED } from "./arcee.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

const jais2Config = rotaryDecoderConfig.extend({
  hidden_act: z.string().default("relu2"),
  layer_norm_eps: z.number().positive().max(1).default(1e-5),
  attention_bias: z.boolean().nullable().default(true),
  mlp_bias: z.boolean().nullable().default(true),
});

/** The decoder that a `config.json` with `model_type` `jais2` describes. */
export function jais2(json: unknown): DecoderSpec {
  const config = parseConfig(jais2Config, json);
  return rotaryDecoder(config, {
    ...attentionBiases(config),
    mlpBias: config.mlp_bias ?? false,
    gated: false,
    activations: SQUARED,
    norms: { kind: "layer", epsilon: config.layer_norm_eps },
  });
}
