/**
 * Gemma 4, those without experts: as Gemma 3, but that norms are stored as they are, values are normed, too, nothing
 * divides scores, layers of full attention have larger heads of which they turn a quarter, the last layers attend to keys
 * and values of earlier ones, and each layer is given a part of a second embedding.
 * @module
 */
import { z } from "zod";
import { ConfigError } from "../../errors.ts";
import {
  dimension,
  factor,
  parseConfig,
  ropeParametersOfKinds,
  rotaryDecoderConfig,
} from "../config.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import { INNER_ROOT, withRoot } from "./own_root.ts";
import { rotaryBy } from "./rotary.ts";
import {
  type Activation,
  checkHeads,
  type DecoderSpec,
  type LayerHeads,
  type PerLayerInputs,
} from "./spec.ts";
import { windowsOf } from "./windows.ts";

const gemma4Config = rotaryDecoderConfig.extend({
  vocab_size: dimension.default(262_144),
  hidden_size: dimension.default(2304),
  intermediate_size: dimension.default(9216),
  num_hidden_layers: rotaryDecoderConfig.shape.num_hidden_layers.default(30),
  num_attention_heads: dimension.default(8),
  num_key_value_heads: dimension.default(4),
  head_dim: dimension.default(256),
  max_position_embeddings: dimension.default(131_072),
  sliding_window: dimension.default(512),
  tie_word_embeddings: z.boolean().default(true),
  hidden_activation: z.string().default("gelu_pytorch_tanh"),
  rope_parameters: ropeParametersOfKinds,
  final_logit_softcapping: factor.nullish(),
  use_bidirectional_attention: z.string().nullish(),
  /** Of layers of full attention, as its makers write it … */
  global_head_dim: dimension.nullish(),
  /** … and of any layer, by its number, as transformers since 5.24 does: from ten layers on with zeros before it. */
  per_layer_config: z.record(
    z.string().regex(/^\d+$/),
    z.strictObject({ head_dim: dimension.optional(), num_key_value_heads: dimension.optional() }),
  ).nullish(),
  attention_k_eq_v: z.boolean().nullish(),
  num_kv_shared_layers: z.int().nonnegative().nullable().default(0),
  use_double_wide_mlp: z.boolean().nullish(),
  hidden_size_per_layer_input: z.int().nonnegative().max(10_000_000).nullable().default(256),
  vocab_size_per_layer_input: dimension.default(262_144),
  enable_moe_block: z.boolean().nullish(),
});

type Gemma4Config = z.infer<typeof gemma4Config>;

const gemma4OfImagesConfig = z.looseObject({
  tie_word_embeddings: z.boolean().nullish(),
  text_config: z.looseObject({ tie_word_embeddings: z.boolean().nullish() }),
});

const ACTIVATIONS: ReadonlyMap<string, Activation> = new Map([
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["gelu", "gelu"],
]);
/** Elements of a head of full attention, and of six layers how many have a window, where a config says nothing of it. */
const USUAL_GLOBAL_HEAD = 512, USUAL_PATTERN = 6;
/** Rotary settings where a config has none. */
const USUAL_ROPE = {
  full_attention: {
    rope_type: "proportional",
    rope_theta: 1_000_000,
    partial_rotary_factor: 0.25,
  },
  sliding_attention: { rope_type: "default", rope_theta: 10_000 },
};

/**
 * The decoder that a `config.json` with `model_type` `gemma4_text` describes.
 *
 * @throws {ConfigError} When it has experts, values that are its keys, or tokens that see those behind them, or when
 *   layers do not go together.
 */
export function gemma4(json: unknown): DecoderSpec {
  const config = parseConfig(gemma4Config, json);
  refuse(config);
  const { num_hidden_layers: layers } = config;
  // Whatever the config says, the last layer sees all.
  const isFull = fullLayersOf(config);
  const window = windowsOf(
    { ...config, layer_types: undefined },
    (layer) => !isFull(layer),
  );
  const headsIn = headsInLayers(config, isFull);
  const keysOf = sharedKeysOf(config, isFull, headsIn);
  const decoder = rotaryDecoder({
    ...config,
    hidden_act: config.hidden_activation,
    rope_parameters: undefined,
  }, {
    ...attentionBiases(config),
    activations: ACTIVATIONS,
    norms: {
      attention: { before: "input_layernorm", after: "post_attention_layernorm" },
      mlp: { before: "pre_feedforward_layernorm", after: "post_feedforward_layernorm" },
    },
    attentionNorm: "heads",
    attentionScale: 1,
    scales: { embedding: Math.sqrt(config.hidden_size) },
    logitCap: config.final_logit_softcapping ?? undefined,
    window,
    rotary: () => rotaryOfLayers(config, isFull, headsIn),
  });
  const { intermediate_size: narrow, use_double_wide_mlp } = config;
  const isWide = (layer: number) => !!use_double_wide_mlp && keysOf(layer) !== undefined;
  const widest = isWide(layers - 1) ? 2 * narrow : narrow;
  return {
    ...decoder,
    intermediate: widest,
    attention: { ...decoder.attention, headsIn, normsValues: true, keysOf },
    mlp: { ...decoder.mlp, intermediateIn: (layer) => isWide(layer) ? widest : narrow },
    perLayer: perLayerOf(config),
    blockScale: "layer_scalar",
  };
}

