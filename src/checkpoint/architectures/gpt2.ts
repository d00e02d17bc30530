/**
 * GPT-2 and its relatives (DistilGPT2, DialoGPT, Cerebras-GPT): learned positions, layer norms with biases, a plain MLP,
 * and queries, keys and values in one matrix. Matrices are stored turned: see `../turned.ts`. GPT-BigCode (StarCoder,
 * SantaCoder): the same, not turned, with one head of keys and values for all queries.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import {
  type Gpt2Config,
  gpt2Config,
  gptBigcodeConfig,
  parseConfig,
  withOtherNames,
} from "../config.ts";
import { activationOf, PLAIN } from "./activations.ts";
import { checkHeads, type DecoderSpec } from "./spec.ts";

const ROOT = "transformer";
const NAMES = { embedding: "wte", positions: "wpe", layers: "h", attention: "attn" };

/** What fields are called in other models' configs, and sometimes here. */
export const OTHER_NAMES = {
  hidden_size: "n_embd",
  max_position_embeddings: "n_positions",
  num_attention_heads: "n_head",
  num_hidden_layers: "n_layer",
};

/** The decoder that a `config.json` with `model_type` `gpt2` describes. */
export function gpt2(json: unknown): DecoderSpec {
  const config = parseConfig(gpt2Config, withOtherNames(json, OTHER_NAMES));
  const decoder = gpt2Decoder(config);
  if (!config.scale_attn_by_inverse_layer_idx) return decoder;
  const scale = scaleOf(config);
  const ofLayer = (layer: number) => scale / (layer + 1);
  return { ...decoder, attention: { ...decoder.attention, scale: ofLayer } };
}

/** The decoder that a `config.json` with `model_type` `gpt_bigcode` describes. */
export function gptBigcode(json: unknown): DecoderSpec {
  const config = parseConfig(gptBigcodeConfig, withOtherNames(json, OTHER_NAMES));
  const decoder = gpt2Decoder(config);
  return {
    ...decoder,
    keyValueHeads: config.multi_query ? 1 : decoder.heads,
    attention: { ...decoder.attention, byHead: !config.multi_query },
  };
}

/** What scores are multiplied with. */
function scaleOf({ scale_attn_weights, n_embd, n_head }: Gpt2Config): number {
  return scale_attn_weights ? 1 / Math.sqrt(n_embd / n_head) : 1;
}

/**
 * The decoder that all these are.
 *
 * @throws {ConfigError} When it attends to something else than its own text.
 */
export function gpt2Decoder(config: Gpt2Config): DecoderSpec {
  if (config.add_cross_attention) {
    throw new ConfigError(
      "config.json: add_cross_attention is not supported: what such a decoder attends to is not its own text",
    );
  }
  const { n_embd: hidden, n_head: heads } = config;
  const headDim = hidden / heads;
  checkHeads(hidden, heads, heads, headDim);
  return {
    hidden,
    intermediate: config.n_inner ?? 4 * hidden,
    layers: config.n_layer,
    heads,
    keyValueHeads: heads,
    headDim,
    vocabulary: config.vocab_size,
    context: config.n_positions,
    root: ROOT,
    names: NAMES,
    head: config.tie_word_embeddings ? `${ROOT}.${NAMES.embedding}` : "lm_head",
    learnedPositions: { offset: 0 },
    rotary: () => undefined,
    norm: {
      kind: "layer",
      epsilon: config.layer_norm_epsilon,
      affine: true,
      attention: { before: "ln_1" },
      mlp: { before: "ln_2" },
      final: "ln_f",
    },
    attention: {
      out: "c_proj",
      fused: "c_attn",
      inputBias: true,
      outputBias: true,
      scale: scaleOf(config),
      window: () => undefined,
    },
    mlp: {
      up: "mlp.c_fc",
      down: "mlp.c_proj",
      bias: true,
      activation: activationOf(config.activation_function, PLAIN, "activation_function"),
    },
  };
}
