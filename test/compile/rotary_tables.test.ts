/** The operator that makes rotary tables, through every ONNX Runtime that is here. */
import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "bun:test";
import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { emitTables } from "../../compile/emit.ts";
import { DOMAIN, DOMAIN_VERSION, operatorNamed } from "../../compile/functions.ts";
import { ROTARY_TABLES } from "../../compile/rotary_tables.ts";
import { openBackend } from "../../src/engine/ort/backend.ts";
import { hasNode } from "../../src/engine/ort/node_module.ts";
import { GraphBuilder, modelOf } from "../../src/onnx/builder.ts";
import {
  ModelProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as DataType,
} from "../../src/onnx/generated/onnx_pb.ts";
import { parseModel } from "../../src/onnx/model_file.ts";

const POSITIONS = 32_768;
/** Angles of up to 254,000, and those of a model. */
const FREQUENCIES = Float32Array.of(
  1,
  7.77,
  0.31,
  ...Array.from({ length: 29 }, (_, i) => 1e4 ** (-i / 29)),
);

/** A model that gives rows of tables. */
function modelWith(factor: number): Uint8Array {
  const b = new GraphBuilder("tables");
  b.input("positions", DataType.INT64, ["rows"]);
  const names = emitTables(b, { frequencies: FREQUENCIES, factor }, POSITIONS, "");
  for (const [i, output] of ["cosines", "sines"].entries()) {
    b.node("Gather", [names[i], "positions"], { outputs: [output] });
    b.output(output, DataType.FLOAT, ["rows", FREQUENCIES.length]);
  }
  const model = modelOf(b.graph);
  model.functions.push(operatorNamed(ROTARY_TABLES));
  model.opsetImport.push(create(OperatorSetIdProtoSchema, {
    domain: DOMAIN,
    version: BigInt(DOMAIN_VERSION),
  }));
  return toBinary(ModelProtoSchema, model);
}

for (const backend of hasNode() ? ["wasm", "node"] as const : ["wasm"] as const) {
  describe(`through ONNX Runtime (${backend})`, () => {
    for (const factor of [1, Math.fround(1.19)]) {
      test(`cosines and sines are those of angles in float32, times ${factor}`, async () => {
        const ort = await openBackend(backend, 1);
        const session = await ort.load(modelWith(factor));
        const positions = BigInt64Array.from({ length: POSITIONS }, (_, i) => BigInt(i));
        const found = await session.run({ positions: ort.int64(positions, [POSITIONS]) });
        await session.release();
        for (const [name, f] of [["cosines", Math.cos], ["sines", Math.sin]] as const) {
          const table = found[name].data as Float32Array;
          let most = 0;
          for (let p = 0, at = 0; p < POSITIONS; p++) {
            for (const frequency of FREQUENCIES) {
              const exact = factor * f(Math.fround(p * frequency));
              most = Math.max(most, Math.abs(table[at++] - exact));
            }
          }
          expect(most).toBeLessThan(2e-7);
        }
      });
    }
  });
}

(hasNode() ? test : test.skip)(
  "ONNX Runtime computes the tables when it loads a model",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "espalier-tables-"));
    try {
      const [model, optimised] = ["model.onnx", "optimised.onnx"].map((name) => join(folder, name));
      writeFileSync(model, modelWith(1));
      const { InferenceSession } = createRequire(import.meta.url)("onnxruntime-node");
      const session = await InferenceSession.create(model, {
        optimizedModelFilePath: optimised,
        logSeverityLevel: 3,
      });
      await session.release();
      const { node, initializer } = parseModel(readFileSync(optimised), optimised).graph!;
      expect(node.map(({ opType }) => opType)).toEqual(["Gather", "Gather"]);
      expect(initializer.map(({ dims }) => dims.map(Number)))
        .toEqual([[POSITIONS, FREQUENCIES.length], [POSITIONS, FREQUENCIES.length]]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
);
