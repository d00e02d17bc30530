/**
 * Llama 1 to 3, SmolLM, TinyLlama and their many relatives: the plain decoder with rotary positions.
 * The other rotary decoders are stated as what they change in it.
 * @module
 */
import { parseConfig, type RotaryDecoderConfig, rotaryDecoderConfig } from "../config.ts";
import { activationOf } from "./activations.ts";
import { rotaryOf } from "./rotary.ts";
import { type Activation, checkHeads, type DecoderSpec, type Rotary } from "./spec.ts";

/** The decoder that a `config.json` with `model_type` `llama` describes. */
export function llama(json: unknown): DecoderSpec {
  const config = parseConfig(rotaryDecoderConfig, json);
  return rotaryDecoder(config, {
    ...attentionBiases(config),
    mlpBias: config.mlp_bias ?? false,
  });
}

/** Biases of all of attention's linears, where a config says so. */
export function attentionBiases(
  { attention_bias }: Pick<RotaryDecoderConfig, "attention_bias">,
): Pick<Differences, "inputBias" | "outputBias"> {
  return { inputBias: attention_bias ?? false, outputBias: attention_bias ?? false };
}

/** What an architecture has that Llama has not. */
export interface Differences {
  readonly inputBias?: boolean;
  readonly outputBias?: boolean;
  readonly mlpBias?: boolean;
  /** Whether the MLP has a gate; default: it has. */
  readonly gated?: boolean;
  /** Activations by the names that configs have for them; default: SiLU alone. */
  readonly activations?: ReadonlyMap<string, Activation>;
  readonly norms?: Partial<
    Pick<DecoderSpec["norm"], "kind" | "epsilon" | "affine" | "aboveOne" | "attention" | "mlp">
  >;
  readonly attentionNorm?: DecoderSpec["attention"]["norm"];
  readonly attentionScale?: number;
  readonly attentionCap?: number;
  readonly logitCap?: number;
  readonly scales?: DecoderSpec["scales"];
  readonly window?: (layer: number) => number | undefined;
  /** Whether neighbouring elements are turned together, where all layers turn by the config's settings. */
  readonly interleaved?: boolean;
  /** Default: all layers turn by the config's settings. */
  readonly rotary?: (headDim: number) => DecoderSpec["rotary"];
}

const SILU: ReadonlyMap<string, Activation> = new Map([["silu", "silu"]]);

/**
 * A decoder with rotary embeddings, RMS norms (unless its architecture has others) and a gated MLP.
 *
 * @param config Its config.
 * @param differs What its architecture has that Llama has not.
 */
export function rotaryDecoder(
  config: RotaryDecoderConfig,
  differs: Differences = {},
): DecoderSpec {
  const heads = config.num_attention_heads;
  const keyValueHeads = config.num_key_value_heads ?? heads;
  const headDim = config.head_dim ?? config.hidden_size / heads;
  checkHeads(config.hidden_size, heads, keyValueHeads, headDim);
  return {
    hidden: config.hidden_size,
    intermediate: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads,
    keyValueHeads,
    headDim,
    vocabulary: config.vocab_size,
    context: config.max_position_embeddings,
    root: "model",
    head: config.tie_word_embeddings ? "model.embed_tokens" : "lm_head",
    scales: differs.scales,
    logitCap: differs.logitCap,
    rotary: differs.rotary?.(headDim) ??
      everywhere({ ...rotaryOf(config, headDim), interleaved: differs.interleaved }),
    norm: {
      kind: "rms",
      epsilon: config.rms_norm_eps,
      affine: true,
      attention: { before: "input_layernorm" },
      mlp: { before: "post_attention_layernorm" },
      ...differs.norms,
      final: "norm",
    },
    attention: {
      out: "o_proj",
      inputBias: differs.inputBias ?? false,
      outputBias: differs.outputBias ?? false,
      norm: differs.attentionNorm,
      scale: differs.attentionScale,
      cap: differs.attentionCap,
      window: differs.window ?? (() => undefined),
    },
    mlp: {
      gate: differs.gated === false ? undefined : "mlp.gate_proj",
      up: "mlp.up_proj",
      down: "mlp.down_proj",
      bias: differs.mlpBias ?? false,
      activation: activationOf(config.hidden_act, differs.activations ?? SILU),
    },
  };
}

/** All layers turn alike. */
function everywhere(rotary: Rotary): DecoderSpec["rotary"] {
  return () => rotary;
}
