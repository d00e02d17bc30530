/** Arcee (AFM 4.5B): Llama with a plain MLP, which squares what ReLU leaves. @module */
import { z } from "zod";
import { parseConfig, rotaryDecoderConfig } from "../config.ts";
import { attentionBiases, type Differences, rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

const arceeConfig = rotaryDecoderConfig.extend({
  hidden_act: z.string().default("relu2"),
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
});

/** By what configs call them. */
export const SQUARED: Differences["activations"] = new Map([
  ["relu2", "relu_squared"],
  ["relu", "relu"],
]);

/** The decoder that a `config.json` with `model_type` `arcee` describes. */
export function arcee(json: unknown): DecoderSpec {
  const config = parseConfig(arceeConfig, json);
  return rotaryDecoder(config, {
    ...attentionBiases(config),
    mlpBias: config.mlp_bias ?? false,
    gated: false,
    activations: SQUARED,
  });
}
