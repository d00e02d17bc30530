/**
 * LFM 2 and 3: decoders in which most layers convolve their tokens, and the others norm each head of queries and keys.
 * @module
 */
import { z } from "zod";
import { ConfigError } from "../../errors.ts";
import {
  dimension,
  parseConfig,
  ropeParametersOfKinds,
  type RotaryDecoderConfig,
  rotaryDecoderConfig,
  type RotaryOfKindsConfig,
  withOtherNames,
} from "../config.ts";
import { attentionBiases, type Differences, rotaryDecoder } from "./llama.ts";
import { ropeTypeOf, rotaryOfKinds } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { checkKinds } from "./windows.ts";

const lfmConfig = rotaryDecoderConfig.extend({
  max_position_embeddings: dimension.default(128_000),
  norm_eps: z.number().positive().max(1).default(1e-5),
  tie_word_embeddings: z.boolean().default(true),
  conv_bias: z.boolean().default(false),
});

const lfm2Config = lfmConfig.extend({
  intermediate_size: dimension.default(12_288),
  num_key_value_heads: dimension.default(8),
  /** What its makers' own configs call whether the head is tied, and the width of MLPs. */
  tie_embedding: z.boolean().nullish(),
  block_ff_dim: dimension.nullish(),
  block_auto_adjust_ff_dim: z.boolean().default(true),
  block_ffn_dim_multiplier: z.number().positive().max(1000).nullable().default(1),
  block_multiple_of: dimension.default(256),
  conv_L_cache: dimension.default(3),
  full_attn_idxs: z.array(z.int().nonnegative()).nullish(),
});

const lfm3Config = lfmConfig.extend({
  intermediate_size: dimension.default(7680),
  num_attention_heads: dimension.default(16),
  num_key_value_heads: dimension.default(4),
  head_dim: dimension.default(128),
  sliding_window: dimension.nullable().default(256),
  rope_parameters: ropeParametersOfKinds,
  conv_L_cache: dimension.default(7),
  use_sandwich_norm: z.boolean().default(true),
  use_attention_gate: z.boolean().default(true),
});

type Lfm2Config = z.infer<typeof lfm2Config>;

/** Bases of rotary frequencies where configs name none: transformers' defaults for these models. */
const USUAL_THETA = 1_000_000, USUAL_LOCAL_THETA = 10_000;

/**
 * The decoder that a `config.json` with `model_type` `lfm2` describes.
 *
 * @throws {ConfigError} When `layer_types` are not those of every layer, or one is of another kind.
 */
export function lfm2(json: unknown): DecoderSpec {
  const config = parseConfig(lfm2Config, json);
  const { layer_types: types, full_attn_idxs: attending } = config;
  if (types) checkKinds(types, config.num_hidden_layers, ["conv", "full_attention"]);
  const isIn = (layer: number) =>
    types ? types[layer] === "conv" : attending ? !attending.includes(layer) : false;
  const spec = convolving(
    {
      ...config,
      intermediate_size: intermediateOf(config),
      tie_word_embeddings: config.tie_embedding ?? config.tie_word_embeddings,
      rope_theta: config.rope_theta ?? USUAL_THETA,
    },
    isIn,
    {
      norms: { attention: { before: "operator_norm" }, mlp: { before: "ffn_norm" } },
    },
  );
  return {
    ...spec,
    attention: {
      ...spec.attention,
      out: "out_proj",
      normNames: { q: "q_layernorm", k: "k_layernorm" },
    },
  };
}

/**
 * The decoder that a `config.json` with `model_type` `lfm3` describes: LFM 2 with norms behind its sublayers, windows
 * in some layers, and a gate for each head of attention.
 *
 * @throws {ConfigError} When `layer_types` are not those of every layer, or one is of another kind.
 */
