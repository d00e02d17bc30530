/**
 * Configs of the architectures that turn neighbouring elements together.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { refused } from "./config_support.ts";
import { configOf } from "./support.ts";

describe("ERNIE 4.5's config", () => {
  test("means the same as transformers 4 and as transformers 5 write it", () => {
    const { rope_theta, rope_scaling: _, ...newer } = configOf("ernie4_5");
    const written = { ...newer, rope_parameters: { rope_type: "default", rope_theta } };
    expect(describeModel(written).rotary(0)).toEqual(
      describeModel(configOf("ernie4_5")).rotary(0),
    );
  });

  test("has defaults of its own, and no biases where it does not say so", () => {
    const {
      rope_theta: _,
      head_dim: __,
      num_key_value_heads: ___,
      use_bias: ____,
      tie_word_embeddings: _____,
      ...bare
    } = configOf("ernie4_5");
    const spec = describeModel(bare);
    expect([spec.headDim, spec.keyValueHeads, spec.head]).toEqual([128, 2, "model.embed_tokens"]);
    expect([spec.attention.inputBias, spec.attention.outputBias, spec.mlp.bias])
      .toEqual([false, false, false]);
    expect(spec.rotary(0)!.frequencies[1]).toBeCloseTo(5e5 ** (-2 / 128), 6);
    const whole = describeModel({ ...bare, head_dim: null, num_key_value_heads: null });
    expect([whole.headDim, whole.keyValueHeads]).toEqual([16, 4]);
  });
});

test("Helium's config has defaults of its own, and attention's bias is none of its output", () => {
  const { rope_parameters: _, head_dim: __, rms_norm_eps: ___, ...bare } = configOf("helium");
  const spec = describeModel({ ...bare, mlp_bias: true });
  expect([spec.headDim, spec.norm.epsilon]).toEqual([128, 1e-8]);
  expect([spec.attention.inputBias, spec.attention.outputBias, spec.mlp.bias])
    .toEqual([true, false, true]);
  expect(spec.rotary(0)!.frequencies[1]).toBeCloseTo(1e5 ** (-2 / 128), 6);
});

describe("GLM 4's config", () => {
  const { partial_rotary_factor: _, rope_theta: __, ...bare } = configOf("glm");
  const turned = (config: Record<string, unknown>) => {
    const { frequencies, interleaved } = describeModel(config).rotary(0)!;
    return [2 * frequencies.length, interleaved];
  };

  test("may have the part that is turned inside of its rotary settings or beside them", () => {
    const rope_parameters = { rope_type: "default", rope_theta: 10000 };
    expect(turned(configOf("glm"))).toEqual([8, true]);
    expect(turned({ ...bare, partial_rotary_factor: 1 })).toEqual([16, true]);
    expect(turned({ ...bare, partial_rotary_factor: null })).toEqual([16, true]);
    expect(turned({ ...bare, rope_parameters })).toEqual([8, true]);
    const inside = { ...rope_parameters, partial_rotary_factor: 0.25 };
    expect(turned({ ...bare, rope_parameters: inside })).toEqual([4, true]);
    expect(turned({ ...bare, rope_parameters: inside, partial_rotary_factor: 0.5 }))
      .toEqual([4, true]);
    expect(turned(configOf("glm4"))).toEqual([18, true]);
  });

  test("has defaults of its own: half of a head is turned, and its input alone has biases", () => {
    const {
      head_dim: _,
      num_key_value_heads: __,
      attention_bias: ___,
      rms_norm_eps: ____,
      ...barest
    } = bare;
    const spec = describeModel(barest);
    expect([spec.headDim, spec.keyValueHeads, spec.norm.epsilon]).toEqual([128, 2, 1.5625e-7]);
    expect([spec.attention.inputBias, spec.attention.outputBias]).toEqual([true, false]);
    expect(turned(barest)).toEqual([64, true]);
    expect(describeModel({ ...barest, attention_bias: false }).attention.inputBias).toBe(false);
  });
});

describe("Command R's config", () => {
  const { rope_theta: _, layer_norm_eps: __, logit_scale: ___, ...bare } = configOf("cohere");

  test("has defaults of its own, and one norm without biases for attention and MLP", () => {
    const { tie_word_embeddings: _, ...barest } = bare;
    const spec = describeModel(barest);
    expect([spec.norm.epsilon, spec.scales!.logits, spec.head])
      .toEqual([1e-5, 0.0625, "model.embed_tokens"]);
    expect(spec.rotary(0)!.frequencies[1]).toBeCloseTo(5e5 ** (-2 / 16), 6);
    expect(spec.norm).toMatchObject({ kind: "layer", biased: false });
    expect(spec.norm.mlp).toEqual(spec.norm.attention);
  });

  test("norms heads of queries and keys where it says so, in cohere alone", () => {
    const normOf = (use_qk_norm?: boolean | null) =>
      describeModel({ ...bare, use_qk_norm }).attention.norm;
    expect([true, false, null, undefined].map(normOf))
      .toEqual(["own", undefined, undefined, undefined]);
    refused({ ...configOf("cohere2"), use_qk_norm: true }, "use_qk_norm");
  });

  test("must have a scale of its logits", () => {
    refused({ ...bare, logit_scale: null }, "logit_scale");
  });
});

describe("Command R7B's config", () => {
  const { layer_types: _, rope_parameters: __, ...bare } = configOf("cohere2");

  test("has windows in layers that turn, and in them alone: three of four unless it says otherwise", () => {
    const layersOf = (more: object) => {
      const { attention, rotary } = describeModel({ ...bare, num_hidden_layers: 8, ...more });
      return Array.from({ length: 8 }, (_, layer) => {
        expect(rotary(layer) === undefined).toBe(attention.window(layer) === undefined);
        return attention.window(layer);
      });
    };
    expect(layersOf({})).toEqual([8, 8, 8, undefined, 8, 8, 8, undefined]);
    expect(layersOf({ sliding_window: undefined })[0]).toBe(4096);
    expect(layersOf({ sliding_window: null })).toEqual(new Array(8).fill(undefined));
    expect(layersOf({ sliding_window_pattern: 2 })[1]).toBe(undefined);
    const layer_types = new Array(8).fill("sliding_attention");
    expect(layersOf({ layer_types })).toEqual(new Array(8).fill(8));
    expect(describeModel(bare).rotary(0)!.frequencies[1]).toBeCloseTo(1e4 ** (-2 / 16), 6);
  });
});
