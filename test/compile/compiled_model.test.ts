/**
 * Compiled models read back: right ones as they were packed, and damaged ones not at all, with what is
 * wrong and where. `test/onnx/fuzz.test.ts` changes them at random.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CompiledModel } from "../../compile/compiled_model.ts";
import { tensorsOf } from "../../compile/expand.ts";
import { inspectCompiled } from "../../compile/inspect.ts";
import {
  type NodeProto,
  type TensorProto,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
} from "../../src/onnx/generated/onnx_pb.ts";
import { modelBytes } from "../../src/onnx/model_file.ts";
import { largestAllocation, thrownBy } from "../checkpoint/support.ts";
import { CompileWorkshop, type How, modelOf } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

/** The linear that is changed. */
const LINEAR = "model.layers.1.mlp.up_proj";

/** The same model, compiled into every format. */
const compiled: Record<
  "nm" | "csr" | "bitmap" | "dense" | "f32" | "group" | "int4" | "int4Dense",
  string
> = {
  nm: "",
  csr: "",
  bitmap: "",
  dense: "",
  f32: "",
  group: "",
  int4: "",
  int4Dense: "",
};

beforeAll(async () => {
  const ways: Record<keyof typeof compiled, How> = {
    nm: { format: "nm" },
    csr: { format: "csr" },
    bitmap: { format: "bitmap" },
    dense: { format: "dense" },
    f32: { format: "nm", values: "f32" },
    group: { format: "bitmap", group: 16 },
    int4: { format: "nm", values: "int4" },
    int4Dense: { format: "dense", values: "int4" },
  };
  const source = await workshop.pruned("llama-bias-linear-rope", "2:4");
  for (const [name, how] of Object.entries(ways)) {
    compiled[name as keyof typeof compiled] = (await workshop.compile(source, how)).output;
  }
});

/** What may be changed: the node of {@linkcode LINEAR}, and tensors by their names. */
interface Parts {
  readonly node: NodeProto;
  /** A tensor; a name that begins with a dot is of {@linkcode LINEAR}. */
  tensor(name: string): TensorProto;
  /** Sets an attribute of the node. */
  set(name: string, value: bigint): void;
  /** Puts a tensor into the graph, with zeros for its data. */
  inline(tensor: TensorProto, type: DataType, dims: bigint[], bytes: number): void;
}

/**
 * A copy of a compiled model with its graph changed.
 *
 * @param renamed A tensor's name and its new one: nodes then read that.
 */
function changed(
  way: keyof typeof compiled,
  change: (parts: Parts) => void,
  renamed: [string, string] = ["", ""],
): string {
  const folder = workshop.fresh("changed");
  cpSync(compiled[way], folder, { recursive: true });
  const model = modelOf(folder);
  const { initializer, node } = model.graph!;
  const own = node.find(({ input }) => input.includes(`${LINEAR}.values`))!;
  change({
    node: own,
    tensor: (name) =>
      initializer.find((t) => t.name === (name.startsWith(".") ? LINEAR + name : name))!,
    set: (name, value) => own.attribute.find((attribute) => attribute.name === name)!.i = value,
    inline: (tensor, type, dims, bytes) => {
      Object.assign(tensor, { dims, dataType: type, rawData: new Uint8Array(bytes) });
      Object.assign(tensor, { dataLocation: DataLocation.DEFAULT, externalData: [] });
    },
  });
  for (const other of node) {
    other.input = other.input.map((name) => name === renamed[0] ? renamed[1] : name);
  }
  writeFileSync(join(folder, "onnx", "model.onnx"), modelBytes(model));
  return folder;
}

/** Reads all weights, as expand does. */
function readAll(folder: string): Map<string, Float32Array> {
  const model = CompiledModel.open(folder);
  try {
    return new Map(tensorsOf(model).map(({ name, read }) => [name, read()]));
  } finally {
    model.close();
  }
}

/** Checks that a model is refused by what inspect and what expand reads; returns the message. */
function refused(code: string, folder: string, ...parts: string[]): void {
  for (const read of [() => inspectCompiled(folder), () => readAll(folder)]) {
    let error: Error & { code?: string } = new Error();
    const allocated = largestAllocation(() => error = thrownBy(read));
    expect({ code: error.code, message: error.message }).toMatchObject({ code });
    for (const part of parts) expect(error.message).toContain(part);
    expect(allocated).toBeLessThan(1 << 20);
  }
}

test("inspectCompiled says that it takes a folder where it is given options", () => {
  for (const given of [undefined, null, "", 5, { model: "ONNX" }]) {
    expect(thrownBy(() => inspectCompiled(given as string)).name).toBe("UsageError");
  }
});

