/**
 * ONNX models that are damaged, or made to do harm: each is refused with what is wrong and where, by
 * the reader and by the command that looks into compiled models.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { runCommand } from "../../src/cli/main.ts";
import { OnnxError } from "../../src/errors.ts";
import { GraphBuilder, modelOf } from "../../src/onnx/builder.ts";
import {
  AttributeProtoSchema,
  GraphProtoSchema,
  type ModelProto,
  NodeProtoSchema,
  type TensorProto,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
} from "../../src/onnx/generated/onnx_pb.ts";
import { modelBytes, ModelFile, parseModel, readModel } from "../../src/onnx/model_file.ts";
import { thrownBy, Workshop } from "../checkpoint/support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** Two weights in a data file of 80 bytes: 0 to 64, 64 to 80. A constant lies in the graph. */
const WIDE = "model.layers.0.mlp.wide.weight";
const NORM = "model.norm.weight";
const DATA_BYTES = 80;

/** A small model that is right. */
function rightModel(): ModelProto {
  const b = new GraphBuilder("small");
  const x = b.input("x", DataType.FLOAT, ["tokens", 4]);
  const place = (offset: number, length: number) => ({
    location: "model.onnx_data",
    offset,
    length,
  });
  const wide = b.external(WIDE, DataType.FLOAT, [4, 4], place(0, 64));
  const norm = b.external(NORM, DataType.FLOAT, [4], place(64, 16));
  const product = b.node("MatMul", [x, wide], { name: "first", outputs: ["product"] });
  const normed = b.node("Mul", [product, norm], { name: "second", outputs: ["normed"] });
  b.node("Mul", [normed, b.scalar(2)], { name: "third", outputs: ["y"] });
  b.output("y", DataType.FLOAT, ["tokens", 4]);
  return modelOf(b.graph);
}

/** Writes a folder with a compiled model; returns the path of its graph. */
function write(bytes: Uint8Array, data = new Uint8Array(DATA_BYTES)): string {
  const folder = workshop.folder();
  mkdirSync(join(folder, "onnx"));
  writeFileSync(join(folder, "config.json"), '{"model_type":"llama"}');
  writeFileSync(join(folder, "espalier.json"), '{"kind":"compiled"}');
  writeFileSync(join(folder, "onnx", "model.onnx"), bytes);
  writeFileSync(join(folder, "onnx", "model.onnx_data"), data);
  return join(folder, "onnx", "model.onnx");
}

/** Writes the right model with one change. */
function changed(change: (model: ModelProto) => void): string {
  const model = rightModel();
  change(model);
  return write(modelBytes(model));
}

/** Writes it with one of its tensors changed. */
function withTensor(change: (tensor: TensorProto) => void, name = WIDE): string {
  return changed((model) => change(model.graph!.initializer.find((t) => t.name === name)!));
}

/** Writes it with an entry of a tensor's `external_data` changed, or taken away. */
function withPlace(key: "location" | "offset" | "length", value: string | undefined): string {
  return withTensor((tensor) => {
    const entry = tensor.externalData.find((entry) => entry.key === key)!;
    if (value !== undefined) entry.value = value;
    else tensor.externalData.splice(tensor.externalData.indexOf(entry), 1);
  });
}

/** Opens a model that cannot be right; returns the error's message. */
function refusal(path: string): string {
  const error = thrownBy(() => ModelFile.open(path).close());
  expect(error).toBeInstanceOf(OnnxError);
  expect(error.code).toBe("ONNX_INVALID");
  expect(error.message).toContain(path);
  return error.message;
}

/** Runs `inspect` here; returns how it ends and what it writes. */
async function inspect(path: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: "", stderr: "" };
  const real = { stdout: process.stdout.write, stderr: process.stderr.write };
  for (const name of ["stdout", "stderr"] as const) {
    process[name].write = ((text: string) => {
      written[name] += text;
      return true;
    }) as typeof process.stdout.write;
  }
  try {
    const words = ["inspect", dirname(dirname(path)), "--json"];
    return { code: await runCommand(words, new AbortController().signal), ...written };
  } finally {
    for (const name of ["stdout", "stderr"] as const) process[name].write = real[name];
  }
}

