import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { prune } from "../../mod.ts";
import { OpenModel } from "../../src/api/shared.ts";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { CheckpointWriter } from "../../src/checkpoint/writer.ts";
import { ConfigError, NotFiniteError } from "../../src/errors.ts";
import { widen } from "../../src/onnx/element_type.ts";
import { FAST, forward, load } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";
import {
  editJson,
  editSafetensors,
  fixtureBytes,
  parseSafetensors,
  readJsonOf,
  safetensors,
  thrownBy,
  Workshop,
} from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const GPT2 = fromRoot("test/fixtures/architectures/gpt2");
const FILE = "model.safetensors";
const config = readJsonOf(GPT2, "config.json");

/** A matrix as the file holds it, `[inputs, outputs]`. */
function stored(folder: string, name: string) {
  const { header, data } = parseSafetensors(new Uint8Array(readFileSync(join(folder, FILE))));
  const { shape, data_offsets } = header[name];
  const [inputs, outputs] = shape as [number, number];
  const values = new Float32Array(inputs * outputs);
  widen(data.slice(...data_offsets as [number, number]), "bf16", values);
  return { values, inputs, outputs, at: (i: number, o: number) => values[i * outputs + o] };
}

describe("GPT-2's config", () => {
  const of = (more: object) => describeModel({ ...config, ...more });
  const scaleOf = (more: object, layer: number) => {
    const { scale } = of(more).attention;
    return typeof scale === "function" ? scale(layer) : scale;
  };

  test("has MLPs four times as wide where it names no width, and a tied head where it says nothing", () => {
    expect(of({ n_inner: null }).intermediate).toBe(256);
    expect(of({ n_inner: 96 }).intermediate).toBe(96);
    const { tie_word_embeddings: _, ...bare } = config;
    expect(describeModel(bare).head).toBe("transformer.wte");
    expect(of({ tie_word_embeddings: false }).head).toBe("lm_head");
  });

  test("scales scores by the size of heads, by the block's number, by both or not at all", () => {
    expect([0, 1, 2].map((layer) => scaleOf({}, layer))).toEqual([1 / 4, 1 / 8, 1 / 12]);
    const alike = { scale_attn_by_inverse_layer_idx: false };
    expect(scaleOf(alike, 2) ?? 1 / 4).toBe(1 / 4);
    expect(scaleOf({ ...alike, scale_attn_weights: false }, 2)).toBe(1);
    expect(scaleOf({ scale_attn_weights: false }, 1)).toBe(1 / 2);
  });

  test("may name the functions of its relatives; what attends to other texts is refused", () => {
    expect(of({ activation_function: "gelu" }).mlp.activation).toBe("gelu");
    const refusals = [{ activation_function: "mish" }, { add_cross_attention: true }];
    for (const more of refusals) {
      const error = thrownBy(() => of(more));
      expect(error).toBeInstanceOf(ConfigError);
      expect(error.message).toContain(Object.keys(more)[0]);
    }
  });
});

test("GPT-2 without the root before its names, as in older files, gives the same", async () => {
  const tokens = Array.from({ length: 20 }, (_, i) => 3 + (i * 37) % 300);
  const logitsOf = async (folder: string) => {
    const { model, close } = await load(folder, "wasm");
    const logits = await forward(model, tokens);
    await close();
    return logits;
  };
  const folder = workshop.copy("gpt2");
  const { header, data } = parseSafetensors(fixtureBytes("gpt2"));
  const { shape, data_offsets: [begin, end] } = header["transformer.wte.weight"] as {
    shape: number[];
    data_offsets: [number, number];
  };
  const [mask, head] = [data.length, data.length + 4];
  const older = {
    ...Object.fromEntries(
      Object.entries(header).map(([name, tensor]) => [name.replace(/^transformer\./, ""), tensor]),
    ),
    // Beside it, the mask of a block, and the tied head a second time.
    "h.0.attn.bias": { dtype: "U8", shape: [1, 1, 2, 2], data_offsets: [mask, head] },
    "lm_head.weight": { dtype: "BF16", shape, data_offsets: [head, head + end - begin] },
  };
  const all = Buffer.concat([data, new Uint8Array(4), data.subarray(begin, end)]);
  writeFileSync(join(folder, FILE), safetensors(older, all));
  const { checkpoint, spec } = new OpenModel(folder);
  checkpoint.close();
  expect([spec.root, spec.head]).toEqual(["", "wte"]);
  expect(await logitsOf(folder)).toEqual(await logitsOf(GPT2));
  editJson(folder, "config.json", (config) => ({ ...config, tie_word_embeddings: false }));
  expect(await logitsOf(folder)).toEqual(await logitsOf(GPT2));
});

