/**
 * Where the data of an ONNX tensor lie, when they lie in another file.
 * @module
 */
import { type TensorProto, TensorProto_DataLocation as DataLocation } from "./generated/onnx_pb.ts";

/** Where a tensor's bytes lie: a file beside the model, and a range in it. */
export interface ExternalRange {
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/** The range that a tensor's `external_data` names; NaN for a number that is none. */
export function externalRange(tensor: TensorProto): ExternalRange | undefined {
  const entries = new Map(tensor.externalData.map(({ key, value }) => [key, value]));
  const location = entries.get("location");
  if (location === undefined) return undefined;
  const number = (text: string | undefined, fallback: number) =>
    text === undefined ? fallback : /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  return {
    location,
    offset: number(entries.get("offset"), 0),
    length: number(entries.get("length"), NaN),
  };
}

/** Whether an initializer's bytes lie in another file. */
export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === DataLocation.EXTERNAL;
}
