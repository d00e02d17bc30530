/**
 * Gradients of a graph, as nodes of the same graph (reverse-mode differentiation).
 *
 * What runs a block then runs its gradient too, on every backend: no kernel of ours is needed. The rules
 * are those of the operators that `buildDecoder` makes for whole windows; others are refused by name.
 * @module
 */
import { GraphError } from "../errors.ts";
import { float, GraphBuilder, MICROSOFT, valueInfo } from "./builder.ts";
import {
  type GraphProto,
  type NodeProto,
  TensorProto_DataType as DataType,
  type TensorShapeProto,
} from "./generated/onnx_pb.ts";

/** The gradient of the loss by the value `name`: an input of the graph, or an output. */
export function gradientOf(name: string): string {
  return `gradient:${name}`;
}

/**
 * Adds to a graph the gradients of a loss that nobody in the graph knows.
 *
 * The loss's gradient by `of` becomes an input, its gradients by `by` become outputs; see
 * {@linkcode gradientOf} for their names. Nodes that only `of` needs are left out by the runtime.
 *
 * @param graph A graph whose nodes stand in topological order; it is changed.
 * @param of A value `[batch, sequence, width]` that the graph computes.
 * @param by Inputs of the graph: `[batch, sequence, width]`, matrices `[rows, columns]` that are
 *   multiplied as `x · Wᵀ`, or vectors `[width]` that are spread over all tokens.
 * @throws {GraphError} When an operator on the way has no rule, or `of` depends on none of `by`.
 */
export function addGradients(graph: GraphProto, of: string, by: readonly string[]): void {
  const b = new GraphBuilder(graph);
  const forward = [...graph.node];
  const facts = factsOf(graph, forward, by);
  b.input(gradientOf(of), DataType.FLOAT, ["batch_size", "sequence_length", "width"]);

  const found = new Map([[of, gradientOf(of)]]);
  const add = (value: string, gradient: string) => {
    const before = found.get(value);
    found.set(value, before === undefined ? gradient : b.node("Add", [before, gradient]));
  };
  b.within("gradient", () => {
    for (const node of forward.reverse()) {
      const [output] = node.output;
      const gradient = found.get(output);
      if (gradient === undefined || !node.input.some((name) => facts.moving.has(name))) continue;
      const rule = RULES[node.opType];
      if (!rule) {
        throw new GraphError(`no rule for the gradient of ${node.opType} (node ${node.name})`);
      }
      const { input } = node;
      rule({
        b,
        node,
        input,
        output,
        gradient,
        facts,
        moves: (i) => facts.moving.has(input[i]),
        give: (i, value) => {
          if (facts.moving.has(input[i])) add(input[i], value());
        },
        giveWeight: (name, value) => add(name, value),
      });
    }
    for (const name of by) {
      const gradient = found.get(name);
      if (gradient === undefined) throw new GraphError(`${of} does not depend on ${name}`);
      b.node("Identity", [gradient], { outputs: [gradientOf(name)] });
      graph.output.push(valueInfo(gradientOf(name), DataType.FLOAT, dimsOf(graph, name)));
    }
  });
}

/** What the rules ask about values. */
interface Facts {
  /** Values that depend on what the gradient is asked by. */
  readonly moving: ReadonlySet<string>;
  /** Moving values with one element a token, left by a mean over the last axis, or with one for each head. */
  readonly narrow: ReadonlySet<string>;
  /** Transposed matrices `Wᵀ` by name → the graph's input W, with its rows and columns. */
  readonly matrices: ReadonlyMap<string, Matrix>;
  /** Lengths of the vectors that the gradient is asked by. */
  readonly vectors: ReadonlyMap<string, number>;
}

interface Matrix {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
}

/** A node, and the gradient by its output. */
interface Step {
  readonly b: GraphBuilder;
  readonly node: NodeProto;
  readonly input: readonly string[];
  readonly output: string;
  readonly gradient: string;
  readonly facts: Facts;
  /** Whether an input depends on what the gradient is asked by. */
  moves(input: number): boolean;
  /** Adds to the gradient by an input, where that is wanted. */
  give(input: number, gradient: () => string): void;
  /** Adds to the gradient by a matrix. */
  giveWeight(name: string, gradient: string): void;
}

