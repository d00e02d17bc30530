/**
 * Compiled models read from wherever they are: the same tensors from every source, and an error where
 * the graph and the data do not fit each other.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { folderSource } from "../../../src/engine/folder_source.ts";
import { filesSource, type ModelSource } from "../../../src/engine/source.ts";
import { ModelReader } from "../../../src/engine/sparse/model_reader.ts";
import { urlSource } from "../../../src/engine/url_source.ts";
import { OnnxError } from "../../../src/errors.ts";
import {
  type GraphProto,
  type TensorProto,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
} from "../../../src/onnx/generated/onnx_pb.ts";
import { ModelFile } from "../../../src/onnx/model_file.ts";
import { rejectionOf, thrownBy } from "../../checkpoint/support.ts";
import { CompileWorkshop } from "../../compile/support.ts";
import { changedGraph, type Files, filesOf, openFiles } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

let folder = "";
let files: Files = { graph: new Uint8Array(0), data: new Uint8Array(0) };

beforeAll(async () => {
  const { output } = await workshop.compile(await workshop.pruned("llama", "2:4"), {
    format: "csr",
    values: "int8",
    head: "f16",
  });
  folder = output;
  files = filesOf(output);
});

const EMBEDDING = "model.embed_tokens.weight";
const NORM = "model.norm.weight";

/** A server in a function. */
function server(ranges: boolean): ModelSource {
  return urlSource("https://models.example/llama", {
    fetch: (url, init) => {
      const bytes = (url.endsWith("_data") ? files.data : files.graph) as Uint8Array<ArrayBuffer>;
      const range = (init.headers as Record<string, string>).range;
      if (!ranges || !range) return Promise.resolve(new Response(bytes));
      const [first, last] = range.slice("bytes=".length).split("-").map(Number);
      return Promise.resolve(
        new Response(bytes.subarray(first, last + 1), {
          status: 206,
          headers: { "content-range": `bytes ${first}-${last}/${bytes.length}` },
        }),
      );
    },
  });
}

const SOURCES: Record<string, () => ModelSource> = {
  "a folder": () => folderSource(folder),
  "files in memory": () =>
    filesSource({ "onnx/model.onnx": files.graph, "onnx/model.onnx_data": files.data }),
  "a server with ranges": () => server(true),
  "a server without": () => server(false),
};

describe("a compiled model has the tensors that were compiled, read from", () => {
  for (const [name, open] of Object.entries(SOURCES)) {
    test(name, async () => {
      const file = ModelFile.open(join(folder, "onnx", "model.onnx"));
      const reader = await ModelReader.open(open());
      try {
        expect(reader.path.endsWith("/onnx/model.onnx")).toBe(true);
        expect(reader.graph.node.length).toBe(file.graph.node.length);
        for (const [name, tensor] of file.tensors) {
          const { type, dims, byteLength } = reader.tensor(name);
          expect([type, [...dims], byteLength])
            .toEqual([tensor.dataType, tensor.dims.map(Number), file.bytesOf(tensor)]);
          const bytes = await reader.readTensor(name);
          expect(bytes.byteOffset).toBe(0);
          expect([...bytes]).toEqual([...file.read(name)]);
        }
        // Rows 100 to 109 of a matrix, to where they are wanted.
        const rows = new Uint8Array(10 * 128);
        await reader.readRange(EMBEDDING, 100 * 128, rows);
        expect([...rows]).toEqual([...file.read(EMBEDDING).subarray(100 * 128, 110 * 128)]);
        const target = new Uint8Array(256);
        expect(await reader.readTensor(NORM, target)).toBe(target);
        expect([...target]).toEqual([...file.read(NORM)]);
      } finally {
        reader.close();
        file.close();
      }
    });
  }
});

describe("a reader", () => {
  test("gives copies of what lies in the graph", async () => {
    const reader = await openFiles(files);
    const [constant] = reader.graph.initializer.filter(({ rawData }) => rawData.length > 0);
    (await reader.readTensor(constant.name)).fill(1);
    expect(await reader.readTensor(constant.name)).not.toEqual(
      new Uint8Array(constant.rawData.length).fill(1),
    );
    const last = new Uint8Array(1);
    await reader.readRange(constant.name, constant.rawData.length - 1, last);
    expect(last[0]).toBe(constant.rawData.at(-1)!);
    reader.close();
  });

  test("refuses tensors that are not there, and bytes that are not theirs", async () => {
    const reader = await openFiles(files);
    expect(thrownBy(() => reader.tensor("nothing")).message)
      .toBe('files/onnx/model.onnx: there is no initializer "nothing"');
    for (
      const read of [
        reader.readTensor("nothing"),
        reader.readRange("nothing", 0, new Uint8Array(0)),
        reader.readTensor(NORM, new Uint8Array(255)),
        reader.readTensor(NORM, new Uint8Array(257)),
        reader.readRange(NORM, 1, new Uint8Array(256)),
        reader.readRange(NORM, 257, new Uint8Array(0)),
        reader.readRange(NORM, -4, new Uint8Array(4)),
        reader.readRange(NORM, 0.5, new Uint8Array(4)),
        reader.readRange(NORM, NaN, new Uint8Array(4)),
      ]
    ) {
      expect(await rejectionOf(read)).toBeInstanceOf(OnnxError);
    }
    reader.close();
  });

  test("leaves no file open behind a model that it refuses", async () => {
    const open = () => {
      try {
        return readdirSync("/proc/self/fd").length;
      } catch {
        return 0; // Another system.
      }
    };
    const path = workshop.copy("llama");
    const source = folderSource(path);
    for (const name of ["model.onnx", "model.onnx_data"]) {
      writeFileSync(join(path, name), name === "model.onnx" ? files.graph : new Uint8Array(9));
    }
    const before = open();
    for (let i = 0; i < 5; i++) {
      expect((await rejectionOf(ModelReader.open(source, "model.onnx"))).code).toBe("ONNX_INVALID");
    }
    expect(open()).toBe(before);
  });
});

