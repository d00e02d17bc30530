/** Qwen 3: Llama with an RMS norm over each head of queries and keys. @module */
import { parseConfig, rotaryDecoderConfig } from "../config.ts";
import type { DecoderSpec } from "./spec.ts";
import { attentionBiases, rotaryDecoder } from "./llama.ts";
import { qwenWindow } from "./qwen2.ts";

/** The decoder that a `config.json` with `model_type` `qwen3` describes. */
export function qwen3(json: unknown): DecoderSpec {
  // Qwen 3 has a fixed head size of 128 where its config does not name one.
  const config = parseConfig(rotaryDecoderConfig, json);
  return rotaryDecoder({ ...config, head_dim: config.head_dim ?? 128 }, {
    ...attentionBiases(config),
    attentionNorm: "heads",
    window: qwenWindow(config),
  });
}
