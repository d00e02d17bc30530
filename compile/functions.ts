/**
 * The operators of domain `ai.espalier`, as functions that every ONNX runtime can inline.
 *
 * A body unpacks with standard operators (set 17 and below) and multiplies. What it unpacks from are
 * constants, so a runtime folds the unpacking when it loads the model, and a run costs what a dense
 * model costs. Our own engine reads the packed tensors instead. `docs/format.md` describes them.
 *
 * Index tensors are uint8: some builds of ONNX Runtime have no casts from 16-bit integers. Values stay
 * in their small type until the last step: runtimes keep what they fold until all is folded, so loading
 * takes the sum of all that a body computes on the way. Every shape follows from attributes and from
 * shapes of inputs, never from values, as NonZero's would: ONNX Runtime does not fold what it cannot
 * size beforehand, and would unpack at every run.
 * @module
 */
import {
  type FunctionProto,
  TensorProto_DataType as DataType,
} from "../src/onnx/generated/onnx_pb.ts";
import { FunctionBuilder } from "./function_builder.ts";
import { gatherInt4, int4Scales, multiplyInt4, unpackInt4 } from "./int4_functions.ts";
import { computeTables, ROTARY_SIGNATURE, ROTARY_TABLES } from "./rotary_tables.ts";

/** Domain of our operators. */
export const DOMAIN = "ai.espalier";
/** Its version. */
export const DOMAIN_VERSION = 1;

/** Sparse formats with an operator. */
export type SparseFormat = "nm" | "csr" | "bitmap" | "slots";
/** Formats with an operator: dense matrices have one where they are int4. */
export type PackedFormat = SparseFormat | "dense";
/**
 * How values are scaled: not at all, by row, by group of inputs, or by group with values of four bits,
 * two a byte.
 */
export type Scaling = "none" | "row" | "group" | "int4";

const STEMS: Record<SparseFormat, string> = {
  nm: "NM",
  csr: "Csr",
  bitmap: "Bitmap",
  slots: "Slots",
};
const ENDINGS: Record<Scaling, string> = {
  none: "",
  row: "RowScaled",
  group: "GroupScaled",
  int4: "Int4",
};
/** Rows of a dense int4 matrix, by their indices. */
export const GATHER_INT4 = "GatherInt4";

/** A name of an operator with a matrix, e.g. `SparseMatMulBitmapRowScaled`; dense matrices have one for int4 alone. */
export function operatorName(format: PackedFormat, scaling: Scaling): string {
  const stem = format === "dense" ? "MatMul" : `SparseMatMul${STEMS[format]}`;
  return stem + ENDINGS[scaling];
}

/** What the name of an operator with a matrix says, or nothing for another operator. */
export function operatorOf(name: string): { format: PackedFormat; scaling: Scaling } | undefined {
  const dense = operatorName("dense", "int4");
  if (name === dense || name === GATHER_INT4) return { format: "dense", scaling: "int4" };
  for (const format of Object.keys(STEMS) as SparseFormat[]) {
    for (const scaling of Object.keys(ENDINGS) as Scaling[]) {
      if (operatorName(format, scaling) === name) return { format, scaling };
    }
  }
  return undefined;
}

/** Names of an operator's inputs, in order. */
export function inputsOf(format: PackedFormat, scaling: Scaling): string[] {
  const indices = {
    nm: ["codes"],
    csr: ["gaps", "row_pointers"],
    bitmap: ["bits"],
    slots: ["counts", "masks"],
    dense: [],
  }[format];
  return [
    "x",
    "values",
    ...indices,
    ...(scaling === "none" ? [] : ["scales"]),
    ...(scaling === "int4" ? ["scale_table"] : []),
  ];
}

/** Names of an operator's attributes, all integers. */
export function attributesOf(format: PackedFormat, scaling: Scaling): string[] {
  return [
    "rows",
    "columns",
    ...(format === "nm" ? ["n", "m", "bits"] : []),
    ...(scaling === "group" || scaling === "int4" ? ["group"] : []),
  ];
}

/**
 * The definition of an operator: one for all shapes.
 *
 * @param name One that {@linkcode operatorOf} knows, or that of rotary tables.
 */
export function operatorNamed(name: string): FunctionProto {
  const f = new FunctionBuilder();
  if (name === ROTARY_TABLES) {
    computeTables(f);
    return f.finish({ name, domain: DOMAIN, ...ROTARY_SIGNATURE });
  }
  const { format, scaling } = operatorOf(name)!;
  const common = { name, domain: DOMAIN, output: ["y"], attribute: attributesOf(format, scaling) };
  if (name === GATHER_INT4) {
    gatherInt4(f);
    return f.finish({ ...common, input: ["ids", "values", "scales", "scale_table"] });
  }
  if (format === "dense") multiplyInt4(f);
  else {
    const unpack: Record<SparseFormat, (f: FunctionBuilder, values: string) => string> = {
      nm: unpackNm,
      csr: unpackCsr,
      bitmap: unpackBitmap,
      slots: unpackSlots,
    };
    const values = scaling === "int4" ? unpackInt4(f, format) : "values";
    multiply(f, unpack[format](f, values), scaling);
  }
  return f.finish({ ...common, input: inputsOf(format, scaling) });
}

