/**
 * Convolutions in graphs: what lowering makes of them, and what it refuses.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import {
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
} from "../../../src/onnx/generated/onnx_pb.ts";
import type { Step } from "../../../src/engine/sparse/ir.ts";
import { fuse } from "../../../src/engine/sparse/plan/fuse.ts";
import { joinGates } from "../../../src/engine/sparse/plan/gates.ts";
import { CompileWorkshop } from "../../compile/support.ts";
import { Editor } from "./graph_editor.ts";
import { refusals } from "./refusing.ts";
import { changedGraph, type Files, filesOf, lowerBytes } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

let files: Files;
beforeAll(async () => {
  const { output } = await workshop.compile(await workshop.pruned("lfm2", "2:4"), {});
  files = filesOf(output);
});

const { unsupported, damaged } = refusals<"lfm2">(() => files);

/** The nodes of the first layer's convolution. */
const parts = (e: Editor) => {
  const of = (type: string, nth = 0) =>
    e.graph.node.filter(({ name, opType }) =>
      opType === type && name.includes("layers.0/conv/") && !name.includes("/cut/") &&
      !name.includes("_proj")
    )[nth];
  return {
    turn: of("Transpose"),
    join: of("Concat"),
    keep: of("Slice"),
    convolve: of("Conv"),
    cut: of("Slice", 1),
    turnBack: of("Transpose", 1),
  };
};

describe("a convolution", () => {
  test("is one step, whose weights, bias and layer are the graph's", () => {
    const { steps, layers } = lowerBytes(files.graph);
    const convolutions = steps.filter((step) => step.op === "convolve");
    expect(layers).toBe(3);
    expect(convolutions.map(({ layer, length, weight, bias }) => [layer, length, weight, bias]))
      .toEqual([0, 2].map((layer) => [
        layer,
        3,
        `model.layers.${layer}.conv.conv.weight`,
        `model.layers.${layer}.conv.conv.bias`,
      ]));
  });

  test("takes the gates on both sides in, and reads all three where one product has made them", () => {
    const { steps, widths } = fuse(lowerBytes(files.graph));
    const convolutions = steps.filter((step) => step.op === "convolve");
    expect(convolutions.length).toBe(2);
    for (const { input, offset, gate, times } of convolutions) {
      expect(widths[input]).toBe(3 * 64);
      expect([gate, times, offset])
        .toEqual([{ value: input, offset: 128 }, { value: input, offset: 64 }, 0]);
    }
    expect(steps.some((step) => step.op === "elementwise" && step.kind === "part")).toBe(false);
  });

  test("keeps its gates apart where something else reads what they give", () => {
    const graph = changedGraph(files, (graph) => {
      const e = new Editor(graph);
      const { turn, turnBack } = parts(e);
      // What goes in is added to what comes out: no gate behind, and the one before is read twice.
      const reader = graph.node.find(({ input }) => input.includes(turnBack.output[0]))!;
      reader.opType = "Add";
      reader.input = [turn.input[0], turnBack.output[0]];
    });
    const [first] = fuse(lowerBytes(graph)).steps.filter((step) => step.op === "convolve");
    expect([first.gate, first.times, first.offset]).toEqual([undefined, undefined, undefined]);
  });

  test("gives a gate that lies between two convolutions to one of them", () => {
    const convolve = { op: "convolve", length: 3, weight: "w" } as const;
    const norm = { op: "rmsNorm", groups: 1, epsilon: 1e-5, weight: "n" } as const;
    const table = lowerBytes(files.graph).steps.find((step) => step.op === "embed")!;
    const steps: Step[] = [
      { ...table, output: 0 },
      { ...norm, input: 0, output: 1 },
      { ...convolve, input: 0, output: 2, layer: 0 },
      { op: "mul", a: 2, b: 1, output: 3 },
      { ...convolve, input: 3, output: 4, layer: 1 },
    ];
    const widths = new Array<number>(5).fill(64);
    const rest = { lastOnly: false, vocabulary: 320, layers: 2 };
    const joined = joinGates({ widths, steps, logits: 4, ...rest }).steps;
    expect(joined.map(({ op, output }) => [op, output]))
      .toEqual([["embed", 0], ["rmsNorm", 1], ["convolve", 3], ["convolve", 4]]);
    expect(joined[2]).toMatchObject({ input: 0, times: { value: 1, offset: 0 } });
    expect(joined[3]).toEqual(steps[4]);
  });
});

