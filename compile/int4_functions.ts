/**
 * What operators do with int4 values: uint8 tensors with two levels a byte, unpacked by standard
 * operators of set 17.
 *
 * A level is moved to the upper half of its byte, which read as int8 is 16 times the level: a cast of
 * uint8 to int8 keeps the bits, and there is no other way to a sign that all builds of ONNX Runtime
 * have. So scales are taken a sixteenth as great, which is exact.
 * @module
 */
import { TensorProto_DataType as DataType } from "../src/onnx/generated/onnx_pb.ts";
import type { FunctionBuilder } from "./function_builder.ts";

/**
 * 16 times the levels of a sparse matrix, as int8 and in the shape that values have in other types.
 *
 * A bitmap may get one more, a 0: how many values it has is in its bits, and no shape may depend on
 * those.
 */
export function unpackInt4(f: FunctionBuilder, format: "nm" | "csr" | "bitmap" | "slots"): string {
  const all = f.node("Reshape", [levels(f, "values"), f.vector([-1])]);
  // Slots have sixteen values each: no half of a byte is left.
  if (format === "bitmap" || format === "slots") return signed(f, all);
  if (format === "csr") {
    const stored = f.node("Slice", [all, f.vector([0]), f.node("Shape", ["gaps"])]);
    return signed(f, stored);
  }
  const [rows, columns, n, m] = ["rows", "columns", "n", "m"].map((name) => f.attribute(name));
  const groups = f.node("Div", [columns, m]);
  const count = f.node("Mul", [f.node("Mul", [groups, n]), rows]);
  const stored = f.node("Slice", [all, f.vector([0]), f.shape(count)]);
  return f.node("Reshape", [signed(f, stored), f.shape(groups, n, rows)]);
}

/** y = x · Wᵀ, with W dense. */
export function multiplyInt4(f: FunctionBuilder): void {
  const [rows, columns, group] = ["rows", "columns", "group"].map((name) => f.attribute(name));
  const inRows = f.node("Reshape", [levels(f, "values"), f.shape(rows, f.integer(-1))]);
  const dense = f.node("Slice", [inRows, f.vector([0]), f.shape(columns), f.vector([1])]);
  const weights = f.node("CastLike", [f.turned(signed(f, dense)), "x"]);
  const groups = f.node("Div", [f.node("Range", [f.integer(0), columns, f.integer(1)]), group]);
  const scales = f.node("Gather", [f.turned(int4Scales(f)), groups]);
  f.node("MatMul", ["x", f.node("Mul", [weights, scales])], {}, "y");
}

/** Rows of a dense matrix as float32: `[…ids, columns]`. */
export function gatherInt4(f: FunctionBuilder): void {
  const [columns, group] = ["columns", "group"].map((name) => f.attribute(name));
  const apart = levels(f, f.node("Gather", ["values", "ids"]));
  const shape = f.node("Concat", [f.node("Shape", ["ids"]), f.vector([-1])], { axis: 0 });
  const last = f.vector([-1]);
  const inRows = f.node("Reshape", [apart, shape]);
  const rows = f.node("Slice", [inRows, f.vector([0]), f.shape(columns), last]);
  const weights = f.cast(signed(f, rows), DataType.FLOAT);
  const groups = f.node("Div", [f.node("Range", [f.integer(0), columns, f.integer(1)]), group]);
  const table = f.sixteenth(f.cast("scale_table", DataType.FLOAT));
  const stored = lookedUp(f, table, f.node("Gather", ["scales", "ids"]));
  const scales = f.node("Gather", [stored, groups], { axis: -1 });
  f.node("Mul", [weights, scales], {}, "y");
}

/** Scales for levels times 16. */
export function int4Scales(f: FunctionBuilder): string {
  return lookedUp(f, f.sixteenth(f.node("CastLike", ["scale_table", "x"])), "scales");
}

function lookedUp(f: FunctionBuilder, table: string, indices: string): string {
  return f.node("Gather", [table, f.cast(indices, DataType.INT32)]);
}

/** The halves of bytes, each in the upper half of a byte of its own: one axis more, of 2. */
function levels(f: FunctionBuilder, bytes: string): string {
  const apart = f.node("Unsqueeze", [bytes, f.vector([-1])]);
  const lifted = f.shift(apart, f.bytes([4, 0]), "LEFT");
  const four = f.bytes([4]);
  return f.shift(f.shift(lifted, four, "RIGHT"), four, "LEFT");
}

function signed(f: FunctionBuilder, bytes: string): string {
  return f.cast(bytes, DataType.INT8);
}
