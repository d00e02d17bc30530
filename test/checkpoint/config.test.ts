import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe as describeModel, SUPPORTED } from "../../src/checkpoint/architectures/mod.ts";
import {
  ArchitectureError,
  ConfigError,
  TensorMissingError,
  TensorShapeError,
} from "../../src/errors.ts";
import { open, refused } from "./opening.ts";
import { editJson, readJsonOf, Workshop } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";

/** A copy of the fixture `llama` with another config. */
function withConfig(changes: Record<string, unknown>, fixture = "llama"): string {
  const folder = workshop.copy(fixture);
  editJson(folder, CONFIG, (config) => ({ ...config, ...changes }));
  return folder;
}

describe("config.json", () => {
  test("must be JSON", () => {
    for (const text of ["", "{", "model_type: llama", '{"model_type": NaN}']) {
      const folder = workshop.copy("llama");
      writeFileSync(join(folder, CONFIG), text);
      refused(folder, ConfigError, CONFIG, "not valid JSON");
    }
  });

  test("must be UTF-8", () => {
    const folder = workshop.copy("llama");
    writeFileSync(join(folder, CONFIG), Uint8Array.of(0x7b, 0xff, 0x7d));
    refused(folder, ConfigError, CONFIG, "UTF-8");
  });

  test("must be a file", () => {
    const folder = workshop.copy("llama");
    rmSync(join(folder, CONFIG));
    mkdirSync(join(folder, CONFIG));
    refused(folder, ConfigError, CONFIG, "not a file");
  });

  test("must be an object", () => {
    for (const text of ["[]", "null", "7", '"llama"']) {
      const folder = workshop.copy("llama");
      writeFileSync(join(folder, CONFIG), text);
      refused(folder, ConfigError, CONFIG, "not a JSON object");
    }
  });

  test("must name a model type", () => {
    for (const model_type of [undefined, null, 7, ["llama"]]) {
      refused(withConfig({ model_type }), ConfigError, CONFIG, "model_type");
    }
  });

  test("must name an architecture that is supported, and the message lists them", () => {
    expect(SUPPORTED)
      .toEqual([
        "arcee",
        "cohere",
        "cohere2",
        "ernie4_5",
        "exaone",
        "exaone4",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gemma4",
        "gemma4_text",
        "glm",
        "glm4",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "granite",
        "granite_swa",
        "granitemoehybrid",
        "helium",
        "hunyuan_v1_dense",
        "hyperclovax",
        "internlm3",
        "jais2",
        "lfm2",
        "lfm3",
        "llama",
        "ministral",
        "ministral3",
        "mistral",
        "mistral3",
        "nanochat",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_5",
        "qwen3_5_text",
        "smollm3",
        "stablelm",
        "starcoder2",
        "vaultgemma",
      ]);
    for (const model_type of ["codegen", "Llama", "", "__proto__", "constructor"]) {
      const parts = [JSON.stringify(model_type), ...SUPPORTED];
      refused(withConfig({ model_type }), ArchitectureError, ...parts);
    }
  });

  test("must not be that of a quantized model", () => {
    const quantization_config = { quant_method: "gptq", bits: 4 };
    refused(withConfig({ quantization_config }), ConfigError, CONFIG, "quantized");
    open(withConfig({ quantization_config: null }));
  });

  test("must have every field that the architecture needs, as a number in its range", () => {
    const fields = [
      "hidden_size",
      "intermediate_size",
      "num_hidden_layers",
      "num_attention_heads",
      "vocab_size",
      "max_position_embeddings",
    ];
    for (const field of fields) {
      for (const value of [undefined, null, "64", 0, -64, 64.5, 1e12, [64], true]) {
        refused(withConfig({ [field]: value }), ConfigError, CONFIG, field);
      }
    }
  });

  test("must not ask for an activation that is not computed, whatever it is called", () => {
    for (const hidden_act of ["gelu", "", "constructor"]) {
      const message = `hidden_act ${JSON.stringify(hidden_act)}`;
      refused(withConfig({ hidden_act }), ConfigError, CONFIG, message, "silu");
    }
    for (const activation_function of ["silu", "constructor", "__proto__", "toString"]) {
      const message = `activation_function ${JSON.stringify(activation_function)}`;
      refused(withConfig({ activation_function }, "opt"), ConfigError, CONFIG, message, "relu");
    }
  });

  test("must not ask for rotary positions that are not computed", () => {
    const rope = (rope_parameters: object) => withConfig({ rope_parameters });
    refused(rope({ rope_type: "ntk", factor: 2 }), ConfigError, CONFIG, '"ntk"', "llama3");
    refused(rope({ rope_type: "dynamic" }), ConfigError, CONFIG, "dynamic needs factor");
    refused(rope({ rope_type: "linear" }), ConfigError, CONFIG, "linear needs factor");
    refused(rope({ rope_type: "llama3", factor: 2 }), ConfigError, CONFIG, "low_freq_factor");
    refused(rope({ partial_rotary_factor: 0.5 }), ConfigError, CONFIG, "partial_rotary_factor");
    refused(rope({ rope_theta: 0 }), ConfigError, CONFIG, "rope_theta");
    refused(rope({ rope_theta: 1e-300 }), ConfigError, CONFIG, "rope_theta");
    refused(rope({ rope_type: "linear", factor: 1e-300 }), ConfigError, CONFIG, "factor");
    const equal = { rope_type: "llama3", factor: 2, low_freq_factor: 4, high_freq_factor: 4 };
    refused(rope(equal), ConfigError, CONFIG, "must differ");
  });

  test("of two versions' rotary settings means the older, as it does to transformers", () => {
    const config = readJsonOf(withConfig({}), CONFIG);
    const frequencies = (changes: object) =>
      describeModel({ ...config, ...changes }).rotary(0)!.frequencies;
    const linear = { type: "linear", factor: 2 };
    const plain = frequencies({ rope_parameters: { rope_type: "default", rope_theta: 10000 } });
    expect(frequencies({ rope_parameters: null, rope_scaling: linear })[1]).toBe(plain[1] / 2);
    expect(frequencies({ rope_scaling: linear })[1]).toBe(plain[1] / 2);
    expect(frequencies({ rope_scaling: {} })).toEqual(plain);
    expect(frequencies({ rope_scaling: null })).toEqual(plain);
  });

  test("says by layer_types which layers slide, for Mistral as well", () => {
    const windows = (fixture: string, changes: object) => {
      const config = { ...readJsonOf(withConfig({}, fixture), CONFIG), ...changes };
      const { attention, layers } = describeModel(config);
      return Array.from({ length: layers }, (_, layer) => attention.window(layer));
    };
    const layer_types = ["full_attention", "sliding_attention", "full_attention"];
    expect(windows("mistral-sliding", {})).toEqual([8, 8, 8]);
    expect(windows("mistral-sliding", { layer_types })).toEqual([undefined, 8, undefined]);
    expect(windows("mistral-sliding", { layer_types, model_type: "ministral" }))
      .toEqual([undefined, 8, undefined]);
    expect(windows("qwen2-sliding", { layer_types })).toEqual([undefined, 8, undefined]);
    expect(windows("qwen2-sliding", { layer_types: null })).toEqual([undefined, 8, 8]);
  });

  test("without sliding_window means the window that transformers takes then, and with null none", () => {
    for (const [fixture, layer] of [["mistral-sliding", 0], ["qwen2-sliding", 1]] as const) {
      const config = readJsonOf(withConfig({}, fixture), CONFIG);
      const window = (sliding_window: null | undefined) =>
        describeModel({ ...config, sliding_window }).attention.window(layer);
      expect(window(undefined)).toBe(4096);
      expect(window(null)).toBe(undefined);
    }
  });

  test("must name the kind of every layer's attention, and none that is not computed", () => {
    for (const fixture of ["mistral-sliding", "qwen2-sliding", "qwen3"]) {
      const types = (...layer_types: string[]) => withConfig({ layer_types }, fixture);
      const full = "full_attention";
      refused(types(full), ConfigError, CONFIG, "layer_types names 1 layers", "3");
      refused(types(full, full, "linear_attention"), ConfigError, CONFIG, '"linear_attention"');
    }
  });

  test("must have heads that go together", () => {
    refused(withConfig({ num_key_value_heads: 3 }), ConfigError, CONFIG, "4", "3 key/value heads");
    refused(withConfig({ head_dim: 15 }), ConfigError, CONFIG, "heads of 15 elements");
    const uneven = { head_dim: null, num_attention_heads: 6 };
    refused(withConfig(uneven), ConfigError, CONFIG, "hidden_size 64 over 6 heads");
    refused(withConfig({ head_dim: 10_000_000 }), ConfigError, CONFIG, "10000000 elements");
  });

  test("must fit the shapes of the weights", () => {
    const changes: [Record<string, number>, string, string][] = [
      [{ vocab_size: 321 }, "model.embed_tokens.weight", "[320,64], config.json asks for [321,64]"],
      [{ hidden_size: 128 }, "model.embed_tokens.weight", "[320,64], config.json asks for [320,12"],
      [{ intermediate_size: 161 }, "model.layers.0.mlp.gate_proj.weight", "asks for [161,64]"],
      [{ num_attention_heads: 8 }, "model.layers.0.self_attn.q_proj.weight", "asks for [128,64]"],
      [{ num_key_value_heads: 4 }, "model.layers.0.self_attn.k_proj.weight", "asks for [64,64]"],
      [{ head_dim: 32 }, "model.layers.0.self_attn.q_proj.weight", "asks for [128,64]"],
    ];
    for (const [change, ...parts] of changes) {
      refused(withConfig(change), TensorShapeError, WEIGHTS, ...parts);
    }
    const context = withConfig({ max_position_embeddings: 64 }, "opt");
    refused(context, TensorShapeError, "model.decoder.embed_positions.weight", "[66,");
  });

  test("must not ask for weights that are not there", () => {
    const layers = withConfig({ num_hidden_layers: 10_000 });
    refused(layers, TensorMissingError, "model.layers.3.input_layernorm.weight");
    refused(withConfig({ attention_bias: true }), TensorMissingError, "q_proj.bias");
    refused(withConfig({ mlp_bias: true }), TensorMissingError, "gate_proj.bias");
    const untied = withConfig({ tie_word_embeddings: false }, "llama-rope-scaled");
    refused(untied, TensorMissingError, "lm_head.weight");
    refused(withConfig({ model_type: "qwen3" }), TensorMissingError, "q_norm.weight");
    refused(withConfig({ model_type: "opt", ffn_dim: 160 }), TensorMissingError, "model.decoder.");
  });
});
