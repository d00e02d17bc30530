/**
 * Configs that say something in a place, or under a name, where most do not, and checkpoints whose tensors have other
 * names than most: what transformers 5.24 makes of them. Numbers are what it computes.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { OpenModel } from "../../src/api/shared.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { load } from "../../src/generate/load.ts";
import { forward, load as loadWindows } from "../support/models.ts";
import {
  configOf,
  editJson,
  fixtureBytes,
  parseSafetensors,
  readJsonOf,
  safetensors,
  thrownBy,
  Workshop,
} from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

type Config = Record<string, unknown>;

/** The window of each layer. */
function windowsOf(config: Config): (number | undefined)[] {
  const { layers, attention } = describeModel(config);
  return Array.from({ length: layers }, (_, layer) => attention.window(layer));
}

/** Checks some of the frequencies of the first layer: the second, that of the middle and the last. */
function expectTurned(config: Config, wanted: readonly number[], factor: number): void {
  const rotary = describeModel(config).rotary(0)!;
  const { frequencies } = rotary;
  [1, frequencies.length >> 1, frequencies.length - 1].forEach((at, i) => {
    expect(Math.abs(frequencies[at] / wanted[i] - 1)).toBeLessThan(1e-6);
  });
  expect(Math.abs(rotary.factor / factor - 1)).toBeLessThan(1e-6);
}

describe("a model whose tokens see those behind them", () => {
  test("is refused, whatever it is made of", () => {
    for (const name of ["llama", "qwen2", "gpt2", "opt", "gemma3"]) {
      for (const is_causal of [false, null, 0]) {
        const error = thrownBy(() => describeModel({ ...configOf(name), is_causal }));
        expect([error.code, error.message]).toEqual([
          "CONFIG_INVALID",
          "config.json: is_causal is false: the model reads texts and writes none",
        ]);
      }
      expect(() => describeModel({ ...configOf(name), is_causal: true })).not.toThrow();
    }
    const inner = { ...configOf("ministral3"), is_causal: false };
    expect(thrownBy(() => describeModel({ model_type: "mistral3", text_config: inner })).message)
      .toContain("is_causal");
  });
});

describe("the length of the original context", () => {
  const config = {
    ...configOf("llama"),
    ...{ hidden_size: 64, num_attention_heads: 4, head_dim: 16, max_position_embeddings: 256 },
    original_max_position_embeddings: 32,
    rope_parameters: undefined,
  };
  const inside = { rope_theta: 10_000, factor: 4, original_max_position_embeddings: 128 };
  const yarn = [0.19764235615730286, 0.0024999999441206455, 7.905694656074047e-5];

  test("counts where it stands outside of rotary settings, whatever they say", () => {
    const rope_parameters = { ...inside, rope_type: "yarn" };
    expectTurned({ ...config, rope_parameters }, yarn, 1.138629436111989);
    const rope_scaling = { type: "yarn", factor: 4 };
    expectTurned({ ...config, rope_theta: 10_000, rope_scaling }, yarn, 1.138629436111989);
    const llama3 = { ...inside, rope_type: "llama3", low_freq_factor: 1, high_freq_factor: 4 };
    expectTurned({ ...config, rope_parameters: llama3 }, [0.1273239552974701, ...yarn.slice(1)], 1);
    const short_factor = new Array(8).fill(1);
    const longrope = { ...inside, rope_type: "longrope", short_factor };
    expect(describeModel({ ...config, rope_parameters: longrope }).context).toBe(32);
  });

  test("says nothing of types that do not ask for it", () => {
    const plain = describeModel({ ...config, rope_parameters: { rope_type: "default" } });
    const without = { ...config, original_max_position_embeddings: undefined };
    expect(plain.rotary(0)).toEqual(describeModel(without).rotary(0));
  });
});

describe("YaRN with truncate null", () => {
  test("rounds nothing, as with false", () => {
    const rope = { rope_type: "yarn", rope_theta: 10_000, factor: 4 };
    const original = { original_max_position_embeddings: 64 };
    const config = {
      ...configOf("llama"),
      ...{ hidden_size: 64, num_attention_heads: 4, head_dim: 16, max_position_embeddings: 256 },
      rope_parameters: { ...rope, ...original, truncate: null },
    };
    const wanted = [0.19858352839946747, 0.0024999999441206455, 7.905694656074047e-5];
    expectTurned(config, wanted, 1.138629436111989);
  });
});

describe("Ministral 3's config", () => {
  test("may leave out what is usual: YaRN, the size of heads, the epsilon of norms", () => {
    const said = configOf("ministral3");
    for (const rope_parameters of [undefined, null]) {
      const config = {
        ...said,
        ...{ rope_parameters, rope_theta: 5, head_dim: undefined, rms_norm_eps: undefined },
        max_position_embeddings: 262_144,
      };
      const wanted = [0.8058422207832336, 0.0003382352879270911, 7.75586102008674e-8];
      expectTurned(config, wanted, 1);
      const { headDim, norm, context } = describeModel(config);
      expect([headDim, norm.epsilon, context]).toEqual([128, 1e-5, 16_384]);
    }
  });
});

