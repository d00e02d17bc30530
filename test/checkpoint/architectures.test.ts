import { describe, expect, test } from "bun:test";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { refused } from "./config_support.ts";
import { configOf } from "./support.ts";

/** What describes the layers of a decoder. */
function layersOf(config: Record<string, unknown>) {
  const { layers, attention, rotary } = describeModel(config);
  return Array.from({ length: layers }, (_, layer) => ({
    window: attention.window(layer),
    frequencies: rotary(layer)?.frequencies,
  }));
}

describe("Gemma 2's config", () => {
  const config = configOf("gemma2");

  test("means the same as transformers 4 and as transformers 5 write it", () => {
    const { rope_theta: _, rope_scaling: __, hidden_act: ___, ...newer } = config;
    const written = {
      ...newer,
      layer_types: ["sliding_attention", "full_attention", "sliding_attention"],
      rope_parameters: { rope_type: "default", rope_theta: 10000 },
    };
    expect(layersOf(written)).toEqual(layersOf(config));
    expect(layersOf(written).map(({ window }) => window)).toEqual([8, undefined, 8]);
  });

  test("caps scores and logits: as Gemma does where it does not say by what, not where it says null", () => {
    const capsOf = (config: Record<string, unknown>) => {
      const { attention, logitCap } = describeModel(config);
      return [attention.cap, logitCap];
    };
    const { attn_logit_softcapping: _, final_logit_softcapping: __, ...bare } = config;
    expect(capsOf(config)).toEqual([2, 4]);
    expect(capsOf(bare)).toEqual([50, 30]);
    expect(capsOf({ ...bare, attn_logit_softcapping: null, final_logit_softcapping: null }))
      .toEqual([undefined, undefined]);
    refused({ ...config, attn_logit_softcapping: 0 }, "attn_logit_softcapping");
    refused({ ...config, final_logit_softcapping: -30 }, "final_logit_softcapping");
  });

  test("goes by hidden_activation alone, and must not let tokens see those behind them", () => {
    const { hidden_activation: _, ...bare } = config;
    const activationOf = (more: object) => describeModel({ ...bare, ...more }).mlp.activation;
    expect(activationOf({ hidden_act: "silu" })).toBe("gelu_tanh");
    expect(activationOf({ hidden_activation: "gelu" })).toBe("gelu");
    refused({ ...config, use_bidirectional_attention: true }, "use_bidirectional_attention");
  });
});

describe("Gemma 3's config", () => {
  const config = configOf("gemma3");

  test("means the same as transformers 4 and as transformers 5 write it", () => {
    const {
      rope_theta: _,
      rope_scaling: __,
      rope_local_base_freq: ___,
      sliding_window_pattern: ____,
      ...newer
    } = config;
    const written = {
      ...newer,
      layer_types: ["sliding_attention", "sliding_attention", "full_attention"],
      rope_parameters: {
        full_attention: { rope_type: "linear", factor: 4, rope_theta: 1e6 },
        sliding_attention: { rope_type: "default", rope_theta: 1000 },
      },
    };
    expect(layersOf(written)).toEqual(layersOf(config));
    expect(layersOf(written).map(({ window }) => window)).toEqual([8, 8, undefined]);
  });

  test("has the frequencies and windows of Gemma's where it names none", () => {
    const { rope_theta: _, rope_scaling: __, rope_local_base_freq: ___, ...bare } = config;
    const { sliding_window_pattern: ____, ...barest } = bare;
    const layers = layersOf({ ...barest, num_hidden_layers: 12 });
    expect(layers.map(({ window }) => window === undefined)).toEqual(
      layers.map((_, layer) => layer % 6 === 5),
    );
    expect(layers[0].frequencies![1]).toBeCloseTo(1e4 ** (-2 / 16), 6);
    expect(layers[5].frequencies![1]).toBeCloseTo(1e6 ** (-2 / 16), 6);
    expect(describeModel({ ...barest, head_dim: undefined }).headDim).toBe(256);
  });

  test("may cap logits, but no scores, and must not let tokens see those behind them", () => {
    expect(describeModel({ ...config, final_logit_softcapping: 30 }).logitCap).toBe(30);
    expect(describeModel(config).logitCap).toBeUndefined();
    refused({ ...config, attn_logit_softcapping: 50 }, "attn_logit_softcapping");
    refused({ ...config, use_bidirectional_attention: true }, "use_bidirectional_attention");
    refused({ ...configOf("gemma"), use_bidirectional_attention: true }, "writes none");
  });
});