/** The definition of the operator of a format. */
export function operator(format: PackedFormat, scaling: Scaling): FunctionProto {
  return operatorNamed(operatorName(format, scaling));
}

/** `[columns, rows]` from N:M. */
function unpackNm(f: FunctionBuilder, values: string): string {
  const [rows, columns, n, m, bits] = ["rows", "columns", "n", "m", "bits"].map((a) =>
    f.attribute(a)
  );
  const groups = f.node("Div", [columns, m]);
  const eight = f.integer(8);
  // Codes of `bits` bits: pushed to the top of their byte, then down to its bottom.
  const places = f.node("Range", [f.integer(0), f.node("Div", [eight, bits]), f.integer(1)]);
  const spare = f.node("Sub", [eight, bits]);
  const up = f.byte(f.node("Sub", [spare, f.node("Mul", [places, bits])]));
  const apart = f.node("Unsqueeze", ["codes", f.vector([-1])]);
  const lifted = f.shift(apart, up, "LEFT");
  const lowered = f.shift(lifted, f.byte(spare), "RIGHT");
  const inRows = f.node("Reshape", [lowered, f.shape(groups, n, f.integer(-1))]);
  const codes = f.node("Slice", [inRows, f.vector([0]), f.shape(rows), f.vector([2])]);
  const index = f.cast(codes, DataType.INT32);
  const zeros = f.zerosLike(values, f.shape(groups, m, rows));
  const dense = f.node("ScatterElements", [zeros, index, values], { axis: 1 });
  return f.node("Reshape", [dense, f.shape(columns, rows)]);
}

/** `[columns, rows]` from gaps. */
function unpackCsr(f: FunctionBuilder, values: string): string {
  const [rows, columns] = ["rows", "columns"].map((a) => f.attribute(a));
  const positions = f.node("CumSum", [f.cast("gaps", DataType.INT32), f.integer(0)]);
  const zeros = f.zerosLike(values, f.shape(f.node("Mul", [rows, columns])));
  const flat = f.node("ScatterElements", [zeros, positions, values], { axis: 0 });
  return f.turned(f.node("Reshape", [flat, f.shape(rows, columns)]));
}

/**
 * `[columns, rows]` from bits, a byte of them at a time: a weight's place among the values is the count
 * of bits before its byte, and of those up to it in the byte.
 */
function unpackBitmap(f: FunctionBuilder, values: string): string {
  const [rows, columns] = ["rows", "columns"].map((a) => f.attribute(a));
  const bytes = f.cast(f.node("Reshape", ["bits", f.vector([-1])]), DataType.INT32);
  const { flags, counts } = f.bitsOfBytes();
  const before = f.node("CumSum", [f.node("Gather", [counts, bytes]), f.integer(0)], {
    exclusive: 1,
  });
  // The first value is a zero. As many zeros again are put before all: a bit that is off takes one of
  // those, the one at the count of bits before its byte; a bit that is on reaches over them.
  const stored = f.node("Shape", [values]);
  const padded = f.node("Concat", [f.zerosLike(values, stored), values], { axis: 0 });
  const upTo = f.node("Add", [
    f.node("CumSum", [flags, f.integer(1)]),
    f.cast(stored, DataType.INT32),
  ]);
  const inByte = f.node("Gather", [f.node("Mul", [upTo, flags]), bytes]);
  const places = f.node("Add", [inByte, f.node("Unsqueeze", [before, f.vector([-1])])]);
  const inRows = f.node("Reshape", [
    f.node("Gather", [padded, places]),
    f.shape(rows, f.integer(-1)),
  ]);
  return f.turned(f.node("Slice", [inRows, f.vector([0]), f.shape(columns), f.vector([1])]));
}

/**
 * `[columns, rows]` from slots, a byte of a window's bits at a time. The `n`-th stored weight of a
 * window's row lies at slot ⌊n / 4⌋ of the window, place n mod 4 of its row there.
 */
