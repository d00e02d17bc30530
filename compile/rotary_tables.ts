/**
 * The operator of domain `ai.espalier` that makes rotary tables of what they follow from.
 *
 * As with packed matrices, what it reads are constants, so a runtime folds it when it loads the model. Our
 * own engine computes the rows that its context needs.
 * @module
 */
import { TensorProto_DataType as DataType } from "../src/onnx/generated/onnx_pb.ts";
import type { FunctionBuilder } from "./function_builder.ts";

/** Cosines and sines `[positions, pairs]` by `frequencies`, which are `[pairs]`. */
export const ROTARY_TABLES = "RotaryTables";

/** Most positions of a table: more than the context of any model, and exact in float32. */
export const MOST_POSITIONS = 1 << 20;

/** Names of its inputs, outputs and attributes. */
export const ROTARY_SIGNATURE = {
  input: ["frequencies"],
  output: ["cosines", "sines"],
  attribute: ["positions", "factor"],
};

/** Its body: factor · cos(position · frequency), and the same with sines. Angles are rounded to float32. */
export function computeTables(f: FunctionBuilder): void {
  const positions = f.attribute("positions");
  const all = f.node("Range", [f.integer(0), positions, f.integer(1)]);
  const column = f.node("Unsqueeze", [f.cast(all, DataType.FLOAT), f.vector([-1])]);
  const angles = f.node("Mul", [column, "frequencies"]);
  const factor = f.floatAttribute("factor");
  f.node("Mul", [f.node("Cos", [angles]), factor], {}, "cosines");
  f.node("Mul", [f.node("Sin", [angles]), factor], {}, "sines");
}
