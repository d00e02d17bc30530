/** What a writer changes in its copy of a checkpoint, to the byte. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { CheckpointWriter } from "../../src/checkpoint/writer.ts";
import { NotFiniteError } from "../../src/errors.ts";
import { safetensors, thrownBy, Workshop } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** More than is masked at a time, which are 4 MiB. */
const [ROWS, COLUMNS] = [3000, 1000];

/** A checkpoint of one matrix in float16 whose bits count up, its copy, and what reads that. */
async function copied(model_type: string, name: string) {
  const folder = workshop.folder();
  writeFileSync(join(folder, "config.json"), JSON.stringify({ model_type }));
  const shape = model_type === "gpt2" ? [COLUMNS, ROWS] : [ROWS, COLUMNS];
  const values = Uint16Array.from({ length: ROWS * COLUMNS }, (_, i) => 1 + i % 20_000);
  const header = { [name]: { dtype: "F16", shape, data_offsets: [0, values.byteLength] } };
  const bytes = safetensors(header, new Uint8Array(values.buffer));
  writeFileSync(join(folder, "model.safetensors"), bytes);
  const source = Checkpoint.open(folder);
  const copy = workshop.folder();
  const writer = new CheckpointWriter(source, copy);
  await writer.copy(() => {});
  /** The values of the copy, `[rows, columns]`, and those of the source. */
  const read = () => {
    writer.close();
    const written = Checkpoint.open(copy);
    const pair = [written, source].map((checkpoint) => {
      const floats = new Float32Array(ROWS * COLUMNS);
      checkpoint.readFloats(name, floats);
      checkpoint.close();
      return floats;
    });
    return { after: pair[0], before: pair[1] };
  };
  return { writer, read };
}

describe("a writer", () => {
  const names = [["llama", "w.weight"], ["gpt2", "h.0.attn.c_attn.weight"]];
  for (const [type, name] of names) {
    test(`prunes a large matrix where its mask says, and nowhere else: ${type}`, async () => {
      const { writer, read } = await copied(type, name);
      const mask = Uint8Array.from({ length: ROWS * COLUMNS }, (_, i) => (i % 7 + i % 11) % 2);
      writer.prune(name, mask);
      const { after, before } = read();
      const wrong = after.findIndex((value, i) => value !== (mask[i] === 0 ? 0 : before[i]));
      expect(wrong).toBe(-1);
    });
  }

  test("replaces what it is told to, from where it is told to, by what the type can hold", async () => {
    const { writer, read } = await copied("llama", "w.weight");
    const begin = 2_500_000;
    writer.replace("w.weight", Float32Array.of(1, 2, 3), begin);
    const error = thrownBy(() => writer.replace("w.weight", Float32Array.of(0, 1e6), 2 * COLUMNS));
    expect(error).toBeInstanceOf(NotFiniteError);
    expect(error.message).toContain("row 2, column 1");
    const { after, before } = read();
    before.set([1, 2, 3], begin);
    expect(after.findIndex((value, i) => value !== before[i])).toBe(-1);
  });

  test("takes matrices of the shape that they have alone", async () => {
    const { writer, read } = await copied("llama", "w.weight");
    const shapes = [[ROWS, COLUMNS], [ROWS, COLUMNS + 1], [ROWS + 1, COLUMNS]] as const;
    expect(shapes.map((shape) => writer.takes("w.weight", shape))).toEqual([true, false, false]);
    expect(writer.takes("other.weight", shapes[0])).toBe(false);
    read();
  });
});
