/**
 * Tables that stay in their file: models give the same bits as with all of it in memory, take less of it, and say
 * what is wrong with a row when a token asks for it.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { cpSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { folderSource } from "../../../src/engine/folder_source.ts";
import { checkedSource } from "../../../src/engine/integrity.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import type { SparseOptions } from "../../../src/engine/sparse/options.ts";
import { bytesLeftInFile, LEAST_TABLE } from "../../../src/engine/sparse/weights/file_rows.ts";
import { filesSource } from "../../../src/engine/source.ts";
import { MemoryBudgetError } from "../../../src/errors.ts";
import { assertFitsSparse } from "../../../src/generate/fit.ts";
import { loadSchema } from "../../../src/generate/load_options.ts";
import { checkedRange } from "../../../src/onnx/graph_check.ts";
import { toHalves } from "../../../src/onnx/half.ts";
import { type How, LONG, modelOf } from "../../compile/support.ts";
import {
  alone,
  codeOf,
  expectOthersNotToMatter,
  logitsInPieces,
  run,
  SparseWorkshop,
  tokensOf,
  withSparse,
} from "./engines.ts";
import { expectSameBits } from "./machine.ts";
import { filesOf } from "./support.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

const IN_FILE: SparseOptions = { embeddings: "file" };
const IN_MEMORY: SparseOptions = { embeddings: "memory" };

/** Each type of table; Llama's and Phi's heads are no embeddings, and Gemma 4 has a table for its layers besides. */
const CASES: [string, How][] = [
  ["llama", { values: "f32", format: "dense" }],
  ["phi", { values: "f16", format: "dense" }],
  ["llama", { values: "int8", format: "dense" }],
  ["llama", { values: "int4", head: "int4", format: "dense" }],
  ["gemma4", { values: "int8", format: "dense" }],
  ["gemma4", { values: "int4", head: "int4", format: "dense" }],
];

/** Where a tensor's bytes begin in a compiled model's data, and how many they are. */
function placeOf(folder: string, name: RegExp): { path: string; offset: number; length: number } {
  const tensor = modelOf(folder).graph!.initializer.find((one) => name.test(one.name))!;
  const path = join(folder, "onnx", "model.onnx_data");
  const { offset, length } = checkedRange(path, tensor);
  return { path, offset, length };
}

/** A copy of a compiled model, with other bytes at a place of a tensor. */
function changed(folder: string, name: RegExp, at: number, bytes: Uint8Array): string {
  const copy = workshop.fresh("changed");
  cpSync(folder, copy, { recursive: true });
  const { path, offset } = placeOf(copy, name);
  const data = readFileSync(path);
  data.set(bytes, offset + at);
  writeFileSync(path, data);
  return copy;
}

/** Bytes with which a model is not refused before it is read. */
function leastMemory(folder: string, embeddings: "file" | "memory"): number {
  let [refused, enough] = [0, 2 ** 30];
  while (enough - refused > 1) {
    const memory = Math.floor((refused + enough) / 2);
    try {
      assertFitsSparse("it", folder, loadSchema.parse({ embeddings, memory, context: 64 }));
      enough = memory;
    } catch (error) {
      expect(error).toBeInstanceOf(MemoryBudgetError);
      refused = memory;
    }
  }
  return enough;
}

const EMBEDDING = /embed_tokens\.(weight|values)$/;