/** A model with one of its tensors changed, or its graph. */
const withTensor = (name: string, change: (tensor: TensorProto, graph: GraphProto) => void) =>
  changedGraph(files, (graph) => change(graph.initializer.find((t) => t.name === name)!, graph));

const place = (name: string, key: "location" | "offset" | "length", value: string) =>
  withTensor(name, (tensor) => tensor.externalData.find((e) => e.key === key)!.value = value);

describe("a model is refused", () => {
  async function refused(changed: Partial<Files>, ...parts: string[]): Promise<void> {
    const error = await rejectionOf(openFiles({ ...files, ...changed }));
    expect({ code: error.code, message: error.message }).toMatchObject({ code: "ONNX_INVALID" });
    for (const part of ["files/onnx/model.onnx", ...parts]) expect(error.message).toContain(part);
  }

  test("when it is none", async () => {
    await refused({ graph: new TextEncoder().encode("not a model") }, "is not an ONNX model");
    await refused({ graph: new Uint8Array(0) }, "holds no graph");
    await refused({ graph: files.graph.subarray(0, 5000) });
  });

  test("when its data were truncated", async () => {
    await refused({ data: files.data.subarray(0, -1) }, "which has", "the file was truncated");
    await refused({ data: new Uint8Array(0) }, "which has 0");
  });

  test("when a tensor lies where no data are", async () => {
    const end = files.data.length;
    await refused({ graph: place(NORM, "offset", String(end)) }, NORM, "truncated");
    await refused({ graph: place(NORM, "offset", String(end - 255)) }, `to byte ${end + 1}`);
    for (const offset of ["-4", "1e3", "x", "9007199254740993"]) {
      await refused({ graph: place(NORM, "offset", offset) }, `"${NORM}" of 256 bytes cannot be`);
    }
    await refused({ graph: place(NORM, "length", "255") }, `"${NORM}" of 256 bytes cannot be`);
  });

  test("when two tensors share bytes, in part or all of them", async () => {
    const { offset } = Object.fromEntries(
      (await openFiles(files)).graph.initializer.find(({ name }) => name === EMBEDDING)!
        .externalData.map(({ key, value }) => [key, value]),
    );
    for (const inside of [0, 4, 320 * 128 - 256, 320 * 128 - 4]) {
      const graph = place(NORM, "offset", String(Number(offset) + inside));
      await refused({ graph }, `"${EMBEDDING}"`, `"${NORM}"`, 'share bytes of "model.onnx_data"');
    }
    const twice = withTensor(EMBEDDING, (tensor, graph) => {
      graph.initializer.push({ ...tensor, name: "again" });
    });
    await refused({ graph: twice }, `"${EMBEDDING}" and "again" share bytes`);
  });

  test("when it looks for data elsewhere than beside it", async () => {
    for (
      const location of ["../config.json", "/etc/passwd", "a/b", "..", "", "https://x/y", "C:x"]
    ) {
      await refused(
        { graph: place(NORM, "location", location) },
        "only a file beside the model is read",
      );
    }
    const error = await rejectionOf(
      openFiles({ ...files, graph: place(NORM, "location", "other") }),
    );
    expect(error.code).toBe("FILE_UNREADABLE");
    expect(error.message).toBe('files: there is no file "onnx/other"');
  });

  test("when it names more data files than a model has", async () => {
    const graph = changedGraph(files, (graph) => {
      for (const [i, tensor] of graph.initializer.entries()) {
        for (const entry of tensor.externalData) {
          if (entry.key === "location") entry.value = `data_${i}`;
        }
      }
    });
    await refused({ graph }, "data files; at most 64 are read");
  });

  test("when a tensor in the graph claims bytes that are not there, once they are read", async () => {
    const graph = changedGraph(files, (graph) => {
      graph.initializer.push(create(TensorProtoSchema, {
        name: "claims",
        dataType: DataType.FLOAT,
        dims: [2n ** 36n],
      }));
    });
    const reader = await openFiles({ ...files, graph });
    expect(reader.tensor("claims").byteLength).toBe(2 ** 38);
    for (
      const read of [
        reader.readTensor("claims"),
        reader.readRange("claims", 2 ** 37, new Uint8Array(4)),
      ]
    ) {
      expect((await rejectionOf(read)).message).toContain(
        '"claims" has 0 of its 274877906944 bytes',
      );
    }
    reader.close();
  });
});

test("a model may have its tensors in several files, none, or empty ones", async () => {
  const graph = withTensor(NORM, (tensor, graph) => {
    for (const entry of tensor.externalData) {
      if (entry.key === "location") entry.value = "norm";
      if (entry.key === "offset") entry.value = "0";
    }
    graph.initializer.push(create(TensorProtoSchema, {
      name: "empty",
      dataType: DataType.FLOAT,
      dims: [0n, 4n],
    }));
  });
  const norm = Uint8Array.from({ length: 256 }, (_, i) => i);
  const reader = await ModelReader.open(
    filesSource({
      "model.onnx": graph,
      "model.onnx_data": files.data,
      "norm": norm,
    }, "here"),
    "model.onnx",
  );
  expect(reader.path).toBe("here/model.onnx");
  expect(await reader.readTensor(NORM)).toEqual(norm);
  expect(await reader.readTensor("empty")).toEqual(new Uint8Array(0));
  reader.close();
});