const RULES: Record<string, (step: Step) => void> = {
  Identity: ({ gradient, give }) => give(0, () => gradient),

  Add(step) {
    for (const i of [0, 1]) step.give(i, () => fitted(step, i, step.gradient));
  },

  Mul(step) {
    for (const i of [0, 1]) {
      step.give(i, () => fitted(step, i, step.b.node("Mul", [step.gradient, step.input[1 - i]])));
    }
  },

  /** y = a / b: da = dy / b, db = -dy · y / b. */
  Div(step) {
    const { b, input, output, gradient, give } = step;
    give(0, () => fitted(step, 0, b.node("Div", [gradient, input[1]])));
    give(1, () => {
      const scaled = b.node("Div", [b.node("Mul", [gradient, output]), input[1]]);
      return fitted(step, 1, b.node("Neg", [scaled]));
    });
  },

  /** Only squares: d(x²) = 2x. */
  Pow({ b, input, gradient, give }) {
    if (input[1] !== b.scalar(2)) throw new GraphError("no rule for the gradient of Pow but of x²");
    give(0, () => b.node("Mul", [b.node("Mul", [gradient, input[0]]), b.scalar(2)]));
  },

  /** d√x = 1 / (2√x). */
  Sqrt({ b, output, gradient, give }) {
    give(0, () => b.node("Div", [gradient, b.node("Mul", [output, b.scalar(2)])]));
  },

  /** Over the last axis, which stays with one element. */
  ReduceMean({ b, input, gradient, give }) {
    give(0, () => {
      const shape = b.node("Shape", [input[0]]);
      const last = b.constant("int64_-1", BigInt64Array.of(-1n), []);
      const width = b.node("Cast", [b.node("Gather", [shape, last])], {
        attributes: { to: DataType.FLOAT },
      });
      return b.node("Expand", [b.node("Div", [gradient, width]), shape]);
    });
  },

  /** Over the last axis: dx = y · (dy - Σ dy · y). */
  Softmax({ b, output, gradient, give }) {
    give(0, () => {
      const weighted = b.node("Mul", [gradient, output]);
      return b.node("Sub", [weighted, b.node("Mul", [output, sumOfLast(b, weighted)])]);
    });
  },

  /** Over the last axis, which stays with one element: d log Σ eˣ = eˣ / Σ eˣ. */
  ReduceLogSumExp({ b, input, output, gradient, give }) {
    give(0, () => {
      const shares = b.node("Exp", [b.node("Sub", [input[0], output])]);
      return b.node("Mul", [gradient, shares]);
    });
  },

  /** dσ = σ (1 - σ). */
  Sigmoid({ b, output, gradient, give }) {
    give(0, () => {
      const slope = b.node("Mul", [output, b.node("Sub", [b.scalar(1), output])]);
      return b.node("Mul", [gradient, slope]);
    });
  },

  /** dtanh = 1 - tanh². */
  Tanh({ b, output, gradient, give }) {
    give(0, () => {
      const slope = b.node("Sub", [b.scalar(1), b.node("Mul", [output, output])]);
      return b.node("Mul", [gradient, slope]);
    });
  },

  Relu({ b, input, gradient, give }) {
    give(0, () => {
      const positive = b.node("Greater", [input[0], b.scalar(0)]);
      return b.node("Where", [positive, gradient, b.scalar(0)]);
    });
  },

  /** d(x Φ(x)) = Φ(x) + x φ(x), Φ the normal distribution. */
  Gelu({ b, input: [x], gradient, give }) {
    give(0, () => {
      const erf = b.node("Erf", [b.node("Mul", [x, b.scalar(Math.SQRT1_2)])]);
      const below = b.node("Mul", [b.node("Add", [erf, b.scalar(1)]), b.scalar(0.5)]);
      const squares = b.node("Mul", [b.node("Mul", [x, x]), b.scalar(-0.5)]);
      const density = b.node("Mul", [
        b.node("Exp", [squares]),
        b.scalar(1 / Math.sqrt(2 * Math.PI)),
      ]);
      const slope = b.node("Add", [below, b.node("Mul", [x, density])]);
      return b.node("Mul", [gradient, slope]);
    });
  },

  /** y = x · s(x) with s = (1 + tanh u) / 2 and u = √(2/π) (x + 0.044715 x³): dy = s + x · s · (1 - s) · 2 u'. */
  FastGelu({ b, input: [x], gradient, give }) {
    give(0, () => {
      const c = Math.sqrt(2 / Math.PI), squares = b.node("Mul", [x, x]);
      const times = (value: string, factor: number) => b.node("Mul", [value, b.scalar(factor)]);
      const plus = (value: string, term: number) => b.node("Add", [value, b.scalar(term)]);
      const inner = b.node("Mul", [x, plus(times(squares, c * 0.044715), c)]);
      const share = times(plus(b.node("Tanh", [inner]), 1), 0.5);
      const rest = b.node("Mul", [share, b.node("Sub", [b.scalar(1), share])]);
      const slope = plus(times(squares, 6 * c * 0.044715), 2 * c);
      const bend = b.node("Mul", [x, b.node("Mul", [rest, slope])]);
      return b.node("Mul", [gradient, b.node("Add", [share, bend])]);
    });
  },

  /** With n = (x - mean) / deviation and g = dy · weight: dx = (g - mean g - n · mean (g · n)) / deviation. */
  LayerNormalization(step) {
    const { b, node, input: [x, weight], gradient, give } = step;
    const mean = (value: string) =>
      b.node("ReduceMean", [value], { attributes: { axes: [-1], keepdims: 1 } });
    const epsilon = node.attribute.find(({ name }) => name === "epsilon")?.f ?? 1e-5;
    const centred = b.node("Sub", [x, mean(x)]);
    const variance = mean(b.node("Mul", [centred, centred]));
    const deviation = b.node("Sqrt", [b.node("Add", [variance, b.scalar(epsilon)])]);
    const normed = b.node("Div", [centred, deviation]);
    give(1, () => fitted(step, 1, b.node("Mul", [gradient, normed])));
    give(0, () => {
      const g = b.node("Mul", [gradient, weight]);
      const along = b.node("Mul", [normed, mean(b.node("Mul", [g, normed]))]);
      const rest = b.node("Sub", [b.node("Sub", [g, mean(g)]), along]);
      return b.node("Div", [rest, deviation]);
    });
  },

  Reshape({ b, input, gradient, give }) {
    give(0, () => b.node("Reshape", [gradient, b.node("Shape", [input[0]])]));
  },

  /** Of the last axis of three, or of four, without steps: what was left out has no gradient. */
  Slice({ b, input: [x, from, to, axis], gradient, give }) {
    give(0, () => {
      const length = b.node("Gather", [b.node("Shape", [x]), axis]);
      const after = b.node("Sub", [length, to]);
      const others = b.integers(axis === b.integers([3]) ? [0, 0, 0] : [0, 0]);
      const pads = b.node("Concat", [others, from, others, after], { attributes: { axis: 0 } });
      return b.node("Pad", [gradient, pads, b.scalar(0)]);
    });
  },

  /** Along the last of three axes: each part has a part of the gradient. */
  Concat({ b, input, gradient, give }) {
    const last = b.integers([2]);
    let from = b.integers([0]);
    for (const [i, x] of input.entries()) {
      const start = from, width = b.node("Gather", [b.node("Shape", [x]), last]);
      const end = from = b.node("Add", [start, width]);
      give(i, () => b.node("Slice", [gradient, start, end, last]));
    }
  },

  /** Of channels with a kernel each, over tokens before which there is nothing: kernels run the other way. */
  Conv({ b, node, input: [, kernels], gradient, give }) {
    const [shape = [], pads = []] = ["kernel_shape", "pads"].map((name) => integersOf(node, name));
    if (pads.join() !== `${shape[0] - 1},0`) {
      throw new GraphError("no rule for the gradient of Conv but over a token and those before it");
    }
    const group = Number(node.attribute.find(({ name }) => name === "group")?.i);
    give(0, () => {
      const [last, end] = [b.integers([-1]), b.integers([Number.MIN_SAFE_INTEGER])];
      const backwards = b.node("Slice", [kernels, last, end, b.integers([2]), last]);
      const attributes = { group, kernel_shape: shape, pads: pads.toReversed() };
      return b.node("Conv", [gradient, backwards], { attributes });
    });
  },

  Transpose({ b, node, gradient, give }) {
    const perm = integersOf(node, "perm");
    if (!perm) throw new GraphError(`no rule for the gradient of a Transpose without perm`);
    const inverse = perm.map((_, i) => perm.indexOf(i));
    give(0, () => b.node("Transpose", [gradient], { attributes: { perm: inverse } }));
  },

  /** A rotation: its gradient turns back. */
  RotaryEmbedding({ b, node, input: [, positions, cosines, sines], gradient, give }) {
    give(
      0,
      () =>
        b.node("RotaryEmbedding", [gradient, positions, cosines, b.node("Neg", [sines])], {
          domain: MICROSOFT,
          attributes: Object.fromEntries(node.attribute.map(({ name, i }) => [name, Number(i)])),
        }),
    );
  },

  /** x · Wᵀ, or matrices of activations with two axes before their own. */
  MatMul({ b, input: [left, right], gradient, facts, give, giveWeight }) {
    const matrix = facts.matrices.get(right);
    if (matrix) {
      const { name, rows, columns } = matrix;
      give(0, () => b.node("MatMul", [gradient, name]));
      if (facts.moving.has(name)) {
        const flat = (value: string, width: number) =>
          b.node("Reshape", [value, b.integers([-1, width])]);
        const transposed = { attributes: { transA: 1, alpha: float(1) } };
        giveWeight(
          name,
          b.node("Gemm", [flat(gradient, rows), flat(left, columns)], transposed),
        );
      }
      return;
    }
    const turned = (value: string) =>
      b.node("Transpose", [value], { attributes: { perm: [0, 1, 3, 2] } });
    give(0, () => b.node("MatMul", [gradient, turned(right)]));
    give(1, () => b.node("MatMul", [turned(left), gradient]));
  },
};