test("Gemma 3's configs mean the exact function where they say gelu", () => {
  const config = configOf("gemma3");
  expect(describeModel(config).mlp.activation).toBe("gelu_tanh");
  expect(describeModel({ ...config, hidden_activation: "gelu" }).mlp.activation).toBe("gelu");
});

test("Gemma's first configs say gelu and mean its approximation; other functions are refused", () => {
  const config = configOf("gemma");
  expect(describeModel({ ...config, hidden_act: "gelu" }).mlp.activation).toBe("gelu_tanh");
  expect(describeModel({ ...config, hidden_act: undefined }).mlp.activation).toBe("gelu_tanh");
  refused({ ...config, hidden_act: "silu" }, '"silu"', "gelu_pytorch_tanh, gelu are");
});

test("Granite's factors are 1 where its config names none, and never 0", () => {
  const { embedding_multiplier: _, logits_scaling: __, ...config } = configOf("granite");
  expect(describeModel(config).scales).toEqual({ embedding: 1, residual: 0.4, logits: 1 });
  refused({ ...config, logits_scaling: 0 }, "logits_scaling");
});

test("OLMo 2 is OLMo 3 without windows, which three of four layers have where its config names none", () => {
  const { layer_types: _, ...config } = configOf("olmo3");
  const eight = { ...config, num_hidden_layers: 8 };
  expect(layersOf(eight).map(({ window }) => window)).toEqual(
    [8, 8, 8, undefined, 8, 8, 8, undefined],
  );
  const older = { ...eight, model_type: "olmo2", rope_parameters: { rope_theta: 10000 } };
  expect(layersOf(older).map(({ window }) => window)).toEqual(new Array(8).fill(undefined));
  expect(describeModel(older).norm).toEqual(describeModel(eight).norm);
});

describe("Phi 3's config", () => {
  const config = configOf("phi3");
  const long = config.rope_scaling as Record<string, unknown>;

  test("ends contexts where other angles would begin, whatever LongRoPE is called", () => {
    for (const type of ["longrope", "su", "yarn"]) {
      const spec = describeModel({ ...config, rope_scaling: { ...long, type } });
      expect(spec.context).toBe(128);
      expect(layersOf({ ...config, rope_scaling: { ...long, type } })).toEqual(layersOf(config));
    }
    expect(describeModel({ ...config, rope_scaling: null }).context).toBe(512);
  });

  test("turns whole heads, without windows, where it does not say otherwise", () => {
    const { partial_rotary_factor: _, sliding_window: __, ...whole } = config;
    const spec = describeModel({ ...whole, rope_scaling: null });
    expect(spec.rotary(0)!.frequencies).toHaveLength(8);
    expect(spec.rotary(0)!.factor).toBe(1);
    expect(spec.attention.window(0)).toBeUndefined();
    expect(describeModel({ ...whole, rope_scaling: null, sliding_window: 8 }).attention.window(2))
      .toBe(8);
  });

  test("must have a factor for each pair of dimensions, and an even number of those", () => {
    const short_factor = [1, 1];
    refused({ ...config, rope_scaling: { ...long, short_factor } }, "2 numbers for 6 pairs");
    refused({ ...config, rope_scaling: { type: "longrope" } }, "needs short_factor");
    refused({ ...config, partial_rotary_factor: 0.2 }, "turns 3 of 16 elements");
  });
});

