/**
 * Which operators are understood, and what each makes of what its inputs mean.
 * @module
 */
import { DOMAIN } from "../../../../compile/functions.ts";
import { ROTARY_TABLES } from "../../../../compile/rotary_tables.ts";
import { isExternal } from "../../../onnx/external.ts";
import { TensorProto_DataType as DataType } from "../../../onnx/generated/onnx_pb.ts";
import type { ElementwiseOp } from "../ir.ts";
import {
  attend,
  castLengths,
  countTokens,
  lessOne,
  shapeOfMask,
  totalLength,
} from "./attention.ts";
import {
  appendToHistory,
  convolve,
  cutConvolved,
  keepInputs,
  turn,
  turnBack,
} from "./convolution.ts";
import {
  exponentials,
  joinUnits,
  negate,
  remember,
  turnToHeads,
  weighByExponentials,
  weighEachHead,
} from "./delta.ts";
import { type Activation, type Meaning, type MeaningOf, ordered, type Stored } from "./meaning.ts";
import { listed, type NodeView } from "./node_view.ts";
import { makeTables, rotate } from "./rotary.ts";
import {
  addEpsilon,
  divide,
  layerNorm,
  mean,
  root,
  square,
  sumOfSquares,
  weighNorm,
} from "./norms.ts";
import type { StepList } from "./step_list.ts";
import {
  addBias,
  flat,
  gatherRows,
  multiply,
  scaleProduct,
  scaleRows,
  unsqueezeScales,
  vectorName,
  weighHeads,
  widenRows,
} from "./weights.ts";

/** What a node's outputs mean: the only one, or the first ones. */
export type Rule = (view: NodeView, steps: StepList) => Meaning | Meaning[];

/** By the operator's name with its domain. */
export const RULES: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ["Add", add],
  ["Cast", cast],
  ["Concat", appendToHistory],
  ["Conv", convolve],
  ["Div", div],
  ["Exp", exponentials],
  ["Gather", gather],
  ["Identity", (view) => view.meaning(0)],
  ["LayerNormalization", layerNorm],
  ["MatMul", multiply],
  ["Mul", mul],
  ["Neg", negate],
  ["Pow", square],
  ["ReduceMean", mean],
  ["ReduceSum", reduceSum],
  ["Relu", elementwise("relu")],
  ["Reshape", reshape],
  ["Shape", shapeOfMask],
  ["Sigmoid", elementwise("sigmoid")],
  ["Slice", slice],
  ["Softplus", elementwise("softplus")],
  ["Sqrt", root],
  ["Sub", sub],
  ["Tanh", elementwise("tanh")],
  ["Transpose", transpose],
  ["Unsqueeze", unsqueezeScales],
  [`${DOMAIN}.${ROTARY_TABLES}`, makeTables],
  ["com.microsoft.FastGelu", elementwise("gelu_tanh")],
  ["com.microsoft.Gelu", elementwise("gelu")],
  ["com.microsoft.GroupQueryAttention", attend],
  ["com.microsoft.LinearAttention", remember],
  ["com.microsoft.RotaryEmbedding", rotate],
]);

/** Two activations, a bias, ε, an offset of positions, or −1 of a length. */
function add(view: NodeView, steps: StepList): Meaning {
  const pair = view.pair();
  const biased = ordered(pair, "activation", "tensor");
  if (biased) return addBias(view, steps, ...biased);
  const both = ordered(pair, "activation", "activation");
  if (both) return combine(view, steps, "add", both);
  // What is left adds a small constant to something.
  const place = pair[0].kind === "tensor" ? 0 : 1;
  const other = pair[1 - place];
  switch (other.kind) {
    case "part of a norm":
      return addEpsilon(view, other, place);
    case "lengths":
      return lessOne(view, other, -view.number(place, "integers"));
    case "tensor":
      return raise(view, other, place);
    case "ids":
      return shift(view, other, view.number(place, "integers"));
    default:
      throw mixed(view, pair);
  }
}

