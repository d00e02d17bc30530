/**
 * Models in several memories: where they are cut, and that they give the same bits as in one.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { folderSource } from "../../../src/engine/folder_source.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import { EngineMemory, MemoryBudget } from "../../../src/engine/sparse/memory.ts";
import { ModelReader } from "../../../src/engine/sparse/model_reader.ts";
import type { SparseOptions } from "../../../src/engine/sparse/options.ts";
import { fuse, type FusedDecoder, type FusedStep } from "../../../src/engine/sparse/plan/fuse.ts";
import { cutIntoShards } from "../../../src/engine/sparse/plan/shards.ts";
import { Rooms } from "../../../src/engine/sparse/rooms.ts";
import { aboutBytes, mostBytes } from "../../../src/engine/sparse/weights/sizes.ts";
import { MemoryBudgetError } from "../../../src/errors.ts";
import { type How, LONG } from "../../compile/support.ts";
import { fromRoot } from "../../support/paths.ts";
import {
  alone,
  codeOf,
  expectOthersNotToMatter,
  expectTurnsToLeaveNothing,
  logitsInPieces,
  run,
  SparseWorkshop,
  tokensOf,
  withSparse,
} from "./engines.ts";
import { expectSameBits, Machine } from "./machine.ts";
import { filesOf, lowerBytes } from "./support.ts";
import { watchThreads } from "./watch_threads.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** As many shards as a small model can be cut into. */
const CUT: SparseOptions = { shardBytes: 1 };
const INT8: How = { values: "int8", format: "auto" };

const ARCHITECTURES = readdirSync(fromRoot("test/fixtures/architectures")).sort();

function fusedOf(folder: string): FusedDecoder {
  return fuse(lowerBytes(filesOf(folder).graph));
}

/** How many memories a model says it has. */
function memoriesOf({ info }: { info: { device: string } }): number {
  return Number(/, (\d+) memories/.exec(info.device)?.[1] ?? 1);
}

function outputsOf(steps: readonly FusedStep[]): number[] {
  return steps.flatMap((step) => step.op === "select" ? [] : [step.output]);
}

describe("a program that is cut into shards", () => {
  for (const name of ARCHITECTURES) {
    test(`has each step once, and passes on what others read: ${name}`, async () => {
      const whole = fusedOf(await workshop.compiled(name, INT8));
      for (const most of [1, 2, 5, 1000]) {
        const shards = cutIntoShards(whole, () => 1, most);
        expect(shards.flatMap(({ steps }) => steps)).toEqual([...whole.steps]);
        expect(shards[0].given).toEqual([]);
        expect(shards.at(-1)!.results).toEqual(whole.results);
        for (const [i, { steps, given, results }] of shards.entries()) {
          expect(steps.length).toBeGreaterThan(0);
          if (i > 0) expect([...given]).toEqual([...shards[i - 1].results]);
          const there = new Set([...given, ...outputsOf(steps)]);
          expect(results.every((value) => there.has(value))).toBe(true);
          const kept = new Set(
            steps.flatMap((s) => s.op === "attention" && s.keys !== undefined ? [s.layer] : []),
          );
          const shared = steps.flatMap((s) =>
            s.op === "attention" && s.keys === undefined ? [s.layer] : []
          );
          expect(shared.every((layer) => kept.has(layer))).toBe(true);
        }
      }
      expect(cutIntoShards(whole, () => 1, whole.steps.length)).toEqual([whole]);
    }, LONG);
  }

  test("is cut between layers, into parts of like size", async () => {
    const whole = fusedOf(await workshop.compiled("llama", INT8));
    const bytesOf = (step: FusedStep) => step.op === "linear" ? step.matrix.rows : 0;
    const sizeOf = ({ steps }: FusedDecoder) => steps.reduce((sum, step) => sum + bytesOf(step), 0);
    const all = sizeOf(whole);
    const shards = cutIntoShards(whole, bytesOf, all / 2);
    expect(shards.length).toBe(2);
    for (const shard of shards) expect(sizeOf(shard)).toBeLessThan(0.75 * all);
    // One vector a token, as wide as the model.
    expect(shards[1].given.map((value) => whole.widths[value])).toEqual([
      whole.widths[(whole.steps[0] as { output: number }).output],
    ]);
  }, LONG);
});

