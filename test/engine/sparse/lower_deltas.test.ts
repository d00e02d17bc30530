/**
 * Linear attention in graphs: what lowering makes of it, and what it refuses.
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Step } from "../../../src/engine/sparse/ir.ts";
import { fuse } from "../../../src/engine/sparse/plan/fuse.ts";
import {
  AttributeProto_AttributeType as AttributeType,
  AttributeProtoSchema,
} from "../../../src/onnx/generated/onnx_pb.ts";
import { CompileWorkshop } from "../../compile/support.ts";
import { Editor } from "./graph_editor.ts";
import { refusals } from "./refusing.ts";
import { changedGraph, type Files, filesOf, lowerBytes } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

let files: Files;
beforeAll(async () => {
  const { output } = await workshop.compile(await workshop.pruned("qwen3_5", "2:4"), {});
  files = filesOf(output);
});

const { unsupported, damaged } = refusals<"qwen3_5">(() => files);

/** The nodes of the first layer's rule, and of what it reads. */
const parts = (e: Editor) => {
  const rule = e.node("LinearAttention");
  const [queries, keys] = [0, 1].map((place) => {
    const join = e.before(rule, place), divide = e.before(join);
    const root = e.before(divide, 1), add = e.before(root), sum = e.before(add);
    return { join, divide, root, add, sum, cut: e.before(divide) };
  });
  const decays = e.before(rule, 4), negate = e.before(decays, 1);
  return { rule, queries, keys, decays, negate, exponential: e.before(negate) };
};

describe("linear attention", () => {
  test("is one step, whose heads, weights and layer are the graph's", () => {
    const { steps, layers } = lowerBytes(files.graph);
    const deltas = steps.filter((step) => step.op === "delta");
    expect(layers).toBe(3);
    const sizes = { keyHeads: 2, valueHeads: 4, keyDim: 16, valueDim: 24 };
    expect(deltas.map(({ layer }) => layer)).toEqual([0, 2]);
    for (const { layer, decays, scale, epsilon, ...rest } of deltas) {
      expect(rest).toMatchObject(sizes);
      expect([scale, epsilon!].map(Math.fround)).toEqual([0.25, 1e-6].map(Math.fround));
      const made = steps[decays];
      expect(made).toMatchObject({
        op: "weigh",
        weight: `model.layers.${layer}.linear_attn.A_log`,
        isNegatedExponential: true,
      });
    }
  });

  test("reads its queries, keys and values where a convolution has left them, activated", () => {
    const { steps, widths } = fuse(lowerBytes(files.graph));
    const convolutions = steps.filter((step) => step.op === "convolve");
    const deltas = steps.filter((step) => step.op === "delta");
    expect(convolutions.map(({ activation }) => activation)).toEqual(["silu", "silu"]);
    for (const [i, { queries, keys, values }] of deltas.entries()) {
      const { output } = convolutions[i];
      expect(widths[output]).toBe(160);
      expect([queries, keys, values]).toEqual(
        [0, 32, 64].map((offset) => ({ value: output, offset })),
      );
    }
  });

  test("takes any epsilon, scale and order of its cache's outputs", () => {
    const change = (graph: Editor) => {
      const { rule, queries, keys } = parts(graph);
      graph.set(rule, "scale", 0.5);
      for (const { add } of [queries, keys]) add.input[1] = graph.constant([1e-3]);
      graph.graph.output.reverse();
    };
    const [first] = lowerChanged(change).steps.filter((step) => step.op === "delta");
    expect([first.scale, Math.fround(first.epsilon!)]).toEqual([0.5, Math.fround(1e-3)]);
  });
});

/** The decoder of the graph with a change. */
function lowerChanged(change: (e: Editor) => void) {
  return lowerBytes(changedGraph(files, (graph) => change(new Editor(graph))));
}

