/** Configs of decoders that convolve their tokens. @module */
import { describe, expect, test } from "bun:test";
import { cacheParts } from "../../src/checkpoint/architectures/cache_parts.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { refused, without } from "./config_support.ts";
import { configOf } from "./support.ts";

describe("LFM 2's config", () => {
  const config = configOf("lfm2");
  const kinds = (of: Record<string, unknown>) => {
    const { layers, convolutions } = describeModel(of);
    return Array.from({ length: layers }, (_, layer) => convolutions!.isIn(layer));
  };

  test("means the same by its makers' names as by transformers'", () => {
    const newer = {
      ...without(config, "block_ff_dim", "full_attn_idxs", "rope_theta"),
      intermediate_size: config.block_ff_dim,
      layer_types: ["conv", "full_attention", "conv"],
      rope_parameters: { rope_type: "default", rope_theta: config.rope_theta },
      tie_word_embeddings: true,
    };
    const { rotary: _, attention: { window: __, ...attention }, convolutions, ...spec } =
      describeModel(newer);
    expect(describeModel(config)).toMatchObject({ ...spec, attention });
    expect([convolutions!.length, convolutions!.bias]).toEqual([3, true]);
    expect([kinds(newer), kinds(config)]).toEqual([[true, false, true], [true, false, true]]);
  });

  test("says by layer_types which layers convolve, or by full_attn_idxs; all attend where neither does", () => {
    const both = { ...config, layer_types: ["conv", "conv", "full_attention"] };
    expect(kinds(both)).toEqual([true, true, false]);
    expect(kinds(without(config, "full_attn_idxs"))).toEqual([false, false, false]);
    refused({ ...config, layer_types: ["conv", "full_attention"] }, "2 layers", "3");
    refused({ ...config, layer_types: ["conv", "mamba", "conv"] }, '"mamba"', "full_attention");
  });

  test("has MLPs of two thirds of what it says, rounded up, unless they are not to be adjusted", () => {
    const width = (more: object) => describeModel({ ...config, ...more }).intermediate;
    // LFM2-350M, by its makers' config and its weights.
    expect(width({ block_ff_dim: 6656, block_multiple_of: 256 })).toBe(4608);
    expect(width({ block_ff_dim: 6656, block_multiple_of: 256, block_ffn_dim_multiplier: 1.5 }))
      .toBe(6656);
    expect(width({ block_ff_dim: 215, block_ffn_dim_multiplier: null })).toBe(143);
    expect(width({ block_ff_dim: 215, block_auto_adjust_ff_dim: false })).toBe(215);
  });

  test("ties its head where it does not say otherwise, by either name", () => {
    expect(describeModel(config).head).toBe("model.embed_tokens");
    expect(describeModel({ ...config, tie_word_embeddings: false }).head).toBe("lm_head");
    expect(describeModel({ ...config, tie_embedding: false }).head).toBe("lm_head");
  });

  test("has bases of a million, eight heads of keys and values and kernels of three where it names none", () => {
    const bare = without(
      { ...config, num_attention_heads: 8 },
      ...["rope_theta", "num_key_value_heads", "conv_L_cache", "conv_bias", "norm_eps"],
    );
    const { rotary, keyValueHeads, convolutions, norm } = describeModel(bare);
    expect(rotary(0)!.frequencies[1]).toBeCloseTo(1_000_000 ** (-2 / 8), 6);
    expect([keyValueHeads, convolutions!.length, convolutions!.bias, norm.epsilon])
      .toEqual([8, 3, false, 1e-5]);
  });

  test("means a cache of keys and values for some layers, and of what was read last for the others", () => {
    const parts = cacheParts(describeModel(config)).map(({ past, present, dims }) => [
      past,
      present,
      ...dims("tokens"),
    ]);
    expect(parts).toEqual([
      ["past_conv.0", "present_conv.0", 64, 3],
      ["past_key_values.1.key", "present.1.key", 2, "tokens", 16],
      ["past_key_values.1.value", "present.1.value", 2, "tokens", 16],
      ["past_conv.2", "present_conv.2", 64, 3],
    ]);
  });
});