/** Tests that a model is refused by the reader and by `inspect`, both with the same words. */
function refuses(title: string, make: () => string, ...parts: string[]): void {
  test(title, async () => {
    const path = make();
    const message = refusal(path);
    for (const part of parts) expect(message).toContain(part);
    expect(message.length).toBeLessThan(1000);
    const { code, stdout, stderr } = await inspect(path);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toBe(`error ONNX_INVALID: ${message}\n`);
  });
}

describe("a model that is right", () => {
  test("opens, and gives its tensors' bytes wherever they lie", async () => {
    const data = Uint8Array.from({ length: DATA_BYTES }, (_, i) => i);
    const path = write(modelBytes(rightModel()), data);
    const file = ModelFile.open(path);
    try {
      expect(file.graph.node.map(({ name }) => name)).toEqual(["/first", "/second", "/third"]);
      expect([...file.tensors.keys()]).toEqual([WIDE, NORM, "f32_2"]);
      expect([...file.read(WIDE)]).toEqual([...data.subarray(0, 64)]);
      expect([...file.read(NORM)]).toEqual([...data.subarray(64, 80)]);
      const constant = file.read("f32_2");
      expect([...constant]).toEqual([0, 0, 0, 64]);
      constant.fill(1);
      expect([...file.read("f32_2")]).toEqual([0, 0, 0, 64]);
      expect([...file.tensors.values()].map((tensor) => file.bytesOf(tensor))).toEqual([64, 16, 4]);
      expect(() => file.read("nothing")).toThrow('there is no initializer "nothing"');
    } finally {
      file.close();
    }
    const { code, stdout, stderr } = await inspect(path);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout).linears).toHaveLength(1);
  });

  test("comes back from its bytes as it was", () => {
    const bytes = modelBytes(rightModel());
    expect(modelBytes(parseModel(bytes, "here"))).toEqual(bytes);
  });

  test("may leave inputs out, hold empty tensors, and have a data file longer than it needs", () => {
    const model = rightModel();
    model.graph!.node[0].input.push("");
    model.graph!.initializer.push(create(TensorProtoSchema, {
      name: "empty",
      dataType: DataType.INT64,
      dims: [0n],
    }));
    const file = ModelFile.open(write(modelBytes(model), new Uint8Array(DATA_BYTES + 4096)));
    expect(file.read("empty").length).toBe(0);
    file.close();
  });

  test("may hold a constant in a field by its type, which is read by nothing here", () => {
    const path = changed((model) => {
      model.graph!.initializer.push(create(TensorProtoSchema, {
        name: "by.type",
        dataType: DataType.FLOAT,
        dims: [3n],
        floatData: [1, 2, 3],
      }));
    });
    const file = ModelFile.open(path);
    try {
      expect(() => file.read("by.type")).toThrow('tensor "by.type" has 0 of its 12 bytes');
    } finally {
      file.close();
    }
  });
});

