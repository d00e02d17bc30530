/**
 * Qwen 3.5: three of four layers have linear attention by the gated delta rule, the others attend as Qwen 3 does, turn a
 * quarter of each head, and have a gate for each element that heads give. All of its models also read images; here they
 * read text alone.
 * @module
 */
import { z } from "zod";
import { ConfigError } from "../../errors.ts";
import { dimension, parseConfig, rotaryDecoderConfig } from "../config.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import { INNER_ROOT, withRoot } from "./own_root.ts";
import { rotaryOfPart } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { checkKinds } from "./windows.ts";

const qwen35Config = rotaryDecoderConfig.extend({
  vocab_size: dimension.default(248_320),
  hidden_size: dimension.default(4096),
  intermediate_size: dimension.default(12_288),
  num_hidden_layers: rotaryDecoderConfig.shape.num_hidden_layers.default(32),
  num_attention_heads: dimension.default(16),
  num_key_value_heads: dimension.default(4),
  head_dim: dimension.default(256),
  max_position_embeddings: dimension.default(32_768),
  partial_rotary_factor: z.number().positive().max(1).default(0.25),
  full_attention_interval: dimension.default(4),
  linear_conv_kernel_dim: dimension.max(1024).default(4),
  linear_key_head_dim: dimension.default(128),
  linear_value_head_dim: dimension.default(128),
  linear_num_key_heads: dimension.default(16),
  linear_num_value_heads: dimension.default(32),
});

const qwen35OfImagesConfig = z.looseObject({
  tie_word_embeddings: z.boolean().nullish(),
  text_config: z.looseObject({ tie_word_embeddings: z.boolean().nullish() }),
});

/** Elements of a state's matrix that a head may have, either way: more than any model's. */
const LARGEST_STATE = 1024;

/**
 * The decoder that a `config.json` with `model_type` `qwen3_5_text` describes.
 *
 * @throws {ConfigError} When `layer_types` are not those of every layer, one is of another kind, or heads do not go
 *   together.
 */
export function qwen35(json: unknown): DecoderSpec {
  const config = parseConfig(qwen35Config, json);
  const { layer_types: types, full_attention_interval: interval } = config;
  if (types) checkKinds(types, config.num_hidden_layers, ["linear_attention", "full_attention"]);
  const isIn = (layer: number) =>
    types ? types[layer] === "linear_attention" : (layer + 1) % interval !== 0;
  const spec = rotaryDecoder(config, {
    ...attentionBiases(config),
    norms: { aboveOne: true },
    attentionNorm: "heads",
    rotary(headDim) {
      const rotary = rotaryOfPart(config, headDim);
      return (layer) => isIn(layer) ? undefined : rotary;
    },
  });
  return {
    ...spec,
    attention: { ...spec.attention, gatedByElement: true },
    recurrent: {
      kind: "gated delta",
      isIn,
      length: config.linear_conv_kernel_dim,
      kernelBias: false,
      bias: false,
      ...headsOf(config),
    },
  };
}

/** The decoder of a model of images and text, `model_type` `qwen3_5`: what reads images is left as it is. */
export function qwen35OfImages(json: unknown): DecoderSpec {
  const { tie_word_embeddings: tied, text_config: text } = parseConfig(qwen35OfImagesConfig, json);
  const tie_word_embeddings = (text.tie_word_embeddings ?? false) || (tied ?? false);
  return withRoot(qwen35({ ...text, tie_word_embeddings }), INNER_ROOT);
}

/** Heads of linear attention. */
function headsOf(config: z.infer<typeof qwen35Config>) {
  const { linear_num_key_heads: keyHeads, linear_num_value_heads: valueHeads } = config;
  const { linear_key_head_dim: keyDim, linear_value_head_dim: valueDim } = config;
  if (valueHeads % keyHeads !== 0) {
    throw new ConfigError(
      `config.json: ${valueHeads} value heads of linear attention cannot share ${keyHeads} key heads`,
    );
  }
  if (Math.max(keyDim, valueDim) > LARGEST_STATE) {
    throw new ConfigError(
      `config.json: linear attention with heads of ${keyDim} and ${valueDim} elements is larger than any model's ` +
        `(${LARGEST_STATE})`,
    );
  }
  return { keyHeads, valueHeads, keyDim, valueDim };
}
