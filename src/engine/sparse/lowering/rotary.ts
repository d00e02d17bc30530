/**
 * Rotary positions: tables, stored or computed, and what is turned by them.
 * @module
 */
import { MOST_POSITIONS } from "../../../../compile/rotary_tables.ts";
import {
  type NodeProto,
  type TensorProto,
  TensorProto_DataType as DataType,
} from "../../../onnx/generated/onnx_pb.ts";
import { quote } from "../../../checks.ts";
import type { RotaryTables } from "../ir.ts";
import type { Meaning } from "./meaning.ts";
import { NodeView } from "./node_view.ts";
import type { StepList } from "./step_list.ts";
import { checkMatrix, checkShape, flat } from "./weights.ts";

/** More pairs of elements than a head of any model has. */
const MOST_PAIRS = 4096;

/** `RotaryTables(frequencies)`: cosines and sines, of which an engine computes the rows that it needs. */
export function makeTables(view: NodeView): Meaning[] {
  const tables = tablesOf(view);
  return (["cosines", "sines"] as const).map((part) => ({ kind: "rotary table", part, tables }));
}

/**
 * Reads a node that makes rotary tables.
 *
 * @param tensors The graph's initializers by name.
 * @param path The model's file, for messages.
 * @throws {OnnxError} When it is damaged.
 * @throws {UnsupportedOperatorError} When it is made in another way than ours.
 */
export function readRotaryTables(
  node: NodeProto,
  tensors: ReadonlyMap<string, TensorProto>,
  path: string,
): RotaryTables {
  const meanings = new Map<string, Meaning>();
  for (const name of node.input) {
    const tensor = tensors.get(name);
    if (tensor) meanings.set(name, { kind: "tensor", tensor, transposed: false, wide: false });
  }
  const view = new NodeView(node, meanings, path);
  const tables = tablesOf(view);
  view.finish();
  return tables;
}

function tablesOf(view: NodeView): RotaryTables {
  const { tensor } = view.input(0, "tensor");
  const frequencies = view.numbers(0, "floats", MOST_PAIRS);
  checkShape(view, tensor, [Math.max(1, frequencies.length)]);
  const positions = view.integer("positions");
  if (!(positions >= 1 && positions <= MOST_POSITIONS)) {
    throw view.damaged(`makes tables of ${positions} positions; 1 to ${MOST_POSITIONS} can be`);
  }
  const wrong = frequencies.find((angle) => !Number.isFinite(Math.fround(angle * positions)));
  if (wrong !== undefined) throw view.damaged(`turns by the frequency ${wrong}`);
  const factor = view.float("factor");
  return { kind: "computed", positions, pairs: frequencies.length, frequencies, factor };
}

/** `RotaryEmbedding(x, positions, cosines, sines)`. */
export function rotate(view: NodeView, steps: StepList): Meaning {
  const x = flat(view, 0);
  if (x.lastOnly) throw view.unsupported("turns the last token alone");
  const positions = view.input(1, "ids");
  if (positions.of !== "positions" || positions.offset !== 0) {
    throw view.unsupported("turns by something that is not position_ids");
  }
  const tables = tablesRead(view);
  view.expectInteger("is_packed_batching", 0);
  view.expectInteger("interleaved", 0, 1);
  const interleaved = view.integer("interleaved", 0) === 1;
  if (view.float("scale", 1) !== 1) throw view.unsupported("scales positions");
  const turned = 2 * tables.pairs;
  // Without it, whole heads are turned.
  const isPart = view.integer("rotary_embedding_dim", 0) !== 0;
  if (isPart) view.expectInteger("rotary_embedding_dim", turned);
  const width = steps.widthOf(x.value);
  const heads = view.integer("num_heads", 0) || width / turned;
  const headDim = width / heads;
  const fits = Number.isInteger(headDim) && (isPart ? turned <= headDim : turned === headDim);
  if (!(heads >= 1 && turned >= 2 && fits)) {
    throw view.damaged(
      `turns ${width} elements as ${heads} heads by tables for heads of ${turned}`,
    );
  }
  const output = steps.value(width);
  steps.push({ op: "rotary", input: x.value, output, heads, turned, interleaved, tables });
  return { ...x, value: output };
}

/** The tables that a node turns by: what another makes, or tensors. */
function tablesRead(view: NodeView): RotaryTables {
  const [cosines, sines] = [view.meaning(2), view.meaning(3)];
  if (cosines.kind === "rotary table" && sines.kind === "rotary table") {
    const { tables } = cosines;
    if (cosines.part === "cosines" && sines.part === "sines" && sines.tables === tables) {
      return tables;
    }
    throw view.unsupported(`turns by ${cosines.part} and ${sines.part} that are no pair`);
  }
  const [first, second] = [2, 3].map((place) => {
    const { tensor, transposed } = view.input(place, "tensor");
    checkMatrix(view, tensor);
    if (transposed || tensor.dataType !== DataType.FLOAT) {
      throw view.unsupported(`reads ${quote(tensor.name)}; a float32 table is understood`);
    }
    return tensor;
  });
  const [positions, pairs] = first.dims.map(Number);
  checkShape(view, second, [positions, pairs]);
  return { kind: "stored", positions, pairs, cosines: first.name, sines: second.name };
}