describe("a file that is no model is refused:", () => {
  const text = (words: string) => () => write(new TextEncoder().encode(words));
  refuses("an empty one", () => write(new Uint8Array(0)), "holds no graph");
  refuses("noise", () => write(new Uint8Array(64).fill(0xff)), "is not an ONNX model");
  refuses("text", text("version https://git-lfs.github.com/spec/v1\n"), "is not an ONNX model");
  refuses("JSON", text('{"not": "a model"}'), "is not an ONNX model");
  refuses("one without a graph", () => changed((model) => model.graph = undefined), "no graph");

  test("one that is not there, and a folder", () => {
    const folder = workshop.folder();
    for (const path of [join(folder, "model.onnx"), folder]) {
      const error = thrownBy(() => readModel(path));
      expect(error).toBeInstanceOf(OnnxError);
      expect(error.message).toBe(`${path} is not a file: name an ONNX model`);
    }
  });

  test("one larger than a graph can be, before it is read", () => {
    const path = write(new Uint8Array(0));
    truncateSync(path, 2 ** 33);
    expect(refusal(path)).toContain("has 8589934592 bytes");
  });

  test("one cut anywhere inside its graph", () => {
    const bytes = modelBytes(rightModel());
    const whole = parseModel(bytes, "whole");
    whole.opsetImport = [];
    const graphEnd = modelBytes(whole).length;
    for (let length = 0; length < graphEnd; length++) {
      const error = thrownBy(() => parseModel(bytes.subarray(0, length), "cut.onnx"));
      expect(error).toBeInstanceOf(OnnxError);
      expect(error.message).toContain("cut.onnx");
    }
    parseModel(bytes.subarray(0, graphEnd), "whole");
  });

  refuses("one cut in the middle", () => {
    const bytes = modelBytes(rightModel());
    return write(bytes.subarray(0, bytes.length >> 1));
  }, "is not an ONNX model");
});

describe("a model nested deeper than any is refused:", () => {
  /** A graph in a node of a graph in a node … */
  function nested(levels: number): ModelProto {
    let graph = create(GraphProtoSchema, { name: "innermost" });
    for (let level = 0; level < levels; level++) {
      const attribute = create(AttributeProtoSchema, { name: "body", g: graph });
      const node = create(NodeProtoSchema, { opType: "If", attribute: [attribute] });
      graph = create(GraphProtoSchema, { node: [node] });
    }
    return modelOf(graph);
  }

  test("not one of 30 graphs in each other", () => {
    parseModel(modelBytes(nested(30)), "here");
  });
  refuses(
    "graphs in graphs",
    () => write(modelBytes(nested(40))),
    "maximum recursion depth of 100",
  );
  refuses("groups of unknown fields", () => {
    // Field 100, the start of a group, which the format has kept for old files.
    const starts = Uint8Array.from({ length: 200_000 }, (_, i) => i % 2 ? 0x06 : 0xa3);
    return write(starts);
  }, "maximum recursion depth reached");
});

describe("a data file that does not fit is refused:", () => {
  const open = (change: (path: string) => void) => () => {
    const path = write(modelBytes(rightModel()));
    change(`${path}_data`);
    return path;
  };
  refuses(
    "a truncated one",
    open((data) => truncateSync(data, DATA_BYTES - 1)),
    `tensor "${NORM}"`,
    "byte 80",
    "has 79",
    "truncated",
  );
  refuses("an empty one", open((data) => truncateSync(data, 0)), `tensor "${WIDE}"`, "has 0");
  refuses(
    "one that is not there",
    () => withPlace("location", "model.onnx_data_1"),
    'data file "model.onnx_data_1" is missing',
  );
  refuses("a folder", () => {
    const path = withPlace("location", "elsewhere");
    mkdirSync(join(dirname(path), "elsewhere"));
    return path;
  }, 'data file "elsewhere" is missing');
  refuses(
    "an offset that leads past its end",
    () => withPlace("offset", "17"),
    `tensor "${WIDE}"`,
    "byte 81",
  );
  refuses(
    "one of whose bytes two tensors have the same: it could stand for any amount of memory",
    () =>
      changed(({ graph }) => {
        const { initializer } = graph!;
        initializer.push({ ...initializer.find(({ name }) => name === WIDE)!, name: "again" });
      }),
    `"${WIDE}" and "again" share bytes`,
  );
  refuses(
    "an offset beyond all files",
    () => withPlace("offset", String(Number.MAX_SAFE_INTEGER)),
    `tensor "${WIDE}"`,
  );
});

