/**
 * The part of `config.json` that every architecture reads.
 *
 * transformers wrote rotary settings as `rope_theta` and `rope_scaling` until version 4 and writes
 * `rope_parameters` from version 5 on; both are read.
 * @module
 */
import { z } from "zod";
import { ConfigError } from "../errors.ts";

/** A dimension: large enough for any model, small enough that products stay exact. */
export const dimension = z.number().int().positive().max(10_000_000);
const layerCount = z.number().int().positive().max(10_000);

/** What something is multiplied with or divided by. */
export const factor = z.number().positive().max(1e6);

/** From 1 on, what angles are divided by leaves them finite. */
const divisor = z.number().min(1);

export const ropeParameters = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: divisor.optional(),
  factor: divisor.nullish(),
  low_freq_factor: z.number().positive().optional(),
  high_freq_factor: z.number().positive().optional(),
  original_max_position_embeddings: z.number().int().positive().optional(),
  partial_rotary_factor: z.number().positive().max(1).optional(),
  // Those of LongRoPE and YaRN.
  attention_factor: factor.nullish(),
  short_factor: z.array(factor).optional(),
  beta_fast: z.number().nonnegative().nullish(),
  beta_slow: z.number().nonnegative().nullish(),
  mscale: z.number().nonnegative().nullish(),
  mscale_all_dim: z.number().nonnegative().nullish(),
  truncate: z.boolean().nullish(),
  /** How fast queries of Ministral 3 grow beyond the original context. */
  llama_4_scaling_beta: z.number().nonnegative().nullish(),
});

/** Fields of the decoders with rotary embeddings and RMS normalisation. */
export const rotaryDecoderConfig = z.looseObject({
  hidden_size: dimension,
  intermediate_size: dimension,
  num_hidden_layers: layerCount,
  num_attention_heads: dimension,
  num_key_value_heads: dimension.nullish(),
  head_dim: dimension.nullish(),
  vocab_size: dimension,
  max_position_embeddings: dimension,
  original_max_position_embeddings: dimension.nullish(),
  rms_norm_eps: z.number().positive().max(1).default(1e-6),
  hidden_act: z.string().default("silu"),
  tie_word_embeddings: z.boolean().default(false),
  rope_theta: divisor.nullish(),
  rope_scaling: ropeParameters.nullish(),
  rope_parameters: ropeParameters.nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  sliding_window: dimension.nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.number().int().nonnegative().nullish(),
  layer_types: z.array(z.string()).nullish(),
});

/** Rotary settings. */
export type RopeParameters = z.infer<typeof ropeParameters>;

/** A parsed {@linkcode rotaryDecoderConfig}. */
export type RotaryDecoderConfig = z.infer<typeof rotaryDecoderConfig>;

/** A config whose layers of full attention and of sliding windows have rotary settings of their own. */
export type RotaryOfKindsConfig = Pick<
  z.infer<typeof olmo3Config>,
  "max_position_embeddings" | "rope_parameters" | "rope_scaling"
>;

/** Fields of SmolLM 3. */
export const smollm3Config = rotaryDecoderConfig.extend({
  tie_word_embeddings: z.boolean().default(true),
  no_rope_layers: z.array(z.int().min(0).max(1)).nullish(),
  no_rope_layer_interval: dimension.default(4),
});

/** Fields of Granite. */
export const graniteConfig = rotaryDecoderConfig.extend({
  embedding_multiplier: factor.default(1),
  attention_multiplier: factor.default(1),
  residual_multiplier: factor.default(1),
  logits_scaling: factor.default(1),
});

/** A parsed {@linkcode graniteConfig}. */
export type GraniteConfig = z.infer<typeof graniteConfig>;

/** Fields of Granite 4: a layer of which no kind is said is none of attention, and experts are eight. */
export const graniteHybridConfig = graniteConfig.extend({
  // What those without experts have nothing of.
  intermediate_size: dimension.default(1),
  shared_intermediate_size: dimension.default(1024),
  num_local_experts: z.int().nonnegative().default(8),
  position_embedding_type: z.string().nullish(),
  mamba_n_heads: dimension.nullable().default(128),
  mamba_n_groups: dimension.nullable().default(1),
  mamba_d_state: dimension.nullable().default(256),
  mamba_d_head: z.union([dimension, z.literal("auto")]).nullable().default("auto"),
  mamba_d_conv: dimension.max(1024).nullable().default(4),
  mamba_expand: dimension.nullable().default(2),
  mamba_conv_bias: z.boolean().nullable().default(true),
  mamba_proj_bias: z.boolean().nullable().default(false),
  time_step_limit: z.array(z.unknown()).nullish(),
});

/** Fields of Granite with sliding windows; the base of a layer that turns nothing is 0. */
export const graniteSwaConfig = graniteConfig.extend({
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
  tie_word_embeddings: z.boolean().default(true),
  layer_rope_theta: z.array(z.union([z.literal(0), divisor])).nullish(),
});

