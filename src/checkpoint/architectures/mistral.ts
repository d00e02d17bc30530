/**
 * Mistral: Llama with attention to the last `sliding_window` positions only, in all layers or, as in
 * Ministral, in those that `layer_types` names.
 * @module
 */
import { parseConfig, rotaryDecoderConfig } from "../config.ts";
import type { DecoderSpec } from "./spec.ts";
import { rotaryDecoder } from "./llama.ts";
import { windowsOf } from "./windows.ts";

/** The decoder that a `config.json` with `model_type` `mistral` or `ministral` describes. */
export function mistral(json: unknown): DecoderSpec {
  const config = parseConfig(rotaryDecoderConfig, json);
  return rotaryDecoder(config, { window: windowsOf(config, () => true) });
}
