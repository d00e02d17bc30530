/**
 * The graph of a compiled model, once its matrices have their places in the data file.
 * @module
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { CachedAttention } from "../src/checkpoint/architectures/attention.ts";
import { buildDecoder } from "../src/checkpoint/architectures/decoder.ts";
import type { DecoderSpec } from "../src/checkpoint/architectures/spec.ts";
import type { Checkpoint } from "../src/checkpoint/checkpoint.ts";
import { modelOf } from "../src/onnx/builder.ts";
import { isExternal } from "../src/onnx/external.ts";
import {
  FunctionProtoSchema,
  type GraphProto,
  OperatorSetIdProtoSchema,
} from "../src/onnx/generated/onnx_pb.ts";
import { modelBytes } from "../src/onnx/model_file.ts";
import type { TensorSink } from "./data_file.ts";
import { emitTables } from "./emit.ts";
import { DOMAIN, DOMAIN_VERSION, operatorNamed } from "./functions.ts";
import { CompiledWeights, type Stored } from "./weights.ts";

/** Longer contexts only when asked for: ONNX Runtime makes rotary tables for all of one when it loads the model. */
const LONGEST_CONTEXT = 32768;

/** The longest sequence of a compiled model. */
export function contextOf(spec: DecoderSpec, asked: number | undefined): number {
  return Math.min(spec.context, asked ?? LONGEST_CONTEXT);
}

/**
 * The bytes of `model.onnx`.
 *
 * @param data Takes what is no matrix: vectors.
 * @param matrices By the name of the tensor in the checkpoint.
 */
export function graphOf(
  checkpoint: Checkpoint,
  spec: DecoderSpec,
  data: TensorSink,
  matrices: ReadonlyMap<string, Stored>,
  { context, logits }: { readonly context: number; readonly logits: "all" | "last" },
): Uint8Array {
  const graph = buildDecoder(
    spec,
    new CompiledWeights(checkpoint, data, matrices),
    new CachedAttention((b, rotary, suffix) => emitTables(b, rotary, context, suffix)),
    logits,
  );
  const model = modelOf(graph);
  const operators = new Set(
    graph.node.filter(({ domain }) => domain === DOMAIN).map(({ opType }) => opType),
  );
  for (const name of operators) model.functions.push(operatorNamed(name));
  if (operators.size > 0) {
    model.opsetImport.push(create(OperatorSetIdProtoSchema, {
      domain: DOMAIN,
      version: BigInt(DOMAIN_VERSION),
    }));
  }
  return modelBytes(model);
}

/** What a field takes beside its content at most, and the domain that comes with the first operator. */
const AROUND_DEFINITION = 64;

/**
 * Most bytes by which `model.onnx` grows with the definition of an operator.
 *
 * @param name The operator.
 */
export function definitionBytes(name: string): number {
  return toBinary(FunctionProtoSchema, operatorNamed(name)).length + AROUND_DEFINITION;
}

/**
 * Matrices that are not linears of blocks: embeddings, positions, projections, the head. A checkpoint
 * may hold more than its graph uses, e.g. a head beside the embedding that it is tied to. Norms that have weights of
 * their own for each head are no matrices, though they have two dimensions.
 */
export function tablesOf(graph: GraphProto, linears: readonly string[]): string[] {
  const others = new Set([...linears, ...factorsOf(graph)]);
  return graph.initializer
    .filter((tensor) => isExternal(tensor) && tensor.dims.length === 2 && !others.has(tensor.name))
    .map(({ name }) => name);
}

/** What is multiplied element by element, as a norm's weights are; behind a Cast, too. */
function factorsOf({ node }: GraphProto): string[] {
  const casts = node.filter(({ opType }) => opType === "Cast");
  const made = new Map(casts.map(({ input, output }) => [output[0], input[0]]));
  return node.flatMap(({ opType, input }) => opType === "Mul" ? input : [])
    .map((name) => made.get(name) ?? name);
}
