/**
 * Gemma 1 to 3 and VaultGemma: embeddings multiplied by the root of the hidden size, norms whose weights are stored as what they are
 * above 1, and GELU's approximation by tanh. Gemma 2 and 3 norm what goes in and out of attention and MLP. In Gemma 2,
 * scores and logits are capped, and every other layer attends to a sliding window; in Gemma 3, queries and keys are
 * normed, and five of six layers attend to a sliding window and turn by frequencies of their own.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import {
  gemma2Config,
  gemma3Config,
  gemma3OfImagesConfig,
  gemmaConfig,
  parseConfig,
} from "../config.ts";
import { attentionBiases, type Differences, rotaryDecoder } from "./llama.ts";
import { INNER_ROOT, withRoot } from "./own_root.ts";
import { rotaryOfKinds } from "./rotary.ts";
import type { Activation, DecoderSpec } from "./spec.ts";
import { windowsOf } from "./windows.ts";

/** Gemma's first configs say `gelu` and mean the approximation, as transformers takes them … */
const GEMMA_ACTIVATIONS: ReadonlyMap<string, Activation> = new Map([
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["gelu", "gelu_tanh"],
]);
/** … and those of Gemma 2 and 3 mean what they say. */
const LATER_ACTIVATIONS: ReadonlyMap<string, Activation> = new Map([
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["gelu", "gelu"],
]);
/** The norms of Gemma 2 and 3. */
const LATER_NORMS: Differences["norms"] = {
  aboveOne: true,
  attention: { before: "input_layernorm", after: "post_attention_layernorm" },
  mlp: { before: "pre_feedforward_layernorm", after: "post_feedforward_layernorm" },
};
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
 * The decoder that a `config.json` with `model_type` `gemma2` describes.
 *
 * @throws {ConfigError} When tokens see those behind them.
 */
export function gemma2(json: unknown): DecoderSpec {
  return gemma2With(json, LATER_NORMS);
}

/**
 * The decoder that a `config.json` with `model_type` `vaultgemma` describes: Gemma 2, which norms nothing that comes out.
 *
 * @throws {ConfigError} When tokens see those behind them.
 */
export function vaultGemma(json: unknown): DecoderSpec {
  return gemma2With(json, {
    aboveOne: true,
    attention: { before: "input_layernorm" },
    mlp: { before: "pre_feedforward_layernorm" },
  });
}

function gemma2With(json: unknown, norms: Differences["norms"]): DecoderSpec {
  const config = parseConfig(gemma2Config, json);
  refuseBidirectional(config);
  return rotaryDecoder({
    ...config,
    hidden_act: config.hidden_activation ?? "gelu_pytorch_tanh",
  }, {
    ...attentionBiases(config),
    activations: LATER_ACTIVATIONS,
    norms,
    attentionScale: 1 / Math.sqrt(config.query_pre_attn_scalar),
    attentionCap: config.attn_logit_softcapping ?? undefined,
    scales: { embedding: Math.sqrt(config.hidden_size) },
    logitCap: config.final_logit_softcapping ?? undefined,
    window: windowsOf(config, (layer) => layer % 2 === 0),
  });
}

/**
 * The decoder that a `config.json` with `model_type` `gemma3_text` describes.
 *
 * @throws {ConfigError} When scores are capped, or tokens see those behind them.
 */
export function gemma3(json: unknown): DecoderSpec {
  const config = parseConfig(gemma3Config, json);
  refuseBidirectional(config);
  if (config.attn_logit_softcapping) {
    // transformers reads the field, and leaves scores as they are.
    throw new ConfigError(
      "config.json: attn_logit_softcapping is not supported in Gemma 3, of which no model caps its scores: set it to null",
    );
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
    activations: LATER_ACTIVATIONS,
    norms: LATER_NORMS,
    attentionNorm: "heads",
    attentionScale: 1 / Math.sqrt(config.query_pre_attn_scalar),
    scales: { embedding: Math.sqrt(config.hidden_size) },
    logitCap: config.final_logit_softcapping ?? undefined,
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
  const { tie_word_embeddings: tied, text_config: text } = parseConfig(gemma3OfImagesConfig, json);
  // Where either says so, which is the default.
  const tie_word_embeddings = (text.tie_word_embeddings ?? true) || (tied ?? true);
  const decoder = gemma3({ ...text, tie_word_embeddings });
  // Gemma 3 caps its logits only where it is by itself.
  return withRoot({ ...decoder, logitCap: undefined }, INNER_ROOT);
}

/** Embedding models made of Gemma read texts in both directions: they write none. */
function refuseBidirectional(config: { readonly use_bidirectional_attention?: boolean | null }) {
  if (!config.use_bidirectional_attention) return;
  throw new ConfigError(
    "config.json: use_bidirectional_attention is set: the model reads texts and writes none",
  );
}
