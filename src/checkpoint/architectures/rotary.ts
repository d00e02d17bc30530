/**
 * Rotary position embeddings: from a config's settings to the angles by which pairs of dimensions are turned.
 *
 * transformers wrote settings as `rope_theta` and `rope_scaling` until version 4 and writes `rope_parameters` from
 * version 5 on; both are read. Formulas are those of its `modeling_rope_utils.py`.
 * @module
 */
import { quote } from "../../checks.ts";
import { ConfigError } from "../../errors.ts";
import type { RopeParameters, RotaryDecoderConfig, RotaryOfKindsConfig } from "../config.ts";
import type { Rotary } from "./spec.ts";

/** What settings do not say themselves. */
export interface RotaryHead {
  /** Elements of a head, all of which are turned unless settings name a part. */
  readonly headDim: number;
  /** The base of frequencies where settings name none. */
  readonly theta: number;
  /** The model's longest context. */
  readonly context: number;
}

/** What there may be of settings in a config that has one set of them. */
type OneRope = Pick<
  RotaryDecoderConfig,
  "rope_scaling" | "rope_parameters" | "original_max_position_embeddings"
>;

/** Types that ask how long a model's context was at first. */
const STRETCHED: ReadonlySet<string> = new Set(["llama3", "yarn", "longrope"]);

/** The type of rotary settings, by either of its names. */
export function ropeTypeOf({ rope_type, type }: RopeParameters): string {
  return rope_type ?? type ?? "default";
}

/** The settings of a config that has one set of them. */
export function ropeOf(
  { rope_scaling, rope_parameters, original_max_position_embeddings: original }: OneRope,
): RopeParameters {
  // A config with both is a newer one to which somebody added what older ones have: that counts.
  const added = rope_scaling && Object.keys(rope_scaling).length > 0 ? rope_scaling : undefined;
  const rope = added ?? rope_parameters ?? {};
  const isStretched = STRETCHED.has(ropeTypeOf(rope));
  // What stands outside of the settings counts more (`standardize_rope_params`).
  return original && isStretched ? { ...rope, original_max_position_embeddings: original } : rope;
}

/**
 * How a decoder with one set of settings turns.
 *
 * @throws {ConfigError} For a type that is not known, or lacks a parameter, and where only a part of heads is turned.
 */
export function rotaryOf(config: RotaryDecoderConfig, headDim: number): Rotary {
  const rope = ropeOf(config);
  if ((rope.partial_rotary_factor ?? 1) !== 1) {
    throw new ConfigError("config.json: partial_rotary_factor other than 1 is not supported");
  }
  const theta = config.rope_theta ?? 10_000;
  return rotaryBy(rope, { headDim, theta, context: config.max_position_embeddings });
}

/**
 * How a decoder with one set of settings turns of whose heads a part is turned.
 *
 * @param config Its `partial_rotary_factor` counts where its settings have none of their own.
 * @throws {ConfigError} For a type that is not known, or lacks a parameter.
 */
export function rotaryOfPart(
  config: RotaryDecoderConfig & { readonly partial_rotary_factor: number },
  headDim: number,
): Rotary {
  const { partial_rotary_factor, max_position_embeddings: context } = config;
  const theta = config.rope_theta ?? 10_000;
  return rotaryBy({ partial_rotary_factor, ...ropeOf(config) }, { headDim, theta, context });
}

/**
 * How a decoder turns whose layers of full attention and of sliding windows have settings of their own.
 *
 * @param config `rope_scaling`, as transformers 4 wrote it, is that of full attention alone.
 * @param isSliding Which layers have a window.
 * @param thetas The bases of frequencies where settings name none.
 */
export function rotaryOfKinds(
  config: RotaryOfKindsConfig,
  headDim: number,
  isSliding: (layer: number) => boolean,
  thetas: { readonly full: number; readonly sliding: number },
): (layer: number) => Rotary {
  const { rope_parameters: kinds, rope_scaling, max_position_embeddings: context } = config;
  const full = rotaryBy({ ...kinds?.full_attention, ...rope_scaling }, {
    headDim,
    context,
    theta: thetas.full,
  });
  const sliding = rotaryBy(kinds?.sliding_attention ?? {}, {
    headDim,
    context,
    theta: thetas.sliding,
  });
  return (layer) => isSliding(layer) ? sliding : full;
}