/** Fields of OLMo. */
export const olmoConfig = rotaryDecoderConfig.extend({
  max_position_embeddings: dimension.default(2048),
  clip_qkv: z.number().nullish(),
});

/** Fields of OLMo 2. */
export const olmo2Config = rotaryDecoderConfig.extend({
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
});

/** Rotary settings of two kinds of layers, as transformers 5 writes them. */
export const ropeParametersOfKinds = z.looseObject({
  full_attention: ropeParameters.nullish(),
  sliding_attention: ropeParameters.nullish(),
}).nullish();

/** Fields of OLMo 3. */
export const olmo3Config = olmo2Config.extend({ rope_parameters: ropeParametersOfKinds });

/** Fields of Gemma 1 to 3 that others do not have, or with another default. */
const gemmaFields = {
  head_dim: dimension.default(256),
  /** What Gemma's own configs call it. */
  hidden_activation: z.string().nullish(),
  tie_word_embeddings: z.boolean().default(true),
  use_bidirectional_attention: z.boolean().nullish(),
};

/** Fields of Gemma. */
export const gemmaConfig = rotaryDecoderConfig.extend({
  ...gemmaFields,
  hidden_act: z.string().default("gelu_pytorch_tanh"),
});

/** Fields of Gemma 2. A cap that is null is none; one that is not there, the usual one. */
export const gemma2Config = rotaryDecoderConfig.extend({
  ...gemmaFields,
  query_pre_attn_scalar: factor.default(256),
  attn_logit_softcapping: factor.nullable().default(50),
  final_logit_softcapping: factor.nullable().default(30),
});

/** Fields of Gemma 3. */
export const gemma3Config = rotaryDecoderConfig.extend({
  ...gemmaFields,
  // Those of models of images and text name only what differs from transformers' defaults.
  vocab_size: dimension.default(262_208),
  num_attention_heads: dimension.default(8),
  num_key_value_heads: dimension.default(4),
  max_position_embeddings: dimension.default(131_072),
  query_pre_attn_scalar: factor.default(256),
  rope_local_base_freq: divisor.nullish(),
  rope_parameters: ropeParametersOfKinds,
  sliding_window_pattern: dimension.default(6),
  attn_logit_softcapping: factor.nullish(),
  final_logit_softcapping: factor.nullish(),
});

/** Fields of Gemma 3 with images. */
export const gemma3OfImagesConfig = z.looseObject({
  tie_word_embeddings: z.boolean().nullish(),
  text_config: z.looseObject({ tie_word_embeddings: z.boolean().nullish() }),
});

/** Fields of Mistral. */
export const mistralConfig = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.nullable().default(8),
});

/** Fields of Ministral 3. */
export const ministral3Config = mistralConfig.extend({
  head_dim: dimension.nullable().default(128),
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
});

/** Fields of Mistral 3, a decoder inside of a model that also reads images; older files say nothing of its kind. */
export const mistralOfImagesConfig = z.looseObject({
  tie_word_embeddings: z.boolean().nullish(),
  text_config: z.looseObject({
    model_type: z.string().default("mistral"),
    tie_word_embeddings: z.boolean().nullish(),
  }),
});

/** Fields of Phi 3. */
export const phi3Config = rotaryDecoderConfig.extend({
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
  original_max_position_embeddings: dimension.default(4096),
  partial_rotary_factor: z.number().positive().max(1).default(1),
});

/** Fields of decoders with layer norms, biases and rotary positions in a part of each head. */
const partlyTurnedConfig = z.looseObject({
  hidden_size: dimension,
  intermediate_size: dimension,
  num_hidden_layers: layerCount,
  num_attention_heads: dimension,
  vocab_size: dimension,
  max_position_embeddings: dimension.default(2048),
  original_max_position_embeddings: dimension.nullish(),
  layer_norm_eps: z.number().positive().max(1).default(1e-5),
  tie_word_embeddings: z.boolean().default(false),
  rope_scaling: ropeParameters.nullish(),
  rope_parameters: ropeParameters.nullish(),
});

/** Fields of GPT-NeoX. */
export const gptNeoxConfig = partlyTurnedConfig.extend({
  hidden_act: z.string().default("gelu"),
  use_parallel_residual: z.boolean().default(true),
  attention_bias: z.boolean().default(true),
  rotary_pct: z.number().positive().max(1).default(0.25),
  rotary_emb_base: divisor.default(10_000),
});

/** Fields of Phi 1, 1.5 and 2. */
export const phiConfig = partlyTurnedConfig.extend({
  num_key_value_heads: dimension.nullish(),
  head_dim: dimension.nullish(),
  hidden_act: z.string().default("gelu_new"),
  qk_layernorm: z.boolean().default(false),
  partial_rotary_factor: z.number().positive().max(1).default(0.5),
  rope_theta: divisor.nullish(),
});

