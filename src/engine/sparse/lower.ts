/**
 * From an ONNX graph to the steps of a decoder.
 *
 * One pass over the nodes: `lowering/rules.ts` says what each makes of what its inputs mean. All that
 * the logits and the cache need must be understood; what cannot be is refused with the node's name.
 * @module
 */
import { DOMAIN } from "../../../compile/functions.ts";
import { quote } from "../../checks.ts";
import { OnnxError, UnsupportedOperatorError } from "../../errors.ts";
import {
  type GraphProto,
  TensorProto_DataType as DataType,
  type ValueInfoProto,
} from "../../onnx/generated/onnx_pb.ts";
import { neededBy } from "../../onnx/sections.ts";
import { type Decoder, isKeeping, type Step } from "./ir.ts";
import { cacheOf } from "./lowering/attention.ts";
import type { Activation, Meaning } from "./lowering/meaning.ts";
import { listed, NodeView } from "./lowering/node_view.ts";
import { RULES } from "./lowering/rules.ts";
import { StepList } from "./lowering/step_list.ts";
import { multiplyPacked } from "./lowering/weights.ts";

/** What makes an output of the cache. */
const MAKERS = {
  key: "attention",
  value: "attention",
  inputs: "convolution",
  state: "linear attention",
} as const;

/** The output that is wanted. */
const LOGITS = "logits";

/**
 * Finds the decoder in a graph with the inputs and outputs that transformers.js expects: `input_ids`,
 * `attention_mask`, `position_ids`, `past_key_values.N.key` and `.value`, `past_conv.N`, `past_recurrent.N` or
 * `past_ssm.N`; `logits`, and the same of `present`.
 *
 * Nodes are known by what they compute; their names and order are free.
 *
 * @param graph A graph that `parseModel` has checked.
 * @param path The model's file, for messages.
 * @throws {UnsupportedOperatorError} When a node that is needed has no kernel, or is used in a way that
 *   none computes.
 * @throws {OnnxError} When shapes do not fit each other, or the graph is no decoder.
 */
export function lower(graph: GraphProto, path: string): Decoder {
  const meanings = new Map<string, Meaning>();
  for (const tensor of graph.initializer) {
    meanings.set(tensor.name, { kind: "tensor", tensor, transposed: false, wide: false });
  }
  for (const input of graph.input) {
    const meaning = meaningOfInput(input, path);
    if (!meaning) continue;
    if (meanings.has(input.name)) {
      throw new OnnxError(`${path}: ${quote(input.name)} is an input and an initializer`);
    }
    meanings.set(input.name, meaning);
  }
  const steps = new StepList();
  const presents = graph.output.filter(({ name }) => cacheOf(name)?.time === "present");
  for (const output of graph.output) {
    if (output.name === LOGITS || presents.includes(output)) {
      checkType(output, DataType.FLOAT, path);
    }
  }
  for (const node of neededBy([LOGITS, ...presents.map(({ name }) => name)], graph.node)) {
    const view = new NodeView(node, meanings, path);
    const rule = RULES.get(view.operator) ??
      (node.domain === DOMAIN ? multiplyPacked : undefined);
    if (!rule) throw view.unsupported("is an operator without a kernel");
    const made = [rule(view, steps)].flat();
    view.finish();
    node.output.slice(0, made.length).forEach((name, i) => meanings.set(name, made[i]));
  }
  for (const { name } of presents) {
    const made = meanings.get(name);
    if (made?.kind !== "cache" || made.time !== "present") {
      const what = MAKERS[cacheOf(name)!.part];
      throw new UnsupportedOperatorError(`${path}: no ${what} makes the output ${quote(name)}`);
    }
  }
  const decoder = decoderOf(graph, logitsOf(graph, meanings, steps, path), steps, path);
  checkKept(decoder, meanings, path);
  return decoder;
}

/** What an input of the graph means; nothing for one that the engine does not feed. */
function meaningOfInput(input: ValueInfoProto, path: string): Meaning | undefined {
  const wanted = (type: DataType, meaning: Meaning): Meaning => {
    checkType(input, type, path);
    return meaning;
  };
  switch (input.name) {
    case "input_ids":
      return wanted(DataType.INT64, { kind: "ids", of: "tokens", offset: 0 });
    case "position_ids":
      return wanted(DataType.INT64, { kind: "ids", of: "positions", offset: 0 });
    case "attention_mask":
      return wanted(DataType.INT64, { kind: "lengths", of: "mask", type: "int64" });
  }
  const cache = cacheOf(input.name);
  if (cache?.time !== "past") return undefined;
  return wanted(DataType.FLOAT, { ...cache, shape: shapeOf(input) });
}

/** Checks the declared type of an input or output. */
function checkType(info: ValueInfoProto, type: DataType, path: string): void {
  const declared = tensorTypeOf(info)?.elemType ?? 0;
  if (declared === type) return;
  throw new UnsupportedOperatorError(
    `${path}: ${quote(info.name)} is ${DataType[declared] ?? declared}; ` +
      `the sparse engine computes with ${DataType[type]} there`,
  );
}