/**
 * How settings turn.
 *
 * @returns Angles in float32: models were trained with them rounded so.
 * @throws {ConfigError} For a type that is not known, or lacks a parameter, and for settings that give no angles.
 */
export function rotaryBy(rope: RopeParameters, head: RotaryHead): Rotary {
  const rotary = turnedBy(rope, head);
  // As transformers multiplies float32 tables by it.
  const factor = Math.fround(rotary.factor);
  const areFinite = rotary.frequencies.every((angle) =>
    Number.isFinite(Math.fround(angle * head.context))
  );
  if (areFinite && Number.isFinite(factor)) return { ...rotary, factor };
  throw new ConfigError(
    `config.json: the settings of rope type ${ropeTypeOf(rope)} give angles that are not finite`,
  );
}

/**
 * Fills tables, or some rows of them: cosines and sines of the angles of positions, a row each.
 *
 * @param cosines Of as many elements as `sines`.
 * @param first The position of the first row.
 */
export function fillTables(
  cosines: Float32Array,
  sines: Float32Array,
  { frequencies, factor }: { readonly frequencies: ArrayLike<number>; readonly factor: number },
  first = 0,
): void {
  const pairs = frequencies.length;
  for (let at = 0, position = first; at < cosines.length; at += pairs, position++) {
    for (let i = 0; i < pairs; i++) {
      // The angle is rounded to float32, as the models were trained and are run elsewhere: at
      // position 1000 that moves it by up to 3e-5.
      const angle = Math.fround(position * frequencies[i]);
      cosines[at + i] = factor * Math.cos(angle);
      sines[at + i] = factor * Math.sin(angle);
    }
  }
}

function turnedBy(rope: RopeParameters, head: RotaryHead): Rotary {
  const type = ropeTypeOf(rope);
  const theta = rope.rope_theta ?? head.theta;
  const dim = turnedOf(rope, head.headDim);
  const wavelengths = Float32Array.from(
    { length: dim / 2 },
    (_, i) => theta ** Math.fround(2 * i / dim),
  );
  const frequencies = wavelengths.map((wavelength) => 1 / wavelength);
  switch (type) {
    case "default":
      return { frequencies, factor: 1 };
    case "linear": {
      const factor = need(rope, "factor");
      return { frequencies: frequencies.map((frequency) => frequency / factor), factor: 1 };
    }
    case "proportional":
      return { frequencies: turnFirst(rope, head, theta), factor: 1 };
    case "dynamic":
      // Factors are those of sequences beyond the context, all of which would have to be read again.
      need(rope, "factor");
      return { frequencies, factor: 1, positions: head.context };
    case "llama3":
      return { frequencies: stretchLow(rope, head, frequencies), factor: 1 };
    case "yarn":
      return yarn(rope, head, wavelengths, theta);
    case "longrope":
      return longRope(rope, head, wavelengths);
  }
  throw new ConfigError(
    `config.json: rope type ${
      quote(type)
    } is not supported (default, dynamic, linear, llama3, longrope, proportional, yarn are)`,
  );
}

/** Elements of a head that are turned. */
function turnedOf(rope: RopeParameters, headDim: number): number {
  const dim = Math.floor(headDim * (rope.partial_rotary_factor ?? 1));
  if (dim >= 2 && dim % 2 === 0) return dim;
  throw new ConfigError(
    `config.json: partial_rotary_factor ${rope.partial_rotary_factor} turns ${dim} of ${headDim} elements ` +
      `of a head: an even number is needed`,
  );
}

/** A parameter that a type cannot be without. */
function need<K extends keyof RopeParameters>(
  rope: RopeParameters,
  key: K,
): NonNullable<RopeParameters[K]> {
  const value = rope[key];
  if (value !== undefined && value !== null) return value as NonNullable<RopeParameters[K]>;
  throw new ConfigError(`config.json: rope type ${ropeTypeOf(rope)} needs ${key}`);
}