describe("LFM 3's config", () => {
  const config = configOf("lfm3");

  test("says which layers convolve, have a window or see everything; a pattern does where it says nothing", () => {
    const ofKinds = (of: Record<string, unknown>): (string | number)[] => {
      const { layers, convolutions, attention } = describeModel(of);
      return Array.from(
        { length: layers },
        (_, layer) => convolutions!.isIn(layer) ? "convolves" : attention.window(layer) ?? "all",
      );
    };
    expect(ofKinds(config)).toEqual(["convolves", "all", 8, "convolves"]);
    const usual = { ...without(config, "layer_types", "sliding_window"), num_hidden_layers: 8 };
    const half = ["convolves", "convolves", "all", "convolves"];
    expect(ofKinds(usual)).toEqual([...half, 256, ...half.slice(1)]);
    expect(ofKinds({ ...config, sliding_window: null })[2]).toBe("all");
    refused({ ...config, layer_types: ["conv", "linear", "conv", "conv"] }, '"linear"');
  });

  test("turns half of each head in layers that see everything where it has no rotary settings", () => {
    const { rotary } = describeModel(without(config, "rope_parameters"));
    const [full, sliding] = [rotary(1)!.frequencies, rotary(2)!.frequencies];
    expect([full.length, sliding.length]).toEqual([12, 12]);
    expect(full[5]).toBeCloseTo(1_000_000 ** (-10 / 24), 6);
    expect([...full.subarray(6)]).toEqual([0, 0, 0, 0, 0, 0]);
    expect(sliding[11]).toBeCloseTo(10_000 ** (-22 / 24), 6);
  });

  test("gives settings that name no base that of the config, or a million, whatever kind they are of", () => {
    const settings = {
      full_attention: { rope_type: "default" },
      sliding_attention: { rope_type: "default" },
    };
    const angle = (layer: number, more: object) =>
      describeModel({ ...config, rope_parameters: settings, ...more }).rotary(layer)!
        .frequencies[6];
    for (const layer of [1, 2]) {
      expect(angle(layer, {})).toBeCloseTo(1_000_000 ** (-12 / 24), 8);
      expect(angle(layer, { rope_theta: 5000 })).toBeCloseTo(5000 ** (-12 / 24), 6);
    }
  });

  test("names the epsilon of its norms as other configs do, too", () => {
    const named = { ...without(config, "norm_eps"), rms_norm_eps: 0.05 };
    expect(describeModel(named).norm.epsilon).toBe(0.05);
    expect(describeModel({ ...config, rms_norm_eps: 0.05 }).norm.epsilon).toBe(0.05);
  });

  test("turns a part of heads by settings of the type proportional alone", () => {
    const part = { rope_type: "default", rope_theta: 1000, partial_rotary_factor: 0.5 };
    refused({ ...config, rope_parameters: { sliding_attention: part } }, "proportional");
    refused({ ...config, rope_parameters: { full_attention: part } }, "proportional");
    refused({ ...config, partial_rotary_factor: 0.5 }, "proportional");
    const whole = { ...part, partial_rotary_factor: 1 };
    expect(describeModel({ ...config, rope_parameters: { full_attention: whole } }).layers).toBe(4);
  });

  test("has norms behind its sublayers and gates of heads unless it says otherwise", () => {
    const { norm, attention } = describeModel(config);
    expect([norm.attention.after, norm.mlp.after, attention.gate])
      .toEqual(["post_operator_norm", "post_ffn_norm", "gate_proj"]);
    const plain = { ...config, use_sandwich_norm: false, use_attention_gate: false };
    const without = describeModel(plain);
    expect([without.norm.attention.after, without.norm.mlp.after, without.attention.gate])
      .toEqual([undefined, undefined, undefined]);
  });

  test("has kernels of seven, heads of 128 elements and four of keys and values where it names none", () => {
    const bare = without(config, "conv_L_cache", "head_dim", "num_key_value_heads");
    const { convolutions, headDim, keyValueHeads } = describeModel(bare);
    expect([convolutions!.length, headDim, keyValueHeads]).toEqual([7, 128, 4]);
  });
});
