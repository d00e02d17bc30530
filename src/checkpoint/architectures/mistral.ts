/**
 * Mistral: Llama with attention to the last `sliding_window` positions only, in all layers or, as in Ministral, in
 * those that `layer_types` names. Ministral 3 has no window; beyond its original context it makes queries larger, and
 * most of its checkpoints read images, too.
 * @module
 */
import { ConfigError, quote } from "../../errors.ts";
import { mistralOfImagesConfig, parseConfig, rotaryDecoderConfig } from "../config.ts";
import { rotaryDecoder } from "./llama.ts";
import { INNER_ROOT, withRoot } from "./own_root.ts";
import { ropeOf, rotaryOf } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { windowsOf } from "./windows.ts";

/** The decoder that a `config.json` with `model_type` `mistral` or `ministral` describes. */
export function mistral(json: unknown): DecoderSpec {
  const config = parseConfig(rotaryDecoderConfig, json);
  return rotaryDecoder(config, { window: windowsOf(config, () => true) });
}

/**
 * The decoder that a `config.json` with `model_type` `ministral3` describes, up to its original context: there,
 * queries are as large as Mistral's.
 *
 * @throws {ConfigError} When it does not say how long that is.
 */
export function ministral3(json: unknown): DecoderSpec {
  const config = parseConfig(rotaryDecoderConfig, json);
  const { llama_4_scaling_beta: growth, original_max_position_embeddings: original } = ropeOf(
    config,
  );
  if (growth && original === undefined) {
    throw new ConfigError(
      "config.json: llama_4_scaling_beta needs original_max_position_embeddings",
    );
  }
  return rotaryDecoder(config, {
    window: windowsOf({ ...config, sliding_window: config.sliding_window ?? null }, () => true),
    rotary(headDim) {
      const rotary = rotaryOf(config, headDim);
      const within = growth ? { ...rotary, positions: original } : rotary;
      return () => within;
    },
  });
}

/** The decoders that there are inside of Mistral 3. */
const INNER = new Map([["mistral", mistral], ["ministral3", ministral3]]);

/**
 * The decoder inside of a model that also reads images (`model_type` `mistral3`): text alone.
 *
 * @throws {ConfigError} When it is none of Mistral's.
 */
export function mistralOfImages(json: unknown): DecoderSpec {
  const { tie_word_embeddings: tied, text_config: text } = parseConfig(mistralOfImagesConfig, json);
  const inner = INNER.get(text.model_type);
  if (!inner) {
    throw new ConfigError(
      `config.json: text_config: model_type ${quote(text.model_type)} is not supported (${
        [...INNER.keys()].join(" and ")
      } are)`,
    );
  }
  // Where either says so, which is the default: a head that the files hold all the same counts (`own_head.ts`).
  const decoder = inner({
    ...text,
    tie_word_embeddings: (text.tie_word_embeddings ?? false) || (tied ?? true),
  });
  return withRoot(decoder, INNER_ROOT);
}
