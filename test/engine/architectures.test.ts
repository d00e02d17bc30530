import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { FLOAT_BYTES } from "../../src/onnx/element_type.ts";
import {
  editJson,
  fixtureBytes,
  parseSafetensors,
  safetensors,
  Workshop,
} from "../checkpoint/support.ts";
import { forward, load, type Loaded } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";

/** What transformers computes in float32 from the stored weights. */
interface Expected {
  input_ids: number[];
  logits: { positions: number[]; values: number[][] };
  greedy: number[];
}

const workshop = new Workshop();
afterAll(() => workshop.remove());

const ROOT = "test/fixtures/architectures";

function expected(name: string, file = "expected.json"): Expected {
  return JSON.parse(readFileSync(fromRoot(`${ROOT}/${name}/${file}`), "utf8"));
}

async function largestDifference(loaded: Loaded, { input_ids, logits }: Expected) {
  const vocabulary = loaded.spec.vocabulary;
  const computed = await forward(loaded.model, input_ids);
  let largest = 0;
  logits.positions.forEach((position, k) =>
    logits.values[k].forEach((value, id) => {
      const difference = Math.abs(computed[position * vocabulary + id] - value);
      largest = Math.max(largest, difference);
    })
  );
  return largest;
}

describe("through onnxruntime-web, every architecture", () => {
  for (const name of readdirSync(fromRoot(ROOT))) {
    test(`gives the logits and the greedy tokens of transformers: ${name}`, async () => {
      const loaded = await load(`${ROOT}/${name}`, "wasm");
      try {
        const reference = expected(name);
        expect(await largestDifference(loaded, reference)).toBeLessThan(2e-4);

        const tokens = [...reference.input_ids];
        for (let step = 0; step < reference.greedy.length; step++) {
          const logits = await forward(loaded.model, tokens);
          const last = logits.subarray((tokens.length - 1) * loaded.spec.vocabulary);
          tokens.push(last.indexOf(Math.max(...last)));
        }
        expect(tokens.slice(reference.input_ids.length)).toEqual(reference.greedy);
      } finally {
        await loaded.close();
      }
    });
  }
});

test("a head that the config ties to the embedding, and that differs from it, is taken as transformers 5 does", async () => {
  const folder = workshop.copy("llama");
  editJson(folder, "config.json", (config) => ({ ...config, tie_word_embeddings: true }));
  const loaded = await load(folder, "wasm");
  try {
    expect(await largestDifference(loaded, expected("llama"))).toBeLessThan(2e-4);
  } finally {
    await loaded.close();
  }
});

describe("the decoder inside of a model of images and text", () => {
  /** A copy of a checkpoint in a larger model: with other names, and a tensor of what reads images. */
  function inside(type: string, name: string, named: (tensor: string) => string): string {
    const folder = workshop.copy(name);
    const { header, data } = parseSafetensors(fixtureBytes(name));
    const inner = Object.fromEntries(
      Object.entries(header).filter(([tensor]) => tensor !== "__metadata__")
        .map(([tensor, where]) => [named(tensor), where]),
    );
    const end = data.length + 4;
    inner["vision_tower.bias"] = { dtype: "F32", shape: [1], data_offsets: [data.length, end] };
    const all = Buffer.concat([data, new Uint8Array(4)]);
    writeFileSync(`${folder}/model.safetensors`, safetensors(inner, all));
    editJson(folder, "config.json", (config) => ({ model_type: type, text_config: config }));
    return folder;
  }

  async function givesWhatItGivesAlone(folder: string, name: string, head: string) {
    const loaded = await load(folder, "wasm");
    try {
      expect(loaded.spec.head).toBe(head);
      expect(await largestDifference(loaded, expected(name))).toBeLessThan(2e-4);
    } finally {
      await loaded.close();
    }
  }

  const models = [
    ["gemma3", "gemma3"],
    ["gemma4", "gemma4"],
    ["mistral3", "ministral3"],
    ["qwen3_5", "qwen3_5"],
  ];
  for (const [type, name] of models) {
    for (const root of ["language_model.model", "model.language_model"]) {
      test(`gives what it gives alone: ${name}, by the names ${root}.…`, async () => {
        const folder = inside(type, name, (tensor) => tensor.replace(/^model\./, `${root}.`));
        await givesWhatItGivesAlone(folder, name, `${root}.embed_tokens`);
      });
    }
  }

  test("has a head of its own where the files hold one, below the names of older files, too", async () => {
    const names: [string, string][] = [["language_model.", "language_model.lm_head"], [
      "",
      "lm_head",
    ]];
    for (const [prefix, head] of names) {
      const folder = inside(
        "mistral3",
        "mistral-sliding",
        (tensor) =>
          prefix + (prefix ? tensor : tensor.replace(/^model\./, "model.language_model.")),
      );
      await givesWhatItGivesAlone(folder, "mistral-sliding", head);
    }
  });
});

/**
 * These results were made from a model that had been cast to its storage type in memory, rotary
 * frequencies with it. transformers keeps frequencies in float32 when it loads a checkpoint, and so do
 * we: rounded, the same graph gives these results too.
 */
describe("with rotary frequencies rounded to the storage type", () => {
  for (const name of ["llama", "llama-rope-scaled", "mistral-sliding", "qwen2"]) {
    test(`${name} gives the logits of the model that was cast in memory`, async () => {
      const loaded = await load(`${ROOT}/${name}`, "wasm", 128, (spec) => {
        const frequencies = spec.rotary(0)!.frequencies.map((f) => roundTo(name, f));
        const rotary = { frequencies, factor: 1 };
        return { ...spec, rotary: () => rotary };
      });
      try {
        const reference = expected(name, "expected-rounded-frequencies.json");
        expect(await largestDifference(loaded, reference)).toBeLessThan(2e-4);
      } finally {
        await loaded.close();
      }
    });
  }
});

/** Rounds to the significant bits of the checkpoint's type: 11 of float16, 8 of bfloat16. */
function roundTo(name: string, value: number): number {
  const bits = name === "llama" ? 11 : 8;
  // float16 loses more bits below its smallest normal number; the frequencies here are above it.
  const unit = 2 ** (Math.floor(Math.log2(value)) - bits + 1);
  const quotient = value / unit;
  const low = Math.floor(quotient);
  const up = quotient - low > 0.5 || (quotient - low === 0.5 && low % 2 === 1);
  return (up ? low + 1 : low) * unit;
}

test("element types have the sizes that their names say", () => {
  expect(FLOAT_BYTES).toEqual({ f32: 4, f16: 2, bf16: 2 });
});
