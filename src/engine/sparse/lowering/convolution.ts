/**
 * Convolutions over the tokens: each channel's own sum over a token and those just before it.
 *
 * They are found by what is around `Conv`: tokens are turned to lie along the last axis, what the cache has
 * of those before comes in front, and of all that the last ones are kept.
 * @module
 */
import { TensorProto_DataType as DataType } from "../../../onnx/generated/onnx_pb.ts";
import { quote } from "../../../checks.ts";
import { PAGE } from "../layout.ts";
import { cacheOf } from "./attention.ts";
import type { Activation, Cache, Convolved, History, Meaning, Turned } from "./meaning.ts";
import { listed, type NodeView } from "./node_view.ts";
import type { StepList } from "./step_list.ts";
import { checkShape, vectorName } from "./weights.ts";

/** Most tokens that a convolution sees: those before the token, of which each page keeps its own, are a page's at most. */
const MOST_LENGTH = PAGE + 1;
/** No sequence is as long: exporters write the greatest integer of some type where all is meant. */
const END = 2 ** 31 - 1;

/** `Transpose(x)`: tokens along the last axis. */
export function turn(view: NodeView, x: Activation): Turned {
  expectTurn(view);
  if (x.heads !== undefined || x.lastOnly) {
    throw view.unsupported("turns what is no vector for each token");
  }
  return { kind: "turned vectors", of: x };
}

/** `Concat(what was kept, what is new)`, along the tokens. */
export function appendToHistory(view: NodeView, steps: StepList): History {
  if (view.node.input.length !== 2) {
    throw view.unsupported(`joins ${view.node.input.length} values`);
  }
  const past = view.input(0, "cache"), { of } = view.input(1, "turned vectors");
  if (past.time !== "past" || past.part !== "inputs") {
    throw view.unsupported(
      `reads ${quote(view.node.input[0])} where what a convolution has read is understood`,
    );
  }
  const axis = view.integer("axis");
  if (axis !== 2 && axis !== -1) throw view.unsupported(`joins along the axis ${axis}`);
  checkShapeOfPast(view, past, steps.widthOf(of.value));
  if (!steps.claim(`inputs ${past.layer}`)) {
    throw view.unsupported(`reads ${quote(view.node.input[0])}, which another node has read`);
  }
  return { kind: "history", of, past };
}

/** The width that the graph declares for what is kept, where it does; its length is known only with the kernels. */
function checkShapeOfPast(view: NodeView, { shape }: Cache, width: number): void {
  if (!shape || (shape.length === 3 && (shape[1] ?? width) === width)) return;
  throw view.damaged(
    `joins ${width} channels to ${quote(view.node.input[0])}, which is declared as ${
      listed(shape)
    }`,
  );
}

/** `Slice(history)`: the last ones are kept; whether they are as many as a kernel's weights is seen in the end. */
export function keepInputs(view: NodeView, { past }: History): Cache {
  const name = view.node.output[0] ?? "";
  const present = cacheOf(name);
  if (present?.time !== "present" || present.part !== "inputs" || present.layer !== past.layer) {
    throw view.unsupported(
      `gives ${quote(name)} where present_conv.${past.layer} is understood`,
    );
  }
  const start = startOf(view);
  const declared = past.shape?.[2];
  if (start >= 0 || -start > MOST_LENGTH || (declared ?? -start) !== -start) {
    throw view.unsupported(
      `keeps what lies from ${start} on of ${quote(view.node.input[0])}; as much as ` +
        `past_conv.${past.layer} holds is understood`,
    );
  }
  return { ...present, length: -start };
}

/** `Conv(history, weight, bias?)`, each channel by itself. */
export function convolve(view: NodeView, steps: StepList): Convolved {
  const { of, past } = view.input(0, "history");
  const { tensor, transposed } = view.input(1, "tensor");
  const channels = steps.widthOf(of.value);
  if (tensor.dataType !== DataType.FLOAT || transposed) {
    throw view.unsupported(`convolves with ${quote(tensor.name)}, which is not float32`);
  }
  const length = Number(tensor.dims.at(-1) ?? 0n);
  checkShape(view, tensor, [channels, 1, length]);
  if (!(length >= 2 && length <= MOST_LENGTH)) {
    throw view.unsupported(`sees ${length} tokens; 2 to ${MOST_LENGTH} are understood`);
  }
  if ((past.shape?.[2] ?? length) !== length) {
    throw view.damaged(
      `has kernels of ${length} weights, and past_conv.${past.layer} is declared as ` +
        listed(past.shape!),
    );
  }
  const group = view.integer("group", 1);
  if (group !== channels) {
    throw view.unsupported(`has the group ${group}; ${channels}, one a channel, is understood`);
  }
  expectIntegers(view, "kernel_shape", [length]);
  expectIntegers(view, "pads", [0, 0]);
  expectIntegers(view, "strides", [1]);
  expectIntegers(view, "dilations", [1]);
  const pad = view.text("auto_pad", "NOTSET");
  if (pad !== "NOTSET" && pad !== "VALID") throw view.unsupported(`pads by ${quote(pad)}`);
  const bias = view.has(2) ? vectorName(view, view.input(2, "tensor"), channels) : undefined;
  const { layer } = past;
  return { kind: "convolved", of, layer, length, weight: tensor.name, bias, cut: false };
}

/** `Slice(convolved)`: what is kept is as long as a kernel, so that the first sum is that of no token. */
export function cutConvolved(view: NodeView, convolved: Convolved): Convolved {
  const start = startOf(view);
  if (convolved.cut || start !== 1) {
    throw view.unsupported(`takes a convolution's sums from ${start} on; from 1 on is understood`);
  }
  return { ...convolved, cut: true };
}

/** `Transpose(convolved)`: a vector for every token again. */
export function turnBack(view: NodeView, steps: StepList, convolved: Convolved): Meaning {
  expectTurn(view);
  if (!convolved.cut) {
    throw view.unsupported("reads all of a convolution's sums; there is one more than tokens");
  }
  const { of, layer, length, weight, bias } = convolved;
  const output = steps.value(steps.widthOf(of.value));
  steps.push({ op: "convolve", input: of.value, output, layer, length, weight, bias });
  return { ...of, value: output };
}

function expectTurn(view: NodeView): void {
  const perm = view.integers("perm") ?? [2, 1, 0];
  if (perm.join() !== "0,2,1") {
    throw view.unsupported(
      `has the order of axes ${listed(perm)}; vectors are turned by [0, 2, 1] here`,
    );
  }
}

/** Where a slice along the tokens begins that goes to their end. */
function startOf(view: NodeView): number {
  const start = view.number(1, "integers"), end = view.number(2, "integers");
  const axis = view.has(3) ? view.number(3, "integers") : 0;
  const step = view.has(4) ? view.number(4, "integers") : 1;
  if (end < END || (axis !== 2 && axis !== -1) || step !== 1) {
    throw view.unsupported(
      `cuts from ${start} to ${end} by ${step} along axis ${axis}; the tokens to their end are understood`,
    );
  }
  return start;
}

function expectIntegers(view: NodeView, name: string, wanted: readonly number[]): void {
  const found = view.integers(name) ?? wanted;
  if (found.length === wanted.length && found.every((value, i) => value === wanted[i])) return;
  throw view.unsupported(`has the ${name} ${listed(found)}; ${listed(wanted)} is understood`);
}
