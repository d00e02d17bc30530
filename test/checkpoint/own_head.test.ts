import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { OpenModel } from "../../src/api/shared.ts";
import { widen } from "../../src/onnx/element_type.ts";
import { fixtureBytes, parseSafetensors, safetensors, Workshop } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

describe("a head that lies beside the embedding that it is tied to", () => {
  const EMBEDDING = "model.embed_tokens.weight";

  /** The head's tensor in a checkpoint with another beside it, stored as float32. */
  function headWith(change: (values: Float32Array) => void): string {
    const folder = workshop.copy("qwen2");
    const { header, data } = parseSafetensors(fixtureBytes("qwen2"));
    const { shape, data_offsets } = header[EMBEDDING];
    const [from, to] = data_offsets as [number, number];
    const values = new Float32Array((to - from) / 2);
    widen(data.slice(from, to), "bf16", values);
    change(values);
    const end = data.length + values.byteLength;
    header["lm_head.weight"] = { dtype: "F32", shape, data_offsets: [data.length, end] };
    const all = Buffer.concat([data, new Uint8Array(values.buffer)]);
    writeFileSync(join(folder, "model.safetensors"), safetensors(header, all));
    const { checkpoint, spec } = new OpenModel(folder);
    checkpoint.close();
    return spec.head;
  }

  test("is the embedding where it holds the same numbers, in whatever type", () => {
    expect(headWith(() => {})).toBe("model.embed_tokens");
  });

  test("is one of its own where a number differs, be it the last", () => {
    expect(headWith((values) => values[values.length - 1] += 1)).toBe("lm_head");
  });
});
