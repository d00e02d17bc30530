/**
 * Gemma and Gemma 3: embeddings multiplied by the root of the hidden size, norms whose weights are stored as what
 * they are above 1, and GELU's approximation by tanh. Gemma 3 norms what goes in and out of attention and MLP, and
 * queries and keys; five of six layers attend to a sliding window and turn by frequencies of their own.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import { gemma3Config, gemma3OfImagesConfig, gemmaConfig, parseConfig } from "../config.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import { INNER_ROOT } from "./own_root.ts";
import { rotaryOfKinds } from "./rotary.ts";
import type { Activation, DecoderSpec } from "./spec.ts";
import { windowsOf } from "./windows.ts";

/** Gemma's first configs say `gelu` and mean the approximation, as transformers takes them … */
const GEMMA_ACTIVATIONS: ReadonlyMap<string, Activation> = new Map([
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["gelu", "gelu_tanh"],
]);
/** … and those of Gemma 3 mean what they say. */
const GEMMA3_ACTIVATIONS: ReadonlyMap<string, Activation> = new Map([
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["gelu", "gelu"],
]);
/** Gemma 3's bases of rotary frequencies where its config names none. */
const USUAL_THETA = 1_000_000, USUAL_LOCAL_THETA = 10_000;

/** The decoder that a `config.json` with `model_type` `gemma` describes. */
export function gemma(json: unknown): DecoderSpec {
  const config = parseConfig(gemmaConfig, json);
  refuseBidirectional(config);
  return rotaryDecoder(config, {
    ...attentionBiases(config),
    activations: GEMMA_ACTIVATIONS,
    norms: { aboveOne: true },
    scales: { embedding: Math.sqrt(config.hidden_size) },
  });
}

/**
 * The decoder that a `config.json` with `model_type` `gemma3_text` describes.
 *
 * @throws {ConfigError} When scores or logits are capped, or tokens see those behind them.
 */
export function gemma3(json: unknown): DecoderSpec {
  const config = parseConfig(gemma3Config, json);
  refuseBidirectional(config);
  for (const key of ["attn_logit_softcapping", "final_logit_softcapping"] as const) {
    if (config[key]) throw new ConfigError(`config.json: ${key} is not supported`);
  }
  const pattern = config.sliding_window_pattern;
  const window = windowsOf(config, (layer) => (layer + 1) % pattern !== 0);
  const isSliding = (layer: number) => window(layer) !== undefined;
  return rotaryDecoder({
    ...config,
    hidden_act: config.hidden_activation ?? "gelu_pytorch_tanh",
    rope_parameters: undefined,
  }, {
    ...attentionBiases(config),
    activations: GEMMA3_ACTIVATIONS,
    norms: {
      aboveOne: true,
      attention: { before: "input_layernorm", after: "post_attention_layernorm" },
      mlp: { before: "pre_feedforward_layernorm", after: "post_feedforward_layernorm" },
    },
    attentionNorm: "heads",
    attentionScale: 1 / Math.sqrt(config.query_pre_attn_scalar),
    scales: { embedding: Math.sqrt(config.hidden_size) },
    window,
    rotary: (headDim) =>
      rotaryOfKinds(config, headDim, isSliding, {
        full: config.rope_theta ?? USUAL_THETA,
        sliding: config.rope_local_base_freq ?? USUAL_LOCAL_THETA,
      }),
  });
}

/**
 * The decoder of a model of images and text, `model_type` `gemma3`: what reads images is left as it is.
 *
 * @throws {ConfigError} As for {@linkcode gemma3}.
 */
export function gemma3OfImages(json: unknown): DecoderSpec {
  const { text_config } = parseConfig(gemma3OfImagesConfig, json);
  const decoder = gemma3(text_config);
  const head = decoder.head.replace(decoder.root, INNER_ROOT);
  return { ...decoder, root: INNER_ROOT, head };
}

/** Embedding models made of Gemma read texts in both directions: they write none. */
function refuseBidirectional(config: { readonly use_bidirectional_attention?: boolean | null }) {
  if (!config.use_bidirectional_attention) return;
  throw new ConfigError(
    "config.json: use_bidirectional_attention is set: the model reads texts and writes none",
  );
}
