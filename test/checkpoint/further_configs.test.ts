/** Configs of StarCoder 2 and those that came with it or after it: older spellings, defaults, and what is refused. */
import { describe, expect, test } from "bun:test";
import { cacheParts } from "../../src/checkpoint/architectures/cache_parts.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { type Config, refused, without } from "./config_support.ts";
import { configOf } from "./support.ts";

/** The window of each layer. */
function windowsOf(config: Config): (number | undefined)[] {
  const { layers, attention } = describeModel(config);
  return Array.from({ length: layers }, (_, layer) => attention.window(layer));
}

describe("StarCoder 2's config", () => {
  const config = configOf("starcoder2");

  test("has a window in all layers where it names one, and none where it does not", () => {
    expect(windowsOf(config)).toEqual([8, 8, 8]);
    expect(windowsOf({ ...config, sliding_window: null })).toEqual(new Array(3).fill(undefined));
    expect(windowsOf(without(config, "sliding_window"))).toEqual(new Array(3).fill(undefined));
  });

  test("means the same as transformers 4 and as transformers 5 write it, and as its defaults are", () => {
    const older = describeModel(config);
    const rope_parameters = { rope_type: "default", rope_theta: 100000 };
    const newer = { ...without(config, "rope_theta", "rope_scaling"), rope_parameters };
    expect(describeModel(newer).rotary(0)).toEqual(older.rotary(0));
    const bare = without(config, "hidden_act", "norm_epsilon", "use_bias", "tie_word_embeddings");
    const spec = describeModel(without(bare, "num_key_value_heads"));
    for (const part of ["keyValueHeads", "norm", "mlp", "head"] as const) {
      expect(spec[part]).toEqual(older[part]);
    }
  });

  test("may be without biases, with the exact GELU and with a head of its own", () => {
    const changes = { use_bias: false, hidden_act: "gelu", tie_word_embeddings: false };
    const { attention, mlp, head } = describeModel({ ...config, ...changes });
    expect([attention.inputBias, attention.outputBias, mlp.bias]).toEqual([false, false, false]);
    expect([mlp.activation, head]).toEqual(["gelu", "lm_head"]);
    refused({ ...config, hidden_act: "silu" }, '"silu"', "gelu_pytorch_tanh, gelu are");
  });
});

describe("StableLM's config", () => {
  const config = configOf("stablelm");
  const turned = (config: Config) => 2 * describeModel(config).rotary(0)!.frequencies.length;

  test("says what part of heads is turned, inside its settings or outside, and a quarter where it does not", () => {
    const bare = without(config, "partial_rotary_factor", "rope_scaling", "rope_theta");
    expect(turned(config)).toBe(4);
    expect(turned(bare)).toBe(4);
    expect(turned({ ...bare, partial_rotary_factor: 0.5 })).toBe(8);
    const rope_parameters = {
      rope_type: "default",
      rope_theta: 10000,
      partial_rotary_factor: 0.75,
    };
    expect(turned({ ...bare, rope_parameters })).toBe(12);
    expect(turned({ ...bare, rope_parameters, partial_rotary_factor: 0.5 })).toBe(12);
    expect(describeModel({ ...bare, rope_theta: 1e6 }).rotary(0)!.frequencies[1])
      .toBeCloseTo(1e-3, 8);
  });

  test("has no biases where it does not ask for them, and norms of 1e-5", () => {
    const { attention, norm, mlp } = describeModel(
      without(config, "use_qkv_bias", "layer_norm_eps"),
    );
    expect([attention.inputBias, attention.outputBias, mlp.bias]).toEqual([false, false, false]);
    expect(norm).toMatchObject({ kind: "layer", epsilon: 1e-5 });
  });

  test("must be without what StableLM 2 12B has", () => {
    refused({ ...config, qk_layernorm: true }, "qk_layernorm", "12B");
    refused({ ...config, use_parallel_residual: true }, "use_parallel_residual", "12B");
    describeModel({ ...config, qk_layernorm: false, use_parallel_residual: null });
  });
});

