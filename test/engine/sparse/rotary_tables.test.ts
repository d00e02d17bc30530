/**
 * Rotary tables: computed, as compiled files have them, and stored, as files had them before. What is
 * damaged is refused before anything is made by it.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readDecoderFile } from "../../../src/engine/ort/decoder_file.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import { fuse } from "../../../src/engine/sparse/plan/fuse.ts";
import { filesSource } from "../../../src/engine/source.ts";
import {
  AttributeProto_AttributeType as AttributeType,
  type NodeProto,
} from "../../../src/onnx/generated/onnx_pb.ts";
import { editJson, thrownBy } from "../../checkpoint/support.ts";
import {
  compiledLogits,
  CompileWorkshop,
  distance,
  forgetHashes,
  LONG,
  modelOf,
  specOf,
  TOKENS,
} from "../../compile/support.ts";
import { logitsInPieces } from "./engines.ts";
import { Editor } from "./graph_editor.ts";
import { expectSameBits } from "./machine.ts";
import { changedGraph, type Files, filesOf, logitsOf, lowerBytes, naiveOf } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

/** With one pair of tables, and with two; of whole heads and of parts; with a factor. */
const MODELS = ["llama", "gemma3", "phi3", "olmo3", "smollm3"] as const;
const compiled = new Map<string, { output: string; files: Files; stored: Files }>();

beforeAll(async () => {
  for (const model of MODELS) {
    const source = await workshop.pruned(model, "2:4");
    const { output } = await workshop.compile(source, { values: "f32", format: "nm" });
    const files = filesOf(output);
    const graph = changedGraph(files, (graph) => new Editor(graph).storeTables());
    compiled.set(model, { output, files, stored: { ...files, graph } });
  }
}, LONG);

/** A copy of a compiled folder with another graph. */
function folderWith(model: string, graph: Uint8Array): string {
  const folder = workshop.fresh("other");
  cpSync(compiled.get(model)!.output, folder, { recursive: true });
  forgetHashes(folder);
  writeFileSync(join(folder, "onnx", "model.onnx"), graph);
  return folder;
}

/** The logits of our engine, and what it takes. */
async function engineOf({ graph, data }: Files, context?: number) {
  const source = filesSource({ "onnx/model.onnx": graph, "onnx/model.onnx_data": data });
  const model = await loadSparse(source, { threads: 1, context });
  try {
    const { memoryBytes, context } = model.info;
    return { bytes: memoryBytes!, context, logits: await logitsInPieces(model, TOKENS) };
  } finally {
    await model.close();
  }
}

describe("of tables that are computed and tables that are stored", () => {
  for (const model of MODELS) {
    test(`our engine makes the same bits: ${model}`, async () => {
      const { files, stored } = compiled.get(model)!;
      const [computed, read] = [await engineOf(files), await engineOf(stored)];
      expectSameBits([computed.logits], [read.logits], model);
      expect(computed.context).toBe(read.context);
      // Fewer rows are the same rows.
      const short = await engineOf(files, TOKENS.length);
      expectSameBits([short.logits], [read.logits], `${model}, short`);
      expect(short.bytes).toBeLessThan(computed.bytes);
    }, LONG);

    test(`ONNX Runtime gives the logits of the naive decoder: ${model}`, async () => {
      const { output, files, stored } = compiled.get(model)!;
      const expected = logitsOf((await naiveOf(files)).naive, TOKENS);
      const before = folderWith(model, stored.graph);
      for (const folder of [output, before]) {
        expect(distance(await compiledLogits(folder), expected)).toBeLessThan(1e-5);
      }
    }, LONG);

    test(`ONNX Runtime's side reads the same context: ${model}`, () => {
      const { output, files, stored } = compiled.get(model)!;
      const [now, before] = [files, stored].map(({ graph }) => {
        const folder = folderWith(model, graph);
        editJson(folder, "config.json", (config) => {
          config.max_position_embeddings = 1 << 20;
        });
        return readDecoderFile(folder);
      });
      const { context } = specOf(output);
      expect([now.context, before.context]).toEqual([context, context]);
      expect(now.weightBytes).toBe(before.weightBytes);
    });
  }
});

test("a compiled file holds frequencies, and no tables", () => {
  for (const [model, { output }] of compiled) {
    const tensors = modelOf(output).graph!.initializer;
    const { headDim } = specOf(output);
    for (const { name, dims } of tensors) {
      if (name.startsWith("rotary_")) expect(Number(dims[0])).toBeLessThanOrEqual(headDim / 2);
      expect(name).not.toContain("_cache");
    }
    const kinds = tensors.filter(({ name }) => name.startsWith("rotary_frequencies")).length;
    expect({ model, kinds }).toEqual({ model, kinds: ["gemma3", "olmo3"].includes(model) ? 2 : 1 });
  }
});

