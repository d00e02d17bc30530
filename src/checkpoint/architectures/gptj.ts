/**
 * GPT-J: attention and MLP side by side behind one norm, biases in the MLP and the head alone, and the first elements of
 * each head turned, neighbours together.
 * @module
 */
import { z } from "zod";
import { ConfigError } from "../../errors.ts";
import { dimension, gpt2Config, parseConfig, withOtherNames } from "../config.ts";
import { gpt2Decoder, OTHER_NAMES } from "./gpt2.ts";
import { rotaryBy } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";

const gptjConfig = gpt2Config.extend({
  n_positions: dimension.default(2048),
  /** Elements of a head that are turned; null: all. */
  rotary_dim: dimension.nullable().default(64),
  tie_word_embeddings: z.boolean().default(false),
});

/**
 * The decoder that a `config.json` with `model_type` `gptj` describes.
 *
 * @throws {ConfigError} When more of a head is to be turned than it has, or an odd number.
 */
export function gptj(json: unknown): DecoderSpec {
  const config = parseConfig(gptjConfig, withOtherNames(json, OTHER_NAMES));
  const decoder = gpt2Decoder({
    ...config,
    scale_attn_weights: true,
    scale_attn_by_inverse_layer_idx: false,
    add_cross_attention: false,
  });
  const { headDim, context } = decoder;
  const turned = config.rotary_dim ?? headDim;
  if (turned > headDim || turned % 2 !== 0) {
    throw new ConfigError(
      `config.json: rotary_dim ${turned} of a head of ${headDim} elements: an even number is needed, and no more than it has`,
    );
  }
  const rotary = {
    ...rotaryBy({}, { headDim: turned, theta: 10_000, context }),
    interleaved: true,
  };
  const norm = { before: "ln_1" };
  return {
    ...decoder,
    sideBySide: true,
    learnedPositions: undefined,
    headBias: "lm_head",
    rotary: () => rotary,
    norm: { ...decoder.norm, attention: norm, mlp: norm },
    attention: {
      ...decoder.attention,
      out: "out_proj",
      fused: undefined,
      inputBias: false,
      outputBias: false,
    },
    mlp: { ...decoder.mlp, up: "mlp.fc_in", down: "mlp.fc_out" },
  };
}