describe("a model whose tables stay in their file", () => {
  for (const [name, how] of CASES) {
    test(`gives the same bits as in memory: ${name} in ${how.values}`, async () => {
      const folder = await workshop.compiled(name, how);
      const tokens = tokensOf(1, 90);
      const all = (options: SparseOptions) =>
        withSparse(folder, options, (model) => logitsInPieces(model, tokens, [1, 7, 1, 64, 1, 16]));
      const expected = await all(IN_MEMORY);
      for (const threads of [1, 2]) {
        expectSameBits([await all({ ...IN_FILE, threads })], [expected], `${threads} threads`);
      }
      const background = { ...IN_FILE, background: true, threads: 2, shortRun: 0 };
      expectSameBits([await all(background)], [expected], "in the background");
    }, LONG);
  }

  test("takes their bytes less of memory, and says how many stay in the file", async () => {
    for (const [name, how] of CASES) {
      const folder = await workshop.compiled(name, how);
      const infoOf = (options: SparseOptions) =>
        withSparse(folder, options, ({ info }) => Promise.resolve(info));
      const [file, memory] = [await infoOf(IN_FILE), await infoOf(IN_MEMORY)];
      const { tableBytesInFile = 0 } = file;
      expect(tableBytesInFile).toBeGreaterThan(0);
      expect(memory.tableBytesInFile).toBeUndefined();
      // In memory rows are padded, and have their scales.
      expect(memory.weightBytes - file.weightBytes).toBeGreaterThanOrEqual(tableBytesInFile);
      expect(memory.memoryBytes! - file.memoryBytes!).toBeGreaterThan(0);
      expect(file.tokenBytes).toBe(memory.tokenBytes!);
    }
  }, LONG);

  test("needs as much less to be let in", async () => {
    for (const [name, how] of CASES) {
      const folder = await workshop.compiled(name, how);
      const inFile = await withSparse(
        folder,
        IN_FILE,
        ({ info }) => Promise.resolve(info.tableBytesInFile),
      );
      const least = (embeddings: "file" | "memory") => leastMemory(folder, embeddings);
      expect(least("memory") - least("file")).toBe(inFile!);
    }
  }, LONG);

  test("computes sequences at once, each as if it were alone", async () => {
    const folder = await workshop.compiled("gemma4", { values: "int8", format: "dense" });
    await withSparse(folder, IN_FILE, async (model) => {
      const prompts = [tokensOf(1, 70), tokensOf(2, 3), tokensOf(3, 40)];
      const sequences = prompts.map(() => model.open());
      const found = await Promise.all(sequences.map((one, i) => run(one, prompts[i])));
      const expected = await Promise.all(prompts.map((all) => alone(folder, all, IN_MEMORY)));
      expectSameBits(found, expected, "prompts at once");
      const next = await Promise.all(sequences.map((one, i) => run(one, [5 + i])));
      const then = await Promise.all(
        prompts.map((all, i) => alone(folder, [...all, 5 + i], IN_MEMORY)),
      );
      expectSameBits(next, then, "tokens at once");
    });
    await expectOthersNotToMatter(folder);
  }, LONG);

  test("has tables in memory that products multiply with, whatever is asked for", async () => {
    const folder = await workshop.compiled("qwen3", { values: "int8", format: "dense" });
    await withSparse(folder, IN_FILE, ({ info }) => {
      expect(info.tableBytesInFile).toBeUndefined();
      return Promise.resolve();
    });
  }, LONG);

  test("has small tables in memory unless the file is asked for", async () => {
    const folder = await workshop.compiled("llama", { values: "int8", format: "dense" });
    await withSparse(folder, {}, ({ info }) => {
      expect(info.tableBytesInFile).toBeUndefined();
      return Promise.resolve();
    });
    expect(bytesLeftInFile([LEAST_TABLE - 1, LEAST_TABLE, 5 * LEAST_TABLE], "auto"))
      .toBe(6 * LEAST_TABLE);
    expect(bytesLeftInFile([7, LEAST_TABLE], "file")).toBe(7 + LEAST_TABLE);
    expect(bytesLeftInFile([7, LEAST_TABLE], "memory")).toBe(0);
  }, LONG);

  test("reads rows out of Blobs, and has tables of bytes in memory", async () => {
    const folder = await workshop.compiled("llama", CASES[3][1]);
    const { graph, data } = filesOf(folder);
    const tokens = tokensOf(4, 12);
    const expected = await alone(folder, tokens, IN_MEMORY);
    for (const content of [data, new Blob([Buffer.from(data)])]) {
      const source = filesSource({ "onnx/model.onnx": graph, "onnx/model.onnx_data": content });
      const model = await loadSparse(source, { threads: 1, context: 64, ...IN_FILE });
      try {
        expect(model.info.tableBytesInFile !== undefined).toBe(content instanceof Blob);
        expectSameBits([await run(model.open(), tokens)], [expected], "a source in memory");
      } finally {
        await model.close();
      }
    }
  }, LONG);
});

