/**
 * What goes wrong ends in an error of ours or in a result, never in a hang: threads that die, files that
 * are damaged, operators that are unknown, memory that does not suffice.
 *
 * Damage follows from a seed, which every failure names: `ESPALIER_FUZZ_SEED=… bun test robustness`
 * repeats it. With `CI=true` there is five times as much.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { setImmediate } from "node:timers";
import { folderSource } from "../../../src/engine/folder_source.ts";
import type { EngineModel, Sequence } from "../../../src/engine/model.ts";
import { filesSource, type ModelSource } from "../../../src/engine/source.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import type { SparseOptions } from "../../../src/engine/sparse/options.ts";
import { Runner } from "../../../src/engine/sparse/runner.ts";
import { chooseBuild, configure, instantiate } from "../../../src/engine/sparse/kernels.ts";
import { CONTROL } from "../../../src/engine/sparse/layout.ts";
import { EngineMemory } from "../../../src/engine/sparse/memory.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import { EspalierError } from "../../../src/errors.ts";
import { runtime } from "../../../src/platform/runtime.ts";
import { rejectionOf, thrownBy } from "../../checkpoint/support.ts";
import { distance, type How, LONG, TOKENS } from "../../compile/support.ts";
import { caseCount, Dice, SEED } from "../../support/fuzz.ts";
import { caseNumber } from "../../support/turns.ts";
import { changeBytes, changeGraph } from "./changes.ts";
import { codeOf, logitsInPieces, SparseWorkshop } from "./engines.ts";
import { Machine } from "./machine.ts";
import {
  changedGraph,
  type Files,
  filesOf,
  logitsOf,
  lowerBytes,
  makerOf,
  naiveOf,
} from "./support.ts";
import { watchThreads } from "./watch_threads.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

describe("a thread that dies", () => {
  const options = { patience: 300 };

  /** Nothing is tried any more, and nobody waits. */
  async function expectLost(model: EngineModel, sequence: Sequence): Promise<void> {
    const took = await seconds(async () => {
      expect(await codeOf(sequence.run([4]))).toBe("WORKER_LOST");
      expect(await codeOf(sequence.run([4, 5], { logits: "all" }))).toBe("WORKER_LOST");
      expect((thrownBy(() => model.open()) as EspalierError).code).toBe("WORKER_LOST");
      sequence.close();
      await model.close();
    });
    expect(took).toBeLessThan(0.3);
  }

  for (const threads of [2, 3]) {
    test(
      `before its first step is an error within the time that was given, with ${threads}`,
      async () => {
        const folder = await workshop.compiled("llama", { values: "int8", format: "nm" }, "8:16");
        const { result: model } = await watchThreads(
          () => loadSparse(folderSource(folder), { threads, ...options }),
          (script) => script.replace("exports.work(thread)", "thread"),
        );
        const sequence = model.open();
        const took = await seconds(async () => {
          expect(await codeOf(sequence.run([1, 2, 3]))).toBe("WORKER_LOST");
        });
        expect(took).toBeLessThan(10);
        expect(sequence.length).toBe(0);
        await expectLost(model, sequence);
      },
      LONG,
    );

    test(`between runs is an error within the time that was given, with ${threads}`, async () => {
      const folder = await workshop.compiled("llama", { values: "int8", format: "nm" }, "8:16");
      const { result: model, workers } = await watchThreads(() =>
        loadSparse(folderSource(folder), { threads, ...options })
      );
      expect(workers.length).toBe(threads - 1);
      const sequence = model.open();
      await sequence.run([1, 2, 3]);
      workers[0].terminate();
      let code = "";
      for (let token = 4; code === "" && token < 24; token++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        const took = await seconds(async () => {
          code = await codeOf(sequence.run([token]));
        });
        expect(took).toBeLessThan(10);
      }
      if (code === "") {
        // Deno does not stop a thread that is in WebAssembly: it goes on doing its part.
        expect(runtime().name).toBe("deno");
        return await model.close();
      }
      expect(code).toBe("WORKER_LOST");
      await expectLost(model, sequence);
    }, LONG);
  }

  test("in the middle of a step is noticed at once", async () => {
    const machine = (await Machine.start("simd", 2))!;
    const program = new Program();
    // The second token, which is the other thread's, is said to lie beyond all memory.
    const x = { ...machine.place([new Array(32).fill(1)]), stride: 0x7fff0000 };
    program.elementwise(x, machine.room(2, 32), 32, "copy", undefined, "none");
    const took = await seconds(() => {
      expect(() => machine.run(program, { tokens: 2 })).toThrow("a thread was lost");
      return Promise.resolve();
    });
    // It has 20 s to answer.
    expect(took).toBeLessThan(5);
    machine.stop();
  }, LONG);

  test("is noticed by a main thread that may not sleep", async () => {
    const { module } = await chooseBuild(true, "simd");
    const memory = new EngineMemory(true);
    const kernels = instantiate(module, memory);
    kernels.setUp();
    // The second thread has never been.
    configure(memory, { threads: 2, spins: 100, patience: 100, mainMaySleep: false });
    const words = new Program().finish();
    const at = memory.reserve(words.byteLength);
    memory.words(at, words.length).set(words);
    memory.set(CONTROL.PROGRAM, at);
    const took = await seconds(() => {
      expect(kernels.run()).toBe(1);
      return Promise.resolve();
    });
    expect(took).toBeLessThan(10);
  }, LONG);
});

