/**
 * Graphs changed at random: each is lowered, or refused with an error of ours; and what is lowered
 * computes what ONNX Runtime computes.
 *
 * The changes follow from a seed, which every failure names: `ESPALIER_FUZZ_SEED=… bun test fuzz`
 * repeats it. With `CI=true` there are ten times as many.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Decoder, valuesReadBy } from "../../../src/engine/sparse/ir.ts";
import { EspalierError } from "../../../src/errors.ts";
import {
  CompileWorkshop,
  distance,
  type How,
  LONG,
  Running,
  TOKENS,
} from "../../compile/support.ts";
import { caseCount, Dice, fuzz, must, SEED } from "../../support/fuzz.ts";
import { caseNumber } from "../../support/turns.ts";
import { changeBytes, changeGraph } from "./changes.ts";
import { changedGraph, type Files, filesOf, lowerBytes, naiveOf } from "./support.ts";

const CASES = {
  bytes: caseCount(8_000, 1_000),
  graphs: caseCount(8_000, 1_000),
  runs: caseCount(400, 40),
};

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

/** Compiled models, of every architecture's form and every format. */
const models: { readonly name: string; readonly output: string; readonly files: Files }[] = [];
/**
 * Those that multiply by numbers in the graph, or add them to weights: with other ones, float32 overflows where doubles
 * do not.
 */
const WITH_FACTORS = [
  "cohere",
  "gemma2",
  "gemma3",
  "gemma4",
  "granite",
  "granite4-h",
  "granite_swa",
  "nemotron",
];

beforeAll(async () => {
  const ways: [string, How][] = [
    ["qwen3", { format: "nm", values: "f32" }],
    ["opt-post-norm", { format: "bitmap", values: "f16" }],
    ["opt", { format: "dense", values: "int8" }],
    ["llama-bias-linear-rope", { format: "csr", values: "int8" }],
    ["mistral-sliding", { format: "bitmap", values: "int8", group: 16 }],
    ["llama", { format: "slots", values: "int8" }],
    ["qwen2-sliding", { format: "dense", values: "f16", logits: "last" }],
    ["qwen3", { format: "dense", values: "int4", head: "int4" }],
    ["llama", { format: "bitmap", values: "int4" }],
    ["phi3", { format: "dense", values: "f32", logits: "last" }],
    ["gemma2", { format: "dense", values: "f32" }],
    ["gemma3", { format: "dense", values: "f16" }],
    ["gemma4", { format: "csr", values: "f32" }],
    ["granite", { format: "csr", values: "f32" }],
    ["granite_swa", { format: "slots", values: "f16" }],
    ["gpt-neox", { format: "dense", values: "f16" }],
    ["phi", { format: "bitmap", values: "f32" }],
    ["cohere", { format: "bitmap", values: "f32" }],
    ["nemotron", { format: "dense", values: "f32" }],
    ["hunyuan", { format: "dense", values: "f16" }],
    ["lfm2", { format: "dense", values: "f32" }],
    ["lfm3", { format: "nm", values: "int8" }],
    ["qwen3_5", { format: "csr", values: "f32" }],
    ["granite4-h", { format: "dense", values: "f32" }],
  ];
  for (const [model, how] of ways) {
    const { output } = await workshop.compile(await workshop.pruned(model, "2:4"), how);
    models.push({ name: model, output, files: filesOf(output) });
  }
});

