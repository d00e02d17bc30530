/** Configs of relatives of Llama, Granite, Gemma 2 and GPT-2 that other makers have named anew. @module */
import { describe, expect, test } from "bun:test";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { type Config, refused, without } from "./config_support.ts";
import { configOf } from "./support.ts";

describe("EXAONE's config", () => {
  const config = configOf("exaone");

  test("means the same by its makers' names as by transformers'", () => {
    const { num_layers, layer_norm_epsilon, activation_function } = config;
    const newer = {
      ...without(config, "num_layers", "layer_norm_epsilon", "activation_function"),
      num_hidden_layers: num_layers,
      rms_norm_eps: layer_norm_epsilon,
      hidden_act: activation_function,
    };
    const { rotary: _, attention: { window: __, ...attention }, ...spec } = describeModel(newer);
    expect(describeModel(config)).toMatchObject({ ...spec, attention });
    refused({ ...config, activation_function: "gelu" }, '"gelu"', "silu");
  });

  test("has bases of half a million and eight heads of keys and values where it names none", () => {
    const bare = { ...config, num_attention_heads: 8, head_dim: undefined };
    const spec = describeModel(
      without(bare, "rope_theta", "rope_scaling", "num_key_value_heads", "layer_norm_epsilon"),
    );
    expect(spec.rotary(0)!.frequencies[1]).toBeCloseTo(500_000 ** (-2 / 8), 6);
    expect([spec.keyValueHeads, spec.norm.epsilon]).toEqual([8, 1e-5]);
    expect(describeModel({ ...config, tie_word_embeddings: false }).head).toBe("lm_head");
  });
});

describe("InternLM 3's config", () => {
  const config = configOf("internlm3");

  test("has biases everywhere or nowhere", () => {
    const { attention, mlp } = describeModel(without(config, "qkv_bias", "bias"));
    expect([attention.inputBias, attention.outputBias, mlp.bias]).toEqual([false, false, false]);
    refused({ ...config, qkv_bias: false }, "qkv_bias");
    refused(without(config, "bias"), "qkv_bias");
  });

  test("turns as ever within its context, and has none beyond it", () => {
    const dynamic = describeModel(config).rotary(0)!;
    const plain = describeModel({ ...config, rope_scaling: null }).rotary(0)!;
    expect(dynamic).toEqual({ ...plain, positions: config.max_position_embeddings as number });
  });
});

describe("HyperCLOVA X's config", () => {
  const config = configOf("hyperclovax");

  test("divides scores by the root of a head's elements where it names no factor", () => {
    for (const attention_multiplier of [null, undefined]) {
      const spec = describeModel({ ...config, attention_multiplier });
      expect(spec.attention.scale).toBeCloseTo(24 ** -0.5, 12);
    }
    expect(describeModel(config).attention.scale).toBe(0.125);
  });

  test("multiplies logits, and may norm nothing behind attention and MLP", () => {
    expect(describeModel(config).scales).toEqual({ embedding: 6, residual: 0.4, logits: 2 });
    const { norm } = describeModel({ ...config, use_post_norm: false });
    expect([norm.attention.after, norm.mlp.after]).toEqual([undefined, undefined]);
    expect(describeModel(without(config, "use_post_norm")).norm.mlp.after).toBe("post_norm2");
  });
});

describe("Jais 2's config", () => {
  const config = configOf("jais2");

  test("has biases where it says nothing of them, and none where it says so", () => {
    const biases = (config: Config) => {
      const { attention, mlp } = describeModel(config);
      return [attention.inputBias, attention.outputBias, mlp.bias];
    };
    const bare = without(config, "attention_bias", "mlp_bias", "layer_norm_eps", "hidden_act");
    expect(biases(bare)).toEqual([true, true, true]);
    expect(describeModel(bare)).toMatchObject({
      norm: { kind: "layer", epsilon: 1e-5 },
      mlp: { activation: "relu_squared", gate: undefined },
    });
    expect(biases({ ...config, attention_bias: false, mlp_bias: null }))
      .toEqual([false, false, false]);
  });
});

describe("GPT-J's config", () => {
  const config = configOf("gptj");
  const pairs = (config: Config) => describeModel(config).rotary(0)!.frequencies.length;

  test("says how many elements of a head are turned: 64 where it says nothing, all where it is null", () => {
    expect(pairs(config)).toBe(3);
    expect(pairs({ ...config, rotary_dim: null })).toBe(8);
    expect(pairs({ ...without(config, "rotary_dim"), n_embd: 320 })).toBe(32);
    refused({ ...config, rotary_dim: 18 }, "rotary_dim 18", "16");
    refused({ ...config, rotary_dim: 5 }, "rotary_dim 5", "even");
    refused(without(config, "rotary_dim"), "rotary_dim 64");
  });

  test("may have other models' names for its sizes, and a head that is the embedding", () => {
    const { n_embd, n_layer, n_head, n_positions, ...rest } = config;
    const renamed = {
      ...rest,
      hidden_size: n_embd,
      num_hidden_layers: n_layer,
      num_attention_heads: n_head,
      max_position_embeddings: n_positions,
      tie_word_embeddings: true,
    };
    expect(describeModel(renamed)).toMatchObject({
      ...{ hidden: n_embd, layers: n_layer, heads: n_head, context: n_positions },
      head: "transformer.wte",
      headBias: "lm_head",
    });
  });
});

describe("VaultGemma's config", () => {
  test("is Gemma 2's, and no norms come after attention and MLP", () => {
    const config = configOf("vaultgemma");
    const { norm, ...spec } = describeModel(config);
    const { norm: other, ...gemma2 } = describeModel({ ...config, model_type: "gemma2" });
    expect(norm).toEqual({
      ...other,
      attention: { before: "input_layernorm" },
      mlp: { before: "pre_feedforward_layernorm" },
    });
    expect(JSON.stringify(spec)).toBe(JSON.stringify(gemma2));
    refused({ ...config, use_bidirectional_attention: true }, "use_bidirectional_attention");
  });
});

describe("nanochat's config", () => {
  const config = configOf("nanochat");

  test("turns the other way round than Llama's", () => {
    const { frequencies } = describeModel(config).rotary(0)!;
    const llama = describeModel({ ...config, model_type: "llama", hidden_act: "silu" }).rotary(0)!;
    expect(frequencies).toEqual(llama.frequencies.map((frequency) => -frequency));
  });

  test("caps logits by 15 where it says nothing, and not where it says so", () => {
    expect(describeModel(without(config, "final_logit_softcapping", "hidden_act"))).toMatchObject({
      logitCap: 15,
      mlp: { activation: "relu_squared", gate: undefined },
    });
    expect(describeModel({ ...config, final_logit_softcapping: null }).logitCap).toBeUndefined();
    refused({ ...config, final_logit_softcapping: -1 }, "final_logit_softcapping");
  });
});
