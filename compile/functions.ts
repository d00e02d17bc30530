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
import { create } from "@bufbuild/protobuf";
import { OPSET } from "../src/onnx/builder.ts";
import {
  type AttributeProto,
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
  type FunctionProto,
  FunctionProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProto_DataType as DataType,
} from "../src/onnx/generated/onnx_pb.ts";

/** Domain of our operators. */
export const DOMAIN = "ai.espalier";
/** Its version. */
export const DOMAIN_VERSION = 1;

/** Sparse formats with an operator. */
export type SparseFormat = "nm" | "csr" | "bitmap" | "slots";
/** How values are scaled: not at all, by row, or by group of inputs. */
export type Scaling = "none" | "row" | "group";

const STEMS: Record<SparseFormat, string> = {
  nm: "NM",
  csr: "Csr",
  bitmap: "Bitmap",
  slots: "Slots",
};
const ENDINGS: Record<Scaling, string> = { none: "", row: "RowScaled", group: "GroupScaled" };

/** An operator's name, e.g. `SparseMatMulBitmapRowScaled`. */
export function operatorName(format: SparseFormat, scaling: Scaling): string {
  return `SparseMatMul${STEMS[format]}${ENDINGS[scaling]}`;
}

/** What an operator's name says, or nothing for another operator. */
export function operatorOf(name: string): { format: SparseFormat; scaling: Scaling } | undefined {
  for (const format of Object.keys(STEMS) as SparseFormat[]) {
    for (const scaling of Object.keys(ENDINGS) as Scaling[]) {
      if (operatorName(format, scaling) === name) return { format, scaling };
    }
  }
  return undefined;
}

/** Names of an operator's inputs, in order. */
export function inputsOf(format: SparseFormat, scaling: Scaling): string[] {
  const indices = {
    nm: ["codes"],
    csr: ["gaps", "row_pointers"],
    bitmap: ["bits"],
    slots: ["counts", "masks"],
  }[format];
  return ["x", "values", ...indices, ...(scaling === "none" ? [] : ["scales"])];
}

/** Names of an operator's attributes, all integers. */
export function attributesOf(format: SparseFormat, scaling: Scaling): string[] {
  return [
    "rows",
    "columns",
    ...(format === "nm" ? ["n", "m", "bits"] : []),
    ...(scaling === "group" ? ["group"] : []),
  ];
}

/** The definition of an operator: one for all shapes. */
export function operator(format: SparseFormat, scaling: Scaling): FunctionProto {
  const f = new FunctionBuilder();
  const unpack = { nm: unpackNm, csr: unpackCsr, bitmap: unpackBitmap, slots: unpackSlots };
  const dense = unpack[format](f);
  multiply(f, dense, scaling);
  return create(FunctionProtoSchema, {
    name: operatorName(format, scaling),
    domain: DOMAIN,
    input: inputsOf(format, scaling),
    output: ["y"],
    attribute: attributesOf(format, scaling),
    node: f.nodes,
    opsetImport: [create(OperatorSetIdProtoSchema, { domain: "", version: BigInt(OPSET) })],
  });
}

/** `[columns, rows]` from N:M. */
function unpackNm(f: FunctionBuilder): string {
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
  const zeros = f.zerosLike("values", f.shape(groups, m, rows));
  const dense = f.node("ScatterElements", [zeros, index, "values"], { axis: 1 });
  return f.node("Reshape", [dense, f.shape(columns, rows)]);
}

/** `[columns, rows]` from gaps. */
function unpackCsr(f: FunctionBuilder): string {
  const [rows, columns] = ["rows", "columns"].map((a) => f.attribute(a));
  const positions = f.node("CumSum", [f.cast("gaps", DataType.INT32), f.integer(0)]);
  const zeros = f.zerosLike("values", f.shape(f.node("Mul", [rows, columns])));
  const flat = f.node("ScatterElements", [zeros, positions, "values"], { axis: 0 });
  return f.turned(f.node("Reshape", [flat, f.shape(rows, columns)]));
}

/**
 * `[columns, rows]` from bits, a byte of them at a time: a weight's place among the values is the count
 * of bits before its byte, and of those up to it in the byte.
 */