describe("a tensor whose place is no place is refused:", () => {
  for (const offset of ["-1", "-0", "NaN", "1e3", "0x10", " 1", "1.5", "Infinity", "", "９"]) {
    const title = `an offset of ${JSON.stringify(offset)}`;
    refuses(title, () => withPlace("offset", offset), `tensor "${WIDE}"`, "bytes NaN");
  }
  refuses(
    "an offset that no number holds",
    () => withPlace("offset", "9999999999999999"),
    `tensor "${WIDE}" of 64 bytes cannot be bytes`,
  );
  for (const length of ["63", "65", "0", "-64", "NaN", "64.0", "18446744073709551616", ""]) {
    refuses(
      `a length of ${JSON.stringify(length)} for 64 bytes`,
      () => withPlace("length", length),
      `tensor "${WIDE}" of 64 bytes cannot be bytes 0 to`,
    );
  }
  refuses("no length", () => withPlace("length", undefined), `tensor "${WIDE}"`, "bytes 0 to NaN");
  refuses(
    "no location",
    () => withPlace("location", undefined),
    `tensor "${WIDE}" does not say where its data are`,
  );
  for (
    const location of [
      "",
      "..",
      "../model.onnx_data",
      "../../config.json",
      "/etc/passwd",
      "sub/model.onnx_data",
      "./model.onnx_data",
      "model.onnx_data/",
      "..\\model.onnx_data",
      "sub\\model.onnx_data",
      "C:\\weights.bin",
    ]
  ) {
    refuses(
      `data in ${JSON.stringify(location)}`,
      () => withPlace("location", location),
      `tensor "${WIDE}" has its data in ${JSON.stringify(location)}`,
      "only a file beside the model is read",
    );
  }
  for (const location of [".", "model.onnx_data\0.txt"]) {
    refuses(
      `data in ${JSON.stringify(location)}`,
      () => withPlace("location", location),
      "is missing",
    );
  }
});

describe("a tensor that cannot be is refused:", () => {
  for (const type of [0, 8, 14, 999, -1]) {
    refuses(
      `one of the type ${type}`,
      () => withTensor((tensor) => tensor.dataType = type),
      `tensor "${WIDE}" has the unknown type ${type}`,
    );
  }
  const shapes: [string, bigint[]][] = [
    ["more elements than any", [2n ** 40n + 1n]],
    ["dimensions whose product no number holds", [2n ** 62n, 2n ** 62n, 2n ** 62n]],
    ["a product that overflows to what fits", [2n ** 32n, 2n ** 32n, 4n, 4n]],
    ["a huge dimension beside an empty one", [0n, 2n ** 62n]],
    ["a negative dimension", [-16n]],
    ["two negative dimensions", [-4n, -4n]],
    ["the least dimension", [-(2n ** 63n)]],
  ];
  for (const [title, dims] of shapes) {
    refuses(
      `one with ${title}`,
      () => withTensor((tensor) => tensor.dims = dims),
      `tensor "${WIDE}" has the impossible shape [${dims}]`,
    );
  }
  refuses(
    "one with another shape than its bytes",
    () => withTensor((tensor) => tensor.dims = [4n, 5n]),
    `tensor "${WIDE}" of 80 bytes`,
  );
  refuses(
    "one with the shape of a terabyte",
    () => withTensor((tensor) => tensor.dims = [2n ** 38n]),
    `tensor "${WIDE}" of 1099511627776 bytes`,
  );
  refuses(
    "one with a terabyte that its place claims, too",
    () =>
      withTensor((tensor) => {
        tensor.dims = [2n ** 38n];
        tensor.externalData.find(({ key }) => key === "length")!.value = String(2 ** 40);
      }),
    `tensor "${WIDE}" reaches to byte 1099511627776`,
  );
  refuses(
    "one of nine dimensions",
    () => withTensor((tensor) => tensor.dims = [4n, 4n, 1n, 1n, 1n, 1n, 1n, 1n, 1n]),
    `tensor "${WIDE}" has 9 dimensions; at most 8 are read`,
  );
  refuses(
    "one of half a million dimensions, soon",
    () => withTensor((tensor) => tensor.dims = new Array(500_000).fill(2n ** 62n)),
    `tensor "${WIDE}" has 500000 dimensions`,
  );
  refuses(
    "one in the graph with fewer bytes than its shape has",
    () => withTensor((tensor) => tensor.dims = [2n], "f32_2"),
    'tensor "f32_2" should have 8 bytes and has 4',
  );
  refuses(
    "one in the graph with more",
    () => withTensor((tensor) => tensor.rawData = new Uint8Array(5), "f32_2"),
    'tensor "f32_2" should have 4 bytes and has 5',
  );
  refuses(
    "one without a name",
    () => withTensor((tensor) => tensor.name = ""),
    "an initializer has no name",
  );
  refuses(
    "one that is there twice",
    () => changed(({ graph }) => graph!.initializer.push(graph!.initializer[0])),
    `initializer "${WIDE}" is there twice`,
  );
  refuses(
    "one with a name of a megabyte, in few words",
    () => {
      const name = "w".repeat(1 << 20);
      return withTensor((tensor) => [tensor.name, tensor.dataType] = [name, 999]);
    },
    '"wwww',
    "has the unknown type 999",
  );
});