describe("types of layers", () => {
  const layer_types = ["full_attention", "sliding_attention", "full_attention"];

  test("are passed over by Phi 3, Ministral 3, and Mistral inside of Mistral 3", () => {
    const windows = { sliding_window: 8, layer_types };
    expect(windowsOf({ ...configOf("phi3"), ...windows })).toEqual([8, 8, 8]);
    expect(windowsOf({ ...configOf("ministral3"), ...windows })).toEqual([8, 8, 8]);
    const text_config = { ...configOf("mistral-sliding"), layer_types };
    expect(windowsOf({ model_type: "mistral3", text_config })).toEqual([8, 8, 8]);
  });

  test("say of SmolLM 3 which layers slide, whether it says that any do or not", () => {
    const config = { ...configOf("smollm3"), sliding_window: 8, layer_types };
    for (const use_sliding_window of [true, false, undefined]) {
      expect(windowsOf({ ...config, use_sliding_window })).toEqual([undefined, 8, undefined]);
    }
    const untold = { ...config, layer_types: null, use_sliding_window: false };
    expect(windowsOf(untold)).toEqual([undefined, undefined, undefined]);
  });
});

describe("Gemma 3 with images", () => {
  const text = configOf("gemma3");

  test("caps no logits, which the same decoder by itself does", () => {
    const text_config = { ...text, final_logit_softcapping: 20 };
    expect(describeModel(text_config).logitCap).toBe(20);
    expect(describeModel({ model_type: "gemma3", text_config }).logitCap).toBeUndefined();
  });

  test("has its head tied where either config says so, or neither", () => {
    const head = (outer: unknown, inner: unknown) =>
      describeModel({
        model_type: "gemma3",
        tie_word_embeddings: outer,
        text_config: { ...text, tie_word_embeddings: inner },
      }).head;
    const tied = "language_model.model.embed_tokens";
    expect([head(true, false), head(undefined, false), head(false, true)]).toEqual([
      tied,
      tied,
      tied,
    ]);
    expect(head(false, false)).toBe("lm_head");
  });
});

describe("fields by the names that others have for them", () => {
  test("are read, and count more than their own", () => {
    const gpt2 = configOf("gpt2");
    const { n_embd, n_layer, n_head, n_positions, ...rest } = gpt2;
    const renamed = {
      ...rest,
      ...{ hidden_size: n_embd, num_hidden_layers: n_layer, num_attention_heads: n_head },
      max_position_embeddings: n_positions,
    };
    const shapeOf = (config: Config) => {
      const { hidden, layers, heads, context } = describeModel(config);
      return [hidden, layers, heads, context];
    };
    expect(shapeOf(renamed)).toEqual(shapeOf(gpt2));
    expect(shapeOf({ ...gpt2, num_hidden_layers: 1 })[1]).toBe(1);
    const { layer_types, ...granite } = configOf("granitemoehybrid");
    expect(describeModel({ ...granite, layers_block_type: layer_types }).layers)
      .toBe(describeModel({ ...granite, layer_types }).layers);
  });
});

describe("a checkpoint whose tensors have other names", () => {
  /** A copy of a fixture with its tensors by other names; those without one are left out. */
  function renamed(fixture: string, nameOf: (name: string) => string | undefined): string {
    const folder = workshop.copy(fixture);
    const { header, data } = parseSafetensors(fixtureBytes(fixture));
    const entries = Object.entries(header).flatMap(([name, entry]) => {
      const other = nameOf(name);
      return other === undefined ? [] : [[other, entry] as const];
    });
    writeFileSync(
      join(folder, "model.safetensors"),
      safetensors(Object.fromEntries(entries), data),
    );
    return folder;
  }

  async function logits(folder: string): Promise<Float32Array> {
    const { model, close } = await loadWindows(folder, "wasm", 8);
    try {
      return await forward(model, [5, 9, 2, 7]);
    } finally {
      await close();
    }
  }

  test("computes the same where it was saved without its head", async () => {
    for (
      const [fixture, base] of [["qwen2", "model."], ["opt", "model."], ["gpt-neo", "transformer."]]
    ) {
      const below = renamed(
        fixture,
        (name) => name.startsWith(base) ? name.slice(base.length) : undefined,
      );
      expect(await logits(below)).toEqual(await logits(workshop.copy(fixture)));
    }
  });

  test("computes the same where of a head and an embedding that are one, only the head is there", async () => {
    for (
      const [fixture, embedding] of [["qwen2", "model.embed_tokens"], ["gpt2", "transformer.wte"]]
    ) {
      const folder = renamed(
        fixture,
        (name) => name === `${embedding}.weight` ? "lm_head.weight" : name,
      );
      const { checkpoint, spec } = new OpenModel(folder);
      checkpoint.close();
      expect([spec.head, spec.embedding]).toEqual(["lm_head", "lm_head"]);
      expect(await logits(folder)).toEqual(await logits(workshop.copy(fixture)));
      // Compiled, it says the same.
      await using model = await load(folder, { values: "f32", engine: "sparse" });
      await using whole = await load(workshop.copy(fixture), { values: "f32", engine: "sparse" });
      expect(await model.logits([5, 9, 2, 7])).toEqual(await whole.logits([5, 9, 2, 7]));
    }
  });
});

describe("a model in which no layer turns", () => {
  test("has the context that its config names, in our engine too", async () => {
    const folder = workshop.copy("smollm3");
    editJson(folder, "config.json", (config) => ({ ...config, no_rope_layers: [0, 0, 0] }));
    const { max_position_embeddings: context } = readJsonOf(folder, "config.json");
    await using model = await load(folder, { engine: "sparse" });
    expect(model.info.context).toBe(context as number);
  });
});
