/**
 * Where threads meet in a program.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { filesSource } from "../../../src/engine/source.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import { OP } from "../../../src/engine/sparse/layout.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import { SparseWorkshop } from "./engines.ts";
import { changedGraph, type Files, filesOf } from "./support.ts";

const LONG = 120_000;
const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

const NAMES = new Map(Object.entries(OP).map(([name, number]) => [number as number, name]));

/** The steps of the program that a model is planned as; of barriers with when threads meet. */
async function stepsOf({ graph, data }: Files): Promise<string[]> {
  const { finish } = Program.prototype;
  const steps: string[] = [];
  Program.prototype.finish = function (this: Program) {
    const words = finish.call(this);
    for (let at = 0; words[at] !== OP.END; at += words[at + 1]) {
      const name = NAMES.get(words[at])!;
      steps.push(words[at] === OP.BARRIER ? `${name} ${words[at + 2]}` : name);
    }
    return words;
  };
  try {
    const source = filesSource({ "onnx/model.onnx": graph, "onnx/model.onnx_data": data });
    await (await loadSparse(source, { threads: 1, activations: "int8" })).close();
  } finally {
    Program.prototype.finish = finish;
  }
  return steps;
}

/** What lies between what one token's heads are combined by and the next product. */
function behindAttention(steps: readonly string[]): readonly string[] {
  const combine = steps.indexOf("COMBINE");
  return steps.slice(combine + 1, steps.indexOf("LINEAR", combine));
}

describe("threads meet before products write where attention's parts are read", () => {
  const checkpoint = () =>
    workshop.checkpoint({
      hidden: 64,
      intermediate: 256,
      heads: 4,
      keyValueHeads: 4,
      headDim: 16,
      vocabulary: 100,
      layers: 1,
      zeros: 0.75,
    });
  const compiled = async () =>
    filesOf(await workshop.compiled(checkpoint(), { values: "int8", format: "bitmap" }));
  const isMeeting = (step: string) => step === "BARRIER 0" || step === "BARRIER 2";

  test("once, where the next product reads what attention gives", async () => {
    expect(behindAttention(await stepsOf(await compiled())).filter(isMeeting).length).toBe(1);
  }, LONG);

  test("also where the next product reads something else", async () => {
    const files = await compiled();
    // The block's other half reads what attention reads.
    const graph = changedGraph(files, ({ node }) => {
      const product = (part: string) =>
        node.find(({ name, opType }) => name.includes(part) && opType.startsWith("SparseMatMul"))!;
      for (const part of ["gate_proj", "up_proj"]) {
        product(part).input[0] = product("q_proj").input[0];
      }
    });
    expect(behindAttention(await stepsOf({ ...files, graph })).filter(isMeeting).length).toBe(1);
  }, LONG);
});
