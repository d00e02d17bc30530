/**
 * Changes at random to the graph of a decoder: other wires, attributes, constants, shapes, operators.
 * @module
 */
import type { GraphProto, NodeProto, TensorProto } from "../../../src/onnx/generated/onnx_pb.ts";
import type { Dice } from "../../support/fuzz.ts";

const INTEGERS = [0n, 1n, -1n, 2n, 3n, 4n, 8n, 16n, 32n, 64n, 320n, 2n ** 31n - 1n, -(2n ** 63n)];
const FLOATS = [0, 1, -1, 0.5, 1e-5, 1e30, -1e-6, NaN, Infinity];
const OPERATORS = [
  "Add,",
  "Mul,",
  "Sub,",
  "Div,",
  "Pow,",
  "Relu,",
  "Sigmoid,",
  "Sqrt,",
  "Identity,",
  "MatMul,",
  "Transpose,",
  "Gather,",
  "Softmax,",
  "LayerNormalization,",
  "Slice,",
  "Gelu,com.microsoft",
  "FastGelu,com.microsoft",
  "RotaryEmbedding,com.microsoft",
  "GroupQueryAttention,com.microsoft",
  "SparseMatMulNMRowScaled,ai.espalier",
  "SparseMatMulCsr,ai.espalier",
  "RotaryTables,ai.espalier",
];

/** Changes something. Most changes leave a graph whose nodes still come after what they read. */
export function changeGraph(dice: Dice, graph: GraphProto): void {
  const at = dice.below(graph.node.length);
  const node = graph.node[at];
  switch (dice.below(12)) {
    case 0:
    case 1:
    case 2:
      return rewire(dice, graph, at);
    case 3:
      return changeInputs(dice, node);
    case 4:
    case 5:
      return changeAttribute(dice, node);
    case 6:
      [node.opType, node.domain] = dice.pick(OPERATORS).split(",");
      return;
    case 7: { // Two nodes give each other's values.
      const other = dice.pick(graph.node);
      [node.output, other.output] = [other.output, node.output];
      return;
    }
    case 8: // A node that does nothing any more.
      for (const { input } of graph.node) {
        for (const [i, name] of input.entries()) {
          if (name === node.output[0] && node.input[0]) input[i] = node.input[0];
        }
      }
      return;
    case 9:
      return changeConstant(dice, dice.pick(graph.initializer.filter((t) => t.rawData.length > 0)));
    case 10:
      return changeTensor(dice, graph);
    default:
      return changeDeclared(dice, graph);
  }
}

/** A node reads something else that is there before it: of the same kind of maker, or anything. */
function rewire(dice: Dice, graph: GraphProto, at: number): void {
  const node = graph.node[at];
  const place = dice.below(node.input.length);
  const maker = graph.node.find(({ output }) => output.includes(node.input[place]));
  const before = graph.node.slice(0, at);
  const alike = before.filter(({ opType }) => opType === maker?.opType);
  const makers = dice.below(3) > 0 && alike.length > 0 ? alike : before;
  const tensors = [...graph.initializer, ...graph.input].map(({ name }) => name);
  const value = makers.length > 0 && (maker || dice.below(2) === 0)
    ? dice.pick(dice.pick(makers).output)
    : dice.pick(tensors);
  node.input[place] = value;
}

function changeInputs(dice: Dice, node: NodeProto): void {
  switch (dice.below(4)) {
    case 0:
      node.input.reverse();
      return;
    case 1:
      node.input.push(dice.pick(node.input));
      return;
    case 2:
      node.input[dice.below(node.input.length)] = "";
      return;
    default:
      node.input.splice(dice.below(node.input.length), 1);
  }
}

function changeAttribute(dice: Dice, node: NodeProto): void {
  if (node.attribute.length === 0) return;
  const attribute = dice.pick(node.attribute);
  switch (dice.below(5)) {
    case 0:
      node.attribute = node.attribute.filter((a) => a !== attribute);
      return;
    case 1:
      attribute.name = dice.pick([
        "scale",
        "softcap",
        "do_rotary",
        "rotary_embedding_dim",
        "axis",
        "bits",
        "keepdims",
        "positions",
      ]);
      return;
    case 2:
      attribute.type = dice.pick([0, 1, 2, 3, 7]);
      return;
    default:
      attribute.i = dice.pick(INTEGERS);
      attribute.f = dice.pick(FLOATS);
      attribute.ints = attribute.ints.map((i) => dice.below(2) === 0 ? i : dice.pick(INTEGERS));
  }
}

function changeConstant(dice: Dice, { rawData, dims }: TensorProto): void {
  const view = new DataView(rawData.buffer, rawData.byteOffset, rawData.byteLength);
  if (dice.below(4) === 0) dims.push(1n);
  else if (rawData.length % 8 === 0) view.setBigInt64(0, dice.pick(INTEGERS), true);
  else if (rawData.length % 4 === 0) view.setFloat32(0, dice.pick(FLOATS), true);
}

function changeTensor(dice: Dice, graph: GraphProto): void {
  const [one, other] = [dice.pick(graph.initializer), dice.pick(graph.initializer)];
  switch (dice.below(4)) {
    case 0:
      one.dims = [...one.dims.reverse()];
      return;
    case 1:
      one.dims[dice.below(one.dims.length + 1)] = dice.pick(INTEGERS);
      return;
    case 2:
      one.dataType = dice.pick([1, 2, 3, 6, 7, 10, 16]);
      return;
    default:
      [one.name, other.name] = [other.name, one.name];
  }
}

/** Inputs and outputs of the graph with other names or shapes. */
function changeDeclared(dice: Dice, graph: GraphProto): void {
  const list = dice.pick([graph.input, graph.output]);
  const [one, other] = [dice.pick(list), dice.pick(list)];
  switch (dice.below(4)) {
    case 0:
      list.splice(list.indexOf(one), 1);
      return;
    case 1:
      [one.name, other.name] = [other.name, one.name];
      return;
    case 2:
      one.name = dice.pick([
        "logits",
        "input_ids",
        "present.7.key",
        "past_key_values.0.key",
        "past_conv.0",
        "x",
      ]);
      return;
    default: {
      const type = one.type?.value;
      if (type?.case !== "tensorType") return;
      type.value.elemType = dice.pick([1, 6, 7, 10, type.value.elemType]);
      const dims = type.value.shape?.dim ?? [];
      const value = dice.pick(INTEGERS);
      if (dims.length > 0) dice.pick(dims).value = { case: "dimValue", value };
    }
  }
}

/** Bytes changed in one of the ways in which files break. */
export function changeBytes(dice: Dice, original: Uint8Array): Uint8Array {
  const bytes = original.slice();
  const at = dice.below(bytes.length);
  switch (dice.below(4)) {
    case 0:
      return bytes.slice(0, at);
    case 1:
      bytes.copyWithin(dice.below(bytes.length), at, at + dice.below(64));
      return bytes;
    case 2:
      bytes[at] = dice.pick([0, 1, 0x0a, 0x12, 0x7f, 0x80, 0xff]);
      return bytes;
    default:
      for (let n = 1 + dice.below(3); n > 0; n--) {
        bytes[dice.below(bytes.length)] ^= 1 << dice.below(8);
      }
      return bytes;
  }
}
