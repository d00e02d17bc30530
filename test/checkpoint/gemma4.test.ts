/** Configs of Gemma 4, whose layers differ in heads, in width and in whose keys they attend to. @module */
import { describe, expect, test } from "bun:test";
import { cacheParts } from "../../src/checkpoint/architectures/cache_parts.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { headsOf } from "../../src/checkpoint/architectures/spec.ts";
import { type Config, refused, without } from "./config_support.ts";
import { configOf } from "./support.ts";

const config = configOf("gemma4");

/** What a config means for each layer. */
function layersOf<T>(
  of: Config,
  what: (spec: ReturnType<typeof describeModel>, layer: number) => T,
) {
  const spec = describeModel(of);
  return Array.from({ length: spec.layers }, (_, layer) => what(spec, layer));
}

const headDims = (of: Config) => layersOf(of, (spec, layer) => headsOf(spec, layer).headDim);
const windows = (of: Config) => layersOf(of, ({ attention }, layer) => attention.window(layer));
const keysOf = (of: Config) => layersOf(of, ({ attention }, layer) => attention.keysOf!(layer));

describe("Gemma 4's config", () => {
  test("as its makers write it has one size of heads for all layers that see everything", () => {
    const published = { ...without(config, "per_layer_config"), global_head_dim: 24 };
    expect(headDims(published)).toEqual([16, 24, 16, 16, 24]);
    expect(headDims(without(published, "global_head_dim"))).toEqual([16, 512, 16, 16, 512]);
  });

  test("as transformers writes it has sizes by layers, with zeros before them where there are ten or more", () => {
    // What transformers 5.24 writes for twelve layers.
    const layer_types = Array.from(
      { length: 12 },
      (_, i) => (i + 1) % 6 === 0 ? "full_attention" : "sliding_attention",
    );
    const per_layer_config = {
      "05": { head_dim: 32 },
      "11": { head_dim: 32, num_key_value_heads: 1 },
    };
    const large = {
      ...config,
      ...{ num_hidden_layers: 12, layer_types, per_layer_config, num_kv_shared_layers: 0 },
    };
    expect(headDims(large)).toEqual(layer_types.map((type) => type === "full_attention" ? 32 : 16));
    expect(layersOf(large, (spec, layer) => headsOf(spec, layer).keyValueHeads))
      .toEqual([...new Array(11).fill(2), 1]);
    expect(headDims({ ...config, per_layer_config: null })).toEqual(new Array(5).fill(16));
  });

  test("that names sizes of layers that are not there, or others than of heads, is refused", () => {
    refused(
      { ...config, per_layer_config: { 5: { head_dim: 32 } } },
      "per_layer_config",
      "layer 5",
    );
    refused({ ...config, per_layer_config: { last: { head_dim: 32 } } }, "per_layer_config");
    refused(
      {
        ...config,
        per_layer_config: { ...Object(config.per_layer_config), 0: { rms_norm_eps: 1 } },
      },
      "per_layer_config",
      "rms_norm_eps",
    );
    refused({ ...config, per_layer_config: { 4: { head_dim: 31 } } }, "31");
  });

  test("has a window in five of six layers where it names none, and never in the last", () => {
    const bare = {
      ...without(config, "layer_types", "per_layer_config"),
      ...{ num_hidden_layers: 8, num_kv_shared_layers: 0, global_head_dim: 32 },
    };
    expect(windows(bare)).toEqual([8, 8, 8, 8, 8, undefined, 8, undefined]);
    const all = { ...config, layer_types: new Array(5).fill("sliding_attention") };
    expect(windows({ ...all, num_kv_shared_layers: 0, per_layer_config: { 4: { head_dim: 32 } } }))
      .toEqual([8, 8, 8, 8, undefined]);
  });

  test("that says nothing but its type is that of transformers", () => {
    const spec = describeModel({ model_type: "gemma4_text" });
    expect(spec).toMatchObject({
      ...{ layers: 30, hidden: 2304, intermediate: 9216, vocabulary: 262_144 },
      ...{ heads: 8, keyValueHeads: 4, headDim: 256, head: "model.embed_tokens" },
      perLayer: { width: 256, vocabulary: 262_144, scale: 16 },
    });
    expect(spec.logitCap).toBeUndefined();
    expect([4, 5].map((layer) => headsOf(spec, layer).headDim)).toEqual([256, 512]);
    const [sliding, full] = [4, 5].map((layer) => spec.rotary(layer)!.frequencies);
    // A quarter of the pairs of full attention turns.
    expect([sliding.length, full.length]).toEqual([128, 256]);
    expect([...full].filter((frequency) => frequency !== 0).length).toBe(64);
    expect(Math.abs(full[1] / 1e6 ** (-2 / 512) - 1)).toBeLessThan(1e-6);
    expect(Math.abs(sliding[1] / 1e4 ** (-2 / 256) - 1)).toBeLessThan(1e-6);
  });

  test("may have layers without inputs of their own", () => {
    for (const hidden_size_per_layer_input of [0, null]) {
      expect(describeModel({ ...config, hidden_size_per_layer_input }).perLayer).toBeUndefined();
    }
  });

  test("is refused with what is not computed here", () => {
    refused({ ...config, enable_moe_block: true }, "enable_moe_block");
    refused({ ...config, attention_k_eq_v: true }, "attention_k_eq_v");
    refused({ ...config, use_bidirectional_attention: "all" }, "use_bidirectional_attention");
    refused({ ...config, hidden_activation: "silu" }, '"silu"');
    // Images alone are seen from both sides.
    expect(() => describeModel({ ...config, use_bidirectional_attention: "vision" })).not.toThrow();
  });
});

