/**
 * The part of `config.json` that every architecture reads, and rotary position embeddings.
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

/** From 1 on, what angles are divided by leaves them finite. */
const divisor = z.number().min(1);

const ropeParameters = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: divisor.optional(),
  factor: divisor.optional(),
  low_freq_factor: z.number().positive().optional(),
  high_freq_factor: z.number().positive().optional(),
  original_max_position_embeddings: z.number().int().positive().optional(),
  partial_rotary_factor: z.number().positive().max(1).optional(),
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

/** A parsed {@linkcode rotaryDecoderConfig}. */
export type RotaryDecoderConfig = z.infer<typeof rotaryDecoderConfig>;

/** Fields of SmolLM 3. */
export const smollm3Config = rotaryDecoderConfig.extend({
  tie_word_embeddings: z.boolean().default(true),
  no_rope_layers: z.array(z.int().min(0).max(1)).nullish(),
  no_rope_layer_interval: dimension.default(4),
});

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

/**
 * The angle that each pair of rotary dimensions turns by for one position.
 *
 * Types `default`, `linear`, and `llama3` (which stretches low frequencies only, with a smooth
 * passage: transformers `modeling_rope_utils.py`, `_compute_llama3_parameters`).
 *
 * @param config The model's config.
 * @param headDim Elements of a head.
 * @returns `headDim / 2` angles in radians, float32: models were trained with them rounded so.
 * @throws {ConfigError} For a type that is not known, or lacks a parameter.
 */
export function rotaryFrequencies(config: RotaryDecoderConfig, headDim: number): Float32Array {
  // A config with both is a newer one to which somebody added what older ones have: that counts.
  const { rope_scaling, rope_parameters } = config;
  const added = rope_scaling && Object.keys(rope_scaling).length > 0 ? rope_scaling : undefined;
  const rope: z.infer<typeof ropeParameters> = added ?? rope_parameters ?? {};
  const theta = rope.rope_theta ?? config.rope_theta ?? 10000;
  const type = rope.rope_type ?? rope.type ?? "default";
  if ((rope.partial_rotary_factor ?? 1) !== 1) {
    throw new ConfigError("config.json: partial_rotary_factor other than 1 is not supported");
  }
  const frequencies = Float32Array.from(
    { length: headDim / 2 },
    (_, i) => 1 / Math.fround(theta ** Math.fround(2 * i / headDim)),
  );
  const need = (key: "factor" | "low_freq_factor" | "high_freq_factor"): number => {
    const value = rope[key];
    if (value === undefined) throw new ConfigError(`config.json: rope type ${type} needs ${key}`);
    return value;
  };
  if (type === "default") return frequencies;
  if (type === "linear") {
    const factor = need("factor");
    return frequencies.map((frequency) => frequency / factor);
  }
  if (type === "llama3") {
    const factor = need("factor");
    const low = need("low_freq_factor");
    const high = need("high_freq_factor");
    if (low === high) {
      throw new ConfigError("config.json: low_freq_factor and high_freq_factor must differ");
    }
    const context = rope.original_max_position_embeddings ?? config.max_position_embeddings;
    return frequencies.map((frequency) => {
      const turns = context * frequency / (2 * Math.PI);
      if (turns < low) return frequency / factor;
      if (turns > high) return frequency;
      const smooth = (turns - low) / (high - low);
      return (1 - smooth) * frequency / factor + smooth * frequency;
    });
  }
  throw new ConfigError(
    `config.json: rope type ${JSON.stringify(type)} is not supported (default, linear, llama3 are)`,
  );
}