/** An activation by a number, or the last but one node of a norm. */
function div(view: NodeView, steps: StepList): Meaning {
  if (view.meaning(1).kind !== "tensor") return divide(view);
  const divisor = view.number(1, "floats"), factor = 1 / divisor;
  if (!Number.isFinite(Math.fround(factor))) throw view.damaged(`divides by ${divisor}`);
  return scaleBy(steps, view.input(0, "activation"), factor);
}

function sub(view: NodeView): Meaning {
  return lessOne(view, view.input(0, "lengths"), view.number(1, "integers"));
}

/** A tensor of the file with a number added, as weights of norms may be stored. */
function raise(view: NodeView, stored: Stored, place: number): Meaning {
  // Which of the two is the number is seen by its size alone.
  const isNumber = stored.tensor.dims.every((dim) => dim === 1n);
  const tensor = isNumber ? view.input(place, "tensor") : stored;
  const above = view.number(isNumber ? 1 - place : place, "floats");
  if (!Number.isFinite(above)) throw view.damaged(`adds ${above}`);
  return { kind: "tensor plus a number", stored: tensor, above };
}

/** Positions from an offset on. */
function shift(view: NodeView, ids: MeaningOf<"ids">, by: number): Meaning {
  if (ids.of === "positions") return { ...ids, offset: ids.offset + by };
  throw view.unsupported(`adds ${by} to token ids`);
}

/** Two activations, an activation and its sigmoid, itself or a number, or the last node of a norm or of a scaled product. */
function mul(view: NodeView, steps: StepList): Meaning {
  const pair = view.pair();
  const both = ordered(pair, "activation", "activation");
  if (both) return gate(view, steps, both);
  const scaled = ordered(pair, "activation", "tensor");
  if (scaled) {
    const [x, by] = scaled;
    const { heads } = x;
    if (heads !== undefined && by.tensor.dims.length === 2) {
      return weighHeads(view, steps, { ...x, heads }, by);
    }
    if (isExternal(by.tensor) && by.tensor.dims.join() === "1") return weighAll(view, steps, x, by);
    return scale(view, steps, x, pair[0].kind === "tensor" ? 0 : 1);
  }
  const norm = ordered(pair, "norm without weight", "tensor");
  if (norm) return weighNorm(view, steps, ...norm);
  const raised = ordered(pair, "norm without weight", "tensor plus a number");
  if (raised) return weighNorm(view, steps, raised[0], raised[1].stored, raised[1].above);
  const exponential = ordered(pair, "activation", "exponentials");
  if (exponential) return weighByExponentials(view, steps, ...exponential);
  const ofHeads = ordered(pair, "activation", "tensor of heads");
  if (ofHeads) return weighEachHead(view, steps, ...ofHeads);
  const product = ordered(pair, "product without scales", "tensor");
  if (product) return scaleProduct(view, steps, ...product);
  const rows = ordered(pair, "rows", "scales of rows");
  if (rows) return scaleRows(view, steps, ...rows);
  throw mixed(view, pair);
}

/** An activation by one number of the file. */
function weighAll(view: NodeView, steps: StepList, x: Activation, stored: Stored): Activation {
  const weight = vectorName(view, stored, 1);
  const each = steps.widthOf(x.value), output = steps.value(each);
  steps.push({ op: "weigh", input: x.value, output, weight, each });
  return { ...x, value: output };
}

/** An activation by one number: the last node of a soft cap, or of nothing more. */
function scale(view: NodeView, steps: StepList, x: Activation, place: number): Meaning {
  const factor = view.number(place, "floats");
  if (!Number.isFinite(factor)) throw view.damaged(`multiplies by ${factor}`);
  const tanh = steps.makerOf(x.value);
  const divided = tanh.op === "tanh" ? steps.makerOf(tanh.input) : undefined;
  if (divided?.op !== "scale" || divided.factor !== 1 / factor) {
    return scaleBy(steps, x, factor);
  }
  const output = steps.value(steps.widthOf(x.value));
  steps.push({ op: "cap", input: divided.input, output, cap: factor });
  return { ...x, value: output };
}