describe("a graph that does not hang together is refused:", () => {
  refuses(
    "one whose nodes wait for each other",
    () => changed(({ graph }) => graph!.node[0].input[0] = "normed"),
    'node "/first" reads "normed", which nothing before it makes',
  );
  refuses(
    "a node that reads itself",
    () => changed(({ graph }) => graph!.node[1].input[0] = "normed"),
    'node "/second" reads "normed"',
  );
  refuses(
    "nodes in the wrong order",
    () => changed(({ graph }) => graph!.node.reverse()),
    'node "/third" reads "normed"',
  );
  refuses(
    "a node that reads what nothing makes",
    () => changed(({ graph }) => graph!.node[1].input[1] = "nothing"),
    'node "/second" reads "nothing"',
  );
  refuses(
    "a node without a name that does, by its operator",
    () =>
      changed(({ graph }) => {
        graph!.node[1].name = "";
        graph!.node[1].input[1] = "nothing";
      }),
    'node "Mul" reads "nothing"',
  );
  const made: [string, string][] = [
    ["a value", "product"],
    ["an input", "x"],
    ["a weight", NORM],
  ];
  for (const [title, name] of made) {
    refuses(
      `a node that makes ${title} again`,
      () => changed(({ graph }) => graph!.node[1].output[0] = name),
      `node "/second" makes "${name}", which is there already`,
    );
  }
  refuses(
    "a node that makes the same value twice",
    () => changed(({ graph }) => graph!.node[1].output.push("normed")),
    'node "/second" makes "normed"',
  );
  refuses(
    "an output that nothing makes",
    () => changed(({ graph }) => graph!.output[0].name = "z"),
    'output "z" is made by nothing',
  );
});

/** Open files of this process, where the system tells. */
function openFiles(): number {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return 0;
  }
}

test("a model that is refused leaves no file open and is not changed", () => {
  const path = withTensor((tensor) => tensor.externalData[1].value = "80", NORM);
  const before = { open: openFiles(), bytes: readFileSync(path) };
  for (let i = 0; i < 10; i++) expect(refusal(path)).toContain(NORM);
  expect(openFiles()).toBe(before.open);
  expect(readFileSync(path)).toEqual(before.bytes);
});

test("data in the graph are not looked for in a file, whatever else the tensor says", () => {
  const file = ModelFile.open(withTensor((tensor) => {
    tensor.dataLocation = DataLocation.DEFAULT;
    tensor.rawData = new Uint8Array(64).fill(7);
    tensor.externalData.find(({ key }) => key === "location")!.value = "/etc/passwd";
  }));
  expect([...file.read(WIDE)]).toEqual(new Array(64).fill(7));
  file.close();
});
