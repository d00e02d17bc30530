import { beforeEach, describe, expect, test } from "bun:test";
import { BackwardModel } from "../../src/engine/ort/backward.ts";
import type { Activations } from "../../src/engine/ort/staged.ts";
import { GraphError } from "../../src/errors.ts";
import { GraphBuilder } from "../../src/onnx/builder.ts";
import { TensorProto_DataType as DataType } from "../../src/onnx/generated/onnx_pb.ts";
import { addGradients } from "../../src/onnx/gradient.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { listFolder } from "../../src/platform/folders.ts";
import { FAST, load, type Loaded } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";

/** Those of whose operators one has no rule. */
const WITHOUT = ["granite4-h", "qwen3_5"];
const architectures = listFolder(fromRoot("test/fixtures/architectures"))
  .filter(({ kind, name }) => kind === "folder" && !WITHOUT.includes(name)).map(({ name }) => name);

/** So small, as a part of what is moved, that few of OPT's rectifiers turn over on the way. */
const STEP = 0.001;

let random = uniformNumbers(5);
/** So that what one test draws does not depend on which came before. */
beforeEach(() => {
  random = uniformNumbers(5);
});
const noise = (length: number) => Float32Array.from({ length }, () => random() - 0.5);
const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, v, i) => sum + v * b[i], 0);
const moved = (from: Float32Array, along: Float32Array, by: number) =>
  from.map((v, i) => v + by * along[i]);

/** The slope of `loss` along a direction, by differences of fourth order. */
async function slope(loss: (by: number) => Promise<number>, step: number): Promise<number> {
  const [a, b, c, d] = [
    await loss(-2 * step),
    await loss(-step),
    await loss(step),
    await loss(2 * step),
  ];
  return (a - 8 * b + 8 * c - d) / (12 * step);
}

async function embedded({ model, spec }: Loaded): Promise<Activations> {
  const tokens = Int32Array.from({ length: 24 }, () => Math.floor(random() * spec.vocabulary));
  return await model.embed({ tokens, windows: 2, length: 12 });
}