describe("a program that breaks off", () => {
  const { run } = Runner.prototype;
  afterAll(() => void (Runner.prototype.run = run));

  test("is an error for all who wait, and the model closes", async () => {
    const files = filesOf(await workshop.compiled("llama", { values: "f32", format: "csr" }));
    const model = await loadSparse(sourceOf(files), { threads: 1 });
    const trap = new WebAssembly.RuntimeError("unreachable");
    Runner.prototype.run = () => Promise.reject(trap);
    const [first, second] = [model.open(), model.open()];
    const errors = await Promise.all([first.run([1, 2]), second.run([3])].map(rejectionOf));
    Runner.prototype.run = run;
    for (const error of errors) {
      expect(error).toMatchObject({ code: "BACKEND_FAILED", cause: trap });
      expect(error.message).toContain("unreachable");
    }
    // What is in memory is of no meaning any more.
    expect((await rejectionOf(first.run([4]))).code).toBe("WORKER_LOST");
    first.close();
    second.close();
    await model.close();
  }, LONG);
});

describe("a model that cannot be run", () => {
  async function refusalOf(
    source: ModelSource,
    options: SparseOptions = {},
  ): Promise<EspalierError> {
    return await rejectionOf(loadSparse(source, { threads: 1, ...options })) as EspalierError;
  }

  test("because of an operator is refused with its name", async () => {
    const files = filesOf(await workshop.compiled("llama", { values: "f32", format: "csr" }));
    const graph = changedGraph(files, (graph) => {
      makerOf(graph, graph.node.find(({ opType }) => opType === "Sigmoid")!.output[0]).opType =
        "HardSwish";
    });
    const error = await refusalOf(sourceOf({ ...files, graph }));
    expect(error.code).toBe("OPERATOR_UNSUPPORTED");
    expect(error.message).toContain("HardSwish");
  }, LONG);

  test("because of memory is refused with the figures", async () => {
    const folder = await workshop.compiled("tiny", { values: "int8", format: "nm" }, "8:16");
    for (const memory of [0, 100_000, 3_000_000, 4_500_000]) {
      const error = await refusalOf(folderSource(folder), { memory });
      expect(error.code).toBe("MEMORY_BUDGET");
      expect(error.message).toContain("MB");
    }
  }, LONG);

  test(
    "because of a cache of the context that was asked for is refused before it has run",
    async () => {
      const folder = await workshop.compiled("tiny", { values: "int8", format: "nm" }, "8:16");
      const source = folderSource(folder);
      const small = { threads: 1, keptSequences: 0, sketch: false };
      const model = await loadSparse(source, { ...small, context: 512 });
      const { memoryBytes } = model.info;
      await model.close();
      for (const [spare, fits] of [[100_000, false], [4_000_000, true]] as const) {
        const loading = loadSparse(source, {
          ...small,
          context: 512,
          memory: memoryBytes! + spare,
        });
        if (fits) await (await loading).close();
        else expect((await rejectionOf(loading)).message).toMatch(/room for a cache of \d+ tokens/);
      }
    },
    LONG,
  );

  test("because loading was stopped has not been read to the end", async () => {
    const folder = await workshop.compiled("tiny", { values: "int8", format: "nm" }, "8:16");
    const files = filesOf(folder);
    for (const when of ["before", "during"] as const) {
      const controller = new AbortController();
      if (when === "before") controller.abort();
      let reads = 0;
      const inner = sourceOf(files);
      const source: ModelSource = {
        ...inner,
        open: async (path) => {
          const file = await inner.open(path);
          return {
            ...file,
            read: async (offset, target) => {
              // As a signal or a timer does, not within a read.
              if (++reads === 10) setImmediate(() => controller.abort());
              await file.read(offset, target);
            },
          };
        },
      };
      expect((await refusalOf(source, { signal: controller.signal })).code).toBe("ABORTED");
      expect(reads).toBeLessThan(20);
    }
  }, LONG);

  test("because its files are not there is refused", async () => {
    expect((await refusalOf(filesSource({}))).code).toBe("FILE_UNREADABLE");
    const { graph } = filesOf(await workshop.compiled("llama", { values: "f32", format: "csr" }));
    const error = await refusalOf(filesSource({ "onnx/model.onnx": graph }));
    expect(error.code).toBe("FILE_UNREADABLE");
  }, LONG);
});