/** A gradient in the shape of an input that was spread over the last axis or over tokens, where it was. */
function fitted({ b, input, output, facts }: Step, index: number, gradient: string): string {
  const length = facts.vectors.get(input[index]);
  if (length !== undefined) {
    const rows = b.node("Reshape", [gradient, b.integers([-1, length])]);
    return b.node("ReduceSum", [rows, b.integers([0])], { attributes: { keepdims: 0 } });
  }
  const spread = facts.narrow.has(input[index]) && !facts.narrow.has(output);
  return spread ? sumOfLast(b, gradient) : gradient;
}

function sumOfLast(b: GraphBuilder, value: string): string {
  return b.node("ReduceSum", [value, b.integers([-1])], { attributes: { keepdims: 1 } });
}

/** Finds out about values, in the order in which they are computed. */
function factsOf(graph: GraphProto, nodes: readonly NodeProto[], by: readonly string[]): Facts {
  const moving = new Set(by);
  const narrow = new Set<string>();
  const matrices = new Map<string, Matrix>();
  const vectors = new Map<string, number>();
  for (const name of by) {
    const dims = dimsOf(graph, name);
    if (dims.length === 1) vectors.set(name, Number(dims[0]));
  }
  const inputs = new Set(graph.input.map(({ name }) => name));
  for (const node of nodes) {
    const [output] = node.output;
    if (node.opType === "Transpose" && inputs.has(node.input[0])) {
      const [rows, columns] = dimsOf(graph, node.input[0]);
      if (typeof rows === "number" && typeof columns === "number") {
        matrices.set(output, { name: node.input[0], rows, columns });
      }
      // Its gradient goes straight to the matrix: see MatMul.
      if (moving.has(node.input[0])) moving.add(output);
      continue;
    }
    const moved = node.input.filter((name) => moving.has(name));
    if (moved.length === 0) continue;
    moving.add(output);
    const isNarrow = node.opType === "Reshape"
      ? isOne(graph, node.input[1])
      : node.opType.startsWith("Reduce") || moved.every((name) => narrow.has(name));
    if (isNarrow) narrow.add(output);
  }
  return { moving, narrow, matrices, vectors };
}

/** Whether the last dimension of a shape that is a constant is 1. */
function isOne({ initializer }: GraphProto, shape: string): boolean {
  const { rawData = new Uint8Array(0) } = initializer.find(({ name }) => name === shape) ?? {};
  if (rawData.length < 8) return false;
  return new DataView(rawData.buffer, rawData.byteOffset).getBigInt64(rawData.length - 8, true) ===
    1n;
}

/** An attribute of integers. */
function integersOf(node: NodeProto, name: string): number[] | undefined {
  return node.attribute.find((attribute) => attribute.name === name)?.ints.map(Number);
}

function dimsOf(graph: GraphProto, name: string): (number | string)[] {
  const type = graph.input.find((info) => info.name === name)?.type?.value;
  const shape: TensorShapeProto | undefined = type?.case === "tensorType"
    ? type.value.shape
    : undefined;
  return shape?.dim.map(({ value }) => value.case === "dimValue" ? Number(value.value) : "any") ??
    [];
}