function scaleBy(steps: StepList, x: Activation, factor: number): Activation {
  const output = steps.value(steps.widthOf(x.value));
  steps.push({ op: "scale", input: x.value, output, factor });
  return { ...x, value: output };
}

function gate(view: NodeView, steps: StepList, [a, b]: [Activation, Activation]): Meaning {
  for (const [x, gated] of [[a, b], [b, a]]) {
    const maker = steps.makerOf(gated.value);
    const isOfX = maker.op === "sigmoid" && maker.input === x.value;
    if (isOfX && sameShape(x, gated)) return apply(steps, "silu", x);
  }
  const maker = steps.makerOf(a.value);
  if (maker.op === "relu" && a.value === b.value && sameShape(a, b)) {
    return apply(steps, "relu_squared", { ...a, value: maker.input });
  }
  return combine(view, steps, "mul", [a, b].map((x, i) => spread(steps, x, [b, a][i])));
}

/** What has one element for each head, as many times as those of another have. */
function spread(steps: StepList, x: Activation, other: Activation): Activation {
  const [own, wanted] = [x, other].map(({ value }) => steps.widthOf(value));
  if (x.heads === undefined || x.heads !== other.heads || own !== x.heads || wanted === own) {
    return x;
  }
  const output = steps.value(wanted);
  steps.push({ op: "spread", input: x.value, output });
  return { ...x, value: output };
}

function combine(
  view: NodeView,
  steps: StepList,
  op: "add" | "mul",
  [a, b]: readonly Activation[],
): Meaning {
  const [width, other] = [a, b].map(({ value }) => steps.widthOf(value));
  if (width !== other) throw view.damaged(`reads ${width} and ${other} elements a token`);
  if (!sameShape(a, b)) throw view.unsupported("reads values of two shapes");
  const output = steps.value(width);
  steps.push({ op, a: a.value, b: b.value, output });
  return { ...a, value: output };
}

/** Whether two activations of one width have the same shape. */
function sameShape(a: Activation, b: Activation): boolean {
  return a.heads === b.heads && a.lastOnly === b.lastOnly;
}

function mixed(view: NodeView, [a, b]: [Meaning, Meaning]): Error {
  return view.unsupported(`reads two inputs of the kinds "${a.kind}" and "${b.kind}"`);
}

function elementwise(op: Exclude<ElementwiseOp, "silu" | "relu_squared">): Rule {
  return (view, steps) => apply(steps, op, view.input(0, "activation"));
}

function apply(steps: StepList, op: ElementwiseOp, x: Activation): Activation {
  const output = steps.value(steps.widthOf(x.value));
  steps.push({ op, input: x.value, output });
  return { ...x, value: output };
}

function cast(view: NodeView, steps: StepList): Meaning {
  const x = view.meaning(0);
  const to = view.integer("to");
  if (x.kind === "lengths") return castLengths(view, x, to);
  if (to === DataType.FLOAT) {
    if (x.kind === "rows") return widenRows(view, steps, { ...x, wide: true });
    if (x.kind === "tensor") return { ...x, wide: true };
    if (x.kind === "activation") return x;
  }
  throw view.unsupported(`casts a value of the kind "${x.kind}" to ${DataType[to] ?? to}`);
}

function reduceSum(view: NodeView): Meaning {
  return view.meaning(0).kind === "part of a norm" ? sumOfSquares(view) : countTokens(view);
}

function gather(view: NodeView, steps: StepList): Meaning {
  return view.meaning(0).kind === "lengths" ? totalLength(view) : gatherRows(view, steps);
}

