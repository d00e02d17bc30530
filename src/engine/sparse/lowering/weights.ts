/**
 * Nodes with weights: rows of tables, products with matrices, biases.
 * @module
 */
import { GATHER_INT4 } from "../../../../compile/functions.ts";
import { TABLE_LENGTH } from "../../../../compile/packed/int4.ts";
import { MOST_WEIGHTS } from "../../../../compile/packed/types.ts";
import { quote } from "../../../checks.ts";
import {
  type TensorProto,
  TensorProto_DataType as DataType,
} from "../../../onnx/generated/onnx_pb.ts";
import type { MatrixRef, Value } from "../ir.ts";
import { type PackedNode, readPackedNode } from "../packed_node.ts";
import {
  type Activation,
  type Ids,
  type Meaning,
  type Rows,
  type RowScales,
  sameIds,
  type Stored,
  type Unscaled,
} from "./meaning.ts";
import { listed, type NodeView } from "./node_view.ts";
import type { StepList } from "./step_list.ts";

type DenseRef = MatrixRef & { readonly kind: "dense" };

const DENSE_TYPES: Partial<Record<DataType, "f32" | "f16" | "int8">> = {
  [DataType.FLOAT]: "f32",
  [DataType.FLOAT16]: "f16",
  [DataType.INT8]: "int8",
};

/** `Gather(table, ids)` → rows; `Gather(scales, ids)` → their scales. */
export function gatherRows(view: NodeView, steps: StepList): Meaning {
  view.expectInteger("axis", 0);
  const { tensor, transposed, wide } = view.input(0, "tensor");
  const ids = view.input(1, "ids");
  if (tensor.dims.length === 1 && tensor.dataType === DataType.FLOAT) {
    return { kind: "scales of rows", scales: tensor, ids, unsqueezed: false };
  }
  if (transposed) throw view.unsupported(`takes columns of ${quote(tensor.name)}`);
  checkMatrix(view, tensor);
  return widenRows(view, steps, { kind: "rows", table: tensor, ids, wide });
}

/** Rows that are cast to float32, or are float32 already, become an activation when that is all. */
export function widenRows(view: NodeView, steps: StepList, rows: Rows): Meaning {
  const { table, wide } = rows;
  const isDone = table.dataType === DataType.FLOAT || (wide && table.dataType !== DataType.INT8);
  return isDone ? embed(view, steps, denseRef(view, table), rows.ids) : rows;
}

/** int8 rows, scaled. */
export function scaleRows(
  view: NodeView,
  steps: StepList,
  { table, ids, wide }: Rows,
  { scales, ids: idsOfScales, unsqueezed }: RowScales,
): Meaning {
  if (!wide || !unsqueezed || !sameIds(ids, idsOfScales)) {
    throw view.unsupported(`scales rows of ${quote(table.name)} by something that is not theirs`);
  }
  return embed(view, steps, denseRef(view, table, scales), ids);
}

/** `Unsqueeze(scales of rows, [-1])`. */
export function unsqueezeScales(view: NodeView): Meaning {
  const scales = view.input(0, "scales of rows");
  const axes = view.axes();
  if (scales.unsqueezed || axes.length !== 1 || (axes[0] !== -1 && axes[0] !== 2)) {
    throw view.unsupported(`has the axes ${listed(axes)}`);
  }
  return { ...scales, unsqueezed: true };
}

function embed(view: NodeView, steps: StepList, table: DenseRef, { of, offset }: Ids): Meaning {
  // A negative index takes rows from the end in ONNX, and one past it is an error.
  if (of === "positions" && !(offset >= 0 && offset < table.rows)) {
    throw view.damaged(`takes the rows of positions from ${offset} on of ${table.rows}`);
  }
  const output = steps.value(table.columns);
  steps.push({ op: "embed", table, of, offset, output });
  return { kind: "activation", value: output, lastOnly: false };
}

/** `MatMul(x, Wᵀ)` with W `[rows, columns]`. */
export function multiply(view: NodeView, steps: StepList): Meaning {
  const input = flat(view, 0);
  const { tensor, transposed, wide } = view.input(1, "tensor");
  checkMatrix(view, tensor);
  if (!transposed || !(wide || tensor.dataType === DataType.FLOAT)) {
    throw view.unsupported(
      `multiplies with ${quote(tensor.name)} as it is stored; ` +
        `a transposed matrix [outputs, inputs], cast to float32, is understood`,
    );
  }
  if (tensor.dataType === DataType.INT8) {
    return { kind: "product without scales", input, weight: tensor };
  }
  return linear(view, steps, input, denseRef(view, tensor));
}