describe("a model in several memories", () => {
  for (const name of ARCHITECTURES) {
    test(`gives the same bits as in one: ${name}`, async () => {
      const folder = await workshop.compiled(name, INT8, "8:16");
      for (const kv of ["f32", "int8"] as const) {
        const logits = (options: SparseOptions) =>
          withSparse(folder, { kv, ...options }, async (model) => {
            const tokens = tokensOf(1, Math.min(90, model.info.context));
            const all = await logitsInPieces(model, tokens, [1, 7, 1, 64, 1, 16]);
            return { memories: memoriesOf(model), all, last: await run(model.open(), tokens) };
          });
        const one = await logits({});
        expect(one.memories).toBe(1);
        const several = await logits(CUT);
        expect(several.memories).toBeGreaterThan(1);
        expectSameBits([several.all, several.last], [one.all, one.last], kv);
      }
    }, LONG);
  }

  test(
    "does so with any number of threads, in the background, and in two memories as in many",
    async () => {
      const folder = await workshop.compiled("llama", { values: "f32", format: "csr" }, "2:4");
      const tokens = tokensOf(2, 70);
      const expected = await alone(folder, tokens);
      const { weightBytes } = await withSparse(folder, {}, ({ info }) => Promise.resolve(info));
      for (const threads of [1, 2, 3]) {
        for (const background of [false, true]) {
          for (const shardBytes of [1, Math.ceil(weightBytes / 1.5)]) {
            const options = { threads, background, shardBytes, context: 128, shortRun: 0 };
            const found = await alone(folder, tokens, options);
            expectSameBits([found], [expected], JSON.stringify(options));
          }
        }
      }
    },
    LONG,
  );

  test("has sequences that share, cut and go on as those of one memory", async () => {
    for (const name of ["llama", "gemma4", "qwen3_5", "granite4-h", "lfm2"]) {
      const folder = await workshop.compiled(name, INT8, "8:16");
      await expectOthersNotToMatter(folder, CUT);
      await expectTurnsToLeaveNothing(folder, 5, CUT);
    }
  }, LONG);

  test("says what it takes in all of them", async () => {
    for (const name of ["phi", "granite4-h", "qwen3_5"]) {
      const folder = await workshop.compiled(name, { values: "int8", format: "dense" });
      const infoOf = (options: SparseOptions) =>
        withSparse(folder, options, async (model) => {
          const sequence = model.open();
          await sequence.run(tokensOf(1, 70));
          return { ...model.info, use: model.cacheUse!()! };
        });
      const one = await infoOf({}), several = await infoOf(CUT);
      for (const what of ["cacheBytesPerToken", "stateBytes", "tokenBytes"] as const) {
        expect(several[what]).toBe(one[what]!);
      }
      // Those whose head is their embedding have that in two memories.
      if (name === "phi") expect(several.weightBytes).toBe(one.weightBytes);
      else expect(several.weightBytes).toBeGreaterThan(one.weightBytes);
      expect(several.memoryBytes!).toBeGreaterThan(one.memoryBytes!);
      expect(several.use.tokens).toBe(70);
      expect(several.use.bytes).toBeGreaterThanOrEqual(one.use.bytes);
      expect(several.use.bytes).toBeLessThan(1.01 * one.use.bytes + 4096);
    }
  }, LONG);

  test("takes no more than it may in all of them together", async () => {
    const folder = await workshop.compiled("llama", INT8, "8:16");
    const { memoryBytes } = await withSparse(folder, CUT, ({ info }) => Promise.resolve(info));
    const load = (memory: number, context?: number) =>
      codeOf(withSparse(folder, { ...CUT, memory, context }, () => Promise.resolve()));
    expect(await load(memoryBytes! - 1000)).toBe("MEMORY_BUDGET");
    expect(await load(memoryBytes! + 1000, 128)).toBe("MEMORY_BUDGET");
    expect(await load(memoryBytes! + 2e6, 128)).toBe("");
  }, LONG);

  test(
    "has no room for a sequence where one of them has none, and goes on where others end",
    async () => {
      const folder = await workshop.compiled("llama", INT8, "8:16");
      const { memoryBytes, cacheBytesPerToken } = await withSparse(
        folder,
        CUT,
        ({ info }) => Promise.resolve(info),
      );
      // Three pages of 64 tokens, and what a run is told in each memory.
      const memory = memoryBytes! + 3.5 * 64 * cacheBytesPerToken + 4 * 16_000;
      await withSparse(folder, { ...CUT, memory, keptSequences: 0 }, async (model) => {
        const open = [];
        let code = "";
        while (code === "" && open.length < 40) {
          const sequence = model.open();
          code = await codeOf(sequence.run(tokensOf(open.length, 60)));
          open.push(sequence);
        }
        expect(code).toBe("MEMORY_BUDGET");
        expect(open.length).toBeGreaterThan(1);
        open[0].close();
        const last = open.at(-1)!;
        const expected = await alone(folder, tokensOf(9, 60));
        expectSameBits([await run(last, tokensOf(9, 60))], [expected], "the last sequence");
      });
    },
    LONG,
  );

  test("leaves an embedding in its file that is the head in another memory", async () => {
    const folder = await workshop.compiled("qwen3", { values: "int8", format: "dense" });
    const tokens = tokensOf(3, 20);
    const expected = await alone(folder, tokens);
    await withSparse(folder, { ...CUT, embeddings: "file" }, async (model) => {
      expect(model.info.tableBytesInFile).toBeGreaterThan(0);
      expectSameBits([await run(model.open(), tokens)], [expected], "from the file");
    });
  }, LONG);

  test("says so when a thread of the last one dies, and computes no more", async () => {
    const folder = await workshop.compiled("llama", INT8, "8:16");
    const options = { ...CUT, threads: 1, background: true, shortRun: 0, patience: 400 };
    const { result: model, workers } = await watchThreads(() =>
      loadSparse(folderSource(folder), options)
    );
    try {
      expect(workers.length).toBe(memoriesOf(model));
      const sequence = model.open();
      await sequence.run(tokensOf(1, 5));
      workers.at(-1)!.terminate();
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect(await codeOf(sequence.run(tokensOf(2, 5)))).toBe("WORKER_LOST");
      expect(await codeOf(sequence.run([5]))).toBe("WORKER_LOST");
    } finally {
      await model.close();
    }
  }, LONG);
});

