import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  LARGEST_HEADER,
  readSafetensorsHeader,
  type TensorEntry,
} from "../../src/checkpoint/safetensors.ts";
import { writeSafetensors } from "../../src/checkpoint/safetensors_writer.ts";
import { SafetensorsError } from "../../src/errors.ts";
import {
  MemorySource,
  parseSafetensors,
  rejectionOf,
  safetensors,
  thrownBy,
  Workshop,
} from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** Reads a crafted file. */
function read(bytes: Uint8Array): TensorEntry[] {
  return readSafetensorsHeader(new MemorySource(bytes));
}

/** Checks that a file is refused for what is wrong with it; returns the message. */
function refused(bytes: Uint8Array, ...parts: string[]): string {
  const error = thrownBy(() => read(bytes));
  expect(error).toBeInstanceOf(SafetensorsError);
  expect(error.code).toBe("SAFETENSORS_INVALID");
  for (const part of ["crafted.safetensors", "fetch it again", ...parts]) {
    expect(error.message).toContain(part);
  }
  expect(error.message).not.toContain("\n");
  return error.message;
}

/** A header with one tensor `weight`, changed. */
function one(changes: { dtype?: unknown; shape?: unknown; data_offsets?: unknown }): object {
  return { weight: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24], ...changes } };
}

