/**
 * ERNIE 4.5 (the dense ones): Llama in which neighbouring elements of queries and keys are turned together.
 * @module
 */
import { ernie45Config, parseConfig } from "../config.ts";
import { rotaryDecoder } from "./llama.ts";
import type { DecoderSpec } from "./spec.ts";

/** The base of rotary frequencies where a config names none. */
const USUAL_THETA = 500_000;

/** The decoder that a `config.json` with `model_type` `ernie4_5` describes. */
export function ernie45(json: unknown): DecoderSpec {
  const config = parseConfig(ernie45Config, json);
  const bias = config.use_bias ?? false;
  return rotaryDecoder({ ...config, rope_theta: config.rope_theta ?? USUAL_THETA }, {
    inputBias: bias,
    outputBias: bias,
    mlpBias: bias,
    interleaved: true,
  });
}
