/**
 * Configs of the architectures that turn neighbouring elements together.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { fromRoot } from "../support/paths.ts";
import { readJsonOf } from "./support.ts";

const configOf = (name: string) =>
  readJsonOf(fromRoot(`test/fixtures/architectures/${name}`), "config.json");

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
