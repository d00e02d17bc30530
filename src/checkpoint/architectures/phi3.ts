/**
 * Phi 3, 3.5 and 4-mini: Llama whose queries, keys and values are one matrix, and gate and up another; of heads, some
 * turn a part only.
 * @module
 */
import { parseConfig, phi3Config } from "../config.ts";
import { rotaryDecoder } from "./llama.ts";
import { ropeOf, ropeTypeOf, rotaryBy } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { everywhere } from "./windows.ts";

/** What configs have called LongRoPE. */
const LONG = new Set(["longrope", "su", "yarn"]);

/** The decoder that a `config.json` with `model_type` `phi3` describes. */
export function phi3(json: unknown): DecoderSpec {
  const config = parseConfig(phi3Config, json);
  const { original_max_position_embeddings: original, max_position_embeddings: longest } = config;
  const rope = ropeOf(config);
  const isLong = LONG.has(ropeTypeOf(rope));
  const settings = {
    ...rope,
    partial_rotary_factor: rope.partial_rotary_factor ?? config.partial_rotary_factor,
    ...(isLong ? { rope_type: "longrope", original_max_position_embeddings: original } : {}),
  };
  const decoder = rotaryDecoder(config, {
    window: everywhere(config),
    rotary(headDim) {
      const theta = config.rope_theta ?? 10_000;
      const rotary = rotaryBy(settings, { headDim, theta, context: longest });
      return () => rotary;
    },
  });
  return {
    ...decoder,
    attention: { ...decoder.attention, fused: "qkv_proj" },
    mlp: { ...decoder.mlp, fused: "mlp.gate_up_proj" },
  };
}