describe("a compiled model that is read back", () => {
  test("has the linears that were packed, with shape, format and bytes", async () => {
    const source = await workshop.pruned("qwen2", "8:16");
    const report = await workshop.compile(source, { format: "nm", values: "int8", group: 16 });
    const model = CompiledModel.open(report.output);
    try {
      expect(model.dtype).toBe("bf16");
      const found = model.linears().map(({ name, rows, columns, ...linear }) => ({
        name: `${name}.weight`,
        shape: [rows, columns],
        ...linear,
      }));
      expect(found).toEqual(
        report.linears.map(({ name, shape, pattern, bytes }) => ({
          name,
          shape: [...shape],
          format: "nm",
          pattern,
          values: "int8",
          bytes,
        })),
      );
      expect(() => model.plain("nothing")).toThrow('there is no tensor "nothing"');
    } finally {
      model.close();
    }
  });

  test("has the same weights in all formats", () => {
    const expected = readAll(compiled.nm);
    for (const folder of [compiled.csr, compiled.bitmap, compiled.dense]) {
      const found = readAll(folder);
      expect([...found.keys()]).toEqual([...expected.keys()]);
      for (const [name, values] of expected) {
        const bits = (array: Float32Array) => [...new Uint32Array(array.buffer)].join();
        expect({ name, same: bits(found.get(name)!) === bits(values) }).toEqual({
          name,
          same: true,
        });
      }
    }
  });

  test("takes little memory beside its weights", () => {
    const data = statSync(join(compiled.dense, "onnx", "model.onnx_data")).size;
    expect(largestAllocation(() => readAll(compiled.csr))).toBeLessThan(4 * data);
  });
});