describe("the gradients of a section, against differences of what it computes", () => {
  for (const name of architectures) {
    test(`of both blocks of ${name}: by the hidden states and by every linear's weights`, async () => {
      const loaded = await load(`test/fixtures/architectures/${name}`, FAST);
      const { model } = loaded;
      const backward = new BackwardModel(model);
      const activations = await embedded(loaded);
      let out = noise(activations.hidden.length);
      for (const { index, linears } of model.blocks) {
        const weights = new Map(
          Array.from(model.readBlock(index), ([key, values]) => [key, values.slice()]),
        );
        const by = linears.map(({ weight }) => weight);
        // Keys and values may come with the hidden states, or go no further.
        const next = await model.runBlock(index, weights, activations, { output: true });
        if (next.hidden!.length !== out.length) out = noise(next.hidden!.length);
        const found = await backward.block(index, weights, activations, out, { by, hidden: true });
        const lossOf = async (hidden: Float32Array, own: ReadonlyMap<string, Float32Array>) => {
          const result = await model.runBlock(index, own, { ...activations, hidden }, {
            output: true,
          });
          return dot(result.hidden!, out);
        };
        const directions = [undefined, ...by].map((key) => {
          const from = key === undefined ? activations.hidden : weights.get(key)!;
          const along = noise(from.length);
          const scale = Math.sqrt(dot(from, from) / dot(along, along));
          const gradient = key === undefined ? found.hidden! : found.weights.get(key)!;
          const loss = (step: number) =>
            key === undefined ? lossOf(moved(from, along, step * scale), weights) : lossOf(
              activations.hidden,
              new Map([...weights, [key, moved(from, along, step * scale)]]),
            );
          return { key, loss, expected: scale * dot(gradient, along), gradient, scale };
        });
        for (const { key, loss, expected, gradient, scale } of directions) {
          // What a direction of the same length could give at most, some parts of which must be met.
          const bound = scale * Math.sqrt(dot(gradient, gradient));
          expect([key, bound > 0]).toEqual([key, true]);
          const error = Math.abs(await slope(loss, STEP) - expected) / bound;
          expect([key, error < 1e-2 ? 0 : error]).toEqual([key, 0]);
        }
        activations.hidden = next.hidden!;
      }
      await loaded.close();
    });

    test(`of what lies between the blocks and the head of ${name}: by the hidden states and the norm`, async () => {
      const loaded = await load(`test/fixtures/architectures/${name}`, FAST);
      const { model } = loaded;
      const activations = await embedded(loaded);
      const out = noise((await model.finish(activations)).length);
      const by = model.sections.finalNorms.map(({ weight }) => weight);
      const { final, affine } = loaded.spec.norm;
      expect(by.length).toBe(final !== undefined && affine ? 1 : 0);
      const { hidden: found, weights } = await new BackwardModel(model).finish(
        activations,
        out,
        by,
      );
      const along = noise(activations.hidden.length);
      const hidden = activations.hidden;
      const scale = Math.sqrt(dot(hidden, hidden) / dot(along, along));
      const loss = async (step: number) =>
        dot(
          await model.finish({ ...activations, hidden: moved(hidden, along, step * scale) }),
          out,
        );
      const bound = scale * Math.sqrt(dot(found!, found!));
      expect(bound).toBeGreaterThan(0);
      expect(Math.abs(await slope(loss, STEP) - scale * dot(found!, along)) / bound)
        .toBeLessThan(1e-2);
      for (const { weight, length } of model.sections.finalNorms) {
        const from = new Float32Array(length);
        loaded.checkpoint.readFloats(weight, from);
        const gradient = weights.get(weight)!;
        const direction = noise(length);
        const size = Math.sqrt(dot(from, from) / dot(direction, direction));
        const lossWith = async (step: number) => {
          const has = (name: string) => name === weight;
          const read = (_: string, target: Float32Array) =>
            target.set(moved(from, direction, step * size));
          return dot(await model.finish(activations, { has, read }), out);
        };
        const most = size * Math.sqrt(dot(gradient, gradient));
        expect(most).toBeGreaterThan(0);
        expect(Math.abs(await slope(lossWith, STEP) - size * dot(gradient, direction)) / most)
          .toBeLessThan(1e-2);
      }
      await loaded.close();
    });
  }

  test("are the same in WebAssembly", async () => {
    const gradients: number[][] = [];
    const tokens = Int32Array.from({ length: 16 }, (_, i) => 3 * i + 5);
    for (const backend of ["wasm", FAST] as const) {
      const { model, close } = await load("test/fixtures/architectures/llama", backend);
      const activations = await model.embed({ tokens, windows: 2, length: 8 });
      const out = activations.hidden.map((_, i) => Math.sin(i));
      const [{ weight }] = model.blocks[0].linears;
      const want = { by: [weight], hidden: true };
      const found = await new BackwardModel(model)
        .block(0, model.readBlock(0), activations, out, want);
      gradients.push([...found.hidden!, ...found.weights.get(weight)!]);
      await close();
    }
    gradients[0].forEach((value, i) =>
      expect(Math.abs(value - gradients[1][i])).toBeLessThan(1e-4 * (1 + Math.abs(value)))
    );
  });
});

describe("a graph without a gradient", () => {
  const graphOf = (opType: string) => {
    const b = new GraphBuilder("test");
    const x = b.input("x", DataType.FLOAT, ["batch", "sequence", 4]);
    b.node(opType, [x], { outputs: ["y"] });
    return b.graph;
  };

  test("is refused with the operator's name where it has no rule", () => {
    expect(() => addGradients(graphOf("Sinh"), "y", ["x"])).toThrow(GraphError);
    expect(() => addGradients(graphOf("Sinh"), "y", ["x"])).toThrow("Sinh");
  });

  test("is refused where the value does not depend on what is asked by", () => {
    const graph = graphOf("Sigmoid");
    new GraphBuilder(graph).input("other", DataType.FLOAT, ["batch", "sequence", 4]);
    expect(() => addGradients(graph, "y", ["other"])).toThrow("does not depend on other");
  });
});