describe("rotary tables are refused", () => {
  const tables = (e: Editor) => e.node("RotaryTables");
  const frequencies = (e: Editor) => e.tensor("rotary_frequencies");
  const setFrequency = (e: Editor, value: number) => {
    const { rawData } = frequencies(e);
    new DataView(rawData.buffer, rawData.byteOffset).setFloat32(4, value, true);
  };
  const retype = (node: NodeProto, name: string, type: AttributeType) => {
    node.attribute.find((attribute) => attribute.name === name)!.type = type;
  };

  /** By our engine, and where ONNX Runtime is to run the file. */
  function refuses(code: string, title: string, change: (e: Editor) => void, part: string) {
    test(title, () => {
      const { files } = compiled.get("llama")!;
      const bytes = changedGraph(files, (graph) => change(new Editor(graph)));
      const folder = folderWith("llama", bytes);
      for (const read of [() => lowerBytes(bytes), () => readDecoderFile(folder)]) {
        const { code: found, message } = thrownBy(read);
        expect({ found, message }).toMatchObject({ found: code });
        expect(message).toContain(part);
        expect(message).toContain("(ai.espalier.RotaryTables)");
        expect(message.length).toBeLessThan(1000);
      }
    });
  }
  const damaged = (title: string, change: (e: Editor) => void, part: string) =>
    refuses("ONNX_INVALID", title, change, part);
  const unsupported = (title: string, change: (e: Editor) => void, part: string) =>
    refuses("OPERATOR_UNSUPPORTED", title, change, part);

  for (const positions of [0n, -1n, 2n ** 20n + 1n, 2n ** 40n, 2n ** 63n - 1n]) {
    damaged(`for ${positions} positions`, (e) => e.set(tables(e), "positions", positions), "pos");
  }
  damaged("without positions", (e) => {
    tables(e).attribute = tables(e).attribute.filter(({ name }) => name !== "positions");
  }, "lacks its attribute positions");
  damaged("with positions twice", (e) => {
    const { attribute } = tables(e);
    attribute.push(attribute.find(({ name }) => name === "positions")!);
  }, "positions twice");
  damaged(
    "with positions of another type",
    (e) => retype(tables(e), "positions", AttributeType.FLOAT),
    "positions as another type",
  );
  damaged("without a factor", (e) => {
    tables(e).attribute = tables(e).attribute.filter(({ name }) => name !== "factor");
  }, "lacks its attribute factor");
  damaged("with a factor that is NaN", (e) => e.set(tables(e), "factor", NaN), "factor NaN");
  unsupported(
    "with an attribute that is not known",
    (e) => e.set(tables(e), "offset", 1n),
    '"offset"',
  );
  for (const value of [NaN, Infinity, 3e38]) {
    damaged(`with the frequency ${value}`, (e) => setFrequency(e, value), "turns by the frequency");
  }
  unsupported("with frequencies that are a matrix", (e) => {
    e.reshape("rotary_frequencies", [8, 1]);
  }, "a few floats");
  damaged("without frequencies", (e) => e.reshape("rotary_frequencies", [0]), "of shape [0]");
  damaged("with frequencies that are one number", (e) => {
    e.reshape("rotary_frequencies", []);
  }, "of shape []");
  unsupported("with more frequencies than a head has", (e) => {
    e.reshape("rotary_frequencies", [4097]);
  }, "a few floats");
  unsupported("with frequencies that lie in the data file", (e) => {
    tables(e).input[0] = "model.norm.weight";
  }, "a few floats in the graph");
  damaged("without an input", (e) => tables(e).input = [], "lacks its input 0");
  unsupported(
    "with one more input",
    (e) => tables(e).input.push("rotary_frequencies"),
    "an input 1",
  );
});

describe("turning is refused", () => {
  function refuses(model: string, title: string, change: (e: Editor) => void, part: string) {
    test(title, () => {
      const { files } = compiled.get(model)!;
      const bytes = changedGraph(files, (graph) => change(new Editor(graph)));
      const { code, message } = thrownBy(() => fuse(lowerBytes(bytes)));
      expect(code).toBe("OPERATOR_UNSUPPORTED");
      expect(message).toContain(part);
    });
  }
  refuses("llama", "by sines and cosines", (e) => {
    const { input } = e.node("RotaryEmbedding");
    [input[2], input[3]] = [input[3], input[2]];
  }, "sines and cosines that are no pair");
  refuses("gemma3", "by cosines and sines of two pairs", (e) => {
    const other = e.node("RotaryTables", 1);
    const node = e.graph.node.find(({ input }) => input[2] === other.output[0])!;
    node.input[3] = e.node("RotaryTables").output[1];
  }, "no pair");
  refuses("gemma3", "of queries and keys by different tables", (e) => {
    const other = e.node("RotaryTables", 1);
    const node = e.graph.node.find(({ input }) => input[2] === other.output[0])!;
    node.input.splice(2, 2, ...e.node("RotaryTables").output);
  }, "with the same tables");
  refuses("llama", "by a computed table and a stored one", (e) => {
    e.node("RotaryEmbedding").input[3] = "model.norm.weight";
  }, '"tensor" is understood there');
});

test("a context that memory has no room for is refused before tables are made", async () => {
  const { files } = compiled.get("llama")!;
  const graph = changedGraph(files, (graph) => {
    const e = new Editor(graph);
    e.set(e.node("RotaryTables"), "positions", 2n ** 20n);
  });
  const source = filesSource({ "onnx/model.onnx": graph, "onnx/model.onnx_data": files.data });
  const begun = performance.now();
  const error = await loadSparse(source, { threads: 1, memory: 16 << 20 }).then(
    () => undefined,
    (error) => error,
  );
  expect(error).toMatchObject({ code: "MEMORY_BUDGET" });
  expect(performance.now() - begun).toBeLessThan(5000);
});
