/**
 * Where threads meet in a program.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import { OP } from "../../../src/engine/sparse/layout.ts";
import { logitsInPieces, SparseWorkshop } from "./engines.ts";
import { expectSameBits } from "./machine.ts";
import { nameOf, sourceOf, stepsPlannedBy } from "./planned.ts";
import { changedGraph, type Files, filesOf } from "./support.ts";

const LONG = 120_000;
const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** The steps of the program that a model is planned as; of barriers with when threads meet. */
async function stepsOf(files: Files): Promise<string[]> {
  const options = { threads: 1, activations: "int8" } as const;
  const steps = await stepsPlannedBy(async () =>
    await (await loadSparse(sourceOf(files), options)).close()
  );
  return steps.map((step) =>
    step.op === OP.BARRIER ? `${nameOf(step)} ${step.words[0]}` : nameOf(step)
  );
}

/** How often threads meet between what one token's heads are combined by and the next step of a kind. */
function meetings(steps: readonly string[], next: string): number {
  const combine = steps.indexOf("COMBINE");
  return steps.slice(combine + 1, steps.indexOf(next, combine))
    .filter((step) => step === "BARRIER 0" || step === "BARRIER 2").length;
}

describe("behind attention, whose parts have a room of their own, threads meet", () => {
  const checkpoint = () =>
    workshop.checkpoint({
      hidden: 64,
      intermediate: 256,
      heads: 4,
      keyValueHeads: 4,
      headDim: 16,
      vocabulary: 100,
      layers: 2,
      zeros: 0.75,
    });
  const compiled = async () =>
    filesOf(await workshop.compiled(checkpoint(), { values: "int8", format: "bitmap" }));
  test("once before a product that reads what attention gives", async () => {
    expect(meetings(await stepsOf(await compiled()), "LINEAR")).toBe(1);
  }, LONG);

  test("not before one that reads something else, and before the next attention", async () => {
    const files = await compiled();
    // The block's other half reads what attention reads.
    const graph = changedGraph(files, ({ node }) => {
      const product = (part: string) =>
        node.find(({ name, opType }) => name.includes(part) && opType.startsWith("SparseMatMul"))!;
      for (const part of ["gate_proj", "up_proj"]) {
        product(part).input[0] = product("q_proj").input[0];
      }
    });
    const changed = { ...files, graph };
    const steps = await stepsOf(changed);
    expect(meetings(steps, "LINEAR")).toBe(0);
    expect(meetings(steps, "ATTEND")).toBeGreaterThan(0);
    const logits: Float32Array[] = [];
    for (const threads of [1, 2, 3]) {
      const model = await loadSparse(sourceOf(changed), { threads, activations: "int8" });
      logits.push(await logitsInPieces(model, Array.from({ length: 90 }, (_, i) => i), [1]));
      await model.close();
    }
    expectSameBits(logits.slice(1), [logits[0], logits[0]], "with one thread");
  }, LONG);
});

test(
  "a thread takes room for what the heads of a group make of pages, not for all heads",
  async () => {
    const [heads, keyValueHeads, headDim, positions] = [16, 2, 64, 8192];
    const sizes = { hidden: 64, intermediate: 64, vocabulary: 50, layers: 1 };
    const files = filesOf(
      await workshop.compiled(
        workshop.checkpoint({ ...sizes, heads, keyValueHeads, headDim, positions }),
        { values: "int8" },
      ),
    );
    const roomForCaches = async (threads: number) => {
      const model = await loadSparse(sourceOf(files), { threads, memory: 64e6, kv: "int8" });
      const limitBytes = model.cacheUse!()!.limitBytes!;
      await model.close();
      return limitBytes;
    };
    const ofGroup = heads / keyValueHeads * (positions / 64 + 1) * (headDim * 4 + 16);
    const three = await roomForCaches(1) - await roomForCaches(4);
    // Caches come in whole pages, several together; products have room of theirs.
    expect(three).toBeGreaterThan(2 * ofGroup);
    expect(three).toBeLessThan(5 * ofGroup);
  },
  LONG,
);
