/**
 * Qwen 2 and 2.5: Llama with biases on queries, keys and values, and, where its config asks for them,
 * sliding windows in some layers.
 * @module
 */
import { parseConfig, type RotaryDecoderConfig, rotaryDecoderConfig } from "../config.ts";
import type { DecoderSpec } from "./spec.ts";
import { rotaryDecoder } from "./llama.ts";
import { windowsOf } from "./windows.ts";

/** The decoder that a `config.json` with `model_type` `qwen2` describes. */
export function qwen2(json: unknown): DecoderSpec {
  const config = parseConfig(rotaryDecoderConfig, json);
  return rotaryDecoder(config, { inputBias: true, window: qwenWindow(config) });
}

/** Which layers of a Qwen attend to a window: `layer_types`, or all from `max_window_layers` on. */
export function qwenWindow(config: RotaryDecoderConfig): (layer: number) => number | undefined {
  const first = config.max_window_layers ?? 28;
  const windows = windowsOf(config, (layer) => layer >= first);
  return config.use_sliding_window ? windows : () => undefined;
}
