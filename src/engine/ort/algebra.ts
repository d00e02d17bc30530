/**
 * Products of matrices by ONNX Runtime, for whoever prunes with more than a mask.
 * @module
 */
import { toBinary } from "@bufbuild/protobuf";
import { throwIfAborted } from "../../checks.ts";
import { GraphBuilder, modelOf } from "../../onnx/builder.ts";
import {
  ModelProtoSchema,
  TensorProto_DataType as DataType,
} from "../../onnx/generated/onnx_pb.ts";
import { letEventsIn } from "../../platform/events.ts";
import type { Algebra, Matrix, ProductOptions } from "../../prune/matrix.ts";
import type { Backend, Session } from "./backend.ts";

/** Multiplies on a backend; {@linkcode close} it when done. */
export class OrtAlgebra implements Algebra {
  readonly #backend: Backend;
  readonly #sessions = new Map<string, Promise<Session>>();

  readonly #signal: AbortSignal | undefined;

  /** @param signal Stops between two products: there are hundreds of a linear, of a wide one for minutes. */
  constructor(backend: Backend, signal?: AbortSignal) {
    this.#backend = backend;
    this.#signal = signal;
  }

  /** @throws {AbortError} When the signal says so. */
  async product(a: Matrix, b: Matrix, options: ProductOptions = {}): Promise<Matrix> {
    const { transposeA = false, transposeB = false } = options;
    if (this.#signal) await letEventsIn();
    throwIfAborted(this.#signal);
    const session = await this.#session(transposeA, transposeB);
    const { y } = await session.run({
      a: this.#backend.floats(a.data, [a.rows, a.columns]),
      b: this.#backend.floats(b.data, [b.rows, b.columns]),
    });
    return { data: y.data as Float32Array, rows: y.dims[0], columns: y.dims[1] };
  }

  /** Frees its sessions. */
  async close(): Promise<void> {
    for (const session of this.#sessions.values()) await (await session).release();
    this.#sessions.clear();
  }

  #session(transposeA: boolean, transposeB: boolean): Promise<Session> {
    const key = `${transposeA} ${transposeB}`;
    let session = this.#sessions.get(key);
    if (!session) {
      const model = productModel(transposeA, transposeB);
      this.#sessions.set(key, session = this.#backend.load(model));
    }
    return session;
  }
}

function productModel(transposeA: boolean, transposeB: boolean): Uint8Array {
  const builder = new GraphBuilder("product");
  const a = builder.input("a", DataType.FLOAT, ["a_rows", "a_columns"]);
  const b = builder.input("b", DataType.FLOAT, ["b_rows", "b_columns"]);
  builder.node("Gemm", [a, b], {
    outputs: ["y"],
    attributes: { transA: Number(transposeA), transB: Number(transposeB) },
  });
  builder.output("y", DataType.FLOAT, ["rows", "columns"]);
  return toBinary(ModelProtoSchema, modelOf(builder.graph));
}