/** The decoder of a model of images, sounds and text, `model_type` `gemma4`: what reads the others is left as it is. */
export function gemma4OfImages(json: unknown): DecoderSpec {
  const { tie_word_embeddings: tied, text_config: text } = parseConfig(gemma4OfImagesConfig, json);
  const tie_word_embeddings = (text.tie_word_embeddings ?? true) || (tied ?? true);
  return withRoot(gemma4({ ...text, tie_word_embeddings }), INNER_ROOT);
}

function refuse(config: Gemma4Config): void {
  const why = config.enable_moe_block
    ? "enable_moe_block is set: models with experts are not supported"
    : config.attention_k_eq_v
    ? "attention_k_eq_v is set: layers whose values are their keys are not supported"
    : config.use_bidirectional_attention === "all"
    ? "use_bidirectional_attention is all: the model reads texts and writes none"
    : undefined;
  if (why !== undefined) throw new ConfigError(`config.json: ${why}`);
}

/** Which layers see all tokens before them. */
function fullLayersOf(config: Gemma4Config): (layer: number) => boolean {
  const { num_hidden_layers: layers } = config;
  const window = windowsOf(config, (layer) => (layer + 1) % USUAL_PATTERN !== 0);
  return (layer) => layer === layers - 1 || window(layer) === undefined;
}

function headsInLayers(
  config: Gemma4Config,
  isFull: (layer: number) => boolean,
): (layer: number) => LayerHeads {
  const { num_key_value_heads, head_dim, global_head_dim, num_hidden_layers: layers } = config;
  const ofFull = global_head_dim ?? USUAL_GLOBAL_HEAD;
  const isByLayer = config.per_layer_config !== undefined;
  const others = new Map(
    Object.entries(config.per_layer_config ?? {}).map(([layer, own]) => [Number(layer), own]),
  );
  const beyond = [...others.keys()].find((layer) => layer >= layers);
  if (beyond !== undefined) {
    throw new ConfigError(
      `config.json: per_layer_config names layer ${beyond}, and num_hidden_layers is ${layers}`,
    );
  }
  const all = Array.from({ length: layers }, (_, layer): LayerHeads => {
    const own = others.get(layer);
    const usual = isFull(layer) && !isByLayer ? ofFull : head_dim;
    return {
      keyValueHeads: own?.num_key_value_heads ?? num_key_value_heads,
      headDim: own?.head_dim ?? usual,
    };
  });
  for (const { keyValueHeads, headDim } of all) {
    checkHeads(config.hidden_size, config.num_attention_heads, keyValueHeads, headDim);
  }
  return (layer) => all[layer];
}

/** Layers of a kind turn alike, and have heads of a size. */
function rotaryOfLayers(
  config: Gemma4Config,
  isFull: (layer: number) => boolean,
  headsIn: (layer: number) => LayerHeads,
): DecoderSpec["rotary"] {
  const { max_position_embeddings: context, num_hidden_layers: layers } = config;
  const settings = config.rope_parameters ?? USUAL_ROPE;
  const of = (full: boolean) => {
    const all = Array.from({ length: layers }, (_, layer) => layer);
    const first = all.find((layer) => isFull(layer) === full);
    if (first === undefined) return undefined;
    const { headDim } = headsIn(first);
    if (all.some((layer) => isFull(layer) === full && headsIn(layer).headDim !== headDim)) {
      throw new ConfigError(
        "config.json: layers of one kind with heads of different sizes are not supported",
      );
    }
    const rope = full ? settings.full_attention : settings.sliding_attention;
    const usual = full ? USUAL_ROPE.full_attention : USUAL_ROPE.sliding_attention;
    return rotaryBy(rope ?? {}, { headDim, theta: usual.rope_theta, context });
  };
  const full = of(true), sliding = of(false);
  return (layer) => isFull(layer) ? full : sliding;
}

/** Of the last layers, the last one before them of their kind. */
function sharedKeysOf(
  { num_hidden_layers: layers, num_kv_shared_layers: shared }: Gemma4Config,
  isFull: (layer: number) => boolean,
  headsIn: (layer: number) => LayerHeads,
): (layer: number) => number | undefined {
  const first = layers - (shared ?? 0);
  const sources = Array.from({ length: layers }, (_, layer) => {
    if (layer < first) return undefined;
    for (let from = first - 1; from >= 0; from--) {
      if (isFull(from) !== isFull(layer)) continue;
      const [own, other] = [layer, from].map(headsIn);
      if (own.headDim === other.headDim && own.keyValueHeads === other.keyValueHeads) return from;
      break;
    }
    throw new ConfigError(
      `config.json: num_kv_shared_layers ${shared} leaves layer ${layer} no keys and values to attend to`,
    );
  });
  return (layer) => sources[layer];
}

function perLayerOf(config: Gemma4Config): PerLayerInputs | undefined {
  const width = config.hidden_size_per_layer_input;
  if (!width) return undefined;
  return {
    width,
    vocabulary: config.vocab_size_per_layer_input,
    table: "embed_tokens_per_layer",
    scale: Math.sqrt(width),
    projection: "per_layer_model_projection",
    norm: "per_layer_projection_norm",
    gate: "per_layer_input_gate",
    back: "per_layer_projection",
    after: "post_per_layer_input_norm",
  };
}