function sourceOf({ graph, data }: Files): ModelSource {
  return filesSource({ "onnx/model.onnx": graph, "onnx/model.onnx_data": data });
}

describe("a damaged file ends in a result or in an error of ours", () => {
  /** Longest time for one case; the rest is for a busy machine. */
  const LIMIT_SECONDS = 20;
  const CASES = caseCount(700, 150);
  const models: Files[] = [];

  beforeAll(async () => {
    const ways: [string, How][] = [
      ["llama", { format: "nm", values: "int8" }],
      ["opt-post-norm", { format: "bitmap", values: "f16" }],
      ["qwen3", { format: "csr", values: "int8", group: 16 }],
      ["mistral-sliding", { format: "csr", values: "f32" }],
      ["qwen2", { format: "bitmap", values: "int8", group: 16 }],
      ["opt", { format: "dense", values: "int8" }],
      ["llama", { format: "slots", values: "int8" }],
      ["llama", { format: "nm", values: "int4", head: "int4" }],
      ["qwen2", { format: "csr", values: "int4" }],
      ["qwen3", { format: "bitmap", values: "int4" }],
      ["lfm2", { format: "nm", values: "int8" }],
      ["lfm3", { format: "dense", values: "f32" }],
    ];
    for (const [model, how] of ways) {
      models.push(filesOf(await workshop.compiled(model, how, "2:4")));
    }
  }, LONG);

  /** Loads and runs what is left; tells how that ended. */
  async function outcomeOf(files: Files, options: SparseOptions): Promise<string> {
    try {
      const model = await loadSparse(sourceOf(files), { threads: 1, patience: 2000, ...options });
      try {
        const sequence = model.open();
        await sequence.run([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        await sequence.run([11]);
      } finally {
        await model.close();
      }
      return "result";
    } catch (error) {
      if (error instanceof EspalierError && error.message !== "" && error.message.length < 2000) {
        return error.code;
      }
      throw error;
    }
  }

  async function fuzzModels(
    change: (dice: Dice, files: Files) => Files,
  ): Promise<Map<string, number>> {
    const endings = new Map<string, number>();
    for (let nth = 0; nth < CASES; nth++) {
      const i = caseNumber(nth);
      const dice = new Dice(SEED * 1_000_003 + i);
      const kinds = { kv: dice.pick(["f32", "int8"]), activations: dice.pick(["int8", "int16"]) };
      // Threads take long to start.
      const threads = i % 8 === 0 ? 2 : 1;
      const files = change(dice, dice.pick(models));
      let ending = "";
      const took = await seconds(async () => {
        try {
          ending = await outcomeOf(files, { ...kinds, threads } as SparseOptions);
        } catch (error) {
          throw new Error(`case ${i} of seed ${SEED}: ${error}`, { cause: error });
        }
      });
      if (took > LIMIT_SECONDS) throw new Error(`case ${i} of seed ${SEED} took ${took} s`);
      endings.set(ending, (endings.get(ending) ?? 0) + 1);
    }
    return endings;
  }

  test("when its data change", async () => {
    const endings = await fuzzModels((dice, files) => {
      // Files of bytes, of which a few change nothing that anyone would notice: change many.
      let { data } = files;
      for (let n = dice.pick([1, 3, 30, 300]); n > 0; n--) {
        data = data.length > 0 && n % 40 === 7 ? changeBytes(dice, data) : flipped(dice, data, 8);
      }
      return { ...files, data };
    });
    expect(endings.get("result") ?? 0).toBeGreaterThan(0);
    expect(endings.get("PACKED_INVALID") ?? 0).toBeGreaterThan(0);
  }, 5 * LONG);

  test("when its graph changes", async () => {
    const endings = await fuzzModels((dice, files) => ({
      ...files,
      graph: dice.below(2) === 0 ? changeBytes(dice, files.graph) : changedGraph(files, (graph) => {
        for (let n = 1 + dice.below(2); n > 0; n--) changeGraph(dice, graph);
      }),
    }));
    for (const ending of ["result", "ONNX_INVALID", "OPERATOR_UNSUPPORTED"]) {
      expect(endings.get(ending) ?? 0).toBeGreaterThan(0);
    }
  }, 5 * LONG);

  test("when its tensors change places", async () => {
    await fuzzModels((dice, files) => {
      const graph = changedGraph(files, (graph) => {
        const external = graph.initializer.filter(({ externalData }) => externalData.length > 0);
        const [one, other] = [dice.pick(external), dice.pick(external)];
        const what = dice.below(3);
        if (what === 0) [one.name, other.name] = [other.name, one.name];
        else if (what === 1) [one.dims, other.dims] = [other.dims, one.dims];
        else {
          [one.externalData, other.externalData] = [other.externalData, one.externalData];
          [one.dims, other.dims] = [other.dims, one.dims];
          [one.dataType, other.dataType] = [other.dataType, one.dataType];
        }
      });
      return { ...files, graph };
    });
  }, 5 * LONG);
});

test("what is run of a graph that was changed gives what plain loops give", async () => {
  const ways: [string, How][] = [
    ["qwen3", { format: "nm", values: "f32" }],
    ["opt-post-norm", { format: "bitmap", values: "f16" }],
    ["opt", { format: "dense", values: "f32" }],
    ["llama-bias-linear-rope", { format: "csr", values: "f32" }],
    ["mistral-sliding", { format: "dense", values: "f16" }],
    ["llama", { format: "slots", values: "f32" }],
  ];
  const models: Files[] = [];
  for (const [model, how] of ways) {
    models.push(filesOf(await workshop.compiled(model, how, "2:4")));
  }
  const wanted = caseCount(300, 50);
  let changed = 0;
  for (let nth = 0, compared = 0; compared < wanted; nth++) {
    const i = caseNumber(nth);
    const dice = new Dice(SEED * 7_000_003 + i);
    const files = dice.pick(models);
    const graph = changedGraph(files, (graph) => {
      for (let n = 1 + dice.below(3); n > 0; n--) changeGraph(dice, graph);
    });
    try {
      const model = await loadSparse(sourceOf({ ...files, graph }), {
        threads: dice.pick([1, 1, 2]),
        kv: "f32",
      });
      try {
        const { naive, decoder } = await naiveOf({ ...files, graph });
        const tokens = TOKENS.map((token) => token % decoder.vocabulary);
        if (model.info.context < tokens.length) continue;
        const found = await logitsInPieces(model, tokens, [7, 1, 12]);
        const expected = logitsOf(naive, tokens);
        const largest = expected.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
        // What float32 cannot hold is something else there.
        if (!(largest < 1e15)) continue;
        const difference = distance(found, expected);
        if (!(difference < 1e-3)) throw new Error(`they differ by ${difference}`);
        compared++;
        if (JSON.stringify(decoder) !== JSON.stringify(lowerBytes(files.graph))) changed++;
      } finally {
        await model.close();
      }
    } catch (error) {
      if (error instanceof EspalierError) continue;
      throw new Error(`case ${i} of seed ${SEED}: ${error}`, { cause: error });
    }
  }
  // Many changes change nothing: another order of two factors, say.
  expect(changed).toBeGreaterThan(wanted / 8);
}, 5 * LONG);

/** Bytes of which some are others. */
function flipped(dice: Dice, original: Uint8Array, most: number): Uint8Array {
  const bytes = original.slice();
  if (bytes.length === 0) return bytes;
  for (let n = 1 + dice.below(most); n > 0; n--) {
    bytes[dice.below(bytes.length)] = dice.pick([0, 0xff, 0x80, dice.below(256)]);
  }
  return bytes;
}
