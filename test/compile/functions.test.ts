import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { DOMAIN, DOMAIN_VERSION, operator } from "../../compile/functions.ts";
import { emit, type Packed, store } from "../../compile/emit.ts";
import { decodeBitmap, encodeBitmap } from "../../compile/packed/bitmap.ts";
import { decodeCsr, encodeCsr } from "../../compile/packed/csr.ts";
import { decodeNm, encodeNm } from "../../compile/packed/nm.ts";
import { decodeSlots, encodeSlots } from "../../compile/packed/slots.ts";
import type { Matrix, ValueOptions } from "../../compile/packed/types.ts";
import { openBackend } from "../../src/engine/ort/backend.ts";
import { hasNode } from "../../src/engine/ort/node_module.ts";
import { GraphBuilder, modelOf } from "../../src/onnx/builder.ts";
import {
  ModelProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
} from "../../src/onnx/generated/onnx_pb.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

const random = uniformNumbers(7);
const gaussian = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** A matrix of which about `density` is kept; `m`: in every m neighbours exactly density · m. */
function matrix(rows: number, columns: number, density: number, m = 0): Matrix {
  const values = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const kept = m ? ((c + r) % m) < density * m : random() < density;
      if (kept) values[r * columns + c] = gaussian();
    }
  }
  return { name: "w", rows, columns, values };
}

/** y = x · Wᵀ through ONNX Runtime, with the tensors inside the model. */
async function run(packed: Packed, x: Float32Array, backend: "node" | "wasm") {
  const b = new GraphBuilder("test");
  const { rows, columns } = packed.matrix;
  b.input("x", DataType.FLOAT, ["tokens", columns]);
  const chunks: ArrayBufferView[] = [];
  const stored = store(packed, (elements) => {
    chunks.push(elements);
    return { location: "", offset: chunks.length - 1, length: elements.byteLength };
  });
  emit(b, "x", "w", stored, "y");
  b.output("y", DataType.FLOAT, ["tokens", rows]);
  b.graph.initializer.filter((t) => t.dataLocation === DataLocation.EXTERNAL).forEach((t, i) => {
    t.dataLocation = DataLocation.DEFAULT;
    t.externalData = [];
    t.rawData = new Uint8Array(chunks[i].buffer, chunks[i].byteOffset, chunks[i].byteLength);
  });
  const model = modelOf(b.graph);
  model.functions.push(operator(stored.format, stored.scaling));
  model.opsetImport.push(create(OperatorSetIdProtoSchema, {
    domain: DOMAIN,
    version: BigInt(DOMAIN_VERSION),
  }));
  const ort = await openBackend(backend, 1);
  const session = await ort.load(toBinary(ModelProtoSchema, model));
  const { y } = await session.run({ x: ort.floats(x, [x.length / columns, columns]) });
  await session.release();
  return y.data as Float32Array;
}

function naive(x: Float32Array, dense: Float32Array, rows: number, columns: number) {
  return Float32Array.from({ length: x.length / columns * rows }, (_, i) => {
    const t = Math.floor(i / rows);
    const r = i % rows;
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += x[t * columns + c] * dense[r * columns + c];
    return sum;
  });
}

const valueOptions: [string, ValueOptions][] = [
  ["f32", { type: "f32" }],
  ["f16", { type: "f16" }],
  ["int8", { type: "int8" }],
  ["int8 in groups of 16", { type: "int8", group: 16 }],
  ["int4", { type: "int4", group: 32 }],
];

for (const backend of hasNode() ? ["wasm", "node"] as const : ["wasm"] as const) {
  describe(`through ONNX Runtime (${backend}), a packed matrix multiplies as its dense form`, () => {
    for (const [title, options] of valueOptions) {
      const cases: [string, () => { packed: Packed; dense: Float32Array }][] = [
        ...([[2, 4], [4, 8], [8, 16], [4, 16], [1, 2], [8, 32]] as const).map((
          [n, m],
        ): [string, () => { packed: Packed; dense: Float32Array }] => [`${n}:${m}`, () => {
          const packed = encodeNm(matrix(13, 64, n / m, m), { n, m }, options);
          return { packed: { format: "nm", matrix: packed }, dense: decodeNm(packed) };
        }]),
        ["csr", () => {
          const packed = encodeCsr(matrix(11, 48, 0.3), options);
          return { packed: { format: "csr", matrix: packed }, dense: decodeCsr(packed) };
        }],
        ["csr with gaps over 255", () => {
          const packed = encodeCsr(matrix(40, 80, 0.002), options);
          return { packed: { format: "csr", matrix: packed }, dense: decodeCsr(packed) };
        }],
        ["bitmap", () => {
          const columns = options.group ? 48 : 45;
          const packed = encodeBitmap(matrix(9, columns, 0.4), options);
          return { packed: { format: "bitmap", matrix: packed }, dense: decodeBitmap(packed) };
        }],
        // An odd number of windows; at 0 and 1 no window has bits of its own.
        ...[0, 0.02, 0.2, 0.5, 1].map((
          density,
        ): [string, () => { packed: Packed; dense: Float32Array }] => [
          `slots, ${density} kept`,
          () => {
            const packed = encodeSlots(matrix(12, 80, density), options);
            return { packed: { format: "slots", matrix: packed }, dense: decodeSlots(packed) };
          },
        ]),
      ];
      for (const [name, make] of cases) {
        test(`${name}, ${title}`, async () => {
          const { packed, dense } = make();
          const { rows, columns } = packed.matrix;
          const x = Float32Array.from({ length: 3 * columns }, gaussian);
          const y = await run(packed, x, backend);
          const expected = naive(x, dense, rows, columns);
          const scale = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 1e-6);
          y.forEach((value, i) => expect(Math.abs(value - expected[i])).toBeLessThan(1e-5 * scale));
        });
      }
    }
  });
}
