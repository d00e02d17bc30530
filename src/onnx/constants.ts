/**
 * Small constants of a graph: axes, shapes, exponents.
 * @module
 */
import { isExternal } from "./external.ts";
import { type TensorProto, TensorProto_DataType as DataType } from "./generated/onnx_pb.ts";

/** Most numbers of a constant: a shape has eight at most. */
const MOST_NUMBERS = 8;

/**
 * The numbers of a constant that lies in the graph itself.
 *
 * @param tensor A tensor whose type and shape have been checked.
 * @param kind What they have to be.
 * @param most How many there may be.
 * @returns Nothing where it is no number or vector, has another type, many elements, or not all of them
 *   here. Integers beyond 2^53 are rounded.
 */
export function numbersOf(
  tensor: TensorProto,
  kind: "integers" | "floats",
  most = MOST_NUMBERS,
): number[] | undefined {
  const types = kind === "floats" ? [DataType.FLOAT] : [DataType.INT64, DataType.INT32];
  if (isExternal(tensor) || !types.includes(tensor.dataType) || tensor.dims.length > 1) {
    return undefined;
  }
  const count = Number(tensor.dims.reduce((product, dim) => product * dim, 1n));
  if (count > most) return undefined;
  const numbers = tensor.rawData.length > 0 ? fromBytes(tensor) : fromFields(tensor);
  return numbers.length === count ? numbers : undefined;
}

function fromBytes({ rawData, dataType }: TensorProto): number[] {
  const view = new DataView(rawData.buffer, rawData.byteOffset, rawData.byteLength);
  const size = dataType === DataType.INT64 ? 8 : 4;
  return Array.from({ length: Math.floor(rawData.length / size) }, (_, i) => {
    switch (dataType) {
      case DataType.INT64:
        return Number(view.getBigInt64(i * size, true));
      case DataType.INT32:
        return view.getInt32(i * size, true);
      default:
        return view.getFloat32(i * size, true);
    }
  });
}

/** Other exporters keep numbers in the field of their type. */
function fromFields({ dataType, int64Data, int32Data, floatData }: TensorProto): number[] {
  switch (dataType) {
    case DataType.INT64:
      return int64Data.map(Number);
    case DataType.INT32:
      return int32Data;
    default:
      return floatData;
  }
}