function transpose(view: NodeView, steps: StepList): Meaning {
  const x = view.meaning(0);
  if (x.kind === "activation") return turn(view, x);
  if (x.kind === "convolved") return turnBack(view, steps, x);
  const matrix = view.input(0, "tensor");
  const perm = view.integers("perm") ?? [1, 0];
  if (matrix.tensor.dims.length !== 2 || perm.length !== 2 || perm[0] !== 1 || perm[1] !== 0) {
    throw view.unsupported(`has the order of axes ${listed(perm)}; matrices are transposed here`);
  }
  return { ...matrix, transposed: !matrix.transposed };
}

/** Vectors cut into heads, or heads put together again. */
function reshape(view: NodeView, steps: StepList): Meaning {
  const found = view.meaning(0);
  if (found.kind === "unit vectors") return joinUnits(view, steps, found);
  if (found.kind === "tensor") return turnToHeads(view, found);
  const x = view.input(0, "activation");
  view.expectInteger("allowzero", 0);
  const shape = view.numbers(1, "integers");
  const [batch, sequence, ...rest] = shape;
  const unknown = rest.indexOf(-1);
  if (batch !== 0 || sequence !== 0 || rest.length < 1 || rest.length > 2 || rest.includes(0)) {
    throw view.unsupported(`makes the shape ${listed(shape)}; [0, 0, …] of 3 or 4 are understood`);
  }
  const width = steps.widthOf(x.value);
  if (unknown >= 0) rest[unknown] = width / (rest[1 - unknown] ?? 1);
  const [heads, headDim] = rest.length === 2 ? rest : [1, rest[0]];
  if (!(heads >= 1 && headDim >= 1 && Number.isInteger(headDim) && heads * headDim === width)) {
    throw view.damaged(`makes the shape ${listed(shape)} of ${width} elements a token`);
  }
  return { ...x, heads: rest.length === 2 ? heads : undefined };
}

/**
 * A part of each vector; or the last token alone, as the head of a model that gives no other logits reads it; or what
 * of a convolution is kept, or wanted.
 */
function slice(view: NodeView, steps: StepList): Meaning {
  const found = view.meaning(0);
  if (found.kind === "history") return keepInputs(view, found);
  if (found.kind === "convolved") return cutConvolved(view, found);
  const x = view.input(0, "activation");
  const start = view.number(1, "integers");
  const end = view.number(2, "integers");
  const axis = view.has(3) ? view.number(3, "integers") : 0;
  const step = view.has(4) ? view.number(4, "integers") : 1;
  if (axis === -1 || axis === (x.heads === undefined ? 2 : 3)) {
    return part(view, steps, x, { start, end, step });
  }
  flat(view, 0);
  // Any end that no sequence reaches: exporters write the greatest integer of some type.
  if (start !== -1 || end < 2 ** 31 - 1 || (axis !== 1 && axis !== -2) || step !== 1) {
    throw view.unsupported(
      `cuts from ${start} to ${end} by ${step} along axis ${axis}; ` +
        `the last token of the sequence is understood, or a part of each vector`,
    );
  }
  return { ...x, lastOnly: true };
}

/** Elements that follow one another, of each vector, or of each of its heads. */
function part(
  view: NodeView,
  steps: StepList,
  x: Activation,
  { start, end, step }: { readonly start: number; readonly end: number; readonly step: number },
): Activation {
  const { heads = 1 } = x;
  const width = steps.widthOf(x.value) / heads;
  const [first, behind] = [start, end].map((at) => Math.min(at < 0 ? at + width : at, width));
  if (step !== 1 || first < 0 || behind <= first) {
    throw view.unsupported(
      `cuts from ${start} to ${end} by ${step}, of ${width} elements a ${
        heads > 1 ? "head" : "token"
      }`,
    );
  }
  const output = steps.value(heads * (behind - first));
  steps.push({ op: "part", input: x.value, output, offset: first, heads: x.heads });
  return { ...x, value: output };
}