describe("of linear attention is refused:", () => {
  unsupported(
    "another rule",
    "qwen3_5",
    (e) => {
      const { rule } = parts(e);
      rule.attribute = rule.attribute.filter(({ name }) => name !== "update_rule");
      rule.attribute.push(create(AttributeProtoSchema, {
        name: "update_rule",
        type: AttributeType.STRING,
        s: new TextEncoder().encode("linear"),
      }));
    },
    "LinearAttention",
    '"linear"',
  );
  unsupported("an attribute that is not known", "qwen3_5", (e) => {
    e.set(parts(e).rule, "state_window", 2n);
  }, "state_window");
  unsupported("queries that are not of length 1", "qwen3_5", (e) => {
    const { rule, queries } = parts(e);
    rule.input[0] = queries.cut.input[0];
  }, "unit vectors");
  unsupported("keys that are of length 1 as a whole", "qwen3_5", (e) => {
    e.set(parts(e).rule, "q_num_heads", 1n);
  }, "in each of its heads");
  unsupported("lengths with two epsilons", "qwen3_5", (e) => {
    parts(e).keys.add.input[1] = e.constant([1e-3]);
  }, "epsilons");
  unsupported("lengths that are means", "qwen3_5", (e) => {
    const { sum } = parts(e).queries;
    sum.opType = "ReduceMean";
    sum.input.splice(1);
    e.set(sum, "axes", [-1n]);
  }, "Reshape");
  unsupported("sums over another axis", "qwen3_5", (e) => {
    parts(e).queries.sum.input[1] = e.constant([2n]);
  }, "takes the sum over the axes [2]");
  unsupported("heads of length 1 that are put together otherwise", "qwen3_5", (e) => {
    parts(e).queries.join.input[1] = e.constant([0n, 0n, 4n, 8n]);
  }, "[0, 0, 4, 8]");
  unsupported("decays that are no exponentials", "qwen3_5", (e) => {
    const { decays, exponential } = parts(e);
    decays.input[1] = exponential.input[0];
  }, "Mul");
  unsupported("decays that grow", "qwen3_5", (e) => {
    const { decays, exponential } = parts(e);
    decays.input[1] = exponential.output[0];
  }, "multiplies by exponentials");
  unsupported("decays of each element", "qwen3_5", (e) => {
    const { rule } = parts(e);
    rule.input[4] = rule.input[2];
  }, "one for each of 4 heads");
  damaged("strengths that are not there", "qwen3_5", (e) => {
    parts(e).rule.input.splice(5);
  }, "lacks its input 5");
  damaged("no state", "qwen3_5", (e) => {
    parts(e).rule.input[3] = "";
  }, "lacks its input 3");
  unsupported("keys of attention in place of a state", "qwen3_5", (e) => {
    parts(e).rule.input[3] = "past_key_values.1.key";
  }, "past_recurrent.N");
  unsupported("the state of another layer", "qwen3_5", (e) => {
    parts(e).rule.input[3] = "past_recurrent.2";
  }, "present_recurrent.2");
  unsupported("a state that two nodes read", "qwen3_5", (e) => {
    const second = e.graph.node.filter(({ opType }) => opType === "LinearAttention")[1];
    second.input[3] = "past_recurrent.0";
  }, "another node has read");
  damaged("heads that do not divide queries", "qwen3_5", (e) => {
    e.set(parts(e).rule, "q_num_heads", 3n);
  }, "3 heads");
  damaged("heads that are none", "qwen3_5", (e) => {
    e.set(parts(e).rule, "kv_num_heads", 0n);
  }, "among 0");
  damaged("values that their heads do not share", "qwen3_5", (e) => {
    e.set(parts(e).rule, "kv_num_heads", 5n);
  }, "among 5");
  damaged(
    "a state of another shape",
    "qwen3_5",
    (e) => {
      e.typeOf("past_recurrent.0").shape!.dim[2].value = { case: "dimValue", value: 17n };
    },
    "past_recurrent.0",
    "17",
  );
  damaged("a state of other dimensions", "qwen3_5", (e) => {
    e.typeOf("past_recurrent.0").shape!.dim.pop();
  }, "past_recurrent.0");
  damaged("speeds of other heads", "qwen3_5", (e) => {
    e.reshape("model.layers.0.linear_attn.A_log", [5]);
  }, "5");
  damaged("a state that is not given again", "qwen3_5", (e) => {
    e.graph.output = e.graph.output.filter(({ name }) => name !== "present_recurrent.2");
  }, "and one for each of 2 states");
});

