/**
 * Nemotron 3 and 4, and Minitron: layer norms whose weights are stored as what they are above 1, a plain MLP that
 * squares what ReLU leaves, and heads of which a half is turned.
 * @module
 */
import { z } from "zod";
import { parseConfig, rotaryDecoderConfig } from "../config.ts";
import { SQUARED } from "./arcee.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import { rotaryOfPart } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";

const nemotronConfig = rotaryDecoderConfig.extend({
  hidden_act: z.string().default("relu2"),
  norm_eps: z.number().positive().max(1).default(1e-5),
  partial_rotary_factor: z.number().positive().max(1).default(0.5),
});

/** The decoder that a `config.json` with `model_type` `nemotron` describes. */
export function nemotron(json: unknown): DecoderSpec {
  const config = parseConfig(nemotronConfig, json);
  return rotaryDecoder(config, {
    ...attentionBiases(config),
    mlpBias: config.mlp_bias ?? false,
    gated: false,
    activations: SQUARED,
    norms: { kind: "layer", epsilon: config.norm_eps, aboveOne: true },
    rotary(headDim) {
      const rotary = rotaryOfPart(config, headDim);
      return () => rotary;
    },
  });
}
