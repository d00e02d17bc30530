import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { buildGraph, describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { GraphError } from "../../src/errors.ts";
import { extract } from "../../src/onnx/extract.ts";
import { cutIntoSections } from "../../src/onnx/sections.ts";
import { fromRoot } from "../support/paths.ts";

function graphOf(name: string, settings: Record<string, unknown> = {}) {
  const checkpoint = Checkpoint.open(fromRoot(`test/fixtures/architectures/${name}`));
  const graph = buildGraph(checkpoint, describeModel({ ...checkpoint.config, ...settings }), 32);
  checkpoint.close();
  return graph;
}

describe("a decoder's graph", () => {
  test("is cut into its blocks, with their seven linears", () => {
    const { blocks, head } = cutIntoSections(graphOf("llama"));
    expect(blocks.length).toBe(3);
    expect(blocks[1].linears.map(({ name }) => name)).toEqual([
      "self_attn.q_proj",
      "self_attn.k_proj",
      "self_attn.v_proj",
      "self_attn.o_proj",
      "mlp.gate_proj",
      "mlp.up_proj",
      "mlp.down_proj",
    ]);
    expect(blocks[2].linears[6].weight).toBe("model.layers.2.mlp.down_proj.weight");
    expect(head.weight).toBe("lm_head.weight");
  });

  test("finds OPT's six linears, and the embedding as the tied head", () => {
    const { blocks, head } = cutIntoSections(graphOf("opt"));
    expect(blocks[0].linears.map(({ name }) => name)).toEqual([
      "self_attn.q_proj",
      "self_attn.k_proj",
      "self_attn.v_proj",
      "self_attn.out_proj",
      "fc1",
      "fc2",
    ]);
    expect(head.weight).toBe("model.decoder.embed_tokens.weight");
  });

  test("finds the weights of the last norm, spelled out or not, where there is one", () => {
    const names = (name: string) =>
      cutIntoSections(graphOf(name)).finalNorms.map(({ weight, length }) => [weight, length]);
    const widthOf = (name: string) => cutIntoSections(graphOf(name)).head.columns;
    expect(names("qwen3")).toEqual([["model.norm.weight", widthOf("qwen3")]]);
    expect(names("opt")).toEqual([["model.decoder.final_layer_norm.weight", 64]]);
    expect(names("opt-post-norm")).toEqual([]);
  });

  test("has the cap of its logits with the head, which is no part of what comes before or after blocks", () => {
    const { head, before, after } = cutIntoSections(graphOf("gemma2"));
    expect(head).toMatchObject({ weight: "model.embed_tokens.weight", cap: 4 });
    expect([...before.nodes, ...after.nodes].filter(({ opType }) => opType === "Tanh")).toEqual([]);
    expect(cutIntoSections(graphOf("gemma2", { final_logit_softcapping: null })).head.cap)
      .toBeUndefined();
    const graph = graphOf("gemma2");
    const last = graph.node.find(({ output }) => output[0] === "logits")!;
    last.input.reverse();
    expect(cutIntoSections(graph).head.cap).toBe(4);
    // What divides by one number and multiplies by another is no cap.
    last.input[0] = "f32_1";
    expect(() => cutIntoSections(graph)).toThrow(GraphError);
  });

  test("ends with the last block where its head reads that at once", () => {
    const { blocks, after, head } = cutIntoSections(
      graphOf("opt", { _remove_final_layer_norm: true }),
    );
    expect(after.nodes).toEqual([]);
    expect(blocks.at(-1)!.hiddenOut).toBe(head.input);
    expect(blocks.at(-1)!.nodes.some(({ output }) => output.includes(head.input))).toBe(true);
  });

  test("tells linears with the same input from those with another", () => {
    const inputs = cutIntoSections(graphOf("qwen2")).blocks[0].linears.map(({ input }) => input);
    expect(new Set(inputs).size).toBe(4);
    expect(inputs[0]).toBe(inputs[2]);
    expect(inputs[4]).toBe(inputs[5]);
  });

  test("gives every block of one form the same bytes, so that one session serves them all", () => {
    const graph = graphOf("qwen3");
    const bytes = cutIntoSections(graph).blocks.map((block) =>
      extract(graph, block, {
        label: block.label,
        names: new Map([[block.hiddenIn, "in"], [block.hiddenOut, "out"]]),
        outputs: [block.hiddenOut],
      }).bytes
    );
    expect(bytes[1]).toEqual(bytes[0]);
    expect(bytes[2]).toEqual(bytes[0]);
  });

  test("computes nothing that only the block's output needs when statistics alone are wanted", () => {
    const graph = graphOf("llama");
    const { blocks: [block] } = cutIntoSections(graph);
    const model = extract(graph, block, {
      label: block.label,
      outputs: [],
      squaresOf: block.linears.map(({ input }) => input),
    });
    expect([...model.weights.values()].some((name) => name.includes("down_proj"))).toBe(false);
    expect([...model.weights.values()].some((name) => name.includes("up_proj"))).toBe(true);
  });

  test("needs only those rows of the embedding that the tokens name, in every architecture", () => {
    for (const name of readdirSync(fromRoot("test/fixtures/architectures"))) {
      const graph = graphOf(name);
      const { before, blocks, shared } = cutIntoSections(graph);
      const model = extract(graph, before, { outputs: [blocks[0].hiddenIn, ...shared] });
      expect([...model.gathered.keys()]).toEqual(["input_ids"]);
    }
  });

  test("has the bias of its logits with the head, and nothing of it before or after blocks", () => {
    const { head, before, after } = cutIntoSections(graphOf("phi"));
    expect(head).toMatchObject({ weight: "lm_head.weight", bias: "lm_head.bias" });
    const others = [...before.nodes, ...after.nodes].flatMap(({ input }) => input);
    expect(others).not.toContain("lm_head.bias");
    expect(cutIntoSections(graphOf("llama")).head.bias).toBeUndefined();
    const graph = graphOf("phi");
    graph.node.find(({ output }) => output[0] === "logits")!.input.reverse();
    expect(cutIntoSections(graph).head.bias).toBe("lm_head.bias");
  });

  test("without block scopes in its names is refused", () => {
    const graph = graphOf("llama");
    for (const node of graph.node) node.name = node.name.replace("layers.", "part");
    expect(() => cutIntoSections(graph)).toThrow(GraphError);
  });

  test("with a missing block is refused", () => {
    const graph = graphOf("llama");
    graph.node = graph.node.filter((node) => !node.name.includes("layers.1/"));
    expect(() => cutIntoSections(graph)).toThrow("block 1 is missing");
  });
});
