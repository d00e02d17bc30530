/**
 * nanochat: Llama with RMS norms that have no weights, one of them behind the embedding and others of each head of
 * queries and keys once they are turned, the other way round than Llama's; a plain MLP that squares what ReLU leaves,
 * and logits that are capped.
 * @module
 */
import { z } from "zod";
import { parseConfig, rotaryDecoderConfig } from "../config.ts";
import { SQUARED } from "./arcee.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import { rotaryOf } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";

const nanochatConfig = rotaryDecoderConfig.extend({
  hidden_act: z.string().default("relu2"),
  final_logit_softcapping: z.number().positive().max(1e6).nullable().default(15),
});

/** The decoder that a `config.json` with `model_type` `nanochat` describes. */
export function nanochat(json: unknown): DecoderSpec {
  const config = parseConfig(nanochatConfig, json);
  const decoder = rotaryDecoder(config, {
    ...attentionBiases(config),
    gated: false,
    activations: SQUARED,
    norms: { affine: false },
    attentionNorm: "turned",
    logitCap: config.final_logit_softcapping ?? undefined,
    rotary(headDim) {
      const { frequencies, ...rotary } = rotaryOf(config, headDim);
      const turned = { ...rotary, frequencies: frequencies.map((frequency) => -frequency) };
      return () => turned;
    },
  });
  return {
    ...decoder,
    norm: { ...decoder.norm, ofEmbedding: "norm" },
    mlp: { ...decoder.mlp, up: "mlp.fc1", down: "mlp.fc2" },
  };
}