describe("of convolutions is refused:", () => {
  unsupported(
    "tokens that are turned otherwise",
    "lfm2",
    (e) => {
      e.set(parts(e).turn, "perm", [1n, 0n, 2n]);
    },
    "layers.0/conv/Transpose",
    "order of axes",
  );
  unsupported("sums that are turned back otherwise", "lfm2", (e) => {
    e.set(parts(e).turnBack, "perm", [2n, 1n, 0n]);
  }, "order of axes");
  unsupported("another axis to join along", "lfm2", (e) => {
    e.set(parts(e).join, "axis", 1n);
  }, "joins along the axis 1");
  unsupported("keys in place of inputs", "lfm2", (e) => {
    parts(e).join.input[0] = "past_key_values.1.key";
  }, "what a convolution has read");
  unsupported("what is kept of another layer", "lfm2", (e) => {
    parts(e).join.input[0] = "past_conv.2";
  }, "present_conv.2");
  unsupported("three values that are joined", "lfm2", (e) => {
    const { join } = parts(e);
    join.input.push(join.input[1]);
  }, "joins 3 values");
  unsupported("fewer inputs that are kept", "lfm2", (e) => {
    parts(e).keep.input[1] = e.constant([-2n]);
  }, "keeps what lies from -2");
  unsupported("inputs that are kept from the beginning", "lfm2", (e) => {
    parts(e).keep.input[1] = e.constant([0n]);
  }, "keeps what lies from 0");
  unsupported("inputs that are kept to somewhere", "lfm2", (e) => {
    parts(e).keep.input[2] = e.constant([7n]);
  }, "to 7");
  unsupported("sums from elsewhere on", "lfm2", (e) => {
    parts(e).cut.input[1] = e.constant([2n]);
  }, "from 2 on");
  unsupported("channels in place of tokens", "lfm2", (e) => {
    parts(e).cut.input[3] = e.constant([1n]);
  }, "along axis 1");
  unsupported("every other sum", "lfm2", (e) => {
    parts(e).cut.input[4] = e.constant([2n]);
  }, "by 2");
  unsupported("sums of which none is cut off", "lfm2", (e) => {
    const { cut, turnBack } = parts(e);
    turnBack.input[0] = cut.input[0];
  }, "one more than tokens");
  unsupported("channels that share kernels", "lfm2", (e) => {
    e.set(parts(e).convolve, "group", 1n);
  }, "group");
  unsupported("channels that share kernels as nothing else is said", "lfm2", (e) => {
    const { convolve } = parts(e);
    convolve.attribute = convolve.attribute.filter(({ name }) => name !== "group");
  }, "group");
  for (const [name, value] of [["kernel_shape", 2n], ["strides", 2n], ["dilations", 2n]] as const) {
    unsupported(`other ${name}`, "lfm2", (e) => {
      e.set(parts(e).convolve, name, [value]);
    }, `the ${name} [2]`);
  }
  unsupported("pads", "lfm2", (e) => {
    e.set(parts(e).convolve, "pads", [2n, 0n]);
  }, "the pads");
  unsupported("pads by themselves", "lfm2", (e) => {
    parts(e).convolve.attribute.push(create(AttributeProtoSchema, {
      name: "auto_pad",
      type: AttributeType.STRING,
      s: new TextEncoder().encode("SAME_UPPER"),
    }));
  }, "SAME_UPPER");
  damaged("kernels of other channels", "lfm2", (e) => {
    e.reshape("model.layers.0.conv.conv.weight", [63, 1, 3]);
  }, "63");
  damaged("kernels of another length than is kept", "lfm2", (e) => {
    e.reshape("model.layers.0.conv.conv.weight", [64, 1, 4]);
    e.set(parts(e).convolve, "kernel_shape", [4n]);
  }, "past_conv.0");
  unsupported("a kernel of one token", "lfm2", (e) => {
    e.reshape("model.layers.0.conv.conv.weight", [64, 1, 1]);
    e.set(parts(e).convolve, "kernel_shape", [1n]);
  }, "sees 1 tokens");
  damaged("a bias of other channels", "lfm2", (e) => {
    e.reshape("model.layers.0.conv.conv.bias", [65]);
  }, "65");
  damaged(
    "other channels than are declared",
    "lfm2",
    (e) => {
      e.typeOf("past_conv.0").shape!.dim[1].value = { case: "dimValue", value: 65n };
    },
    "past_conv.0",
    "65",
  );
  damaged("a layer that does not say what it has read last", "lfm2", (e) => {
    e.graph.output = e.graph.output.filter(({ name }) => name !== "present_conv.2");
  }, "and one for each of 2 convolutions");
});