describe("EXAONE 4's config", () => {
  const config = configOf("exaone4");
  const bare = {
    ...without(config, "layer_types", "sliding_window_pattern"),
    num_hidden_layers: 8,
  };
  /** The layers that slide, each of which has to be one that turns, where not all do. */
  function sliding(config: Config): number[] {
    const { rotary } = describeModel(config);
    return windowsOf(config).flatMap((window, layer) => {
      expect(rotary(layer) !== undefined).toBe(window !== undefined);
      return window === undefined ? [] : [layer];
    });
  }

  test("says which layers slide by their types, by a number or by letters, of which the last layer is none", () => {
    expect(sliding(config)).toEqual([0, 1]);
    expect(sliding(bare)).toEqual([0, 1, 2, 4, 5, 6]);
    expect(sliding({ ...bare, sliding_window_pattern: 3 })).toEqual([0, 1, 3, 4, 6, 7]);
    expect(sliding({ ...bare, sliding_window_pattern: "LLG" })).toEqual([0, 1, 3, 4, 6]);
    const layer_types = [...new Array(7).fill("full_attention"), "sliding_attention"];
    expect(sliding({ ...bare, layer_types, sliding_window_pattern: "LLLG" })).toEqual([7]);
    expect(windowsOf(without(bare, "sliding_window"))[0]).toBe(4096);
    refused({ ...bare, sliding_window_pattern: null }, "sliding_window_pattern says which");
    refused({ ...bare, sliding_window_pattern: "LLX" }, "sliding_window_pattern");
  });

  test("turns in all layers where there is no window, as in the 1.2B", () => {
    const layer_types = new Array(8).fill("full_attention");
    const small = { ...bare, sliding_window: null, sliding_window_pattern: null };
    for (const config of [small, { ...small, layer_types }]) {
      expect(windowsOf(config)).toEqual(new Array(8).fill(undefined));
      expect(layer_types.map((_, layer) => describeModel(config).rotary(layer)?.frequencies.length))
        .toEqual(new Array(8).fill(8));
    }
  });
});

describe("Arcee's config", () => {
  const config = configOf("arcee");

  test("squares what ReLU leaves where it does not say otherwise, without a gate", () => {
    const mlp = { up: "mlp.up_proj", down: "mlp.down_proj", bias: false, gate: undefined };
    const { mlp: usual, norm } = describeModel(without(config, "hidden_act", "rms_norm_eps"));
    expect(usual).toEqual({ ...mlp, activation: "relu_squared" });
    expect(norm.epsilon).toBe(1e-5);
    expect(describeModel({ ...config, hidden_act: "relu" }).mlp.activation).toBe("relu");
    refused({ ...config, hidden_act: "silu" }, '"silu"', "relu2, relu are");
  });

  test("may have biases", () => {
    const { attention, mlp } = describeModel({ ...config, attention_bias: true, mlp_bias: true });
    expect([attention.inputBias, attention.outputBias, mlp.bias]).toEqual([true, true, true]);
  });
});

describe("Nemotron's config", () => {
  const config = configOf("nemotron");
  const turned = (config: Config) => 2 * describeModel(config).rotary(0)!.frequencies.length;

  test("says what part of heads is turned, inside its settings or outside, and a half where it does not", () => {
    const bare = without(config, "partial_rotary_factor", "rope_scaling", "rope_theta");
    expect([turned(config), turned(bare)]).toEqual([8, 8]);
    expect(turned({ ...bare, partial_rotary_factor: 0.25 })).toBe(4);
    const rope_parameters = { rope_type: "default", rope_theta: 10000, partial_rotary_factor: 1 };
    expect(turned({ ...bare, rope_parameters, partial_rotary_factor: 0.5 })).toBe(16);
  });

  test("has no biases on linears and squares what ReLU leaves where it does not say otherwise", () => {
    const { attention, mlp, norm } = describeModel(
      without(config, "attention_bias", "mlp_bias", "hidden_act", "norm_eps"),
    );
    expect([attention.inputBias, attention.outputBias, mlp.bias]).toEqual([false, false, false]);
    expect([mlp.activation, mlp.gate]).toEqual(["relu_squared", undefined]);
    expect(norm).toMatchObject({ kind: "layer", epsilon: 1e-5, aboveOne: true });
  });
});

