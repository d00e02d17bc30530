import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "../../src/api/inspect.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { CheckpointWriter } from "../../src/checkpoint/writer.ts";
import { NotFiniteError } from "../../src/errors.ts";
import { editSafetensors, rejectionOf, safetensors, thrownBy, Workshop } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";
const LAST_SHARD = "model-00003-of-00003.safetensors";

/** One of each value that is no number, as bits. */
const BAD: Record<string, Record<string, number>> = {
  F16: { infinity: 0x7c00, "minus infinity": 0xfc00, NaN: 0x7e01 },
  BF16: { infinity: 0x7f80, "minus infinity": 0xff80, NaN: 0x7fc1 },
  F32: { infinity: 0x7f800000, "minus infinity": 0xff800000, NaN: 0x7fc00001 },
};

/** Puts bits in the place of one element of a tensor. */
function poison(
  folder: string,
  file: string,
  name: string,
  [row, column]: readonly [number, number],
  bits: number,
): void {
  editSafetensors(folder, file, (header, data) => {
    const { dtype, shape, data_offsets } = header[name] as unknown as {
      dtype: string;
      shape: number[];
      data_offsets: number[];
    };
    const size = dtype === "F32" ? 4 : 2;
    const at = data_offsets[0] + (row * shape.at(-1)! + column) * size;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    if (size === 4) view.setUint32(at, bits, true);
    else view.setUint16(at, bits, true);
  });
}

describe("a weight that is no finite number", () => {
  const places: { dtype: string; fixture: string; file: string; name: string }[] = [
    {
      dtype: "F16",
      fixture: "llama",
      file: WEIGHTS,
      name: "model.layers.1.self_attn.v_proj.weight",
    },
    {
      dtype: "BF16",
      fixture: "llama-rope-scaled",
      file: LAST_SHARD,
      name: "model.layers.2.mlp.down_proj.weight",
    },
    {
      dtype: "F32",
      fixture: "llama-bias-linear-rope",
      file: WEIGHTS,
      name: "model.layers.0.mlp.up_proj.weight",
    },
  ];

  for (const { dtype, fixture, file, name } of places) {
    for (const [what, bits] of Object.entries(BAD[dtype])) {
      test(`is found where it is ${what} in ${dtype}, with its tensor, row and column`, () => {
        for (const place of [[0, 0], [3, 17], [31, 63]] as const) {
          const folder = workshop.copy(fixture);
          poison(folder, file, name, place, bits);
          const error = thrownBy(() => inspect({ model: folder }));
          expect(error).toBeInstanceOf(NotFiniteError);
          const [row, column] = place;
          for (const part of [file, name, `row ${row}, column ${column}:`]) {
            expect(error.message).toContain(part);
          }
        }
      });
    }
  }

  test("is told from the largest numbers of its type", () => {
    const largest: Record<string, number> = { F16: 0x7bff, BF16: 0xff7f, F32: 0x7f7fffff };
    for (const { dtype, fixture, file, name } of places) {
      const folder = workshop.copy(fixture);
      poison(folder, file, name, [3, 17], largest[dtype]);
      inspect({ model: folder });
    }
  });

  test("is found in what is not pruned, too, when a checkpoint is copied", async () => {
    for (const name of ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]) {
      const folder = workshop.copy("llama");
      const row = name === "model.norm.weight" ? 0 : 319;
      poison(folder, WEIGHTS, name, [row, 5], BAD.F16.NaN);
      const checkpoint = Checkpoint.open(folder);
      const writer = new CheckpointWriter(checkpoint, workshop.folder());
      const error = await rejectionOf(writer.copy(() => {}));
      writer.close();
      checkpoint.close();
      expect(error).toBeInstanceOf(NotFiniteError);
      for (const part of [WEIGHTS, name, `row ${row}, column 5:`]) {
        expect(error.message).toContain(part);
      }
    }
  });

  test("is found in a tensor larger than what is read at a time", async () => {
    for (const [dtype, size] of [["F16", 2], ["BF16", 2], ["F32", 4]] as const) {
      const [rows, columns] = [3001, 1001];
      const folder = workshop.folder();
      writeFileSync(join(folder, CONFIG), "{}");
      const length = rows * columns * size;
      const header = { w: { dtype, shape: [rows, columns], data_offsets: [0, length] } };
      writeFileSync(join(folder, WEIGHTS), safetensors(header, length));
      poison(folder, WEIGHTS, "w", [2900, 77], BAD[dtype].NaN);

      const checkpoint = Checkpoint.open(folder);
      const whole = thrownBy(() => checkpoint.readFloats("w", new Float32Array(rows * columns)));
      const first = 2899 * columns + 5;
      const part = thrownBy(() => checkpoint.readFloats("w", new Float32Array(2000), first));
      const writer = new CheckpointWriter(checkpoint, workshop.folder());
      const copied = await rejectionOf(writer.copy(() => {}));
      writer.close();
      checkpoint.close();
      for (const error of [whole, part, copied]) {
        expect(error).toBeInstanceOf(NotFiniteError);
        expect(error.message).toContain("tensor w holds NaN or infinity at row 2900, column 77:");
      }
    }
  });
});
