/**
 * Dense int4 matrices through ONNX Runtime: products and rows, as the weights that a reader gets.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  DOMAIN,
  DOMAIN_VERSION,
  GATHER_INT4,
  operatorName,
  operatorNamed,
} from "../../compile/functions.ts";
import {
  indexScales,
  packNibbleRows,
  toInt4,
  unpackNibbleRows,
} from "../../compile/packed/int4.ts";
import { narrow, widen } from "../../compile/packed/quantize.ts";
import { openBackend } from "../../src/engine/ort/backend.ts";
import { hasNode } from "../../src/engine/ort/node_module.ts";
import { GraphBuilder, modelOf } from "../../src/onnx/builder.ts";
import {
  ModelProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
} from "../../src/onnx/generated/onnx_pb.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

const random = uniformNumbers(5);

function int4(rows: number, columns: number, group: number) {
  const values = Float32Array.from({ length: rows * columns }, () => random() - 0.5);
  const matrix = { name: "w", rows, columns, values };
  const stored = narrow(matrix, { type: "int4", group });
  if (stored.type !== "int4") throw new Error("int4 was asked for");
  return { matrix, stored, dense: widen(stored, matrix) };
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Runs one node of an int4 operator. */
async function run(
  name: string,
  backend: "node" | "wasm",
  { matrix, stored }: ReturnType<typeof int4>,
  input: { x: Float32Array } | { ids: bigint[] },
): Promise<Float32Array> {
  const { rows, columns } = matrix;
  if (stored.type !== "int4") throw new Error("int4 was asked for");
  const b = new GraphBuilder("test");
  const isProduct = "x" in input;
  if (isProduct) b.input("in", DataType.FLOAT, ["tokens", columns]);
  else b.input("in", DataType.INT64, ["batch", "sequence"]);
  const { indices, table } = indexScales(stored.scales);
  const tensors = {
    values: [DataType.UINT8, [rows, Math.ceil(columns / 2)], packNibbleRows(stored.data, matrix)],
    scales: [DataType.UINT8, [rows, stored.scales.length / rows], indices],
    scale_table: [DataType.FLOAT16, [256], table],
  } as const;
  for (const [part, [dataType, dims, array]] of Object.entries(tensors)) {
    b.graph.initializer.push(create(TensorProtoSchema, {
      name: part,
      dataType,
      dims: dims.map(BigInt),
      rawData: bytesOf(array),
    }));
  }
  b.node(name, ["in", "values", "scales", "scale_table"], {
    domain: DOMAIN,
    attributes: { rows, columns, group: stored.group },
    outputs: ["y"],
  });
  b.output("y", DataType.FLOAT, isProduct ? ["tokens", rows] : ["batch", "sequence", columns]);
  const model = modelOf(b.graph);
  model.functions.push(operatorNamed(name));
  model.opsetImport.push(create(OperatorSetIdProtoSchema, {
    domain: DOMAIN,
    version: BigInt(DOMAIN_VERSION),
  }));
  const ort = await openBackend(backend, 1);
  const session = await ort.load(toBinary(ModelProtoSchema, model));
  const feed = isProduct
    ? ort.floats(input.x, [input.x.length / columns, columns])
    : ort.int64(BigInt64Array.from(input.ids), [1, input.ids.length]);
  const { y } = await session.run({ in: feed });
  await session.release();
  return y.data as Float32Array;
}

const SHAPES = [[9, 64, 64], [16, 45, 32], [3, 200, 128], [5, 31, 64]] as const;

for (const backend of hasNode() ? ["wasm", "node"] as const : ["wasm"] as const) {
  describe(`through ONNX Runtime (${backend}), a dense int4 matrix`, () => {
    for (const [rows, columns, group] of SHAPES) {
      test(`of ${rows} × ${columns}, ${group} columns a scale, multiplies as its weights`, async () => {
        const made = int4(rows, columns, group);
        const x = Float32Array.from({ length: 3 * columns }, () => random() - 0.5);
        const y = await run(operatorName("dense", "int4"), backend, made, { x });
        expect(y.length).toBe(3 * rows);
        y.forEach((value, i) => {
          const [token, row] = [Math.floor(i / rows), i % rows];
          let sum = 0;
          for (let c = 0; c < columns; c++) {
            sum += x[token * columns + c] * made.dense[row * columns + c];
          }
          expect(Math.abs(value - sum)).toBeLessThan(1e-5);
        });
      });

      test(`of ${rows} × ${columns}, ${group} columns a scale, gives its rows to the last bit`, async () => {
        const made = int4(rows, columns, group);
        const ids = [rows - 1, 0, rows - 1, 1];
        const y = await run(GATHER_INT4, backend, made, { ids: ids.map(BigInt) });
        const wanted = ids.flatMap((
          id,
        ) => [...made.dense.subarray(id * columns, (id + 1) * columns)]);
        expect([...y].map((value) => value + 0)).toEqual(wanted);
      });
    }
  });
}

test("rows of an odd number of columns begin at bytes of their own", () => {
  const { matrix } = int4(4, 7, 32);
  const stored = toInt4(matrix, 32);
  if (stored.type !== "int4") throw new Error("int4 was asked for");
  const bytes = packNibbleRows(stored.data, matrix);
  expect(bytes.length).toBe(16);
  expect(unpackNibbleRows(bytes, matrix)).toEqual(stored.data);
});