describe("Hunyuan's config", () => {
  const config = configOf("hunyuan");
  const second = (config: Config) => describeModel(config).rotary(0)!.frequencies[1];

  test("stretches frequencies by alpha, which it calls dynamic, as transformers 4 and 5 write it", () => {
    const base = 10000 * 50 ** (16 / 14);
    expect(second(config)).toBeCloseTo(base ** (-2 / 16), 6);
    const scaling = config.rope_scaling as Config;
    const rope_parameters = { ...scaling, rope_type: "dynamic", rope_theta: 10000 };
    const newer = { ...without(config, "rope_scaling", "rope_theta"), rope_parameters };
    expect(second(newer)).toBe(second(config));
    expect(second({ ...config, rope_scaling: null })).toBeCloseTo(1e4 ** (-2 / 16), 6);
    // Without alpha, frequencies change with the length, beyond the context.
    const plain = describeModel({ ...config, rope_scaling: without(scaling, "alpha") }).rotary(0)!;
    expect(plain.frequencies[1]).toBeCloseTo(1e4 ** (-2 / 16), 6);
    expect(plain.positions).toBe(config.max_position_embeddings as number);
    refused({ ...config, rope_scaling: { ...scaling, alpha: -1 } }, "alpha", "-1");
    refused({ ...config, rope_scaling: { ...scaling, alpha: "50" } }, "alpha");
  });

  test("norms heads, and layers do not share keys and values", () => {
    const { attention, norm } = describeModel(without(config, "rms_norm_eps", "use_qk_norm"));
    expect(attention.norm).toBe("turned");
    expect(norm.epsilon).toBe(1e-5);
    refused({ ...config, use_qk_norm: false }, "use_qk_norm");
    refused({ ...config, use_cla: true }, "use_cla");
  });
});

describe("Granite 4's config", () => {
  const config = configOf("granitemoehybrid");

  test("has an MLP of the size that experts would share, gate and up in one matrix", () => {
    const { intermediate, mlp } = describeModel({ ...config, shared_intermediate_size: 80 });
    expect(intermediate).toBe(80);
    expect(mlp).toMatchObject({
      fused: "shared_mlp.input_linear",
      down: "shared_mlp.output_linear",
    });
  });

  test("means attention by either name, and turns nothing where it does not say so", () => {
    const layer_types = ["full_attention", "attention", "full_attention"];
    expect(describeModel({ ...config, layer_types }).rotary(0)).toBeDefined();
    for (const position_embedding_type of [null, "nope"]) {
      expect(describeModel({ ...config, position_embedding_type }).rotary(1)).toBeUndefined();
    }
  });

  test("has state spaces in layers of either name, or of none, which turn nothing", () => {
    const hybrid = configOf("granite4-h");
    const kindsOf = (of: Config): string[] => {
      const { layers, recurrent, rotary } = describeModel({
        ...of,
        position_embedding_type: "rope",
      });
      return Array.from(
        { length: layers },
        (_, layer) => recurrent?.isIn(layer) ? "remembers" : rotary(layer) ? "turns" : "nothing",
      );
    };
    const mixed = ["remembers", "turns", "remembers"];
    expect(kindsOf(hybrid)).toEqual(mixed);
    const newer = ["linear_attention", "full_attention", "linear_attention"];
    expect(kindsOf({ ...hybrid, layer_types: newer })).toEqual(mixed);
    expect(kindsOf(without(hybrid, "layer_types"))).toEqual(new Array(3).fill("remembers"));
    expect(kindsOf(config)).toEqual(new Array(3).fill("turns"));
    const limit = [0, { __float__: "Infinity" }];
    const { isIn: _, ...sizes } = describeModel({
      ...without(hybrid, "mamba_d_head", "mamba_d_conv", "mamba_conv_bias"),
      time_step_limit: limit,
    }).recurrent!;
    expect(sizes).toEqual({
      ...{ kind: "state space", keyHeads: 1, valueHeads: 8, keyDim: 24, valueDim: 16 },
      ...{ length: 4, kernelBias: true, bias: false },
    });
    const caches = cacheParts(describeModel(hybrid));
    expect(caches.map(({ past, present, dims }) => [past, present, ...dims(0)])).toEqual([
      ["past_conv.0", "present_conv.0", 176, 4],
      ["past_ssm.0", "present_ssm.0", 8, 24, 16],
      ["past_key_values.1.key", "present.1.key", 2, 0, 16],
      ["past_key_values.1.value", "present.1.value", 2, 0, 16],
      ["past_conv.2", "present_conv.2", 176, 4],
      ["past_ssm.2", "present_ssm.2", 8, 24, 16],
    ]);
  });

  test("must have state spaces whose sizes go together, of one group and without limits of steps", () => {
    const hybrid = configOf("granite4-h");
    refused({ ...hybrid, mamba_d_head: 24 }, "8 heads of 24", "128");
    refused({ ...hybrid, mamba_n_heads: 7, mamba_d_head: "auto" }, "7 heads of 18", "128");
    refused({ ...hybrid, mamba_n_groups: 2 }, "mamba_n_groups 2");
    refused({ ...hybrid, mamba_d_state: null }, "mamba_");
    refused({ ...hybrid, mamba_d_conv: 0 }, "mamba_d_conv");
    for (const time_step_limit of [[0.001, 0.1], [0, 1e9], [0], ["0", "1"]]) {
      refused({ ...hybrid, time_step_limit }, "time_step_limit");
    }
  });

  test("must have no experts and no layers of another kind", () => {
    refused({ ...config, num_local_experts: 64 }, "num_local_experts 64", "350M");
    refused(without(config, "num_local_experts"), "num_local_experts 8");
    const mixed = { ...config, layer_types: ["attention", "moe", "attention"] };
    refused(mixed, '"moe"', "attention", "mamba");
    refused({ ...config, layer_types: ["attention"] }, "1 layers", "3");
  });
});