function unpackSlots(f: FunctionBuilder, elements: string): string {
  const [rows, columns] = ["rows", "columns"].map((a) => f.attribute(a));
  const [groups, windows] = [
    f.node("Div", [rows, f.integer(4)]),
    f.node("Div", [columns, f.integer(16)]),
  ];
  const whole = (values: number[]) => f.cast(f.vector(values), DataType.INT32);
  // Slots of every window, from halves of bytes: `[windows of all rows]`.
  const halves = f.shift(
    f.shift(f.node("Unsqueeze", ["counts", f.vector([-1])]), f.bytes([4, 0]), "LEFT"),
    f.bytes([4]),
    "RIGHT",
  );
  const padded = f.node("Reshape", [halves, f.shape(groups, f.integer(-1))]);
  const inRows = f.node("Slice", [padded, f.vector([0]), f.shape(windows), f.vector([1])]);
  const counts = f.cast(f.node("Reshape", [inRows, f.vector([-1])]), DataType.INT32);
  // Their bits: none, all, or the next that are stored: `[windows of all rows, 4, 2]`.
  const isPartial = f.node("Gather", [whole([0, 1, 1, 1, 0]), counts]);
  const order = f.node("CumSum", [isPartial, f.integer(0)], { exclusive: 1 });
  const mask = f.node("Add", [
    f.node("Gather", [whole([0, 2, 2, 2, 1]), counts]),
    f.node("Mul", [isPartial, order]),
  ]);
  const bytes = f.cast(f.node("Gather", ["masks", mask]), DataType.INT32);
  // A bit that is off takes one of as many zeros as there are values; see `unpackBitmap`.
  const flat = f.node("Reshape", [elements, f.vector([-1])]);
  const stored = f.node("Shape", [flat]);
  const values = f.node("Concat", [f.zerosLike(flat, stored), flat], { axis: 0 });
  // For every number of bits before a byte, 0 to 8, and every byte: where each of its bits leads,
  // behind those zeros and the slot of zeros: `[9, 256, 8]`.
  const { flags, counts: ones } = f.bitsOfBytes();
  const before = f.node("CumSum", [flags, f.integer(1)], { exclusive: 1 });
  const offsets = f.cast(
    f.node("Range", [f.integer(0), f.integer(9), f.integer(1)]),
    DataType.INT32,
  );
  const n = f.node("Add", [f.node("Unsqueeze", [offsets, f.vector([1, 2])]), before]);
  const inWindow = f.node("Add", [
    n,
    f.node("Mul", [f.node("Div", [n, whole([4])]), whole([12])]),
  ]);
  const first = f.node("Add", [f.cast(stored, DataType.INT32), whole([16])]);
  const leads = f.node("Reshape", [
    f.node("Mul", [f.node("Add", [inWindow, first]), flags]),
    f.vector([9 * 256, 8]),
  ]);
  const low = f.node("Slice", [bytes, f.vector([0]), f.vector([1]), f.vector([2])]);
  const onesBefore = f.node("Gather", [ones, low]);
  const rest = f.node("Mul", [onesBefore, whole([256])]);
  const row = f.node("Concat", [f.node("Mul", [onesBefore, whole([0])]), rest], { axis: 2 });
  const slots = f.node("CumSum", [counts, f.integer(0)], { exclusive: 1 });
  // A window's slots, and in them the four values of each row.
  const start = f.node("Add", [
    f.node("Unsqueeze", [f.node("Mul", [slots, whole([16])]), f.vector([-1])]),
    whole([0, 4, 8, 12]),
  ]);
  const places = f.node("Add", [
    f.node("Gather", [leads, f.node("Add", [bytes, row])]),
    f.node("Unsqueeze", [start, f.vector([-1, -2])]),
  ]);
  const inWindows = f.node("Reshape", [
    f.node("Gather", [values, places]),
    f.shape(groups, windows, f.integer(4), f.integer(16)),
  ]);
  const turned = f.permuted(inWindows, [1, 3, 0, 2]);
  return f.node("Reshape", [turned, f.shape(columns, rows)]);
}

/** y = x · dense, scaled. */
function multiply(f: FunctionBuilder, dense: string, scaling: Scaling): void {
  const weights = f.node("CastLike", [dense, "x"]);
  if (scaling === "none") {
    f.node("MatMul", ["x", weights], {}, "y");
  } else if (scaling === "row") {
    // A row's scale is common to its sum: applied after it, the weights are not copied once more.
    f.node("Mul", [f.node("MatMul", ["x", weights]), "scales"], {}, "y");
  } else {
    const [columns, group] = ["columns", "group"].map((a) => f.attribute(a));
    const stored = scaling === "int4" ? int4Scales(f) : "scales";
    const all = f.node("Range", [f.integer(0), columns, f.integer(1)]);
    const scales = f.node("Gather", [f.turned(stored), f.node("Div", [all, group])]);
    f.node("MatMul", ["x", f.node("Mul", [weights, scales])], {}, "y");
  }
}
