/**
 * Lowering: the steps that are found in a graph compute what the model computes, however the graph is
 * written down.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import type { Decoder, Step } from "../../../src/engine/sparse/ir.ts";
import { valuesReadBy } from "../../../src/engine/sparse/ir.ts";
import { fuse, type FusedStep, readBy } from "../../../src/engine/sparse/plan/fuse.ts";
import { GraphBuilder } from "../../../src/onnx/builder.ts";
import {
  type GraphProto,
  type NodeProto,
  TensorProto_DataType as DataType,
} from "../../../src/onnx/generated/onnx_pb.ts";
import {
  CompileWorkshop,
  distance,
  formatsFor,
  type How,
  LONG,
  ROOT,
  sourceOf,
  TOKENS,
} from "../../compile/support.ts";
import { referenceLogits } from "../../compile/references.ts";
import { Dice } from "../../support/fuzz.ts";
import { fromRoot } from "../../support/paths.ts";
import { ours } from "../../support/turns.ts";
import { changedGraph, filesOf, logitsOf, lowerBytes, naiveOf } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

const ARCHITECTURES = readdirSync(fromRoot(ROOT));

/** Those whose queries, keys and values are one matrix in most blocks, and gate and up another or not there. */
const FOUR_A_BLOCK = ["phi3", "gpt-neox", "gpt2", "gpt-bigcode", "granite4-h"];

/** What transformers computes in float32 from the stored weights. */
interface Expected {
  input_ids: number[];
  logits: { positions: number[]; values: number[][] };
  greedy: number[];
}

/** Compiles a model, pruned where a pattern is named, and reads its files back. */
async function compiled(model: string, how: How, pattern?: string | number) {
  const source = pattern === undefined ? sourceOf(model) : await workshop.pruned(model, pattern);
  const { output } = await workshop.compile(source, how);
  return { output, files: filesOf(output) };
}

async function lowered(model: string, how: How, pattern?: string | number): Promise<Decoder> {
  return lowerBytes((await compiled(model, how, pattern)).files.graph);
}

describe("a lowered model gives the logits and the greedy tokens of transformers", () => {
  for (const [i, model] of ARCHITECTURES.entries()) {
    for (const format of ours(["csr", "bitmap", "slots", "dense"] as const, i)) {
      test(`${model}, ${format}`, async () => {
        const { files } = await compiled(model, { format, values: "f32" });
        const { naive } = await naiveOf(files);
        const path = fromRoot(`${ROOT}/${model}/expected.json`);
        const expected = JSON.parse(readFileSync(path, "utf8")) as Expected;
        const logits = naive.run(expected.input_ids);
        expected.logits.positions.forEach((position, k) => {
          const wanted = Float32Array.from(expected.logits.values[k]);
          expect(distance(Float32Array.from(logits[position]), wanted)).toBeLessThan(1e-4);
        });
        const tokens: number[] = [];
        let last = logits.at(-1)!;
        while (tokens.length < expected.greedy.length) {
          tokens.push(last.indexOf(Math.max(...last)));
          last = naive.run(tokens.slice(-1))[0];
        }
        expect(tokens).toEqual(expected.greedy);
      });
    }
  }
});

describe("a lowered model gives the logits of ONNX Runtime on the same file", () => {
  const values: How[] = [
    { values: "f32" },
    { values: "f16" },
    { values: "int8" },
    { values: "int8", group: 16 },
    { values: "int8", head: "f16" },
    { values: "int4", head: "int4" },
  ];
  for (const [i, model] of ARCHITECTURES.entries()) {
    for (const how of ours(values, i)) {
      test(`${model}, ${JSON.stringify(how)}`, async () => {
        /** In all formats but dense, which has no groups, the weights are the same. */
        let reference: Float32Array | undefined;
        // That which ONNX Runtime opens soonest comes first.
        const formats = formatsFor("2:4").sort((a, b) => Number(b === "csr") - Number(a === "csr"));
        for (const format of formats) {
          const { output, files } = await compiled(model, { ...how, format }, "2:4");
          const { decoder, naive } = await naiveOf(files);
          const linears = decoder.steps.flatMap((step) => step.op === "linear" ? [step] : []);
          expect(linears.length).toBeGreaterThanOrEqual(3 * (FOUR_A_BLOCK.includes(model) ? 4 : 6));
          if (format === "dense" || !reference) reference = await referenceLogits(output);
          expect(distance(logitsOf(naive, TOKENS), reference)).toBeLessThan(1e-4);
        }
      }, LONG);
    }
  }
});