describe("the safetensors header reader", () => {
  test("reads tensors of every kind in the order of their bytes", () => {
    const header = {
      __metadata__: { format: "pt" },
      late: { dtype: "BF16", shape: [3], data_offsets: [24, 30] },
      early: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
      scalar: { dtype: "F16", shape: [], data_offsets: [30, 32] },
      ids: { dtype: "I64", shape: [1, 2], data_offsets: [32, 48] },
    };
    const start = 8 + JSON.stringify(header).length;
    expect(read(safetensors(header, 48))).toEqual([
      { name: "early", dtype: "F32", type: "f32", shape: [2, 3], offset: start, length: 24 },
      { name: "late", dtype: "BF16", type: "bf16", shape: [3], offset: start + 24, length: 6 },
      { name: "scalar", dtype: "F16", type: "f16", shape: [], offset: start + 30, length: 2 },
      { name: "ids", dtype: "I64", type: undefined, shape: [1, 2], offset: start + 32, length: 16 },
    ]);
  });

  test("reads a file without tensors", () => {
    expect(read(safetensors({}, 0))).toEqual([]);
    expect(read(safetensors({ __metadata__: {} }, 0))).toEqual([]);
  });

  test("reads a header padded with spaces, as writers align it", () => {
    const header = `${JSON.stringify(one({}))}      `;
    expect(read(safetensors(header, 24))[0].offset).toBe(8 + header.length);
  });

  test("reads tensors of no elements wherever they lie", () => {
    const header = {
      first: { dtype: "F32", shape: [0], data_offsets: [0, 0] },
      weight: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
      last: { dtype: "F32", shape: [4, 0, 9007199254740991], data_offsets: [24, 24] },
    };
    expect(read(safetensors(header, 24)).map(({ name, length }) => [name, length])).toEqual([
      ["first", 0],
      ["weight", 24],
      ["last", 0],
    ]);
  });

  test("reads a tensor of no elements that is named behind the one it lies before", () => {
    const header = {
      weight: { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
      empty: { dtype: "F32", shape: [0], data_offsets: [0, 0] },
    };
    expect(read(safetensors(header, 24)).map(({ name }) => name)).toEqual(["empty", "weight"]);
  });

  test("takes names that objects have a meaning for as names", () => {
    const names = ["__proto__", "constructor", "toString", "hasOwnProperty", "", "a\u0000b"];
    const entries = names.map((name, i) =>
      `${JSON.stringify(name)}:{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`
    );
    const found = read(safetensors(`{${entries.join(",")}}`, names.length));
    expect(found.map(({ name }) => name)).toEqual(names);
    expect(found[0].dtype).toBe("U8");
  });

  test("refuses a file too short for a header length", () => {
    for (const length of [0, 1, 7]) refused(new Uint8Array(length), `${length} bytes`);
  });

  test("refuses a header length that reaches past the end of the file", () => {
    refused(safetensors("{}", 0, 3n), "header length 3", "10 bytes");
    refused(safetensors("{}", 0, 2n ** 32n), "4294967296");
    refused(safetensors("{}", 0, 2n ** 64n - 1n), "18446744073709551615");
    refused(new Uint8Array(8).fill(0x7f), "past the end");
  });

  test("refuses a header above the format's limit before it reads it", () => {
    let largest = 0;
    const source = {
      path: "crafted.safetensors",
      size: LARGEST_HEADER + 100,
      read(target: Uint8Array) {
        largest = Math.max(largest, target.length);
        new DataView(target.buffer).setBigUint64(0, BigInt(LARGEST_HEADER + 1), true);
      },
    };
    const error = thrownBy(() => readSafetensorsHeader(source));
    expect(error).toBeInstanceOf(SafetensorsError);
    expect(error.message).toContain("limit of 100000000");
    expect(largest).toBe(8);
  });

  test("refuses a header that is not UTF-8", () => {
    const header = new TextEncoder().encode('{"__metadata__":{"a":"??"}}');
    header[header.indexOf(0x3f)] = 0xff;
    refused(safetensors(header, 0), "not valid JSON");
  });

  test("refuses a header that is not JSON", () => {
    for (const text of ["", "{", "{'a': 1}", '{"a":}', '{"a":NaN}', "{}{}", "\u0000"]) {
      refused(safetensors(text, 0), "not valid JSON");
    }
  });

  test("refuses JSON that is no object", () => {
    for (const text of ["[]", "null", "7", '"text"', "true"]) {
      refused(safetensors(text, 0), "not a JSON object");
    }
  });

  test("refuses metadata that is no map of strings", () => {
    for (const value of [null, 7, "pt", { a: 1 }, { a: null }, { a: { b: "c" } }]) {
      refused(safetensors({ __metadata__: value }, 0), "__metadata__");
    }
  });

  test("refuses an entry that is no object with the three fields", () => {
    for (const value of [null, 7, "F32", [], {}, { dtype: "F32", shape: [0] }]) {
      refused(safetensors({ weight: value }, 0), 'tensor "weight"');
    }
  });

  test("takes along types of less than a byte, where their elements fill whole ones", () => {
    for (const [dtype, bytes] of [["F4", 3], ["F8_E4M3FNUZ", 6], ["F8_E5M2FNUZ", 6]] as const) {
      const [{ type, length }] = read(safetensors(one({ dtype, data_offsets: [0, bytes] }), bytes));
      expect({ type, length }).toEqual({ type: undefined, length: bytes });
    }
    for (const dtype of ["F6_E2M3", "F6_E3M2"]) {
      expect(read(safetensors(one({ dtype, shape: [4], data_offsets: [0, 3] }), 3))).toHaveLength(
        1,
      );
      refused(safetensors(one({ dtype, shape: [5], data_offsets: [0, 4] }), 4), "3.75 bytes");
    }
  });

  test("refuses a dtype that the format does not have", () => {
    for (const dtype of ["F31", "f32", "", "float32", "toString", "__proto__", "constructor"]) {
      refused(safetensors(one({ dtype }), 24), 'tensor "weight"', `dtype ${JSON.stringify(dtype)}`);
    }
    for (const dtype of [4, null, ["F32"]]) {
      refused(safetensors(one({ dtype }), 24), 'tensor "weight": dtype');
    }
  });

  test("refuses a shape that is no list of whole numbers from 0", () => {
    const shapes = [[-2, -3], [-6], [1.5, 4], [2, "3"], [null], "6", 6, null, { 0: 6 }, [[6]]];
    for (const shape of shapes) {
      refused(safetensors(one({ shape }), 24), 'tensor "weight": shape');
    }
    const text = JSON.stringify(one({})).replace("[2,3]", "[2,1e999]");
    refused(safetensors(text, 24), 'tensor "weight": shape');
  });

  test("refuses a shape of more dimensions than any weight has", () => {
    const shape = [2, 3, ...new Array(7).fill(1)];
    refused(safetensors(one({ shape }), 24), 'tensor "weight": shape');
    expect(read(safetensors(one({ shape: shape.slice(0, 8) }), 24))).toHaveLength(1);
  });

  test("refuses a shape whose product no file could hold", () => {
    const most = Number.MAX_SAFE_INTEGER;
    for (const shape of [[most], [most, most], [2 ** 32, 2 ** 32], new Array(8).fill(most)]) {
      refused(safetensors(one({ shape }), 24), 'tensor "weight"', "takes");
    }
    // 2^64 elements: what overflows to 0 where products have 64 bits.
    const header = one({ shape: [2 ** 32, 2 ** 32], data_offsets: [0, 0] });
    refused(safetensors(header, 0), 'tensor "weight"', "takes");
  });

  test("refuses offsets that are no pair of whole numbers from 0", () => {
    const pairs = [[0], [0, 12, 24], [-24, 0], [0, 24.5], ["0", "24"], null, 24, {}, [null, 24]];
    for (const pair of pairs) {
      refused(safetensors(one({ data_offsets: pair }), 24), 'tensor "weight": data_offsets');
    }
  });

  test("refuses offsets outside of the file", () => {
    for (const pair of [[1, 25], [24, 48], [0, Number.MAX_SAFE_INTEGER]]) {
      refused(safetensors(one({ data_offsets: pair }), 24), 'tensor "weight"', "outside the file");
    }
    refused(safetensors(one({}), 23), 'tensor "weight"', "outside the file");
  });

  test("refuses offsets of which the end is before the begin", () => {
    refused(safetensors(one({ data_offsets: [24, 0] }), 24), 'tensor "weight"', "bytes 24 to 0");
  });

  test("refuses a tensor whose shape takes other bytes than its offsets give", () => {
    refused(safetensors(one({ shape: [2, 2] }), 24), 'tensor "weight"', "takes 16 bytes", "24");
    refused(safetensors(one({ dtype: "F16" }), 24), 'tensor "weight"', "takes 12 bytes");
    refused(safetensors(one({ shape: [] }), 24), 'tensor "weight"', "takes 4 bytes");
  });

  test("refuses tensors that overlap", () => {
    const entry = (begin: number) => ({
      dtype: "U8",
      shape: [8],
      data_offsets: [begin, begin + 8],
    });
    refused(safetensors({ one: entry(0), two: entry(4) }, 12), 'tensor "two" overlaps');
    refused(safetensors({ one: entry(0), two: entry(0) }, 8), 'tensor "two" overlaps');
    const inner = { dtype: "U8", shape: [2], data_offsets: [2, 4] };
    refused(safetensors({ one: entry(0), two: inner }, 8), 'tensor "two" overlaps');
    const empty = { dtype: "U8", shape: [0], data_offsets: [2, 2] };
    refused(safetensors({ one: entry(0), two: empty }, 8), 'tensor "two" overlaps');
  });

  test("refuses a hole before or between tensors", () => {
    const entry = (begin: number) => ({
      dtype: "U8",
      shape: [8],
      data_offsets: [begin, begin + 8],
    });
    refused(safetensors({ one: entry(4) }, 12), '4 bytes before tensor "one"');
    refused(safetensors({ one: entry(0), two: entry(9) }, 17), '1 bytes before tensor "two"');
  });

  test("refuses bytes behind the last tensor", () => {
    refused(safetensors(one({}), 25), "1 bytes at the end");
    refused(safetensors({}, 3), "3 bytes at the end");
  });

  test("names a tensor in one short line, however long its name is", () => {
    const name = `${"model.layers.".repeat(5000)}\n\u001b[31m`;
    const message = refused(safetensors({ [name]: { dtype: "F32" } }, 0), "model.layers.");
    expect(message.length).toBeLessThan(300);
  });

  test("reads no more of a file than its header", () => {
    const header = JSON.stringify(one({ shape: [250_000], data_offsets: [0, 1_000_000] }));
    const source = new MemorySource(safetensors(header, 1_000_000));
    readSafetensorsHeader(source);
    expect(source.largestRead).toBe(header.length);
  });
});

describe("writing safetensors", () => {
  test("goes on in the next piece of a large tensor where the last one ended", async () => {
    // A piece has 2^22 elements.
    const values = Float32Array.from({ length: (1 << 22) + 3 }, (_, i) => i % 251 - 125);
    const path = join(workshop.folder(), "model.safetensors");
    const tensor = { name: "large", shape: [values.length], read: () => values };
    await writeSafetensors(path, [tensor, { ...tensor, name: "next" }], "bf16");
    const { header, data } = parseSafetensors(new Uint8Array(readFileSync(path)));
    expect(data.length).toBe(2 * 2 * values.length);
    const stored = new Uint16Array(data.slice().buffer);
    const bits = new Uint32Array(values.buffer);
    expect(header.next).toMatchObject({ data_offsets: [2 * values.length, 4 * values.length] });
    for (let i = 0; i < stored.length; i++) {
      if (stored[i] !== bits[i % values.length] >>> 16) throw new Error(`element ${i} differs`);
    }

    values[(1 << 22) + 1] = 1e6;
    const error = await rejectionOf(writeSafetensors(path, [tensor], "f16"));
    expect(error.message).toContain("1000000 at element 4194305, which f16 cannot hold");
  });

  test("refuses what a type cannot hold, be it the first element", async () => {
    const path = join(workshop.folder(), "model.safetensors");
    const tensor = { name: "w", shape: [2], read: () => Float32Array.of(1e6, 1) };
    const error = await rejectionOf(writeSafetensors(path, [tensor], "f16"));
    expect(error.message).toContain("1000000 at element 0, which f16 cannot hold");
  });

  test("begins the data at a multiple of 8 bytes, whatever letters names have", async () => {
    for (const name of ["w", "ww", "é", "層", "🌳", "🌳é"]) {
      const path = join(workshop.folder(), "model.safetensors");
      await writeSafetensors(path, [{ name, shape: [1], read: () => Float32Array.of(1) }], "f32");
      const bytes = readFileSync(path);
      expect([name, Number(bytes.readBigUInt64LE(0)) % 8]).toEqual([name, 0]);
    }
  });
});
