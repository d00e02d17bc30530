/**
 * `inspect` of a compiled model: how each linear is packed, and what it would take otherwise.
 * @module
 */
import { join } from "node:path";
import { UsageError } from "../src/errors.ts";
import type { NodeProto } from "../src/onnx/generated/onnx_pb.ts";
import { fileSize } from "../src/platform/paths.ts";
import { atOnce, type Steps } from "../src/platform/steps.ts";
import type { CompiledLinear } from "./compile.ts";
import { CompiledModel } from "./compiled_model.ts";
import { countNonzeros } from "./packed/quantize.ts";

/** One linear of a compiled model. */
export interface CompiledLinearReport extends CompiledLinear {
  /** Name of its weight in the checkpoint, without `.weight`. */
  readonly name: string;
  /** Fraction of weights that are 0, counted in what is stored. */
  readonly sparsity: number;
  readonly bytesPerWeight: number;
}

/** What `inspect` found in a compiled model. */
export interface CompiledInspectReport {
  readonly model: string;
  readonly kind: "compiled";
  readonly architecture: string;
  readonly linears: readonly CompiledLinearReport[];
  readonly totals: {
    readonly weights: number;
    readonly sparsity: number;
    readonly bytes: number;
    readonly bytesPerWeight: number;
    /** Bytes of all files in `onnx/`. */
    readonly fileBytes: number;
    /** What the same linears take dense. */
    readonly dense: { readonly f16: number; readonly int8: number; readonly int4: number };
  };
}

/** Bytes a weight of dense int4 in blocks of 32 with a float16 scale each. */
const INT4_BYTES = 0.5 + 2 / 32;

/** Names of what belongs to a block: `model.layers.3.…`, `transformer.h.3.…`. */
const IN_A_BLOCK = /\.\d+\./;
/** What a matrix may go through before it is multiplied with. */
const ON_THE_WAY = new Set(["DequantizeLinear", "Cast", "Transpose"]);

/**
 * Looks into a compiled model: every packed tensor is read and checked.
 *
 * @param folder Its folder.
 * @throws {UsageError} When that is no path.
 * @throws {CheckpointNotFoundError} When the folder holds none.
 * @throws {OnnxError} When its graph or data are damaged.
 * @throws {PackedFormatError} When a packed tensor is.
 */
export function inspectCompiled(folder: string): CompiledInspectReport {
  return atOnce(inspectCompiledInSteps(folder));
}

/** The same, with a step for each linear. */
export function* inspectCompiledInSteps(folder: string): Steps<CompiledInspectReport> {
  // Who writes JavaScript may hand over options, as `inspect` takes them.
  if (typeof folder !== "string" || folder === "") {
    throw new UsageError('inspectCompiled takes the path of a folder: inspectCompiled("ONNX")');
  }
  const model = CompiledModel.open(folder);
  try {
    // Tables in int4 have operators too.
    const linearsOnly = model.linears().filter(({ name, format }) =>
      format !== "dense" || IN_A_BLOCK.test(name)
    );
    const linears: CompiledLinearReport[] = [];
    for (const linear of linearsOnly) {
      const { name, rows, columns, format, pattern, values, bytes } = linear;
      const weights = rows * columns;
      linears.push({
        name,
        shape: [rows, columns],
        format,
        pattern,
        values,
        sparsity: 1 - countNonzeros(model.dense(name)) / weights,
        bytes,
        bytesPerWeight: bytes / weights,
      });
      yield;
    }
    const multiplied = multipliedIn(model.file.graph.node);
    const dense = [...model.file.tensors.values()]
      .filter(({ name }) => IN_A_BLOCK.test(name) && name.endsWith(".weight"))
      // Norms of heads may have two dimensions, too.
      .filter(({ name }) => multiplied.has(name))
      .filter(({ dims }) => dims.length === 2 && dims.every((dim) => dim > 0n));
    for (const tensor of dense) {
      const [rows, columns] = tensor.dims.map(Number);
      const values = model.plain(tensor.name);
      const scales = model.file.tensors.get(tensor.name.replace(/weight$/, "scales"));
      const bytes = model.file.bytesOf(tensor) + (scales ? 4 * rows : 0);
      linears.push({
        name: tensor.name.replace(/\.weight$/, ""),
        shape: [rows, columns],
        format: "dense",
        values: scales ? "int8" : bytes === 4 * values.length ? "f32" : "f16",
        sparsity: 1 - countNonzeros(values) / values.length,
        bytes,
        bytesPerWeight: bytes / values.length,
      });
      yield;
    }
    const weights = linears.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
    const rows = linears.reduce((sum, { shape }) => sum + shape[0], 0);
    const bytes = linears.reduce((sum, { bytes }) => sum + bytes, 0);
    const zeros = linears.reduce(
      (sum, { shape, sparsity }) => sum + shape[0] * shape[1] * sparsity,
      0,
    );
    const fileBytes = ["model.onnx", "model.onnx_data"].reduce(
      (sum, name) => sum + (fileSize(join(folder, "onnx", name)) ?? 0),
      0,
    );
    return {
      model: model.name,
      kind: "compiled",
      architecture: typeof model.config.model_type === "string"
        ? model.config.model_type
        : "unknown",
      linears,
      totals: {
        weights,
        sparsity: weights === 0 ? 0 : zeros / weights,
        bytes,
        bytesPerWeight: weights === 0 ? 0 : bytes / weights,
        fileBytes,
        dense: {
          f16: 2 * weights,
          int8: weights + 4 * rows,
          int4: Math.ceil(INT4_BYTES * weights),
        },
      },
    };
  } finally {
    model.close();
  }
}

/** Names of what matrices are multiplied with, and of what becomes of it on the way. */
function multipliedIn(nodes: readonly NodeProto[]): ReadonlySet<string> {
  const found = new Set<string>();
  // Nodes come behind those whose outputs they take.
  for (const { opType, input, output } of nodes.toReversed()) {
    const passesOn = ON_THE_WAY.has(opType) && output.some((name) => found.has(name));
    if (opType === "MatMul" || opType === "Gemm" || passesOn) {
      for (const name of input) found.add(name);
    }
  }
  return found;
}