export function lfm3(json: unknown): DecoderSpec {
  const config = parseConfig(lfm3Config, withOtherNames(json, { rms_norm_eps: "norm_eps" }));
  const { rope_parameters: kinds } = config;
  refuseParts(config, kinds);
  const types = config.layer_types ??
    Array.from({ length: config.num_hidden_layers }, (_, layer) => usualKind(layer));
  checkKinds(types, config.num_hidden_layers, ["conv", "full_attention", "sliding_attention"]);
  const isSliding = (layer: number) => types[layer] === "sliding_attention";
  // Settings that name no base have that of the whole config, of whatever kind they are.
  const theta = config.rope_theta ?? USUAL_THETA;
  const thetas = kinds
    ? { full: theta, sliding: theta }
    : { full: USUAL_THETA, sliding: USUAL_LOCAL_THETA };
  const after = (name: string) => config.use_sandwich_norm ? name : undefined;
  const spec = convolving(
    { ...config, rope_parameters: undefined },
    (layer) => types[layer] === "conv",
    {
      ...attentionBiases(config),
      norms: {
        attention: { before: "operator_norm", after: after("post_operator_norm") },
        mlp: { before: "ffn_norm", after: after("post_ffn_norm") },
      },
      window: (layer) => isSliding(layer) ? config.sliding_window ?? undefined : undefined,
      rotary: (headDim) =>
        rotaryOfKinds(
          { ...config, rope_parameters: kinds ?? USUAL_ROTARY },
          headDim,
          isSliding,
          thetas,
        ),
    },
  );
  if (!config.use_attention_gate) return spec;
  return { ...spec, attention: { ...spec.attention, gate: "gate_proj" } };
}

/**
 * Refuses settings that name a part of heads where transformers turns another one than is said: it passes over the part
 * of usual settings, and gives one that stands outside to those that have none.
 */
function refuseParts(
  config: Record<string, unknown>,
  kinds: RotaryOfKindsConfig["rope_parameters"],
): void {
  const ofUsual = [kinds?.full_attention, kinds?.sliding_attention]
    .filter((rope) => rope && ropeTypeOf(rope) === "default");
  if ([config, ...ofUsual].every((rope) => (rope?.partial_rotary_factor ?? 1) === 1)) return;
  throw new ConfigError(
    "config.json: partial_rotary_factor is supported in rope_parameters of the type proportional",
  );
}

/** Rotary settings of LFM 3 where a config has none: layers of full attention turn half of each head. */
const USUAL_ROTARY: RotaryOfKindsConfig["rope_parameters"] = {
  full_attention: {
    rope_type: "proportional",
    rope_theta: USUAL_THETA,
    partial_rotary_factor: 0.5,
  },
};

/** What both have in common, but for what differs from Llama besides. */
function convolving(
  config: RotaryDecoderConfig & z.infer<typeof lfmConfig> & { readonly conv_L_cache: number },
  isIn: (layer: number) => boolean,
  differs: Differences,
): DecoderSpec {
  const { norm, mlp, ...spec } = rotaryDecoder({ ...config, rms_norm_eps: config.norm_eps }, {
    attentionNorm: "heads",
    ...differs,
  });
  return {
    ...spec,
    norm: { ...norm, final: "embedding_norm" },
    mlp: { ...mlp, gate: "feed_forward.w1", up: "feed_forward.w3", down: "feed_forward.w2" },
    convolutions: { isIn, length: config.conv_L_cache, bias: config.conv_bias },
  };
}

/** The width of MLPs of LFM 2: two thirds of what is said, times a factor and rounded up, where it is to be adjusted. */
function intermediateOf(config: Lfm2Config): number {
  const said = config.block_ff_dim ?? config.intermediate_size;
  if (!config.block_auto_adjust_ff_dim) return said;
  const { block_ffn_dim_multiplier: factor, block_multiple_of: multiple } = config;
  const adjusted = Math.trunc(2 * said / 3);
  if (factor === null) return adjusted;
  return multiple * Math.ceil(Math.trunc(factor * adjusted) / multiple);
}

/** The kind of a layer of LFM 3 whose config names none. */
function usualKind(layer: number): string {
  if (layer % 4 === 2) return "full_attention";
  return layer % 4 === 0 && layer > 0 ? "sliding_attention" : "conv";
}