describe("layers of Gemma 4 without keys of their own", () => {
  test("attend to those of the last layer of their kind that has some, and may be twice as wide", () => {
    expect(keysOf(config)).toEqual([undefined, undefined, undefined, 2, 1]);
    const wide = (of: Config) => layersOf(of, ({ mlp }, layer) => mlp.intermediateIn!(layer));
    expect(wide(config)).toEqual([96, 96, 96, 192, 192]);
    expect(wide({ ...config, use_double_wide_mlp: false })).toEqual(new Array(5).fill(96));
    expect(keysOf({ ...config, num_kv_shared_layers: null })).toEqual(new Array(5).fill(undefined));
  });

  test("have no place in the cache", () => {
    const parts = cacheParts(describeModel(config)).map((
      { past, dims },
    ) => [past, ...dims("tokens")]);
    expect(parts).toEqual([0, 1, 2].flatMap((layer) =>
      ["key", "value"].map((part) => [
        `past_key_values.${layer}.${part}`,
        ...[2, "tokens", layer === 1 ? 32 : 16],
      ])
    ));
  });

  test("are refused where none of their kind has keys, or heads of another size", () => {
    refused({ ...config, num_kv_shared_layers: 4 }, "num_kv_shared_layers 4", "layer 1");
    refused({ ...config, num_kv_shared_layers: 5 }, "num_kv_shared_layers 5", "layer 0");
    refused({ ...config, num_kv_shared_layers: -1 }, "num_kv_shared_layers");
    const other = { 1: { head_dim: 32 }, 4: { head_dim: 32, num_key_value_heads: 1 } };
    refused({ ...config, per_layer_config: other }, "layer 4");
  });
});

describe("Gemma 4 inside of a model of images, sounds and text", () => {
  test("is the same decoder, tied where either of its configs says so or neither says anything", () => {
    const head = (outer: object, inner: object) =>
      describeModel({ model_type: "gemma4", ...outer, text_config: { ...config, ...inner } }).head;
    const [own, embedding] = ["lm_head", "language_model.model.embed_tokens"];
    const no = { tie_word_embeddings: false }, unsaid = { tie_word_embeddings: undefined };
    expect([head({}, unsaid), head(no, {}), head({}, no)]).toEqual(new Array(3).fill(embedding));
    expect(head(no, no)).toBe(own);
  });
});