describe("the bytes of a matrix, told before it is read", () => {
  const CASES: [How, string | number | undefined][] = [
    [{ values: "int8", format: "nm" }, "4:16"],
    [{ values: "int8", format: "bitmap" }, "8:16"],
    [{ values: "int8", format: "bitmap" }, 0.7],
    [{ values: "int8", format: "csr" }, 0.9],
    [{ values: "int4", format: "bitmap" }, "8:16"],
    [{ values: "int4", format: "nm" }, "4:16"],
    [{ values: "f32", format: "csr" }, 0.7],
    [{ values: "f16", format: "nm" }, "2:4"],
    [{ values: "int8", format: "dense" }, undefined],
    [{ values: "int4", format: "dense" }, undefined],
  ];
  for (const [how, pattern] of CASES) {
    test(`are about as many as it takes: ${how.values} as ${how.format}, ${pattern}`, async () => {
      const folder = await workshop.compiled("llama", how, pattern);
      const machine = (await Machine.start("simd", 1))!;
      const reader = await ModelReader.open(folderSource(folder));
      try {
        const { steps } = fusedOf(folder);
        const refs = steps.flatMap((step) => step.op === "linear" ? [step.matrix] : []);
        const loader = machine.loader(reader, refs);
        for (const ref of refs) {
          const { bytes } = await loader.matrix(ref);
          const most = mostBytes(reader, ref), about = await aboutBytes(reader, ref);
          expect(bytes).toBeLessThanOrEqual(most);
          expect(about).toBeLessThanOrEqual(most);
          const isTold = how.format === "nm" || how.format === "bitmap";
          if (isTold && how.values?.startsWith("int")) {
            expect(about / bytes).toBeGreaterThan(0.8);
            expect(about / bytes).toBeLessThan(1.25);
          }
        }
        await loader.settle();
      } finally {
        reader.close();
        machine.stop();
      }
    }, LONG);
  }
});

describe("rooms in several memories", () => {
  test("are in all of them or in none, and what was made of one is used by the next", () => {
    const budget = new MemoryBudget(100_000);
    const [large, small] = [0, 1].map(() => new EngineMemory(false, budget));
    const rooms = new Rooms([{ memory: large, bytes: 1024 }, { memory: small, bytes: 32_768 }]);
    expect(rooms.bytes).toBe(33_792);
    expect(rooms.left()).toBe(2);
    const made = [rooms.make(), rooms.make()];
    expect(new Set(made).size).toBe(2);
    expect(rooms.left()).toBe(0);
    const before = large.used;
    expect(() => rooms.make()).toThrow(MemoryBudgetError);
    const after = large.used;
    expect(after - before).toBeLessThanOrEqual(1024 + 64);
    expect(() => rooms.make()).toThrow(MemoryBudgetError);
    // The first memory's part lies ready.
    expect(large.used).toBe(after);
    for (const [i, room] of made.entries()) {
      large.bytes(rooms.at(0, room), 1024).fill(i + 1);
      small.bytes(rooms.at(1, room), 32_768).fill(i + 11);
    }
    rooms.copy(made[0], made[1]);
    expect(large.bytes(rooms.at(0, made[1]), 1024).every((byte) => byte === 1)).toBe(true);
    expect(small.bytes(rooms.at(1, made[1]), 32_768).every((byte) => byte === 11)).toBe(true);
    rooms.clear(made[0]);
    expect(large.bytes(rooms.at(0, made[0]), 1024).every((byte) => byte === 0)).toBe(true);
    expect(large.bytes(rooms.at(0, made[1]), 1024).every((byte) => byte === 1)).toBe(true);
  });

  test("have each an address of their own where a memory has nothing of them", () => {
    const memories = [0, 1].map(() => new EngineMemory(false));
    const rooms = new Rooms([{ memory: memories[0], bytes: 0 }, {
      memory: memories[1],
      bytes: 64,
    }]);
    const made = Array.from({ length: 5 }, () => rooms.make());
    expect(new Set(made).size).toBe(5);
    expect(new Set(made.map((room) => rooms.at(1, room))).size).toBe(5);
  });
});
