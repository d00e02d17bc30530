/**
 * StarCoder 2: rotary positions with layer norms, a plain MLP and biases on every linear; all layers attend to the same
 * sliding window, where there is one.
 * @module
 */
import { z } from "zod";
import { dimension, parseConfig, rotaryDecoderConfig } from "../config.ts";
import { type Differences, rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

const starcoder2Config = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.default(2),
  hidden_act: z.string().default("gelu_pytorch_tanh"),
  norm_epsilon: z.number().positive().max(1).default(1e-5),
  use_bias: z.boolean().default(true),
  tie_word_embeddings: z.boolean().default(true),
});

const ACTIVATIONS: Differences["activations"] = new Map([
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["gelu", "gelu"],
]);

/** The decoder that a `config.json` with `model_type` `starcoder2` describes. */
export function starcoder2(json: unknown): DecoderSpec {
  const config = parseConfig(starcoder2Config, json);
  const { use_bias, sliding_window } = config;
  const decoder = rotaryDecoder(config, {
    inputBias: use_bias,
    outputBias: use_bias,
    mlpBias: use_bias,
    activations: ACTIVATIONS,
    norms: { kind: "layer", epsilon: config.norm_epsilon },
    window: () => sliding_window ?? undefined,
  });
  const { bias, activation } = decoder.mlp;
  return { ...decoder, mlp: { up: "mlp.c_fc", down: "mlp.c_proj", bias, activation } };
}