describe("a table in a file", () => {
  test("is compared with its hashes when the model is loaded", async () => {
    for (const [name, how] of [CASES[2], CASES[5]]) {
      const folder = changed(await workshop.compiled(name, how), EMBEDDING, 40, Uint8Array.of(7));
      const { source } = await checkedSource(folderSource(folder));
      expect(await codeOf(loadSparse(source, { threads: 1, ...IN_FILE }))).toBe("INTEGRITY");
      const model = await loadSparse(folderSource(folder), { threads: 1, ...IN_FILE });
      await model.close();
    }
  }, LONG);

  test("is read from once it is checked, without a piece for each row", async () => {
    const folder = await workshop.compiled("llama", { values: "int8", format: "dense" });
    const { source } = await checkedSource(folderSource(folder));
    const model = await loadSparse(source, { threads: 1, ...IN_FILE });
    const tokens = tokensOf(9, 30);
    const expected = await alone(folder, tokens, IN_MEMORY);
    expectSameBits([await run(model.open(), tokens)], [expected], "checked");
    await model.close();
  }, LONG);

  const nan = new Uint8Array(new Float32Array([NaN]).buffer);
  const infinity = new Uint16Array(1);
  toHalves(Float32Array.of(Infinity), infinity);
  const damages: [string, string, How, number, Uint8Array, string][] = [
    ["NaN", "llama", CASES[0][1], 4, nan, "holds NaN or infinity"],
    ["infinity", "phi", CASES[1][1], 2, new Uint8Array(infinity.buffer), "holds NaN or infinity"],
  ];
  for (const [what, name, how, size, bytes, says] of damages) {
    test(`with ${what} in a row refuses the token of that row, and no other`, async () => {
      const whole = await workshop.compiled(name, how);
      const { vocabulary } = await withSparse(whole, {}, ({ info }) => Promise.resolve(info));
      const rowBytes = placeOf(whole, EMBEDDING).length / vocabulary;
      const folder = changed(whole, EMBEDDING, 11 * rowBytes + 3 * size, bytes);
      await withSparse(folder, IN_FILE, async (model) => {
        const sequence = model.open();
        const [first, second] = [[5, 6], [7, 8]];
        await sequence.run(first);
        for (const tokens of [[11], [3, 11, 4]]) {
          const refused = sequence.run(tokens);
          expect(await codeOf(refused)).toBe("PACKED_INVALID");
          await expect(refused).rejects.toThrow(`${says}`);
          await expect(refused).rejects.toThrow("in row 11");
          expect(sequence.length).toBe(first.length);
        }
        const expected = await alone(whole, [...first, ...second], IN_MEMORY);
        expectSameBits([await run(sequence, second)], [expected], "afterwards");
      });
      expect(await codeOf(alone(folder, [5], IN_MEMORY))).toBe("PACKED_INVALID");
    }, LONG);
  }

  test("with a group that names a scale of 0 refuses the token of that row", async () => {
    const whole = await workshop.compiled("llama", CASES[3][1]);
    const { vocabulary } = await withSparse(whole, {}, ({ info }) => Promise.resolve(info));
    // The last entry of a table that is not full is 1, which no group names.
    const names = /embed_tokens\.scales$/, table = /embed_tokens\.scale_table$/;
    const groups = placeOf(whole, names).length / vocabulary;
    const zero = changed(whole, table, 2 * 255, Uint8Array.of(0, 0));
    const folder = changed(zero, names, 11 * groups, Uint8Array.of(255));
    await withSparse(folder, IN_FILE, async (model) => {
      const sequence = model.open();
      await expect(sequence.run([11])).rejects.toThrow(
        "has a scale that is 0 or not finite, in row 11",
      );
      expectSameBits(
        [await run(sequence, [5])],
        [await alone(whole, [5], IN_MEMORY)],
        "afterwards",
      );
    });
    expect(await codeOf(alone(folder, [5], IN_MEMORY))).toBe("PACKED_INVALID");
  }, LONG);

  test("with scales that are none is refused when the model is loaded", async () => {
    const folder = changed(
      await workshop.compiled("llama", CASES[2][1]),
      /embed_tokens\.scales$/,
      8,
      nan,
    );
    for (const options of [IN_FILE, IN_MEMORY]) {
      expect(await codeOf(alone(folder, [5], options))).toBe("PACKED_INVALID");
    }
  }, LONG);

  test("that ends while the model runs is an error of that run, and the rest goes on", async () => {
    const whole = await workshop.compiled("llama", CASES[0][1]);
    const folder = workshop.fresh("truncated");
    cpSync(whole, folder, { recursive: true });
    const { path, offset, length } = placeOf(folder, EMBEDDING);
    await withSparse(folder, IN_FILE, async (model) => {
      const sequence = model.open();
      await sequence.run([5]);
      truncateSync(path, offset + length / 2);
      const last = model.info.vocabulary - 1;
      expect(await codeOf(sequence.run([last]))).toBe("FILE_UNREADABLE");
      const expected = await alone(whole, [5, 6], IN_MEMORY);
      expectSameBits([await run(sequence, [6])], [expected], "afterwards");
    });
  }, LONG);
});
