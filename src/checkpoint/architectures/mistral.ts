/**
 * Mistral: Llama with attention to the last `sliding_window` positions only, in all layers or, as in Ministral, in
 * those that `layer_types` names. Ministral 3 has no window; beyond its original context it makes queries larger, and
 * most of its checkpoints read images, too.
 * @module
 */
import { quote } from "../../checks.ts";
import { ConfigError } from "../../errors.ts";
import {
  ministral3Config,
  mistralConfig,
  mistralOfImagesConfig,
  parseConfig,
  type RopeParameters,
} from "../config.ts";
import { rotaryDecoder } from "./llama.ts";
import { INNER_ROOT, withRoot } from "./own_root.ts";
import { ropeOf, rotaryOf } from "./rotary.ts";
import type { DecoderSpec } from "./spec.ts";
import { everywhere, windowsOf } from "./windows.ts";

/** How Ministral 3 turns where its config does not say it. */
const USUAL_ROPE: RopeParameters = {
  rope_type: "yarn",
  rope_theta: 1_000_000,
  factor: 16,
  original_max_position_embeddings: 16_384,
  beta_fast: 32,
  beta_slow: 1,
  mscale: 1,
  mscale_all_dim: 1,
  llama_4_scaling_beta: 0.1,
};

/** The decoder that a `config.json` with `model_type` `mistral` or `ministral` describes. */
export function mistral(json: unknown): DecoderSpec {
  const config = parseConfig(mistralConfig, json);
  return rotaryDecoder(config, { window: windowsOf(config, () => true) });
}

/**
 * The decoder that a `config.json` with `model_type` `ministral3` describes, up to its original context: there,
 * queries are as large as Mistral's.
 *
 * @throws {ConfigError} When it does not say how long that is.
 */
export function ministral3(json: unknown): DecoderSpec {
  const said = parseConfig(ministral3Config, json);
  const isSaid = said.rope_parameters || Object.keys(said.rope_scaling ?? {}).length > 0;
  const config = isSaid ? said : { ...said, rope_parameters: USUAL_ROPE };
  const { llama_4_scaling_beta: growth, original_max_position_embeddings: original } = ropeOf(
    config,
  );
  if (growth && original === undefined) {
    throw new ConfigError(
      "config.json: llama_4_scaling_beta needs original_max_position_embeddings",
    );
  }
  return rotaryDecoder(config, {
    window: everywhere(config),
    rotary(headDim) {
      const rotary = rotaryOf(config, headDim);
      const within = growth ? { ...rotary, positions: original } : rotary;
      return () => within;
    },
  });
}

/** The decoders that there are inside of Mistral 3. Mistral's own config has nothing to say of single layers. */
const INNER = new Map([
  ["mistral", (text: object) => mistral({ ...text, layer_types: undefined })],
  ["ministral3", ministral3],
]);

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