describe("a packed linear is refused", () => {
  const name = `"${LINEAR}"`;
  const node = `node "/model/layers.1/up_proj/SparseMatMul`;

  test("when its operator is not known", () => {
    const folder = changed("nm", ({ node }) => node.opType = "SparseMatMulNMSquared");
    refused("ONNX_INVALID", folder, node, 'unknown operator "SparseMatMulNMSquared"', "newer");
  });

  test("when it is the operator of another format", () => {
    const folder = changed("nm", ({ node }) => node.opType = "SparseMatMulBitmapRowScaled");
    refused("PACKED_INVALID", folder, name, "values has 2560 elements, not 2563");
  });

  test("when it lacks a tensor", () => {
    for (const way of ["nm", "csr", "bitmap"] as const) {
      const folder = changed(way, ({ node }) => node.input.pop());
      refused("ONNX_INVALID", folder, node, "lacks its tensor scales");
    }
    refused(
      "ONNX_INVALID",
      changed("nm", ({ node }) => node.input[2] = node.input[0]),
      node,
      "lacks its tensor codes",
    );
  });

  test("when it lacks an attribute", () => {
    const without = (way: keyof typeof compiled, gone: string) =>
      changed(way, ({ node }) => {
        node.attribute = node.attribute.filter(({ name }) => name !== gone);
      });
    refused("ONNX_INVALID", without("nm", "rows"), node, "NaN × 64 weights");
    refused("ONNX_INVALID", without("csr", "columns"), node, "80 × NaN weights");
    refused("ONNX_INVALID", without("nm", "bits"), node, "NaN bits for M = 4");
    refused("PACKED_INVALID", without("nm", "n"), name, "NaN:4");
    refused("PACKED_INVALID", without("group", "group"), name, "groups of NaN");
  });

  test("when a tensor has another type", () => {
    const as = (way: keyof typeof compiled, part: string, type: DataType, elements: bigint) =>
      changed(way, ({ tensor, inline }) => inline(tensor(part), type, [elements], 4 * 80));
    refused("ONNX_INVALID", as("nm", ".codes", DataType.FLOAT, 80n), node, "codes as FLOAT");
    refused("ONNX_INVALID", as("nm", ".codes", DataType.INT8, 320n), node, "codes as INT8");
    refused("ONNX_INVALID", as("csr", ".gaps", DataType.INT32, 80n), node, "gaps as INT32");
    refused(
      "ONNX_INVALID",
      as("csr", ".row_pointers", DataType.UINT8, 320n),
      node,
      "row_pointers as UINT8, not INT32",
    );
    refused("ONNX_INVALID", as("bitmap", ".scales", DataType.INT32, 80n), node, "scales as INT32");
    refused("ONNX_INVALID", as("bitmap", ".values", DataType.INT32, 80n), ".values", "INT32");
  });

  test("when values have scales that they do not need, or need some", () => {
    const unscaled = changed("nm", ({ node }) => node.opType = "SparseMatMulNM");
    refused("ONNX_INVALID", unscaled, node, "int8 values without scales");
    const scaled = changed("f32", ({ node, tensor, inline }) => {
      node.opType = "SparseMatMulNMRowScaled";
      const norm = tensor("model.norm.weight");
      inline(norm, DataType.FLOAT, [80n], 320);
      node.input.push(norm.name);
    });
    refused("ONNX_INVALID", scaled, node, "values that are not int8, and scales");
  });

  test("when int4 values or their scales are none, or not for groups that there are", () => {
    for (const way of ["int4", "int4Dense"] as const) {
      const part = (name: string, type: DataType, elements: bigint, bytes: number) =>
        changed(way, ({ tensor, inline }) => inline(tensor(name), type, [elements], bytes));
      const matrix = `node "/model/layers.1/up_proj/`;
      const int8 = part(".values", DataType.INT8, 2560n, 2560);
      refused("ONNX_INVALID", int8, matrix, "values as INT8, which its operator has not");
      const wide = part(".scales", DataType.FLOAT, 80n, 320);
      refused("ONNX_INVALID", wide, matrix, "scales as FLOAT, not UINT8");
      // What is inline is zeros.
      refused("PACKED_INVALID", part(".scale_table", DataType.FLOAT16, 256n, 512), name, "is 0");
      const short = part(".scale_table", DataType.FLOAT16, 255n, 510);
      refused("PACKED_INVALID", short, name, "scale_table has 255 scales, not 256");
      refused("PACKED_INVALID", part(".scales", DataType.UINT8, 79n, 79), name, "scales has 79");
      refused("PACKED_INVALID", part(".values", DataType.UINT8, 9n, 9), name, "has 9 bytes");
      const odd = changed(way, ({ set }) => set("group", 48n));
      refused("ONNX_INVALID", odd, matrix, "groups of 48, not 32, 64 or 128");
    }
    const int8 = changed("nm", ({ node }) => node.opType = "SparseMatMulNMInt4");
    refused("ONNX_INVALID", int8, node);
  });

  test("when its codes have other bits than M asks for", () => {
    const folder = changed("nm", ({ set }) => set("bits", 4n));
    refused("ONNX_INVALID", folder, node, "codes of 4 bits for M = 4");
  });

  test("when its shape is none, or another than its data have", () => {
    const shape = (way: keyof typeof compiled, rows: bigint, columns: bigint) =>
      changed(way, ({ set }) => {
        set("rows", rows);
        set("columns", columns);
      });
    for (const way of ["nm", "csr", "bitmap"] as const) {
      refused("ONNX_INVALID", shape(way, 0n, 64n), node, "0 × 64 weights");
      refused("ONNX_INVALID", shape(way, -80n, -64n), node, "-80 × -64 weights");
      refused("PACKED_INVALID", shape(way, 80n, 128n), name);
      refused("PACKED_INVALID", shape(way, 40n, 64n), name);
    }
  });

  test("when it claims more weights than its bytes can hold, before memory is taken", () => {
    for (const way of ["nm", "csr", "bitmap"] as const) {
      for (const columns of [2n ** 24n, 2n ** 31n, 2n ** 53n, 2n ** 63n - 1n]) {
        const folder = changed(way, ({ set }) => set("columns", columns));
        refused("ONNX_INVALID", folder, node, "bytes, which cannot be 80 ×");
      }
    }
    // One entry and the end of one row: what CSR needs for a row of zeros, however long.
    const row = (columns: bigint) =>
      changed("csr", ({ tensor, inline, set }) => {
        inline(tensor(".values"), DataType.INT8, [1n], 1);
        inline(tensor(".gaps"), DataType.UINT8, [1n], 1);
        inline(tensor(".scales"), DataType.FLOAT, [1n], 4);
        tensor(".scales").rawData[3] = 0x3f;
        inline(tensor(".row_pointers"), DataType.INT32, [2n], 8);
        tensor(".row_pointers").rawData[4] = 1;
        set("rows", 1n);
        set("columns", columns);
      });
    refused("ONNX_INVALID", row(2n ** 30n), node, "14 bytes, which cannot be 1 × 1073741824");
    expect(readAll(row(65536n)).get(`${LINEAR}.weight`)).toEqual(new Float32Array(65536));
  });

  test("when it has the name of a tensor that is there", () => {
    const folder = changed("nm", ({ tensor, node }) => {
      tensor(".values").name = `${LINEAR}.bias.values`;
      node.input[1] = `${LINEAR}.bias.values`;
      tensor(".bias").name = `${LINEAR}.bias.weight`;
    }, [`${LINEAR}.bias`, `${LINEAR}.bias.weight`]);
    expect(thrownBy(() => readAll(folder)).message)
      .toContain(`"${LINEAR}.bias.weight" is there twice`);
  });
});