test("LongRoPE ends the contexts of other architectures where other angles would begin, too", () => {
  const longrope = { rope_type: "longrope", short_factor: new Array(8).fill(1) };
  for (const name of ["llama", "qwen3", "smollm3", "olmo3"]) {
    const sizes = { head_dim: 16, max_position_embeddings: 128 };
    const config = { ...configOf(name), ...sizes, rope_parameters: undefined };
    const contextOf = (more: object) =>
      describeModel({ ...config, rope_scaling: { ...longrope, ...more } }).context;
    expect(contextOf({ original_max_position_embeddings: 64 })).toBe(64);
    expect(contextOf({ original_max_position_embeddings: 256 })).toBe(128);
    expect(contextOf({})).toBe(128);
  }
});

test("YaRN's settings have the defaults that transformers gives them", () => {
  const config = configOf("llama");
  const rope = (rope_parameters: object) =>
    describeModel({ ...config, rope_parameters, rope_scaling: null }).rotary(0)!;
  const yarn = { rope_type: "yarn", rope_theta: 10000, factor: 4 };
  // Rounded to float32: so transformers multiplies by it.
  expect(rope(yarn).factor).toBe(Math.fround(0.1 * Math.log(4) + 1));
  expect(rope({ ...yarn, beta_fast: 32, beta_slow: 1, truncate: true })).toEqual(rope(yarn));
  expect(rope({ ...yarn, mscale: 2, mscale_all_dim: 1 }).factor)
    .toBe(Math.fround((0.2 * Math.log(4) + 1) / (0.1 * Math.log(4) + 1)));
  expect(rope({ ...yarn, attention_factor: 1.5 }).factor).toBe(1.5);
});

test("settings that give no angles are refused", () => {
  const longrope = { rope_type: "longrope", short_factor: new Array(8).fill(1) };
  for (
    const rope_parameters of [
      { rope_type: "yarn", rope_theta: 1, original_max_position_embeddings: 4096, factor: 4 },
      { rope_type: "yarn", factor: 4, mscale: 1e308, mscale_all_dim: 1 },
      { ...longrope, factor: 4, original_max_position_embeddings: 1 },
      { ...longrope, short_factor: new Array(8).fill(1e-38) },
    ]
  ) {
    refused({ ...configOf("llama"), rope_parameters, rope_scaling: null }, "not finite");
  }
});

describe("SmolLM 3's config", () => {
  const { no_rope_layers: _, layer_types: __, ...config } = configOf("smollm3");

  test("says which layers turn by positions, and where not every fourth does not", () => {
    const turned = (changes: object) =>
      layersOf({ ...config, num_hidden_layers: 8, ...changes })
        .flatMap(({ frequencies }, layer) => frequencies ? [layer] : []);
    expect(turned({ no_rope_layer_interval: undefined })).toEqual([0, 1, 2, 4, 5, 6]);
    expect(turned({})).toEqual([0, 2, 4, 6]);
    expect(turned({ no_rope_layers: [0, 1, 1, 0, 0, 0, 0, 0, 1] })).toEqual([1, 2]);
    expect(turned({ no_rope_layers: null, no_rope_layer_interval: 8 }))
      .toEqual([0, 1, 2, 3, 4, 5, 6]);
    refused({ ...config, no_rope_layers: [1, 0] }, "no_rope_layers names 2 layers", "3");
  });

  test("has windows in layers that do not turn, and defaults of its own", () => {
    const { tie_word_embeddings: _, rope_parameters: __, ...bare } = config;
    const spec = describeModel({ ...bare, use_sliding_window: true, sliding_window: 8 });
    expect([0, 1, 2].map(spec.attention.window)).toEqual([undefined, 8, undefined]);
    expect(describeModel({ ...bare, use_sliding_window: true }).attention.window(1)).toBe(
      undefined,
    );
    expect(describeModel({ ...bare, sliding_window: 8 }).attention.window(1)).toBe(undefined);
    expect(spec.head).toBe("model.embed_tokens");
    expect(spec.rotary(0)!.frequencies[1]).toBeCloseTo(2e6 ** (-2 / 16), 6);
  });
});