describe("a state space", () => {
  let hybrid: Files;
  beforeAll(async () => {
    const { output } = await workshop.compile(await workshop.pruned("granite4-h", "2:4"), {});
    hybrid = filesOf(output);
  });
  const refusing = refusals<"granite4-h">(() => hybrid);

  test("is one step that nothing corrects, beside what it takes in as it is", () => {
    const { steps, layers, widths } = lowerBytes(hybrid.graph);
    const spaces = steps.filter((step) => step.op === "delta");
    expect([layers, spaces.map(({ layer }) => layer)]).toEqual([3, [0, 2]]);
    for (const { layer, output, decays, ...rest } of spaces) {
      expect(rest).toMatchObject({
        keyHeads: 1,
        valueHeads: 8,
        keyDim: 24,
        valueDim: 16,
        scale: 1,
      });
      expect([rest.strengths, rest.epsilon]).toEqual([undefined, undefined]);
      const made = steps[decays];
      expect(made).toMatchObject({ weight: `model.layers.${layer}.mamba.A_log` });
      const added = steps.find((step) => step.op === "add" && step.a === output);
      const asIs = steps[(added as Step & { op: "add" }).b];
      expect(asIs).toMatchObject({
        op: "weigh",
        weight: `model.layers.${layer}.mamba.D`,
        each: 16,
      });
      expect(widths[output]).toBe(128);
    }
    expect(steps.filter((step) => step.op === "shift").map(({ bias }) => bias))
      .toEqual([0, 2].map((layer) => `model.layers.${layer}.mamba.dt_bias`));
  });

  test("convolves a part of what one product has made, and is asked by parts of that", () => {
    const { steps, widths } = fuse(lowerBytes(hybrid.graph));
    const [convolution] = steps.filter((step) => step.op === "convolve");
    const [space] = steps.filter((step) => step.op === "delta");
    expect([widths[convolution.input], convolution.offset]).toEqual([128 + 176 + 8, 128]);
    expect([space.keys, space.queries]).toEqual([
      { value: convolution.output, offset: 128 },
      { value: convolution.output, offset: 152 },
    ]);
  });

  refusing.unsupported("whose states another family gives is refused", "granite4-h", (e) => {
    const rule = e.node("LinearAttention");
    const output = e.graph.output.find(({ name }) => name === rule.output[1])!;
    output.name = rule.output[1] = "present_recurrent.0";
  }, "present_ssm.0");
  refusing.unsupported("with strengths is refused", "granite4-h", (e) => {
    const rule = e.node("LinearAttention");
    rule.input.push(rule.input[4]);
  }, "LinearAttention");
  refusing.unsupported(
    "whose factors of heads have another shape is refused",
    "granite4-h",
    (e) => {
      const reshape = e.graph.node.find(({ input }) => input[0] === "model.layers.0.mamba.D")!;
      reshape.input[1] = e.constant([1n, 8n]);
    },
    "one number a head",
  );
  refusing.damaged("whose factors are of other heads is refused", "granite4-h", (e) => {
    e.reshape("model.layers.0.mamba.D", [4]);
    const reshape = e.graph.node.find(({ input }) => input[0] === "model.layers.0.mamba.D")!;
    reshape.input[1] = e.constant([4n, 1n]);
  }, "mamba.D");
  refusing.damaged("whose biases of steps are of other heads is refused", "granite4-h", (e) => {
    e.reshape("model.layers.0.mamba.dt_bias", [7]);
  }, "dt_bias");
});