describe("a dense tensor is refused", () => {
  const weight = `${LINEAR}.weight`;

  test("when it is int8 without scales, or with too few", () => {
    refused(
      "ONNX_INVALID",
      changed("dense", ({ tensor }) => tensor(".scales").dataType = DataType.INT32),
      `"${weight}" is int8 without scales`,
    );
    const folder = changed("dense", ({ tensor, inline }) => {
      inline(tensor(".scales"), DataType.FLOAT, [79n], 316);
    });
    refused("PACKED_INVALID", folder, weight, "scales has 79 elements, not 80");
  });

  test("when its int8 values or scales are none", () => {
    const zero = changed("dense", ({ tensor, inline }) => {
      inline(tensor(".scales"), DataType.FLOAT, [80n], 320);
    });
    refused("PACKED_INVALID", zero, weight, "a scale is above 0");
    const least = changed("dense", ({ tensor, inline }) => {
      inline(tensor(".weight"), DataType.INT8, [80n, 64n], 80 * 64);
      tensor(".weight").rawData[7] = 0x80;
    });
    refused("PACKED_INVALID", least, weight, "element 7 is -128");
  });

  test("when a bias is int8: nothing says how it is scaled", () => {
    const folder = changed("nm", ({ tensor, inline }) => {
      inline(tensor(".bias"), DataType.INT8, [80n], 80);
    });
    expect(inspectCompiled(folder).linears).toHaveLength(21);
    expect(thrownBy(() => readAll(folder)).message)
      .toContain(`"${LINEAR}.bias" is int8 without scales`);
  });

  test("when it is not finite, or of a type that weights do not have", () => {
    const nan = changed("nm", ({ tensor, inline }) => {
      inline(tensor(".bias"), DataType.FLOAT, [80n], 320);
      tensor(".bias").rawData.set([0, 0, 0xc0, 0x7f], 8);
    });
    const error = thrownBy(() => readAll(nan));
    expect([error.code, error.message.includes("at element 2")]).toEqual(["NOT_FINITE", true]);
    const integers = changed("nm", ({ tensor, inline }) => {
      inline(tensor(".bias"), DataType.INT64, [80n], 640);
    });
    expect(thrownBy(() => readAll(integers)).code).toBe("TENSOR_TYPE");
  });

  test("when the graph says its shape but holds no data of it", () => {
    const folder = changed("nm", ({ tensor, inline }) => {
      inline(tensor(".bias"), DataType.FLOAT, [2n ** 36n], 0);
    });
    const allocated = largestAllocation(() => {
      expect(thrownBy(() => readAll(folder)).message).toContain("has 0 of its 274877906944 bytes");
    });
    expect(allocated).toBeLessThan(1 << 20);
  });
});

describe("what lies beside the graph", () => {
  function beside(name: string, content: string): string {
    const folder = workshop.fresh("beside");
    cpSync(compiled.nm, folder, { recursive: true });
    writeFileSync(join(folder, name), content);
    return folder;
  }

  test("must be the record of a compiled model, and a config", () => {
    for (
      const record of ["{}", "[]", "null", '{"kind":"pruned"}', '{"kind":"compiled","dtype":"i8"}']
    ) {
      refused("CHECKPOINT_NOT_FOUND", beside("espalier.json", record), "espalier.json");
    }
    refused("FILE_UNREADABLE", beside("espalier.json", "{"), "not valid JSON");
    for (const config of ["[]", "null", "7"]) {
      refused("CONFIG_INVALID", beside("config.json", config), "config.json is not a JSON object");
    }
    refused("FILE_UNREADABLE", beside("config.json", "{"), "not valid JSON");
  });

  test("may be a record without a type: weights become float32 then", () => {
    const folder = beside("espalier.json", '{"kind":"compiled","more":1}');
    const model = CompiledModel.open(folder);
    model.close();
    expect(model.dtype).toBe("f32");
  });

  test("is not changed by reading", () => {
    const before = readFileSync(join(compiled.csr, "onnx", "model.onnx_data"));
    inspectCompiled(compiled.csr);
    readAll(compiled.csr);
    expect(readFileSync(join(compiled.csr, "onnx", "model.onnx_data"))).toEqual(before);
  });
});