describe("the config of Granite with sliding windows", () => {
  const config = configOf("granite_swa");

  test("turns each layer by a base of its own, those of one base alike, and some not at all", () => {
    const { rotary } = describeModel({ ...config, layer_rope_theta: [500, 0, 500] });
    expect(rotary(0)).toBe(rotary(2)!);
    expect(rotary(0)!.frequencies[1]).toBeCloseTo(500 ** (-1 / 8), 6);
    expect(rotary(1)).toBeUndefined();
    const alike = describeModel(without(config, "layer_rope_theta")).rotary;
    expect(alike(0)!.frequencies[1]).toBeCloseTo(10_000 ** (-1 / 8), 6);
    expect(alike(0)).toBe(alike(1)!);
  });

  test("keeps what else is said of rotary settings, in whatever style", () => {
    const scaling = { rope_type: "linear", factor: 2, rope_theta: 10_000 };
    for (const style of [{ rope_parameters: scaling }, { rope_scaling: scaling }]) {
      const { rotary } = describeModel({ ...config, ...style });
      expect(rotary(2)!.frequencies[1]).toBeCloseTo(500 ** (-1 / 8) / 2, 6);
    }
  });

  test("has usual windows and a tied head where it names none", () => {
    const usual = without(config, "layer_types", "sliding_window", "tie_word_embeddings");
    const { attention, head } = describeModel({
      ...usual,
      num_hidden_layers: 6,
      layer_rope_theta: null,
    });
    expect([0, 1, 2, 3, 4, 5].map(attention.window))
      .toEqual([undefined, 128, 128, 128, undefined, 128]);
    expect(head).toBe("model.embed_tokens");
    expect(attention.sinks).toBe("sinks");
  });

  test("must have a base for each layer, none of them below 1 but 0", () => {
    refused({ ...config, layer_rope_theta: [0, 500] }, "layer_rope_theta names 2 layers");
    refused({ ...config, layer_rope_theta: [0, 0.5, 500] }, "layer_rope_theta");
  });
});