describe("behind the last step with a cache, fused ones are for tokens alone whose logits are wanted", () => {
  for (const model of ARCHITECTURES) {
    test(model, async () => {
      const { steps, logits } = fuse(await lowered(model, { values: "f32" }));
      const at = steps.findIndex(({ op }) => op === "select");
      // Of steps that attend to other layers' keys there may be some behind it.
      const isKeeping = (step: FusedStep) =>
        step.op === "attention"
          ? step.keys !== undefined
          : ["convolve", "delta", "select"].includes(step.op);
      const last = steps[at - 1], isAttention = last.op === "attention";
      if (isAttention) expect(last.isLast).toBe(true);
      else expect(["convolve", "delta"]).toContain(last.op);
      expect(steps.filter(isKeeping).at(-1)).toBe(steps[at]);
      expect(steps.filter((step) => step.op === "attention" && step.isLast).length)
        .toBe(isAttention ? 1 : 0);
      // What they read is of those tokens: it was selected, or made behind that.
      const known = new Set(readBy(steps[at]));
      for (const step of steps.slice(at + 1)) {
        for (const value of readBy(step)) expect(known.has(value)).toBe(true);
        known.add((step as { output: number }).output);
      }
      expect(known.has(logits)).toBe(true);
    });
  }
});

/** Everything a decoder's planner may count on. */
function checkDecoder({ widths, steps, logits, layers }: Decoder): void {
  expect(steps.map(({ output }) => output)).toEqual(widths.map((_, i) => i));
  for (const step of steps) {
    for (const value of valuesReadBy(step)) expect(value).toBeLessThan(step.output);
  }
  expect(logits).toBeLessThan(widths.length);
  const found = steps.flatMap((step) =>
    step.op === "convolve" || step.op === "attention" && step.keys !== undefined ? [step.layer] : []
  );
  expect(found.sort((a, b) => a - b)).toEqual(Array.from({ length: layers }, (_, i) => i));
}