/** Fields of ERNIE 4.5. */
export const ernie45Config = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.nullable().default(2),
  head_dim: dimension.nullable().default(128),
  rms_norm_eps: z.number().positive().max(1).default(1e-5),
  tie_word_embeddings: z.boolean().default(true),
  use_bias: z.boolean().nullish(),
});

/** Fields of Helium. */
export const heliumConfig = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.default(20),
  head_dim: dimension.default(128),
  rms_norm_eps: z.number().positive().max(1).default(1e-8),
});

/** Fields of GLM 4. */
export const glmConfig = rotaryDecoderConfig.extend({
  num_key_value_heads: dimension.default(2),
  head_dim: dimension.nullable().default(128),
  rms_norm_eps: z.number().positive().max(1).default(1.5625e-7),
  partial_rotary_factor: z.number().positive().max(1).nullable().default(0.5),
  attention_bias: z.boolean().nullable().default(true),
});

/** Fields of Cohere's Command R and Aya. */
export const cohereConfig = rotaryDecoderConfig.extend({
  layer_norm_eps: z.number().positive().max(1).default(1e-5),
  logit_scale: factor.default(0.0625),
  tie_word_embeddings: z.boolean().default(true),
  use_qk_norm: z.boolean().nullish(),
});

/** Fields of Cohere's Command R7B and Command A. */
export const cohere2Config = cohereConfig.extend({
  sliding_window_pattern: dimension.default(4),
});

/** Fields of GPT-2. */
export const gpt2Config = z.looseObject({
  n_embd: dimension,
  n_inner: dimension.nullish(),
  n_layer: layerCount,
  n_head: dimension,
  vocab_size: dimension,
  n_positions: dimension.default(1024),
  layer_norm_epsilon: z.number().positive().max(1).default(1e-5),
  activation_function: z.string().default("gelu_new"),
  scale_attn_weights: z.boolean().default(true),
  scale_attn_by_inverse_layer_idx: z.boolean().default(false),
  add_cross_attention: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(true),
});

/** A parsed {@linkcode gpt2Config}. */
export type Gpt2Config = z.infer<typeof gpt2Config>;

/** Fields of GPT-BigCode. */
export const gptBigcodeConfig = gpt2Config.extend({
  activation_function: z.string().default("gelu_pytorch_tanh"),
  multi_query: z.boolean().default(true),
});

/** Fields of GPT-Neo. */
export const gptNeoConfig = z.looseObject({
  hidden_size: dimension,
  intermediate_size: dimension.nullish(),
  num_layers: layerCount,
  num_heads: dimension,
  vocab_size: dimension,
  max_position_embeddings: dimension.default(2048),
  window_size: dimension.default(256),
  attention_types: z.array(z.tuple([z.array(z.string()).min(1).max(10_000), layerCount]))
    .max(10_000).nullish(),
  layer_norm_epsilon: z.number().positive().max(1).default(1e-5),
  activation_function: z.string().default("gelu_new"),
  tie_word_embeddings: z.boolean().default(true),
});

/** A parsed {@linkcode gptNeoConfig}. */
export type GptNeoConfig = z.infer<typeof gptNeoConfig>;

/** Fields of OPT. */
export const optConfig = z.looseObject({
  hidden_size: dimension,
  ffn_dim: dimension,
  num_hidden_layers: layerCount,
  num_attention_heads: dimension,
  vocab_size: dimension,
  max_position_embeddings: dimension,
  word_embed_proj_dim: dimension.nullish(),
  activation_function: z.string().default("relu"),
  do_layer_norm_before: z.boolean().default(true),
  enable_bias: z.boolean().default(true),
  layer_norm_elementwise_affine: z.boolean().default(true),
  tie_word_embeddings: z.boolean().default(true),
  _remove_final_layer_norm: z.boolean().default(false),
});

/**
 * A config whose fields may have other names, which count where they are there: those of `attribute_map` in
 * transformers.
 *
 * @param names What a field may be called, and what it is called.
 */
export function withOtherNames(json: unknown, names: Readonly<Record<string, string>>): unknown {
  const config = json as Record<string, unknown>;
  const found = Object.entries(names).filter(([other]) => config[other] !== undefined);
  return { ...config, ...Object.fromEntries(found.map(([other, name]) => [name, config[other]])) };
}

/**
 * Checks a config against a schema.
 *
 * @throws {ConfigError} Naming the first field that is wrong.
 */
export function parseConfig<T>(schema: z.ZodType<T>, config: unknown): T {
  const parsed = schema.safeParse(config);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new ConfigError(`config.json: ${issue.path.join(".") || "top level"}: ${issue.message}`);
}