/** A product with an int8 matrix, scaled. */
export function scaleProduct(
  view: NodeView,
  steps: StepList,
  { input, weight }: Unscaled,
  scales: Stored,
): Meaning {
  if (scales.transposed || scales.wide) throw view.unsupported("scales by a changed tensor");
  return linear(view, steps, input, denseRef(view, weight, scales.tensor));
}

/** A product with a packed matrix, or rows of one. */
export function multiplyPacked(view: NodeView, steps: StepList): Meaning {
  if (view.node.opType === GATHER_INT4) {
    const ids = view.input(0, "ids");
    return embed(view, steps, packedRef(view) as DenseRef, ids);
  }
  const input = flat(view, 0);
  return linear(view, steps, input, packedRef(view));
}

/** The matrix that a node of domain `ai.espalier` names. */
function packedRef(view: NodeView): MatrixRef {
  const tensors = new Map<string, TensorProto>();
  for (const place of view.node.input.keys()) {
    if (place === 0 || !view.has(place)) continue;
    const { tensor, transposed, wide } = view.input(place, "tensor");
    if (transposed || wide) throw view.unsupported(`reads ${quote(tensor.name)} changed`);
    tensors.set(tensor.name, tensor);
  }
  const packed = readPackedNode(view.node, tensors, view.path);
  if (view.node.input.length !== 1 + Object.keys(packed.tensors).length) {
    throw view.unsupported(`has ${view.node.input.length} inputs`);
  }
  for (const name of Object.keys(packed.attributes)) view.integer(name);
  checkPacked(view, packed);
  const { format, scaling, rows, columns, values, attributes } = packed;
  const names = Object.fromEntries(
    Object.entries(packed.tensors).map(([part, { name }]) => [part, name]),
  );
  const name = packed.tensors.values.name.replace(/\.values$/, "");
  const common = { name, rows, columns, type: values };
  if (format === "dense") {
    const { values, scales, scale_table: table } = names;
    return { kind: "dense", ...common, values, scales, table, group: attributes.group };
  }
  return { kind: "sparse", ...common, format, scaling, attributes, tensors: names };
}

/** The shapes that `docs/format.md` gives a packed matrix's tensors. */
function checkPacked(view: NodeView, packed: PackedNode): void {
  const { format, scaling, rows, columns, attributes, tensors } = packed;
  const { n, m, bits, group } = attributes;
  if (rows * columns > MOST_WEIGHTS) throw view.damaged(`has ${rows} × ${columns} weights`);
  const entries = Number(tensors.values.dims[0] ?? 0n);
  const shapes: Record<string, number[]> = {};
  const isInt4 = scaling === "int4";
  if (format === "dense") {
    shapes.values = [rows, Math.ceil(columns / 2)];
  } else if (format === "nm") {
    const groups = columns / m;
    if (!(n >= 1 && n <= m && m <= 32 && Number.isInteger(groups))) {
      throw view.damaged(`has the pattern ${n}:${m} for rows of ${columns}`);
    }
    shapes.values = isInt4 ? [Math.ceil(groups * n * rows / 2)] : [groups, n, rows];
    shapes.codes = [groups, n, Math.ceil(rows * bits / 8)];
  } else if (format === "csr") {
    const gaps = Number(tensors.gaps.dims[0] ?? 0n);
    shapes.gaps = isInt4 ? [gaps] : [entries];
    shapes.values = isInt4 ? [Math.ceil(gaps / 2)] : [entries];
    shapes.row_pointers = [rows + 1];
  } else if (format === "slots") {
    if (rows % 4 !== 0 || columns % 16 !== 0) {
      throw view.damaged(
        `has slots of ${rows} × ${columns} weights, which have no windows of 4 × 16`,
      );
    }
    shapes.values = isInt4 ? [8 * Math.ceil(entries / 8)] : [entries, 4, 4];
    shapes.counts = [rows / 4, Math.ceil(columns / 32)];
    shapes.masks = [Number(tensors.masks.dims[0] ?? 0n), 4, 2];
  } else {
    shapes.values = [entries];
    shapes.bits = [rows, Math.ceil(columns / 8)];
  }
  if (entries < 1) throw view.damaged("has no values");
  if (scaling === "row") shapes.scales = [rows];
  if (isInt4) {
    shapes.scales = [rows, Math.ceil(columns / group)];
    shapes.scale_table = [TABLE_LENGTH];
  }
  if (scaling === "group") {
    if (!(group >= 1 && group <= columns)) throw view.damaged(`has groups of ${group}`);
    shapes.scales = [rows, Math.ceil(columns / group)];
  }
  for (const [part, shape] of Object.entries(shapes)) checkShape(view, tensors[part], shape);
}