describe("the steps", () => {
  const opsOf = ({ steps }: Decoder, count: number) => steps.slice(0, count).map(({ op }) => op);
  const stepsOf = <K extends Step["op"]>({ steps }: Decoder, op: K) =>
    steps.filter((step): step is Extract<Step, { op: K }> => step.op === op);

  test("of Llama are those of its paper, each once", async () => {
    const decoder = await lowered("llama", { format: "bitmap" }, "2:4");
    checkDecoder(decoder);
    const block = [
      ..."rmsNorm linear rotary linear rotary linear attention linear add".split(" "),
      ..."rmsNorm linear silu linear mul linear add".split(" "),
    ];
    const sorted = (ops: string[]) => ops.toSorted();
    expect(sorted(opsOf(decoder, 17))).toEqual(sorted(["embed", ...block]));
    expect(sorted(opsOf(decoder, 99)))
      .toEqual(sorted(["embed", ...block, ...block, ...block, "rmsNorm", "linear"]));
    expect(decoder).toMatchObject({
      vocabulary: 320,
      positions: 128,
      layers: 3,
      lastOnly: false,
      logits: decoder.widths.length - 1,
    });
    expect(decoder.widths.at(-1)).toBe(320);
  });

  test("of Llama with biases have them in the products", async () => {
    const decoder = await lowered("llama-bias-linear-rope", { format: "nm" }, "2:4");
    const linears = stepsOf(decoder, "linear");
    expect(linears).toHaveLength(22);
    expect(linears.filter(({ bias }) => bias === undefined)).toHaveLength(1);
    expect(linears[0]).toMatchObject({
      bias: "model.layers.0.self_attn.q_proj.bias",
      matrix: {
        kind: "sparse",
        name: "model.layers.0.self_attn.q_proj",
        format: "nm",
        scaling: "row",
        type: "int8",
        rows: 64,
        columns: 64,
        attributes: { rows: 64, columns: 64, n: 2, m: 4, bits: 2 },
        tensors: {
          values: "model.layers.0.self_attn.q_proj.values",
          codes: "model.layers.0.self_attn.q_proj.codes",
          scales: "model.layers.0.self_attn.q_proj.scales",
        },
      },
    });
  });

  test("of Qwen 3 norm each head of queries and keys", async () => {
    const decoder = await lowered("qwen3", {});
    checkDecoder(decoder);
    expect(stepsOf(decoder, "rmsNorm").map(({ groups }) => groups))
      .toEqual([1, 4, 2, 1, 1, 4, 2, 1, 1, 4, 2, 1, 1]);
    expect(stepsOf(decoder, "attention")[0]).toMatchObject({
      heads: 4,
      keyValueHeads: 2,
      headDim: 32,
      scale: 1 / Math.sqrt(32),
    });
  });

  test("of Mistral and Qwen 2 slide the windows of their layers", async () => {
    const windows = async (model: string) =>
      stepsOf(await lowered(model, {}), "attention").map(({ window }) => window);
    expect(await windows("mistral-sliding")).toEqual([8, 8, 8]);
    expect(await windows("qwen2-sliding")).toEqual([undefined, 8, 8]);
    expect(await windows("qwen2")).toEqual([undefined, undefined, undefined]);
  });

  test("of OPT have learned positions, and projections where the embedding is narrow", async () => {
    const decoder = await lowered("opt-post-norm", { values: "f16" });
    checkDecoder(decoder);
    const [tokens, positions] = stepsOf(decoder, "embed");
    expect(tokens).toMatchObject({ of: "tokens", offset: 0, table: { columns: 32, rows: 320 } });
    expect(positions).toMatchObject({ of: "positions", offset: 2, table: { rows: 130 } });
    expect(decoder.positions).toBe(128);
    expect(stepsOf(decoder, "linear")[0].matrix).toMatchObject({ rows: 64, columns: 32 });
    expect(stepsOf(decoder, "linear").at(-2)!.matrix).toMatchObject({ rows: 32, columns: 64 });
    expect(stepsOf(decoder, "layerNorm")).toHaveLength(6);
    expect(stepsOf(decoder, "rotary")).toHaveLength(0);
    expect(stepsOf(decoder, "relu")).toHaveLength(3);
  });

  test("share the tensors of an embedding and the head that is tied to it", async () => {
    for (const how of [{ values: "f32" }, { values: "int8" }] as How[]) {
      const decoder = await lowered("qwen3", how);
      const [{ table }] = stepsOf(decoder, "embed");
      expect(stepsOf(decoder, "linear").at(-1)!.matrix).toEqual(table);
    }
    const decoder = await lowered("llama", {});
    const [{ table }] = stepsOf(decoder, "embed");
    expect(stepsOf(decoder, "linear").at(-1)!.matrix).not.toEqual(table);
  });

  test("tell of a model that gives logits for the last token alone", async () => {
    for (const model of ["qwen3", "opt-post-norm"]) {
      const { output, files } = await compiled(model, { values: "f32", logits: "last" }, "2:4");
      const { decoder, naive } = await naiveOf(files);
      checkDecoder(decoder);
      expect(decoder.lastOnly).toBe(true);
      const last = Float32Array.from(naive.run(TOKENS).at(-1)!);
      expect(distance(last, await referenceLogits(output))).toBeLessThan(1e-4);
    }
  });

  test("may stop a prompt anywhere and go on from the cache", async () => {
    const { files } = await compiled("mistral-sliding", { values: "f32" });
    const { naive } = await naiveOf(files);
    const whole = logitsOf(naive, TOKENS);
    naive.truncate(5);
    expect(naive.length).toBe(5);
    expect(logitsOf(naive, TOKENS.slice(5))).toEqual(whole.slice(5 * 320));
  });
});

