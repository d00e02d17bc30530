/**
 * Granite: Llama with factors of its embedding, its residual stream, its attention and its logits. Granite 4 without
 * experts (350M, 1B, Micro): the same, whose gate and up are one matrix; of those named H, most layers have a state space
 * in place of attention. And Granite with sliding windows: the same with a sink for each head.
 * @module
 */
import type { z } from "zod";
import { ConfigError } from "../../errors.ts";
import {
  type GraniteConfig,
  graniteConfig,
  graniteHybridConfig,
  graniteSwaConfig,
  parseConfig,
  type RotaryDecoderConfig,
  withOtherNames,
} from "../config.ts";
import { attentionBiases, type Differences, rotaryDecoder } from "./llama.ts";
import { ropeOf, rotaryOf } from "./rotary.ts";
import type { DecoderSpec, Recurrent } from "./spec.ts";
import { checkKinds, windowsOf } from "./windows.ts";

/** The decoder that a `config.json` with `model_type` `granite` describes. */
export function granite(json: unknown): DecoderSpec {
  const config = parseConfig(graniteConfig, json);
  return rotaryDecoder(config, { ...factorsOf(config), mlpBias: config.mlp_bias ?? false });
}

/**
 * The decoder that a `config.json` with `model_type` `granitemoehybrid` describes.
 *
 * @throws {ConfigError} When it has experts, layers of other kinds, or sizes that do not go together.
 */
export function graniteHybrid(json: unknown): DecoderSpec {
  const config = parseConfig(
    graniteHybridConfig,
    withOtherNames(json, { layers_block_type: "layer_types" }),
  );
  const { num_hidden_layers: layers, layer_types: kinds, num_local_experts: experts } = config;
  if (experts > 0) {
    throw new ConfigError(
      `config.json: num_local_experts ${experts}: mixtures of experts are not supported; ` +
        "of Granite 4, those without are: 350M, 1B, Micro, and these named H",
    );
  }
  if (kinds) checkKinds(kinds, layers, [...ATTENDING, ...REMEMBERING]);
  const isIn = (layer: number) => !kinds || REMEMBERING.includes(kinds[layer]);
  const turns = config.position_embedding_type === "rope";
  const decoder = rotaryDecoder(
    { ...config, intermediate_size: config.shared_intermediate_size },
    {
      ...factorsOf(config),
      ...(turns ? {} : { rotary: () => () => undefined }),
    },
  );
  const { rotary } = decoder;
  const remembers = Array.from({ length: layers }, (_, layer) => isIn(layer)).includes(true);
  return {
    ...decoder,
    rotary: (layer) => isIn(layer) ? undefined : rotary(layer),
    recurrent: remembers ? { ...stateSpaceOf(config), isIn } : undefined,
    mlp: {
      ...decoder.mlp,
      fused: "shared_mlp.input_linear",
      down: "shared_mlp.output_linear",
    },
  };
}

/** What layers that attend and those that remember are called; the last two since transformers 5. */
const ATTENDING = ["attention", "full_attention"], REMEMBERING = ["mamba", "linear_attention"];

/** The state spaces of Granite 4 H. */
function stateSpaceOf(
  config: z.infer<typeof graniteHybridConfig>,
): Omit<Recurrent, "isIn"> {
  const { mamba_n_heads: heads, mamba_d_head: head, mamba_n_groups: groups } = config;
  const { mamba_d_state: keyDim, mamba_d_conv: length, mamba_expand: expand } = config;
  const unset = Object.entries({ heads, head, groups, keyDim, length, expand })
    .find(([, value]) => value === null);
  if (unset) throw new ConfigError("config.json: a size of its state spaces (mamba_…) is null");
  const width = expand! * config.hidden_size;
  const valueDim = head === "auto" ? Math.floor(width / heads!) : head!;
  if (valueDim * heads! !== width) {
    throw new ConfigError(
      `config.json: ${heads} heads of ${valueDim} elements (mamba_n_heads, mamba_d_head) are not the ${width} ` +
        "that state spaces are wide (mamba_expand times hidden_size)",
    );
  }
  if (groups !== 1) {
    throw new ConfigError(
      `config.json: mamba_n_groups ${groups}: state spaces of one group are supported, as Granite 4 has them`,
    );
  }
  refuseLimit(config.time_step_limit);
  return {
    kind: "state space",
    keyHeads: 1,
    valueHeads: heads!,
    keyDim: keyDim!,
    valueDim,
    length: length!,
    kernelBias: config.mamba_conv_bias ?? false,
    bias: config.mamba_proj_bias ?? false,
  };
}

/** Refuses limits of steps but those that no step meets: 0, and infinity in the form that transformers 5 writes. */
function refuseLimit(limit: readonly unknown[] | null | undefined): void {
  const text = JSON.stringify(limit);
  if (!limit || text === '[0,{"__float__":"Infinity"}]') return;
  throw new ConfigError(
    `config.json: time_step_limit ${text} is not supported: steps without a limit are`,
  );
}

/** The window of models whose config names none, and how many layers have one for each that sees everything. */
const USUAL = { window: 128, period: 4 };

/**
 * The decoder that a `config.json` with `model_type` `granite_swa` describes.
 *
 * @throws {ConfigError} When `layer_rope_theta` is not that of every layer.
 */
export function graniteSwa(json: unknown): DecoderSpec {
  const config = parseConfig(graniteSwaConfig, json);
  const { num_hidden_layers: layers, layer_rope_theta: thetas } = config;
  if (thetas && thetas.length !== layers) {
    throw new ConfigError(
      `config.json: layer_rope_theta names ${thetas.length} layers, num_hidden_layers ${layers}`,
    );
  }
  const { sliding_window: window = USUAL.window } = config;
  const windows = windowsOf(
    { ...config, sliding_window: window },
    (layer) => layer % USUAL.period !== 0,
  );
  const decoder = rotaryDecoder(config, {
    ...factorsOf(config),
    mlpBias: config.mlp_bias ?? false,
    window: windows,
    ...(thetas ? { rotary: (headDim) => rotaryByLayer(config, headDim, thetas) } : {}),
  });
  return { ...decoder, attention: { ...decoder.attention, sinks: "sinks" } };
}

/** How layers turn, each by a base of its own, or not at all; those of the same base turn alike. */
function rotaryByLayer(
  config: RotaryDecoderConfig,
  headDim: number,
  thetas: readonly number[],
): DecoderSpec["rotary"] {
  const turning = [...new Set(thetas)].filter((theta) => theta !== 0);
  const rotaries = new Map(turning.map((theta) => {
    const settings = { ...ropeOf(config), rope_theta: theta };
    return [theta, rotaryOf({ ...config, rope_scaling: settings }, headDim)];
  }));
  return (layer) => rotaries.get(thetas[layer]);
}

/** What all have that Llama has not. */
export function factorsOf(config: GraniteConfig): Differences {
  return {
    ...attentionBiases(config),
    attentionScale: config.attention_multiplier,
    scales: {
      embedding: config.embedding_multiplier,
      residual: config.residual_multiplier,
      logits: 1 / config.logits_scaling,
    },
  };
}
