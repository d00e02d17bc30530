/**
 * Qwen 2 and 2.5: Llama with biases on queries, keys and values, and, where its config asks for them,
 * sliding windows in some layers.
 * @module
 */
import { parseConfig, type RotaryDecoderConfig, rotaryDecoderConfig } from "../config.ts";
import type { DecoderSpec } from "./spec.ts";
import { rotaryDecoder } from "./llama.ts";

/** The decoder that a `config.json` with `model_type` `qwen2` describes. */
export function qwen2(json: unknown): DecoderSpec {
  const config = parseConfig(rotaryDecoderConfig, json);
  return rotaryDecoder(config, { inputBias: true, window: qwenWindow(config) });
}

/** Which layers of a Qwen attend to a window: `layer_types`, or all from `max_window_layers` on. */
export function qwenWindow(config: RotaryDecoderConfig): (layer: number) => number | undefined {
  const { sliding_window, use_sliding_window, layer_types, max_window_layers } = config;
  if (!use_sliding_window || !sliding_window) return () => undefined;
  return (layer) => {
    const slides = layer_types
      ? layer_types[layer] === "sliding_attention"
      : layer >= (max_window_layers ?? 28);
    return slides ? sliding_window : undefined;
  };
}
