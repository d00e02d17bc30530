/**
 * What the tests of lowering share: compiled models in memory, lowered, and run by the naive decoder.
 * @module
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Decoder } from "../../../src/engine/sparse/ir.ts";
import { lower } from "../../../src/engine/sparse/lower.ts";
import { ModelReader } from "../../../src/engine/sparse/model_reader.ts";
import { filesSource } from "../../../src/engine/source.ts";
import type { GraphProto, ModelProto, NodeProto } from "../../../src/onnx/generated/onnx_pb.ts";
import { modelBytes, parseModel } from "../../../src/onnx/model_file.ts";
import { NaiveDecoder } from "../../support/naive_decoder.ts";
import { loadWeights } from "../../support/naive_weights.ts";

/** A compiled model's two files. */
export interface Files {
  readonly graph: Uint8Array;
  readonly data: Uint8Array;
}

/** The files of a folder that was compiled into. */
export function filesOf(folder: string): Files {
  const read = (name: string) => new Uint8Array(readFileSync(join(folder, "onnx", name)));
  return { graph: read("model.onnx"), data: read("model.onnx_data") };
}

/** Opens a model in memory. */
export function openFiles({ graph, data }: Files): Promise<ModelReader> {
  return ModelReader.open(filesSource({ "onnx/model.onnx": graph, "onnx/model.onnx_data": data }));
}

/** A model, lowered, ready to run in float64. */
export async function naiveOf(files: Files): Promise<{ decoder: Decoder; naive: NaiveDecoder }> {
  const reader = await openFiles(files);
  try {
    const decoder = lower(reader.graph, reader.path);
    return { decoder, naive: new NaiveDecoder(decoder, await loadWeights(decoder, reader)) };
  } finally {
    reader.close();
  }
}

/** The logits of all tokens, one row after the other. */
export function logitsOf(naive: NaiveDecoder, tokens: readonly number[]): Float32Array {
  return Float32Array.from(naive.run(tokens).flatMap((row) => [...row]));
}

/** A graph's bytes with something in it changed. */
export function changedGraph(
  { graph }: Files,
  change: (graph: GraphProto, model: ModelProto) => void,
): Uint8Array {
  // Tensors in the graph are views of its bytes.
  const model = parseModel(graph.slice(), "model.onnx");
  change(model.graph!, model);
  return modelBytes(model);
}

/** Lowers a graph's bytes. */
export function lowerBytes(bytes: Uint8Array): Decoder {
  return lower(parseModel(bytes, "model.onnx").graph!, "model.onnx");
}

/** The node that makes a value. */
export function makerOf(graph: GraphProto, value: string): NodeProto {
  return graph.node.find(({ output }) => output.includes(value))!;
}
