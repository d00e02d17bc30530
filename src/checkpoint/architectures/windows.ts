/**
 * Which layers of a decoder attend to a sliding window.
 * @module
 */
import { quote } from "../../checks.ts";
import { ConfigError } from "../../errors.ts";
import type { RotaryDecoderConfig } from "../config.ts";

/** The window of models whose config names none: transformers' default. */
const USUAL_WINDOW = 4096;

/**
 * The window of each layer, where `layer_types` or else `slides` says that it has one.
 *
 * @param config Its `sliding_window` is the window: null is none, and a config without it has the usual one.
 * @param slides Which layers slide where the config has no `layer_types`.
 * @throws {ConfigError} When `layer_types` are not those of every layer, or one has another kind of attention.
 */
export function windowsOf(
  { sliding_window, layer_types, num_hidden_layers }: RotaryDecoderConfig,
  slides: (layer: number) => boolean,
): (layer: number) => number | undefined {
  if (layer_types) {
    checkKinds(layer_types, num_hidden_layers, ["full_attention", "sliding_attention"]);
  }
  const window = sliding_window === undefined ? USUAL_WINDOW : sliding_window ?? undefined;
  return (layer) =>
    (layer_types ? layer_types[layer] === "sliding_attention" : slides(layer)) ? window : undefined;
}

/** The window of all layers alike, if a config names one: types of layers such models pass over. */
export function everywhere(
  config: RotaryDecoderConfig,
): (layer: number) => number | undefined {
  const { sliding_window: window = null } = config;
  return windowsOf({ ...config, sliding_window: window, layer_types: undefined }, () => true);
}

/**
 * Checks that a config names a known kind for each layer.
 *
 * @throws {ConfigError} When it does not.
 */
export function checkKinds(
  types: readonly string[],
  layers: number,
  known: readonly string[],
): void {
  if (types.length !== layers) {
    throw new ConfigError(
      `config.json: layer_types names ${types.length} layers, num_hidden_layers ${layers}`,
    );
  }
  const other = types.find((type) => !known.includes(type));
  if (other === undefined) return;
  throw new ConfigError(
    `config.json: layer_types: ${quote(other)} is not supported (${known.join(" and ")} are)`,
  );
}