describe("a matrix that is stored turned", () => {
  const NAMES = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"].map((name) =>
    `transformer.h.1.${name}.weight`
  );

  test("is read by outputs, all of it or some elements", () => {
    const checkpoint = Checkpoint.open(GPT2);
    for (const name of NAMES) {
      const { inputs, outputs, at } = stored(GPT2, name);
      const { shape } = checkpoint.tensors.get(name)!;
      expect(shape).toEqual([outputs, inputs]);
      const wanted = Float32Array.from(
        { length: inputs * outputs },
        (_, i) => at(i % inputs, Math.floor(i / inputs)),
      );
      for (
        const [first, count] of [[0, wanted.length], [0, 1], [inputs - 3, 7], [5 * inputs, 99]]
      ) {
        const values = new Float32Array(count);
        checkpoint.readFloats(name, values, first);
        expect(values).toEqual(wanted.subarray(first, first + count));
      }
    }
    checkpoint.close();
  });

  const windows = Array.from(
    { length: 4 },
    (_, w) => Array.from({ length: 24 }, (_, t) => (7 + 89 * w + 41 * t * t) % 320),
  );

  for (const method of ["wanda", "sparsegpt", "espalier"] as const) {
    test(`is pruned along its inputs, and written as it was stored: ${method}`, async () => {
      const output = workshop.fresh(), calibration = join(workshop.folder(), "windows.json");
      writeFileSync(calibration, JSON.stringify({ windows }));
      const how = { pattern: "2:4", method, distill: method === "espalier" ? 2 : 0 };
      await prune({ model: GPT2, output, calibration, ...how, backend: FAST, threads: 1 });
      for (const name of NAMES) {
        const [dense, pruned] = [stored(GPT2, name), stored(output, name)];
        expect([pruned.inputs, pruned.outputs]).toEqual([dense.inputs, dense.outputs]);
        let changed = 0;
        for (let o = 0; o < dense.outputs; o++) {
          for (let i = 0; i < dense.inputs; i += 4) {
            const kept = [0, 1, 2, 3].filter((k) => pruned.at(i + k, o) !== 0);
            expect(kept.length).toBeLessThanOrEqual(2);
            changed += kept.filter((k) => pruned.at(i + k, o) !== dense.at(i + k, o)).length;
          }
        }
        expect(changed > 0).toBe(method !== "wanda");
      }
    }, 60_000);
  }

  test("is told of by row and column as the file has them where a weight is no number", async () => {
    const folder = workshop.copy("gpt2");
    const [name] = NAMES;
    editSafetensors(folder, FILE, (header, data) => {
      const [begin] = header[name].data_offsets as [number, number];
      // NaN in bfloat16.
      data.set([0xc1, 0x7f], begin + 2 * (50 * 192 + 7));
    });
    const checkpoint = Checkpoint.open(folder);
    const writer = new CheckpointWriter(checkpoint, workshop.folder());
    const values = new Float32Array(64 * 192);
    const error = thrownBy(() => checkpoint.readFloats(name, values));
    expect(error).toBeInstanceOf(NotFiniteError);
    expect(error.message).toContain("row 50, column 7");
    await expect(writer.copy(() => {})).rejects.toThrow("row 50, column 7");
    writer.close();
    checkpoint.close();
  });
});
