import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "../../src/api/inspect.ts";
import { OpenModel } from "../../src/api/shared.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { CheckpointWriter } from "../../src/checkpoint/writer.ts";
import { ConfigError } from "../../src/errors.ts";
import { forward, load } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";
import {
  editJson,
  filesOf,
  fixtureBytes,
  parseSafetensors,
  readJsonOf,
  safetensors,
  thrownBy,
  Workshop,
} from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const config = readJsonOf(fromRoot("test/fixtures/architectures/gpt-neox"), "config.json");

describe("GPT-NeoX's config", () => {
  const turns = (more: object) => describeModel({ ...config, ...more }).rotary(0)!;

  test("means the same as Pythia's and as transformers 5 write it", () => {
    const { rotary_pct: _, rotary_emb_base: __, ...newer } = config;
    const rope = { rope_type: "default", rope_theta: 500, partial_rotary_factor: 0.5 };
    const written = describeModel({ ...newer, rope_parameters: rope }).rotary(0);
    expect(written).toEqual(turns({ rotary_pct: 0.5, rotary_emb_base: 500 }));
    // Versions between them wrote both names, of which the older ones count.
    expect(turns({ rope_theta: 7, partial_rotary_factor: 0.5 })).toEqual(turns({}));
    expect(describeModel({ ...newer, rope_parameters: null }).rotary(0)).toEqual(turns({}));
  });

  test("divides positions where RoPE is scaled, by the base that stands beside it", () => {
    const scaled = turns({ rotary_emb_base: 500, rope_scaling: { type: "linear", factor: 4 } });
    expect([...scaled.frequencies]).toEqual(
      [...turns({ rotary_emb_base: 500 }).frequencies].map((f) => f / 4),
    );
  });

  test("has two sublayers in a row, no biases of attention or a tied head where it says so", () => {
    const is = (more: object) => describeModel({ ...config, ...more });
    expect(is({}).sideBySide).toBe(true);
    expect(is({ use_parallel_residual: false }).sideBySide).toBe(false);
    expect(is({ attention_bias: false }).attention).toMatchObject({
      inputBias: false,
      outputBias: false,
    });
    expect(is({ tie_word_embeddings: true }).head).toBe("gpt_neox.embed_in");
  });

  test("names a function by any of its names, as GPT-NeoX 20B does; others are refused", () => {
    const activationOf = (hidden_act: string) =>
      describeModel({ ...config, hidden_act }).mlp.activation;
    expect(activationOf("gelu")).toBe("gelu");
    expect(activationOf("gelu_fast")).toBe("gelu_tanh");
    expect(activationOf("gelu_new")).toBe("gelu_tanh");
    const error = thrownBy(() => activationOf("mish"));
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain('"mish"');
    expect(thrownBy(() => turns({ rotary_pct: 0.3125 })).message).toContain("turns 5 of 16");
  });
});

test("GPT-NeoX with an MLP that gives nothing is the same one after the other and side by side", async () => {
  const folder = workshop.copy("gpt-neox");
  const { header, data } = parseSafetensors(fixtureBytes("gpt-neox"));
  const all = Uint8Array.from(data);
  for (const [name, { data_offsets }] of Object.entries(header)) {
    if (name.includes("dense_4h_to_h")) all.fill(0, ...data_offsets as [number, number]);
  }
  writeFileSync(join(folder, "model.safetensors"), safetensors(header, all));
  const logits = async () => {
    const { model, close } = await load(folder, "wasm");
    const result = await forward(model, [5, 7, 11, 13]);
    await close();
    return result;
  };
  const beside = await logits();
  editJson(folder, "config.json", (config) => ({ ...config, use_parallel_residual: false }));
  expect(await logits()).toEqual(beside);
});

test("files of Pythia hold masks and scores of masked tokens, infinite in float16: they are copied as they are, and are no parameters", async () => {
  const folder = workshop.copy("gpt-neox");
  const { header, data } = parseSafetensors(fixtureBytes("gpt-neox"));
  const end = data.length;
  const layer = "gpt_neox.layers.0.attention";
  header[`${layer}.bias`] = { dtype: "U8", shape: [1, 1, 2, 2], data_offsets: [end, end + 4] };
  header[`${layer}.masked_bias`] = { dtype: "F16", shape: [], data_offsets: [end + 4, end + 6] };
  const all = Buffer.concat([data, Uint8Array.of(1, 0, 1, 1, 0x00, 0xfc)]);
  writeFileSync(join(folder, "model.safetensors"), safetensors(header, all));
  const checkpoint = Checkpoint.open(folder);
  const output = workshop.folder();
  const writer = new CheckpointWriter(checkpoint, output);
  await writer.copy(() => {});
  writer.close();
  checkpoint.close();
  expect(filesOf(output)).toEqual(filesOf(folder));
  const { parameters } = inspect({ model: fromRoot("test/fixtures/architectures/gpt-neox") });
  expect(inspect({ model: folder }).parameters).toBe(parameters);
});

test("its head is found by the name that the files have for it", () => {
  const folder = workshop.copy("gpt-neox");
  const { header, data } = parseSafetensors(fixtureBytes("gpt-neox"));
  const headOf = () => {
    const { checkpoint, spec } = new OpenModel(folder);
    checkpoint.close();
    return spec.head;
  };
  expect(headOf()).toBe("embed_out");
  const { "embed_out.weight": head, ...others } = header;
  writeFileSync(
    join(folder, "model.safetensors"),
    safetensors({ ...others, "lm_head.weight": head }, data),
  );
  expect(headOf()).toBe("lm_head");
});
