/**
 * What a graph keeps of tokens that it has run, by its inputs and outputs, in the names that transformers.js expects.
 * @module
 */
import { quote } from "../../checks.ts";
import { OnnxError } from "../../errors.ts";
import {
  type GraphProto,
  TensorProto_DataType as DataType,
  type ValueInfoProto,
} from "../../onnx/generated/onnx_pb.ts";

/** A graph's cache. */
export interface CacheInputs {
  /** Keys and values by layer. */
  readonly cache: readonly KeysOrValues[];
  /** What does not grow with the tokens, but changes with each. */
  readonly states: readonly StateInput[];
}

/** A layer's keys or values, `[1, heads, tokens, headDim]`. */
export interface KeysOrValues {
  readonly past: string;
  readonly present: string;
  readonly heads: number;
  readonly headDim: number;
}

/**
 * What a layer's convolution has read last, `[1, channels, length]`, or what its linear attention remembers,
 * `[1, heads, keyDim, valueDim]`.
 */
export interface StateInput {
  readonly past: string;
  readonly present: string;
  readonly dims: readonly number[];
}

const PAST = "past_key_values.";
const PRESENT = "present.";
/** Inputs of states, the outputs that take their places, and how many dimensions they have. */
const STATES = [
  { past: "past_conv.", present: "present_conv.", rank: 3 },
  { past: "past_recurrent.", present: "present_recurrent.", rank: 4 },
  { past: "past_ssm.", present: "present_ssm.", rank: 4 },
] as const;

/** A dimension of a cache or a vocabulary: more than any model has. */
const LARGEST_DIMENSION = 1 << 24;

/**
 * Reads and checks the cache of a graph.
 *
 * @param path Its file, for messages.
 * @param fileBytes Bytes of its weights: of layers that keep a state, they have more than that takes.
 * @throws {OnnxError} When it keeps none, or its parts do not go together.
 */
export function cacheInputsOf(graph: GraphProto, path: string, fileBytes: number): CacheInputs {
  const pasts = graph.input.filter(({ name }) => name.startsWith(PAST));
  if (pasts.length === 0) {
    throw new OnnxError(`${path}: it has no inputs past_key_values.N.key: it keeps no cache`);
  }
  const outputs = new Set(graph.output.map(({ name }) => name));
  const cache = pasts.map((past): KeysOrValues => {
    const [, heads, , headDim] = dimsOfPart(path, past, 4);
    const present = past.name.replace(PAST, PRESENT);
    if (!outputs.has(present)) throw unfit(path, past);
    return {
      ...{ past: past.name, present },
      ...{ heads: sizeOf(path, heads), headDim: sizeOf(path, headDim) },
    };
  });
  // What a layer has of keys it has of values.
  for (const [i, { past, heads, headDim }] of cache.entries()) {
    const keys = cache.find((part) => part.past === past.replace(/value$/, "key"));
    if (keys?.heads !== heads || keys.headDim !== headDim) throw unfit(path, pasts[i]);
  }
  const states = STATES.flatMap(({ past, present, rank }) =>
    graph.input.filter(({ name }) => name.startsWith(past)).map((input): StateInput => {
      const [, ...dims] = dimsOfPart(path, input, rank);
      const given = input.name.replace(past, present);
      if (!outputs.has(given)) throw unfit(path, input);
      const sizes = dims.map((dim) => sizeOf(path, dim));
      return { past: input.name, present: given, dims: [1, ...sizes] };
    })
  );
  // Nothing of a size that is only declared is made room for.
  const kept = states.reduce((sum, { dims }) => sum + elementsOf(dims), 0);
  if (4 * kept > fileBytes) {
    throw new OnnxError(
      `${path}: its layers keep ${kept} numbers that do not grow, more than they can have weights`,
    );
  }
  return { cache, states };
}

/** Keys and values of a token, in all layers. */
export function elementsPerToken({ cache }: CacheInputs): number {
  return cache.reduce((sum, { heads, headDim }) => sum + heads * headDim, 0);
}

/** How many elements a tensor has. */
export function elementsOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}

function unfit(path: string, { name }: ValueInfoProto): OnnxError {
  return new OnnxError(`${path}: ${quote(name)} does not fit the rest of the cache`);
}

function dimsOfPart(path: string, value: ValueInfoProto, count: 3 | 4): (number | undefined)[] {
  const dims = dimsOf(value);
  if (dims?.length !== count || elementTypeOf(value) !== DataType.FLOAT) {
    const words = { 3: "three", 4: "four" };
    throw new OnnxError(
      `${path}: ${quote(value.name)} is not float32 of ${words[count]} dimensions`,
    );
  }
  return dims;
}

/** Dimensions of a value: numbers, or undefined where they have names. */
export function dimsOf(value: ValueInfoProto | undefined): (number | undefined)[] | undefined {
  if (value?.type?.value.case !== "tensorType") return undefined;
  return value.type.value.value.shape?.dim.map(({ value }) =>
    value.case === "dimValue" ? Number(value.value) : undefined
  );
}

function elementTypeOf(value: ValueInfoProto): number | undefined {
  return value.type?.value.case === "tensorType" ? value.type.value.value.elemType : undefined;
}

/**
 * A dimension that has to be known.
 *
 * @throws {OnnxError} When it is not given as a number, or larger than any model's.
 */
export function sizeOf(path: string, dim: number | undefined): number {
  if (dim === undefined || !(dim >= 1 && dim <= LARGEST_DIMENSION)) {
    throw new OnnxError(
      `${path}: heads, head size, channels or vocabulary are not given as numbers`,
    );
  }
  return dim;
}
