/**
 * Helium: Llama in which neighbouring elements of queries and keys are turned together; attention's biases are those
 * of queries, keys and values alone.
 * @module
 */
import { heliumConfig, parseConfig } from "../config.ts";
import { rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

/** The base of rotary frequencies where a config names none. */
const USUAL_THETA = 100_000;

/** The decoder that a `config.json` with `model_type` `helium` describes. */
export function helium(json: unknown): DecoderSpec {
  const config = parseConfig(heliumConfig, json);
  return rotaryDecoder({ ...config, rope_theta: config.rope_theta ?? USUAL_THETA }, {
    inputBias: config.attention_bias ?? false,
    mlpBias: config.mlp_bias ?? false,
    interleaved: true,
  });
}