function unpackBitmap(f: FunctionBuilder): string {
  const [rows, columns] = ["rows", "columns"].map((a) => f.attribute(a));
  const bytes = f.cast(f.node("Reshape", ["bits", f.vector([-1])]), DataType.INT32);
  const { flags, counts } = f.bitsOfBytes();
  const before = f.node("CumSum", [f.node("Gather", [counts, bytes]), f.integer(0)], {
    exclusive: 1,
  });
  // The first value is a zero. As many zeros again are put before all: a bit that is off takes one of
  // those, the one at the count of bits before its byte; a bit that is on reaches over them.
  const stored = f.node("Shape", ["values"]);
  const padded = f.node("Concat", [f.zerosLike("values", stored), "values"], { axis: 0 });
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
function unpackSlots(f: FunctionBuilder): string {
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
  const flat = f.node("Reshape", ["values", f.vector([-1])]);
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
    const all = f.node("Range", [f.integer(0), columns, f.integer(1)]);
    const scales = f.node("Gather", [f.turned("scales"), f.node("Div", [all, group])]);
    f.node("MatMul", ["x", f.node("Mul", [weights, scales])], {}, "y");
  }
}

/** Collects the nodes of a function's body. */
class FunctionBuilder {
  readonly nodes: FunctionProto["node"] = [];
  #count = 0;

  node(
    opType: string,
    input: string[],
    attributes: Record<string, number | string> = {},
    output = `${opType}_${this.#count++}`,
  ): string {
    this.#add(
      opType,
      input,
      output,
      Object.entries(attributes).map(([name, value]) =>
        typeof value === "number"
          ? create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) })
          : create(AttributeProtoSchema, {
            name,
            type: AttributeType.STRING,
            s: new TextEncoder().encode(value),
          })
      ),
    );
    return output;
  }

  /** The operator's attribute as an int64 scalar. */
  attribute(name: string): string {
    if (!this.nodes.some(({ output }) => output[0] === name)) {
      this.#add("Constant", [], name, [
        create(AttributeProtoSchema, {
          name: "value_int",
          refAttrName: name,
          type: AttributeType.INT,
        }),
      ]);
    }
    return name;
  }

  /** An int64 scalar. */
  integer(value: number): string {
    const name = `int_${value}`.replace("-", "minus_");
    if (!this.nodes.some(({ output }) => output[0] === name)) {
      this.#add("Constant", [], name, [
        create(AttributeProtoSchema, {
          name: "value_int",
          type: AttributeType.INT,
          i: BigInt(value),
        }),
      ]);
    }
    return name;
  }

  /** An int64 vector. */
  vector(values: number[]): string {
    const name = `ints_${this.#count++}`;
    this.#add("Constant", [], name, [
      create(AttributeProtoSchema, {
        name: "value_ints",
        type: AttributeType.INTS,
        ints: values.map(BigInt),
      }),
    ]);
    return name;
  }

  /** A uint8 vector. */
  bytes(values: number[]): string {
    return this.byte(this.vector(values));
  }

  /** A vector of int64 scalars: a shape. */
  shape(...dims: string[]): string {
    const one = this.vector([1]);
    return this.node("Concat", dims.map((dim) => this.node("Reshape", [dim, one])), { axis: 0 });
  }

  cast(value: string, type: DataType): string {
    return this.node("Cast", [value], { to: type });
  }

  byte(value: string): string {
    return this.cast(value, DataType.UINT8);
  }

  shift(value: string, by: string, direction: "LEFT" | "RIGHT"): string {
    return this.node("BitShift", [value, by], { direction });
  }

  /** Zeros of another value's type. */
  zerosLike(value: string, shape: string): string {
    const zero = this.node("CastLike", [this.vector([0]), value]);
    return this.node("Expand", [zero, shape]);
  }

  /** The bits of every byte that there is, first bit first, `[256, 8]`, and how many are 1, `[256]`. */
  bitsOfBytes(): { flags: string; counts: string } {
    const all = this.byte(
      this.node("Range", [this.integer(0), this.integer(256), this.integer(1)]),
    );
    const apart = this.node("Unsqueeze", [all, this.vector([-1])]);
    const lifted = this.shift(apart, this.bytes([7, 6, 5, 4, 3, 2, 1, 0]), "LEFT");
    const flags = this.cast(this.shift(lifted, this.bytes([7]), "RIGHT"), DataType.INT32);
    const counts = this.node("ReduceSum", [flags, this.vector([1])], { keepdims: 0 });
    return { flags, counts };
  }

  /** A matrix, transposed. */
  turned(value: string): string {
    return this.permuted(value, [1, 0]);
  }

  /** A tensor with its axes in another order. */
  permuted(value: string, axes: number[]): string {
    const name = `Transpose_${this.#count++}`;
    this.#add("Transpose", [value], name, [
      create(AttributeProtoSchema, {
        name: "perm",
        type: AttributeType.INTS,
        ints: axes.map(BigInt),
      }),
    ]);
    return name;
  }

  #add(opType: string, input: string[], output: string, attribute: AttributeProto[]): void {
    this.nodes.push(create(NodeProtoSchema, {
      name: output,
      opType,
      input,
      output: [output],
      attribute,
    }));
  }
}
