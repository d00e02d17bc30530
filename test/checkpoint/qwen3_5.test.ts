/** Configs of Qwen 3.5, whose layers remember by the gated delta rule or attend. @module */
import { describe, expect, test } from "bun:test";
import { cacheParts } from "../../src/checkpoint/architectures/cache_parts.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { type Config, refused, without } from "./config_support.ts";
import { configOf } from "./support.ts";

const config = configOf("qwen3_5");

describe("Qwen 3.5's config", () => {
  const remembering = (of: Config) => {
    const { layers, recurrent } = describeModel(of);
    return Array.from({ length: layers }, (_, layer) => recurrent!.isIn(layer));
  };

  test("says by layer_types which layers remember, or that each so many-th attends: each fourth by itself", () => {
    expect(remembering(config)).toEqual([true, false, true]);
    const bare = { ...without(config, "layer_types"), num_hidden_layers: 5 };
    expect(remembering(bare)).toEqual([true, true, true, false, true]);
    expect(remembering({ ...bare, full_attention_interval: 2 }))
      .toEqual([true, false, true, false, true]);
    refused({ ...config, layer_types: ["linear_attention", "full_attention"] }, "2 layers", "3");
    refused({ ...config, layer_types: ["linear_attention", "conv", "full_attention"] }, '"conv"');
  });

  test("has the sizes of the 9B where it names none", () => {
    const bare = without(
      { ...config, linear_num_value_heads: undefined },
      ...["linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim"],
      ...["linear_value_head_dim", "head_dim", "rope_parameters"],
    );
    const { headDim, rotary, recurrent } = describeModel(bare);
    const { isIn: _, ...sizes } = recurrent!;
    expect(sizes).toMatchObject({
      keyHeads: 16,
      valueHeads: 32,
      keyDim: 128,
      valueDim: 128,
      length: 4,
    });
    expect([headDim, rotary(1)!.frequencies.length, rotary(0)]).toEqual([256, 32, undefined]);
  });

  test("is refused with heads that do not go together, or are larger than any model's", () => {
    refused({ ...config, linear_num_value_heads: 3 }, "3 value heads", "2 key heads");
    refused({ ...config, linear_key_head_dim: 2048 }, "2048");
    refused({ ...config, linear_value_head_dim: 2048 }, "2048");
    refused({ ...config, linear_conv_kernel_dim: 0 }, "linear_conv_kernel_dim");
    refused({ ...config, hidden_act: "gelu" }, "hidden_act");
  });

  test("means a cache of keys and values for some layers, and of a state for the others", () => {
    const parts = cacheParts(describeModel(config)).map(({ past, present, dims }) => [
      past,
      present,
      ...dims("tokens"),
    ]);
    expect(parts).toEqual([
      ["past_conv.0", "present_conv.0", 160, 4],
      ["past_recurrent.0", "present_recurrent.0", 4, 16, 24],
      ["past_key_values.1.key", "present.1.key", 2, "tokens", 16],
      ["past_key_values.1.value", "present.1.value", 2, "tokens", 16],
      ["past_conv.2", "present_conv.2", 160, 4],
      ["past_recurrent.2", "present_recurrent.2", 4, 16, 24],
    ]);
  });
});

describe("Qwen 3.5 inside of a model of images and text", () => {
  test("is the same decoder, tied where either of its configs says so", () => {
    const tied = (outer: object, inner: object) =>
      describeModel({ model_type: "qwen3_5", ...outer, text_config: { ...config, ...inner } }).head;
    const [own, embedding] = ["lm_head", "language_model.model.embed_tokens"];
    expect(tied({}, { tie_word_embeddings: true })).toBe(embedding);
    expect(tied({ tie_word_embeddings: true }, { tie_word_embeddings: undefined })).toBe(embedding);
    expect(tied({ tie_word_embeddings: false }, { tie_word_embeddings: false })).toBe(own);
  });
});