/** Another graph of the same meaning: nothing is called or placed as `compile` does it. */
function rewritten(graph: GraphProto, dice: Dice): void {
  for (const node of graph.node) {
    const commutes = node.opType === "Add" || node.opType === "Mul";
    if (commutes && dice.below(2) === 0) node.input.reverse();
  }
  // Tensors keep their names: those are what the decoder reads weights by.
  const fixed = new Set([...graph.input, ...graph.output, ...graph.initializer].map((x) => x.name));
  const names = new Map<string, string>();
  const renamed = (name: string) => {
    if (name === "" || fixed.has(name)) return name;
    if (!names.has(name)) names.set(name, `v${dice.below(1 << 30)}`);
    return names.get(name)!;
  };
  for (const node of graph.node) {
    node.name = dice.pick(["", "node", `n${dice.below(99)}`]);
    node.input = node.input.map(renamed);
    node.output = node.output.map(renamed);
  }
  graph.valueInfo = [];
  graph.initializer.reverse();
  // Any order in which a node comes after what it reads.
  const made = new Set([...graph.input, ...graph.initializer].map((x) => x.name));
  const waiting = [...graph.node];
  const ordered: NodeProto[] = [];
  while (waiting.length > 0) {
    const ready = waiting.filter(({ input }) => input.every((x) => x === "" || made.has(x)));
    const next = dice.pick(ready);
    waiting.splice(waiting.indexOf(next), 1);
    for (const name of next.output) made.add(name);
    ordered.push(next);
  }
  graph.node = ordered;
}