/** A part of the pairs turns by the frequencies of whole heads, the others do not (`_compute_proportional_rope_parameters`). */
function turnFirst(rope: RopeParameters, { headDim }: RotaryHead, theta: number): Float32Array {
  const turning = Math.floor((rope.partial_rotary_factor ?? 1) * headDim / 2);
  return Float32Array.from(
    { length: headDim / 2 },
    (_, i) =>
      i < turning ? 1 / Math.fround(theta ** Math.fround(2 * i / headDim)) / (rope.factor ?? 1) : 0,
  );
}

/** Llama 3: low frequencies alone are divided, with a smooth passage (`_compute_llama3_parameters`). */
function stretchLow(
  rope: RopeParameters,
  head: RotaryHead,
  frequencies: Float32Array,
): Float32Array {
  const factor = need(rope, "factor");
  const low = need(rope, "low_freq_factor");
  const high = need(rope, "high_freq_factor");
  if (low === high) {
    throw new ConfigError("config.json: low_freq_factor and high_freq_factor must differ");
  }
  const context = rope.original_max_position_embeddings ?? head.context;
  return frequencies.map((frequency) => {
    const turns = context * frequency / (2 * Math.PI);
    if (turns < low) return frequency / factor;
    if (turns > high) return frequency;
    const smooth = (turns - low) / (high - low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
  });
}

/** YaRN (arXiv 2309.00071, `_compute_yarn_parameters`): by how often a pair turns within the original context. */
function yarn(
  rope: RopeParameters,
  head: RotaryHead,
  wavelengths: Float32Array,
  theta: number,
): Rotary {
  const original = rope.original_max_position_embeddings ?? head.context;
  const factor = rope.factor ?? head.context / original;
  const dim = 2 * wavelengths.length;
  /** The dimension of the pair that turns so often. */
  const dimensionOf = (turns: number) =>
    dim * Math.log(original / (turns * 2 * Math.PI)) / (2 * Math.log(theta));
  // Null is no, as nothing is yes.
  const rounds = rope.truncate === undefined || rope.truncate === true;
  const first = dimensionOf(rope.beta_fast || 32), last = dimensionOf(rope.beta_slow || 1);
  const low = Math.max(rounds ? Math.floor(first) : first, 0);
  const high = Math.min(rounds ? Math.ceil(last) : last, dim - 1);
  const width = low === high ? 0.001 : high - low;
  const strength = (scale: number, by = 1) => scale <= 1 ? 1 : 0.1 * by * Math.log(scale) + 1;
  const { mscale, mscale_all_dim: ofAll } = rope;
  return {
    frequencies: wavelengths.map((wavelength, i) => {
      const stretched = Math.min(Math.max((i - low) / width, 0), 1);
      return stretched / (factor * wavelength) + (1 - stretched) / wavelength;
    }),
    factor: rope.attention_factor ??
      (mscale && ofAll ? strength(factor, mscale) / strength(factor, ofAll) : strength(factor)),
  };
}

/**
 * LongRoPE (arXiv 2402.13753, `_compute_longrope_parameters`) within the original context; beyond it, models have
 * other factors, with which all that has been read before would have to be read again.
 */
function longRope(rope: RopeParameters, head: RotaryHead, wavelengths: Float32Array): Rotary {
  const factors = need(rope, "short_factor");
  if (factors.length !== wavelengths.length) {
    throw new ConfigError(
      `config.json: short_factor has ${factors.length} numbers for ${wavelengths.length} pairs of dimensions`,
    );
  }
  const original = rope.original_max_position_embeddings ?? head.context;
  const factor = rope.factor ?? head.context / original;
  return {
    positions: original,
    frequencies: wavelengths.map((wavelength, i) => 1 / (factors[i] * wavelength)),
    factor: rope.attention_factor ??
      (factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original))),
  };
}
