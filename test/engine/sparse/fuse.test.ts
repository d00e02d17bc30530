/**
 * What fusing refuses: attention changes its queries and keys where they lie.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { fuse } from "../../../src/engine/sparse/plan/fuse.ts";
import type { GraphProto, NodeProto } from "../../../src/onnx/generated/onnx_pb.ts";
import { thrownBy } from "../../checkpoint/support.ts";
import { CompileWorkshop } from "../../compile/support.ts";
import { Editor } from "./graph_editor.ts";
import { changedGraph, type Files, filesOf, lowerBytes } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

const MODELS = ["llama", "opt", "hunyuan"] as const;
const compiled = new Map<string, Files>();

beforeAll(async () => {
  for (const model of MODELS) {
    const { output } = await workshop.compile(await workshop.pruned(model, "2:4"), {
      format: "nm",
    });
    compiled.set(model, filesOf(output));
  }
});

/** All nodes of a type. */
function nodes({ graph }: Editor, opType: string): NodeProto[] {
  return graph.node.filter((node) => node.opType === opType);
}

/** What a node's result is added to first, on its way on. */
function sumBehind(graph: GraphProto, node: NodeProto): { sum: NodeProto; made: string } {
  for (let made = node.output[0];;) {
    const next = graph.node.find(({ input }) => input.includes(made))!;
    const isSum = next.opType === "Add" &&
      !graph.initializer.some(({ name }) => next.input.includes(name));
    if (isSum) return { sum: next, made };
    made = next.output[0];
  }
}

function refuses(
  title: string,
  model: typeof MODELS[number],
  change: (e: Editor) => void,
  part: string,
) {
  test(title, () => {
    const bytes = changedGraph(compiled.get(model)!, (graph) => change(new Editor(graph)));
    const decoder = lowerBytes(bytes);
    expect(thrownBy(() => fuse(decoder))).toMatchObject({
      code: "OPERATOR_UNSUPPORTED",
      message: expect.stringContaining(part),
    });
  });
}

test("the models that are changed are fused as they are", () => {
  for (const { graph } of compiled.values()) fuse(lowerBytes(graph));
});

describe("attention is refused where something else reads what it changes:", () => {
  const part = "nothing else reads its queries";
  refuses("queries that are keys, too", "opt", (e) => {
    for (const node of nodes(e, "GroupQueryAttention")) node.input[1] = node.input[0];
  }, part);
  refuses("queries that are values, too", "opt", (e) => {
    for (const node of nodes(e, "GroupQueryAttention")) node.input[2] = node.input[0];
  }, part);
  refuses("queries that its own result is added to", "opt", (e) => {
    for (const node of nodes(e, "GroupQueryAttention")) {
      const { sum, made } = sumBehind(e.graph, node);
      sum.input = sum.input.map((value) => value === made ? value : node.input[0]);
    }
  }, part);
  refuses("queries that were turned and normed", "hunyuan", (e) => {
    for (const node of nodes(e, "GroupQueryAttention")) {
      const { sum, made } = sumBehind(e.graph, node);
      sum.input = sum.input.map((value) => value === made ? value : node.input[0]);
    }
  }, part);
  refuses("queries that were turned and are normed for it alone", "hunyuan", (e) => {
    for (const node of nodes(e, "GroupQueryAttention")) {
      const { sum, made } = sumBehind(e.graph, node);
      const [turned] = nodes(e, "RotaryEmbedding").find(({ name }) =>
        name.startsWith(node.name.replace(/self_attn.*/, ""))
      )!.output;
      sum.input = sum.input.map((value) =>
        value === made ? value : turned
      );
    }
  }, part);
});

describe("norms of what was turned", () => {
  const decoder = () => lowerBytes(compiled.get("hunyuan")!.graph);

  test("are attention's own steps, with weights of their own", () => {
    const { steps } = fuse(decoder());
    const names = steps.flatMap((step) =>
      step.op === "attention" ? [step.queryNorm?.weight, step.keyNorm?.weight] : []
    );
    expect(names).toEqual(
      [0, 1, 2].flatMap((layer) =>
        ["query", "key"].map((part) => `model.layers.${layer}.self_attn.${part}_layernorm.weight`)
      ),
    );
    // Beside them, the two of each block and the last one.
    expect(steps.filter(({ op }) => op === "rmsNorm")).toHaveLength(7);
  });

  test("are refused where they are not of attention's heads", () => {
    const { steps, ...rest } = decoder();
    const turned = new Set(steps.flatMap((step) => step.op === "rotary" ? [step.output] : []));
    const asOne = steps.map((step) =>
      step.op === "rmsNorm" && turned.has(step.input) ? { ...step, groups: 1 } : step
    );
    expect(thrownBy(() => fuse({ ...rest, steps: asOne }))).toMatchObject({
      code: "OPERATOR_UNSUPPORTED",
      message: expect.stringContaining("for each of attention's heads"),
    });
  });
});

describe("a rotary embedding is refused", () => {
  refuses("that has other heads than attention", "llama", (e) => {
    e.storeTables();
    const halved = new Set<string>();
    for (const node of nodes(e, "RotaryEmbedding")) {
      const heads = node.attribute.find(({ name }) => name === "num_heads")!;
      heads.i *= 2n;
      for (const table of node.input.slice(2)) {
        if (halved.has(table)) continue;
        halved.add(table);
        const [rows, half] = e.tensor(table).dims.map(Number);
        e.reshape(table, [rows, half / 2]);
      }
    }
  }, "attention's heads");
  refuses("of queries in other pairs than keys", "llama", (e) => {
    for (const node of nodes(e, "GroupQueryAttention")) e.set(e.before(node), "interleaved", 1n);
  }, "the same tables and pairs");
  refuses("of queries alone", "llama", (e) => {
    for (const node of nodes(e, "GroupQueryAttention")) {
      node.input[1] = e.before(node, 1).input[0];
    }
  }, "both queries and keys");
});