describe("Ministral 3's config", () => {
  const config = configOf("ministral3");
  const rope = config.rope_parameters as Config;

  test("has the context that its positions were stretched from, where queries grow beyond it", () => {
    expect(describeModel(config).context).toBe(64);
    const steady = { ...config, rope_parameters: without(rope, "llama_4_scaling_beta") };
    expect(describeModel(steady).context).toBe(256);
    const rope_parameters = without(rope, "original_max_position_embeddings");
    refused({ ...config, rope_parameters }, "llama_4_scaling_beta");
  });

  test("has a window where it names one alone", () => {
    expect(windowsOf(without(config, "sliding_window"))).toEqual(new Array(3).fill(undefined));
    expect(windowsOf({ ...config, sliding_window: 8 })).toEqual([8, 8, 8]);
  });

  test("may lie in that of a model that reads images, beside other decoders that may not", () => {
    const text_config = without(config, "tie_word_embeddings");
    const heads = [{}, { tie_word_embeddings: true }, { tie_word_embeddings: false }].map((tied) =>
      describeModel({ model_type: "mistral3", text_config, ...tied }).head
    );
    const tied = "language_model.model.embed_tokens";
    expect(heads).toEqual([tied, tied, "lm_head"]);
    const other = { model_type: "mistral3", text_config: { ...config, model_type: "qwen3" } };
    refused(other, '"qwen3"', "mistral and ministral3 are");
  });
});

describe("GPT-Neo's config", () => {
  const config = configOf("gpt-neo");

  test("says by patterns which layers have a window, and every other does where it does not", () => {
    expect(windowsOf(config)).toEqual([undefined, 8, undefined]);
    const attention_types = [[["local"], 2], [["global"], 1]];
    expect(windowsOf({ ...config, attention_types })).toEqual([8, 8, undefined]);
    const usual = { ...without(config, "attention_types", "window_size"), num_layers: 24 };
    expect(windowsOf(usual)).toEqual(
      new Array(24).fill(0).map((_, layer) => layer % 2 === 1 ? 256 : undefined),
    );
  });

  test("must name the kind of every layer's attention, and none that is not known", () => {
    const types = (attention_types: unknown) => ({ ...config, attention_types });
    refused(types([[["global"], 2]]), "2 of num_layers 3");
    refused(types([[["global", "local"], 2]]), "more than num_layers 3");
    refused(types([[["global", "local"], 10_000]]), "more than num_layers 3");
    refused(types([[["global", "sparse", "local"], 1]]), '"sparse"', "global and local are");
    refused(types([["global", 3]]), "attention_types");
  });

  test("multiplies scores by nothing, with biases behind attention and in the MLP", () => {
    const { attention, mlp, intermediate } = describeModel(without(config, "intermediate_size"));
    expect(attention).toMatchObject({ scale: 1, inputBias: false, outputBias: true });
    expect([mlp.bias, intermediate]).toEqual([true, 256]);
  });
});

describe("GPT-BigCode's config", () => {
  const config = configOf("gpt-bigcode");

  test("has one head of keys and values, or as many as of queries, head by head", () => {
    const shared = describeModel(without(config, "multi_query"));
    expect([shared.keyValueHeads, shared.attention.byHead]).toEqual([1, false]);
    const own = describeModel({ ...config, multi_query: false });
    expect([own.keyValueHeads, own.attention.byHead]).toEqual([4, true]);
  });

  test("divides scores alike in all layers, and has GELU by tanh where it does not say otherwise", () => {
    const { attention, mlp } = describeModel(
      without({ ...config, scale_attn_by_inverse_layer_idx: true }, "activation_function"),
    );
    expect([attention.scale, mlp.activation]).toEqual([0.25, "gelu_tanh"]);
    expect(describeModel({ ...config, scale_attn_weights: false }).attention.scale).toBe(1);
  });
});

describe("OLMo's config", () => {
  const config = configOf("olmo");

  test("has layer norms without weights", () => {
    expect(describeModel(config).norm).toMatchObject({
      kind: "layer",
      affine: false,
      epsilon: 1e-5,
    });
  });

  test("must not clip queries, keys and values", () => {
    describeModel(without(config, "clip_qkv"));
    refused({ ...config, clip_qkv: 8 }, "clip_qkv 8");
  });
});