/** The logits, of the width that the graph declares. */
function logitsOf(
  graph: GraphProto,
  meanings: ReadonlyMap<string, Meaning>,
  steps: StepList,
  path: string,
): Activation {
  const output = graph.output.find(({ name }) => name === LOGITS);
  if (!output) throw new OnnxError(`${path} has no output ${quote(LOGITS)}: it is no decoder`);
  const logits = meanings.get(LOGITS);
  if (logits?.kind !== "activation" || logits.heads !== undefined) {
    throw new UnsupportedOperatorError(`${path}: the logits are no vector for each token`);
  }
  const shape = shapeOf(output);
  const width = steps.widthOf(logits.value);
  if (shape && (shape.length !== 3 || (shape[2] ?? width) !== width)) {
    throw new OnnxError(
      `${path}: there are ${width} logits, and the graph declares ${listed(shape)}`,
    );
  }
  return logits;
}

function decoderOf(
  graph: GraphProto,
  logits: Activation,
  list: StepList,
  path: string,
): Decoder {
  const { steps, ...decoder } = list.finish(logits.value);
  const layers = layersOf(graph, steps, path);
  const vocabulary = least(rowsOf(steps, "tokens"));
  if (vocabulary === undefined) {
    throw new OnnxError(`${path}: the logits do not depend on input_ids`);
  }
  const positions = least([
    ...rowsOf(steps, "positions"),
    ...steps.flatMap((step) => step.op === "rotary" ? [step.tables.positions] : []),
  ]);
  return {
    ...decoder,
    steps,
    lastOnly: logits.lastOnly,
    vocabulary,
    positions,
    layers,
  };
}

/** How many layers have a cache: each has a number of its own, and gives all that it keeps. */
function layersOf(graph: GraphProto, steps: readonly Step[], path: string): number {
  const outputs = new Set(
    graph.output.map(({ name }) => name).filter((name) => cacheOf(name)?.time === "present"),
  );
  const attentions = steps.filter((step) => step.op === "attention" && isKeeping(step))
    .map((step) => (step as Step & { op: "attention" }).layer);
  const convolutions = steps.filter((step) => step.op === "convolve").map(({ layer }) => layer);
  const states = steps.filter((step) => step.op === "delta").map(({ layer }) => layer);
  const wanted = [
    ...attentions.flatMap((layer) => [`present.${layer}.key`, `present.${layer}.value`]),
    ...convolutions.map((layer) => `present_conv.${layer}`),
    ...states.map((layer) => nameOfStates(outputs, layer)),
  ];
  const layers = new Set([...attentions, ...convolutions]);
  const count = attentions.length + convolutions.length;
  // None is below 0, so n that differ, each below n, are all of them.
  const areAll = layers.size === count && [...layers].every((layer) => layer < count);
  if (areAll && outputs.size === wanted.length && wanted.every((name) => outputs.has(name))) {
    return count;
  }
  throw new OnnxError(
    `${path}: its ${outputs.size} outputs present.N are not two for each of ${attentions.length} layers` +
      (convolutions.length > 0 ? `, and one for each of ${convolutions.length} convolutions` : "") +
      (states.length > 0 ? `, and one for each of ${states.length} states` : ""),
  );
}

/** The output with a layer's states; they have two names. */
function nameOfStates(outputs: ReadonlySet<string>, layer: number): string {
  const isOfLayer = (name: string) => {
    const cache = cacheOf(name);
    return cache?.part === "state" && cache.layer === layer;
  };
  return [...outputs].find(isOfLayer) ?? `present_recurrent.${layer}`;
}

/** Checks that convolutions are given as many inputs as their kernels have weights: the sums that are cut off follow. */
function checkKept(
  { steps }: Decoder,
  meanings: ReadonlyMap<string, Meaning>,
  path: string,
): void {
  for (const step of steps) {
    if (step.op !== "convolve") continue;
    const name = `present_conv.${step.layer}`, kept = meanings.get(name);
    if (kept?.kind === "cache" && kept.length === step.length) continue;
    throw new UnsupportedOperatorError(
      `${path}: the output ${quote(name)} is not the last ${step.length} inputs of its convolution`,
    );
  }
}

function least(numbers: readonly number[]): number | undefined {
  return numbers.length === 0 ? undefined : numbers.reduce((a, b) => Math.min(a, b));
}

/** Rows that can be asked for of each table of tokens or positions. */
function rowsOf(steps: readonly Step[], of: "tokens" | "positions"): number[] {
  return steps.flatMap((step) =>
    step.op === "embed" && step.of === of ? [step.table.rows - step.offset] : []
  );
}

function tensorTypeOf({ type }: ValueInfoProto) {
  return type?.value.case === "tensorType" ? type.value.value : undefined;
}

/** Declared dimensions: numbers, or undefined where they have names. */
function shapeOf(info: ValueInfoProto): (number | undefined)[] | undefined {
  return tensorTypeOf(info)?.shape?.dim.map(({ value }) =>
    value.case === "dimValue" ? Number(value.value) : undefined
  );
}