/** What a planner counts on, whatever the graph was. */
function checkDecoder({ widths, steps, logits, vocabulary, positions, layers }: Decoder): void {
  const width = (value: number) => widths[value];
  must(steps.length === widths.length && logits < steps.length, "values without steps");
  must(widths.every((w) => Number.isSafeInteger(w) && w >= 1), `widths of ${widths}`);
  must(vocabulary >= 1 && (positions === undefined || positions >= 1), "an empty table");
  for (const [i, step] of steps.entries()) {
    must(step.output === i, `step ${i} makes ${step.output}`);
    for (const value of valuesReadBy(step)) must(value < i, `step ${i} reads ${value}`);
    switch (step.op) {
      case "embed":
        must(step.table.columns === width(i) && step.offset >= 0, `embed ${i}`);
        break;
      case "linear":
        must(step.matrix.rows === width(i), `linear ${i}`);
        must(step.matrix.columns === width(step.input), `linear ${i}`);
        break;
      case "rmsNorm":
        must(width(i) % step.groups === 0 && width(step.input) === width(i), `norm ${i}`);
        must(Number.isFinite(step.above ?? 0), `norm ${i}`);
        break;
      case "rotary":
        must(width(i) % step.heads === 0 && width(step.input) === width(i), `rotary ${i}`);
        must(step.turned >= 2 && step.turned % 2 === 0, `rotary ${i}`);
        must(step.turned <= width(i) / step.heads, `rotary ${i}`);
        break;
      case "part":
        must(Number.isInteger(step.offset) && step.offset >= 0, `part ${i}`);
        must(step.offset + width(i) <= width(step.input), `part ${i}`);
        break;
      case "scale":
        must(Number.isFinite(step.factor) && width(step.input) === width(i), `scale ${i}`);
        break;
      case "convolve":
        must(width(step.input) === width(i) && step.layer < layers, `convolution ${i}`);
        must(Number.isInteger(step.length) && step.length >= 2, `convolution ${i}`);
        break;
      case "delta": {
        const { keyHeads, valueHeads, keyDim, valueDim, scale, epsilon } = step;
        for (const { value, offset } of [step.queries, step.keys]) {
          must(offset === 0 && width(value) === keyHeads * keyDim, `delta ${i}`);
        }
        must(width(step.values.value) === valueHeads * valueDim, `delta ${i}`);
        must(width(i) === valueHeads * valueDim && valueHeads % keyHeads === 0, `delta ${i}`);
        for (const value of [step.decays, step.strengths]) {
          must(value === undefined || width(value) === valueHeads, `delta ${i}`);
        }
        must(Number.isFinite(scale) && step.layer < layers, `delta ${i}`);
        must(step.strengths === undefined ? epsilon === undefined : epsilon! >= 0, `delta ${i}`);
        break;
      }
      case "spread":
        must(width(i) % width(step.input) === 0, `spread ${i}`);
        break;
      case "attention":
        must(width(step.queries) === step.heads * step.headDim, `queries ${i}`);
        must((step.keys === undefined) === (step.values === undefined), `keys ${i}`);
        for (const value of [step.keys, step.values]) {
          must(value === undefined || width(value) === step.keyValueHeads * step.headDim, `${i}`);
        }
        must(width(i) === width(step.queries), `attention ${i}`);
        must(step.heads % step.keyValueHeads === 0 && step.layer < layers, `attention ${i}`);
        break;
      default:
        for (const value of valuesReadBy(step)) must(width(value) === width(i), `${step.op} ${i}`);
    }
  }
}

describe("a graph changed at random is lowered, or refused", () => {
  test("when its bytes change", () => {
    const endings = fuzz(CASES.bytes, (dice) => {
      checkDecoder(lowerBytes(changeBytes(dice, dice.pick(models).files.graph)));
    });
    for (const ending of ["result", "ONNX_INVALID", "OPERATOR_UNSUPPORTED"]) {
      expect(endings.get(ending) ?? 0).toBeGreaterThan(0);
    }
  }, LONG);

  test("when its nodes and tensors change", () => {
    const endings = fuzz(CASES.graphs, (dice) => {
      const { files } = dice.pick(models);
      const bytes = changedGraph(files, (graph) => {
        for (let n = 1 + dice.below(3); n > 0; n--) changeGraph(dice, graph);
      });
      checkDecoder(lowerBytes(bytes));
    });
    expect([...endings.keys()].sort()).toEqual(["ONNX_INVALID", "OPERATOR_UNSUPPORTED", "result"]);
    for (const count of endings.values()) expect(count).toBeGreaterThan(CASES.graphs / 20);
  }, LONG);
});

/** The logits of a folder's model through ONNX Runtime, with a cache; nothing where it refuses it. */
async function reference(output: string): Promise<Float32Array | undefined> {
  let running: Running | undefined;
  try {
    // Not the native build: a graph that it does not check can end the process.
    running = await Running.open(output, "wasm");
    const prompt = (await running.step(TOKENS.slice(0, 7))).slice();
    return Float32Array.from([...prompt, ...await running.step(TOKENS.slice(7))]);
  } catch {
    return undefined;
  } finally {
    await running?.close();
  }
}

test(
  "what is lowered of a graph that was changed computes what ONNX Runtime computes",
  async () => {
    let [compared, changed] = [0, 0];
    const comparable = models.filter(({ name }) => !WITH_FACTORS.includes(name));
    for (let nth = 0; compared < CASES.runs; nth++) {
      const i = caseNumber(nth);
      const dice = new Dice(SEED * 7_000_003 + i);
      const { output, files } = dice.pick(comparable);
      const graph = changedGraph(files, (graph) => changeGraph(dice, graph));
      let lowered: Awaited<ReturnType<typeof naiveOf>>;
      try {
        lowered = await naiveOf({ ...files, graph });
      } catch (error) {
        if (error instanceof EspalierError) continue;
        throw new Error(`case ${i} of seed ${SEED}: ${error}`, { cause: error });
      }
      const path = join(output, "onnx", "model.onnx");
      writeFileSync(path, graph);
      const expected = await reference(output);
      writeFileSync(path, files.graph);
      if (!expected) continue;
      const { decoder, naive } = lowered;
      const rows = naive.run(TOKENS);
      const given = decoder.lastOnly ? [rows[6], rows[TOKENS.length - 1]] : rows;
      const found = distance(Float32Array.from(given.flatMap((row) => [...row])), expected);
      if (!(found < 1e-4)) throw new Error(`case ${i} of seed ${SEED}: they differ by ${found}`);
      compared++;
      const asItWas = JSON.stringify(lowerBytes(files.graph));
      if (JSON.stringify(decoder) !== asItWas) changed++;
    }
    // Many changes change nothing: another order of two factors, say.
    expect(changed).toBeGreaterThan(CASES.runs / 8);
  },
  LONG,
);