function linear(view: NodeView, steps: StepList, input: Activation, matrix: MatrixRef): Activation {
  const width = steps.widthOf(input.value);
  if (width !== matrix.columns) {
    throw view.damaged(
      `multiplies ${width} elements with ${quote(matrix.name)}, whose rows have ${matrix.columns}`,
    );
  }
  const output = steps.value(matrix.rows);
  steps.push({ op: "linear", input: input.value, output, matrix });
  return { ...input, value: output };
}

/** A product with a bias: one step in place of the two. */
export function addBias(
  view: NodeView,
  steps: StepList,
  activation: Activation,
  bias: Stored,
): Activation {
  const maker = steps.makerOf(activation.value);
  if (maker.op === "part" && (maker.heads ?? 1) === 1 && activation.heads === undefined) {
    const width = steps.widthOf(activation.value);
    const name = vectorName(view, bias, width), output = steps.value(width);
    steps.push({ op: "shift", input: activation.value, output, bias: name });
    return { ...activation, value: output };
  }
  if (maker.op !== "linear" || maker.bias !== undefined || activation.heads !== undefined) {
    throw view.unsupported(`adds ${quote(bias.tensor.name)} to what is no product without a bias`);
  }
  const name = vectorName(view, bias, maker.matrix.rows);
  const output: Value = steps.value(maker.matrix.rows);
  steps.push({ ...maker, output, bias: name });
  return { ...activation, value: output };
}

/** `x · weights`, where each head of x has weights of its own: `[heads, elements of a head]`. */
export function weighHeads(
  view: NodeView,
  steps: StepList,
  x: Activation & { readonly heads: number },
  { tensor, transposed }: Stored,
): Meaning {
  const width = steps.widthOf(x.value);
  if (tensor.dataType !== DataType.FLOAT || transposed) {
    throw view.unsupported(`weighs heads by ${quote(tensor.name)}, which is not float32`);
  }
  checkShape(view, tensor, [x.heads, width / x.heads]);
  const output = steps.value(width);
  steps.push({ op: "weigh", input: x.value, output, weight: tensor.name });
  return { ...x, value: output };
}

/** The name of a float32 vector, checked. */
export function vectorName(view: NodeView, { tensor, transposed }: Stored, length: number): string {
  if (tensor.dataType !== DataType.FLOAT || tensor.dims.length !== 1 || transposed) {
    throw view.unsupported(
      `reads ${quote(tensor.name)}, ${DataType[tensor.dataType]} [${tensor.dims}]; ` +
        `a float32 vector is understood`,
    );
  }
  checkShape(view, tensor, [length]);
  return tensor.name;
}

/** The activation that a node reads whole, not by heads. */
export function flat(view: NodeView, place: number): Activation {
  const activation = view.input(place, "activation");
  if (activation.heads === undefined) return activation;
  throw view.unsupported(`reads vectors that are cut into heads as its input ${place}`);
}

/**
 * Checks a tensor's shape.
 *
 * @throws {OnnxError} When it is another.
 */
export function checkShape(view: NodeView, { name, dims }: TensorProto, wanted: number[]): void {
  if (dims.length === wanted.length && dims.every((dim, i) => Number(dim) === wanted[i])) return;
  throw view.damaged(`reads ${quote(name)} of shape [${dims}], which should be [${wanted}]`);
}

/** Checks that a tensor is a matrix with something in it. */
export function checkMatrix(view: NodeView, { name, dims }: TensorProto): void {
  if (dims.length === 2 && dims.every((dim) => dim >= 1n)) return;
  throw view.damaged(`reads ${quote(name)} of shape [${dims}], which is no matrix`);
}

function denseRef(view: NodeView, tensor: TensorProto, scales?: TensorProto): DenseRef {
  const type = DENSE_TYPES[tensor.dataType as DataType];
  if (type === undefined) {
    throw view.unsupported(
      `reads ${quote(tensor.name)}, which is ${DataType[tensor.dataType]}; ` +
        `float32, float16 and int8 are understood`,
    );
  }
  const [rows, columns] = tensor.dims.map(Number);
  if (scales && scales.dataType !== DataType.FLOAT) {
    throw view.damaged(`scales by ${quote(scales.name)}, which is ${DataType[scales.dataType]}`);
  }
  if (scales) checkShape(view, scales, [rows]);
  if (scales && type !== "int8") throw view.unsupported(`scales ${quote(tensor.name)}, not int8`);
  const name = tensor.name.replace(/\.weight$/, "");
  return { kind: "dense", name, rows, columns, type, values: tensor.name, scales: scales?.name };
}