describe("a graph that is written down in another way", () => {
  for (
    const model of [
      "qwen3",
      "opt-post-norm",
      "mistral-sliding",
      "gemma2",
      "gemma3",
      "gemma4",
      "granite",
      "granite_swa",
      "phi3",
      "gpt-neox",
      "phi",
      "cohere",
    ]
  ) {
    test(`is the same decoder: ${model}`, async () => {
      const { files } = await compiled(model, { values: "int8", format: "bitmap" }, "2:4");
      const { decoder, naive } = await naiveOf(files);
      const expected = logitsOf(naive, TOKENS);
      for (let seed = 1; seed <= 5; seed++) {
        const graph = changedGraph(files, (graph) => rewritten(graph, new Dice(seed)));
        const other = await naiveOf({ ...files, graph });
        checkDecoder(other.decoder);
        expect(other.decoder.steps.length).toBe(decoder.steps.length);
        expect(distance(logitsOf(other.naive, TOKENS), expected)).toBeLessThan(1e-9);
      }
    });
  }

  test("may hold nodes that no output needs, whatever they are", async () => {
    const { files } = await compiled("llama", {}, "2:4");
    const b = new GraphBuilder("more");
    b.node("Softmax", ["input_ids"]);
    b.nodes("NonMaxSuppression", ["logits"], { outputs: ["nothing"] });
    const graph = changedGraph(files, (graph) => graph.node.push(...b.graph.node));
    expect(lowerBytes(graph)).toEqual(lowerBytes(files.graph));
  });

  test("may have other outputs beside those that the engine gives", async () => {
    const { files } = await compiled("llama", {}, "2:4");
    const graph = changedGraph(files, (graph) => {
      const b = new GraphBuilder("more");
      b.output("attended.0", DataType.FLOAT, ["batch", "sequence", 64]);
      graph.output.push(...b.graph.output);
    });
    expect(lowerBytes(graph)).toEqual(lowerBytes(files.graph));
  });

  test("may count tokens in 32 bits, and name axes from the end", async () => {
    const { files } = await compiled("llama", {}, "2:4");
    const graph = changedGraph(files, (graph) => {
      const b = new GraphBuilder("lengths");
      const narrow = b.node("Cast", ["attention_mask"], { attributes: { to: DataType.INT32 } });
      const sum = b.node("ReduceSum", [narrow, b.integers([-1])], { attributes: { keepdims: 0 } });
      const minusOne = b.constant("minus_one", Int32Array.of(-1), []);
      const last = b.node("Add", [minusOne, b.node("Identity", [sum])]);
      const shape = b.node("Shape", ["attention_mask"]);
      const int32 = { attributes: { to: DataType.INT32 } };
      const total = b.node("Gather", [b.node("Cast", [shape], int32), b.integers([-1])]);
      for (const node of graph.node) {
        if (node.opType === "GroupQueryAttention") node.input.splice(5, 2, last, total);
      }
      graph.node.unshift(...b.graph.node);
      const known = new Set(graph.initializer.map(({ name }) => name));
      graph.initializer.push(...b.graph.initializer.filter(({ name }) => !known.has(name)));
    });
    expect(lowerBytes(graph)).toEqual(lowerBytes(files.graph));
  });

  test("caps logits where it divides and multiplies by one number, and scales them where by two", async () => {
    const { files } = await compiled("gemma2", {}, "2:4");
    const { decoder, naive } = await naiveOf(files);
    expect(decoder.steps.at(-1)).toMatchObject({ op: "cap", cap: 4 });
    const graph = changedGraph(files, (graph) => {
      const b = new GraphBuilder("eight");
      const eight = b.constant("eight", Float32Array.of(8), []);
      graph.node.find(({ output }) => output[0] === "logits")!.input[1] = eight;
      graph.initializer.push(...b.graph.initializer);
    });
    const other = await naiveOf({ ...files, graph });
    expect(other.decoder.steps.slice(-3).map(({ op }) => op)).toEqual(["scale", "tanh", "scale"]);
    const twice = logitsOf(naive, TOKENS).map((logit) => 2 * logit);
    expect(distance(logitsOf(other.naive, TOKENS), twice)).toBeLessThan(1e-9);
  });

  test("may add the number to a norm's weights as a list of one, in either order", async () => {
    for (
      const [model, isFirst] of [["gemma", false], ["gemma", true], ["nemotron", true]] as const
    ) {
      const { files } = await compiled(model, {}, "2:4");
      const graph = changedGraph(files, (graph) => {
        const b = new GraphBuilder("one");
        const one = b.constant("one", Float32Array.of(1), [1]);
        for (const { opType, input } of graph.node) {
          if (opType !== "Add" || !input[0].endsWith("norm.weight")) continue;
          input.splice(1, 1, one);
          if (isFirst) input.reverse();
        }
        graph.initializer.push(...b.graph.initializer);
      });
      expect(lowerBytes(graph)).toEqual(lowerBytes(files.graph));
    }
  });

  test("squares what ReLU leaves in one step, and multiplies where it is by another's", async () => {
    const { files } = await compiled("arcee", {}, "2:4");
    const opsOf = (graph: typeof files.graph) =>
      lowerBytes(graph).steps.map(({ op }) => op).filter((op) => /^relu|mul/.test(op));
    expect(opsOf(files.graph)).toEqual(new Array(3).fill("relu_squared"));
    const steps = fuse(lowerBytes(files.graph)).steps;
    expect(steps.filter((step) => step.op === "linear" && step.activation === "relu_squared"))
      .toHaveLength(3);
    const gated = changedGraph(files, ({ node }) => {
      const relu = node.find(({ opType }) => opType === "Relu")!;
      node.find(({ input }) => input[0] === relu.output[0])!.input[1] = relu.input[0];
    });
    expect(opsOf(gated)).toEqual(["relu", "mul", "relu_squared", "relu_squared"]);
  });

  test("may use GELU, and a sigmoid as a gate of its own", async () => {
    const { files } = await compiled("opt", {}, "2:4");
    const graph = changedGraph(files, (graph) => {
      const [first, second] = graph.node.filter(({ opType }) => opType === "Relu");
      [first.opType, first.domain] = ["Gelu", "com.microsoft"];
      second.opType = "Sigmoid";
    });
    const ops = lowerBytes(graph).steps.map(({ op }) => op);
    expect(ops.filter((op) => ["gelu", "sigmoid", "relu"].includes(op)))
      .toEqual(["gelu", "sigmoid", "relu"]);
    const { files: llama } = await compiled("llama", {}, "2:4");
    const gated = changedGraph(llama, (graph) => {
      // x · sigmoid(y) is no SiLU.
      const sigmoid = graph.node.find(({ opType }) => opType === "Sigmoid")!;
      const gate = graph.node.find(({ input }) => input.includes(sigmoid.output[0]))!;
      const up = graph.node.find(({ input, opType }) =>
        opType === "Mul" && input.includes(gate.output[0])
      )!;
      const makerOfUp = graph.node.find(({ output }) => output[0] === up.input[1])!;
      graph.node = graph.node.filter((node) => node !== makerOfUp);
      graph.node.splice(graph.node.indexOf(sigmoid), 0, makerOfUp);
      gate.input[gate.input.indexOf(sigmoid.input[0])] = makerOfUp.output[0];
    });
    const names = lowerBytes(gated).steps.map(({ op }) => op);
    expect(names.filter((op) => ["sigmoid", "silu", "mul"].includes(op)))
      .toEqual(["sigmoid", "mul", "mul", "silu", "mul", "silu", "mul"]);
  });
});
