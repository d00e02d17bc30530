/**
 * Compiled models on ONNX Runtime, token after token, against whole windows of the same model.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, readdirSync } from "node:fs";
import type { EngineModel, Sequence } from "../../src/engine/model.ts";
import { loadOrt, type OrtDevice } from "../../src/engine/ort/cached.ts";
import { hasNode } from "../../src/engine/ort/node_module.ts";
import { editJson } from "../checkpoint/support.ts";
import { webgpuAdapter } from "../../src/platform/webgpu.ts";
import {
  checkpointLogits,
  compiledLogits,
  CompileWorkshop,
  distance,
  type How,
  LONG,
  ROOT,
  sourceOf,
  TOKENS,
} from "../compile/support.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

/** What of logits may differ: one run sums in another order than several. */
const CLOSE = 1e-4;
const ARCHITECTURES = readdirSync(fromRoot(ROOT));
const HAS_GPU = await webgpuAdapter() !== undefined;
/** Every device that is here. */
const DEVICES: OrtDevice[] = ["wasm", ...hasNode() ? ["cpu" as const] : []];

const compiled = new Map<string, Promise<string>>();

/** The folder of a compiled model, made once. */
function folderOf(model: string, how: How = { values: "f32" }): Promise<string> {
  const key = JSON.stringify([model, how]);
  const made = compiled.get(key) ??
    workshop.compile(sourceOf(model), how).then(({ output }) => output);
  compiled.set(key, made);
  return made;
}

/** Calls `use` with a loaded model, and closes that. */
async function withModel<T>(
  model: string,
  options: Parameters<typeof loadOrt>[1] & { how?: How },
  use: (model: EngineModel) => Promise<T>,
): Promise<T> {
  const { how, ...rest } = options;
  const loaded = await loadOrt(await folderOf(model, how), { device: "wasm", threads: 1, ...rest });
  try {
    return await use(loaded);
  } finally {
    await loaded.close();
  }
}

/** All logits of tokens that are run one after the other: the array of each run lasts until the next. */
async function stepByStep(sequence: Sequence, tokens: readonly number[]): Promise<Float32Array> {
  const rows: number[] = [];
  for (const token of tokens) rows.push(...await sequence.run([token]));
  return Float32Array.from(rows);
}

async function thrown(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
  return "nothing";
}

for (const device of DEVICES) {
  describe(`ONNX Runtime on ${device}, every architecture`, () => {
    for (const name of ARCHITECTURES) {
      test(`gives step by step what a whole window gives: ${name}`, async () => {
        const expected = await checkpointLogits(sourceOf(name));
        await withModel(name, { device }, async (model) => {
          const steps = model.open();
          expect(distance(await stepByStep(steps, TOKENS), expected)).toBeLessThan(CLOSE);
          expect(steps.length).toBe(TOKENS.length);
          const window = model.open();
          const all = await window.run(TOKENS, { logits: "all" });
          expect(distance(all, expected)).toBeLessThan(CLOSE);
        });
      }, LONG);
    }
  });
}

for (const device of DEVICES) {
  test(
    `ONNX Runtime on ${device} leaves a sequence its logits until its own next run`,
    () =>
      withModel("llama", { device }, async (model) => {
        const [one, two] = [model.open(), model.open()];
        const logits = await one.run(TOKENS);
        const copy = logits.slice();
        for (const token of TOKENS) await two.run([token]);
        expect(logits).toEqual(copy);
      }),
    LONG,
  );
}

test.if(HAS_GPU)("WebGPU gives step by step what a whole window gives", async () => {
  const expected = await checkpointLogits(sourceOf("llama"));
  await withModel("llama", { device: "webgpu" }, async (model) => {
    expect(model.info.device).toContain("WebGPU");
    const sequence = model.open();
    expect(distance(await stepByStep(sequence, TOKENS), expected)).toBeLessThan(1e-3);
    sequence.truncate(5);
    const again = (await sequence.run(TOKENS.slice(5), { logits: "all" })).slice();
    const { vocabulary } = model.info;
    expect(distance(again, expected.subarray(5 * vocabulary))).toBeLessThan(1e-3);
    sequence.close();
    expect(model.open(TOKENS).length).toBe(TOKENS.length - 1);
  });
}, LONG);

/** Those whose attention caps its scores. */
const CAPPING = ["gemma2", "vaultgemma"];

for (const name of ARCHITECTURES.filter((name) => !CAPPING.includes(name))) {
  test.if(HAS_GPU)(`WebGPU gives the logits of every architecture: ${name}`, async () => {
    const expected = await checkpointLogits(sourceOf(name));
    await withModel(name, { device: "webgpu" }, async (model) => {
      const logits = await model.open().run(TOKENS, { logits: "all" });
      expect(distance(logits, expected)).toBeLessThan(1e-3);
    });
  }, LONG);
}

test("a model that caps its scores is refused on WebGPU, which does not", async () => {
  for (const name of CAPPING) {
    const refused = loadOrt(await folderOf(name), { device: "webgpu" });
    const message = await refused.then(() => "", (error: Error) => error.message);
    expect(message).toContain("attention caps its scores");
    expect(await thrown(refused)).toBe("BACKEND_FAILED");
  }
});

test.if(!HAS_GPU)("WebGPU without an adapter is a coded error", async () => {
  const folder = await folderOf("llama");
  expect(await thrown(loadOrt(folder, { device: "webgpu" }))).toBe("BACKEND_FAILED");
});

describe("a sequence on ONNX Runtime", () => {
  const device = DEVICES.at(-1)!;
  /** Longer than one run may be. */
  const LONG_PROMPT = Array.from({ length: 300 }, (_, i) => 1 + (i * 53) % 200);

  test("gives the last token's logits alone unless all are asked for", () =>
    withModel("llama", { device }, async (model) => {
      const { vocabulary } = model.info;
      const all = (await model.open().run(TOKENS, { logits: "all" })).slice();
      const last = await model.open().run(TOKENS);
      expect(all.length).toBe(TOKENS.length * vocabulary);
      expect(last.length).toBe(vocabulary);
      expect(distance(last, all.subarray(-vocabulary))).toBeLessThan(CLOSE);
    }));

  test("goes on from where it is cut, and is empty when cut to nothing", () =>
    withModel("mistral-sliding", { device }, async (model) => {
      const { vocabulary } = model.info;
      const expected = (await model.open().run(TOKENS, { logits: "all" })).slice();
      const sequence = model.open();
      await sequence.run([...TOKENS.slice(0, 11), 5, 6, 7]);
      sequence.truncate(11);
      expect(sequence.length).toBe(11);
      const rest = await sequence.run(TOKENS.slice(11), { logits: "all" });
      expect(distance(rest, expected.subarray(11 * vocabulary))).toBeLessThan(CLOSE);
      sequence.truncate(0);
      expect(distance(await sequence.run(TOKENS, { logits: "all" }), expected)).toBeLessThan(CLOSE);
    }));

  test("keeps apart from others that run between its steps, and at the same time", () =>
    withModel("llama", { device }, async (model) => {
      const texts = [TOKENS, TOKENS.map((id) => id + 3), TOKENS.map((id) => id + 11)];
      const alone: Float32Array[] = [];
      for (const text of texts) {
        const sequence = model.open();
        alone.push(await stepByStep(sequence, text));
        sequence.close();
      }
      const open = texts.map(() => model.open());
      const rows: number[][] = texts.map(() => []);
      for (let t = 0; t < TOKENS.length; t++) {
        await Promise.all(open.map(async (sequence, i) => {
          rows[i].push(...await sequence.run([texts[i][t]]));
        }));
      }
      rows.forEach((row, i) => expect(distance(Float32Array.from(row), alone[i])).toBe(0));
    }));

  test(
    "runs a long prompt in pieces, with the logits of one run",
    () =>
      withModel("tiny", { device, how: { values: "f32", context: 400 } }, async (model) => {
        const expected = await compiledLogits(
          await folderOf("tiny", { values: "f32", context: 400 }),
        );
        const all = await model.open().run(LONG_PROMPT, { logits: "all" });
        expect(all.length).toBe(LONG_PROMPT.length * model.info.vocabulary);
        const short = await model.open().run(TOKENS, { logits: "all" });
        expect(distance(short, expected)).toBeLessThan(CLOSE);
        const steps = model.open();
        await steps.run(LONG_PROMPT.slice(0, 299));
        const last = await steps.run([LONG_PROMPT[299]]);
        expect(distance(last, all.subarray(-last.length))).toBeLessThan(CLOSE);
      }),
    LONG,
  );

  test("stops in the middle of a prompt, holds what was run, and goes on from there", () =>
    withModel("tiny", { device }, async (model) => {
      const expected = (await model.open().run(LONG_PROMPT)).slice();
      const sequence = model.open();
      const stop = new AbortController();
      // The signal comes while the first piece runs.
      const running = sequence.run(LONG_PROMPT, { signal: stop.signal });
      stop.abort();
      expect(await thrown(running)).toBe("ABORTED");
      expect(sequence.length).toBeLessThan(LONG_PROMPT.length);
      const rest = await sequence.run(LONG_PROMPT.slice(sequence.length));
      expect(distance(rest, expected)).toBeLessThan(CLOSE);
    }));

  test("gives logits of all tokens by a model that was compiled to give the last one's", () =>
    withModel("llama", { device, how: { values: "f32", logits: "last" } }, async (model) => {
      const all = await model.open().run(TOKENS, { logits: "all" });
      expect(distance(all, await checkpointLogits(sourceOf("llama")))).toBeLessThan(CLOSE);
    }));

  test("refuses what cannot be run, and then has run nothing", () =>
    withModel("llama", { device, context: 16 }, async (model) => {
      expect(model.info.context).toBe(16);
      const sequence = model.open();
      await sequence.run(TOKENS.slice(0, 10));
      const { vocabulary } = model.info;
      for (const id of [-1, vocabulary, 1.5, NaN]) {
        expect(await thrown(sequence.run([1, id]))).toBe("TOKEN_OUT_OF_RANGE");
      }
      expect(await thrown(sequence.run([]))).toBe("USAGE");
      expect(await thrown(sequence.run(TOKENS.slice(0, 7)))).toBe("CONTEXT_OVERFLOW");
      expect(() => sequence.truncate(11)).toThrow("cannot be cut");
      expect(() => sequence.truncate(-1)).toThrow("cannot be cut");
      expect(sequence.length).toBe(10);
      await sequence.run(TOKENS.slice(10, 16));
      expect(await thrown(sequence.run([1]))).toBe("CONTEXT_OVERFLOW");
    }));

  test("begins with what an open or the last closed sequence has in common with its prompt", () =>
    withModel("llama", { device }, async (model) => {
      const expected = (await model.open().run(TOKENS, { logits: "all" })).slice();
      const { vocabulary } = model.info;
      const first = model.open([...TOKENS, 9]);
      expect(first.length).toBe(TOKENS.length);
      const branch = model.open([...TOKENS.slice(0, 12), 4, 5]);
      expect(branch.length).toBe(12);
      const rest = await branch.run(TOKENS.slice(12), { logits: "all" });
      expect(distance(rest, expected.subarray(12 * vocabulary))).toBeLessThan(CLOSE);
      // Never the whole prompt: the logits of its last token are wanted.
      expect(model.open(TOKENS).length).toBe(TOKENS.length - 1);
      expect(model.open([4000 % vocabulary, 1, 2]).length).toBe(0);
      expect(model.open().length).toBe(0);
    }));

  test("begins with all that another has run, or with nothing, where convolutions keep what was last", () =>
    withModel("lfm2", { device }, async (model) => {
      const { vocabulary } = model.info;
      const expected = (await model.open().run(TOKENS, { logits: "all" })).slice();
      expect(model.open([...TOKENS.slice(0, 12), 4]).length).toBe(0);
      expect(model.open(TOKENS).length).toBe(0);
      const half = model.open();
      await half.run(TOKENS.slice(0, 12));
      const longer = model.open(TOKENS);
      expect(longer.length).toBe(12);
      const rest = await longer.run(TOKENS.slice(12), { logits: "all" });
      expect(distance(rest, expected.subarray(12 * vocabulary))).toBeLessThan(CLOSE);
    }));

  test("computes its tokens again where it is cut and convolutions keep what was last", () =>
    withModel("lfm2", { device }, async (model) => {
      const { vocabulary } = model.info;
      const expected = (await model.open().run(TOKENS, { logits: "all" })).slice();
      const sequence = model.open();
      await sequence.run([...TOKENS.slice(0, 11), 5, 6, 7]);
      sequence.truncate(11);
      const stop = new AbortController();
      stop.abort();
      expect(await thrown(sequence.run(TOKENS.slice(11), { signal: stop.signal }))).toBe("ABORTED");
      expect(sequence.length).toBe(11);
      const rest = await sequence.run(TOKENS.slice(11), { logits: "all" });
      expect(distance(rest, expected.subarray(11 * vocabulary))).toBeLessThan(CLOSE);
      sequence.truncate(0);
      expect(distance(await sequence.run(TOKENS, { logits: "all" }), expected)).toBeLessThan(CLOSE);
      sequence.truncate(3);
      sequence.close();
      expect(model.open([...TOKENS, 1]).length).toBe(TOKENS.length);
    }));

  test("leaves its cache to the next one when it is closed, and cannot be used then", () =>
    withModel("llama", { device }, async (model) => {
      const sequence = model.open();
      await sequence.run(TOKENS);
      sequence.close();
      sequence.close();
      expect(await thrown(sequence.run([1]))).toBe("MODEL_CLOSED");
      expect(() => sequence.truncate(0)).toThrow("closed");
      expect(model.open([...TOKENS, 1]).length).toBe(TOKENS.length);
    }));

  test("counts the states of linear attention, however long its sequences are", () =>
    withModel("qwen3_5", { device }, async (model) => {
      // Two layers of four heads, and of 160 channels and four tokens.
      const stateBytes = 2 * 4 * (4 * 16 * 24 + 160 * 4);
      expect(model.info).toMatchObject({ stateBytes, cacheBytesPerToken: 2 * 2 * 16 * 4 });
      const [one, two] = [model.open(), model.open()];
      await one.run(TOKENS.slice(0, 10));
      await two.run(TOKENS.slice(3, 8));
      const perToken = model.info.cacheBytesPerToken;
      expect(model.cacheUse!()!.bytes).toBe(15 * perToken + 2 * stateBytes);
      two.close();
      expect(model.cacheUse!()!.keptBytes).toBe(5 * perToken + stateBytes);
    }));

  test("says what its cache holds", () =>
    withModel("llama", { device }, async (model) => {
      const perToken = model.info.cacheBytesPerToken;
      const nothing = { sequences: 0, tokens: 0, bytes: 0, keptBytes: 0, reservedBytes: 0 };
      expect(model.cacheUse!()).toEqual(nothing);
      const [one, two] = [model.open(), model.open()];
      await one.run(TOKENS.slice(0, 10));
      await two.run(TOKENS.slice(3, 8));
      const [bytes, both] = [10 * perToken, 15 * perToken];
      const full = { sequences: 2, tokens: 15, bytes: both, keptBytes: 0, reservedBytes: both };
      expect(model.cacheUse!()).toEqual(full);
      two.close();
      const kept = { sequences: 1, tokens: 10, bytes, keptBytes: 5 * perToken };
      expect(model.cacheUse!()).toEqual({ ...kept, reservedBytes: both });
      // What two share counts once.
      const three = model.open(TOKENS.slice(0, 10));
      expect(model.cacheUse!()).toMatchObject({ sequences: 2, tokens: 19, bytes });
      three.close();
      one.close();
      expect(model.cacheUse!()).toMatchObject({ sequences: 0, tokens: 0, bytes: 0 });
    }));

  test("is not cut while it runs", () =>
    withModel("llama", { device }, async (model) => {
      const sequence = model.open();
      const running = sequence.run(TOKENS);
      expect(() => sequence.truncate(0)).toThrow("has not ended");
      await running;
      sequence.truncate(3);
      expect(sequence.length).toBe(3);
    }));

  test("may be closed while it runs: what runs ends first", () =>
    withModel("llama", { device }, async (model) => {
      const sequence = model.open();
      const running = sequence.run(TOKENS);
      const waiting = sequence.run([1]);
      await Promise.resolve();
      sequence.close();
      expect(["nothing", "MODEL_CLOSED"]).toContain(await thrown(running));
      expect(await thrown(waiting)).toBe("MODEL_CLOSED");
      expect((await model.open().run(TOKENS)).length).toBe(model.info.vocabulary);
    }));
});

describe("a model on ONNX Runtime", () => {
  test("says what it is", () =>
    withModel("tiny", { device: "wasm", threads: 1 }, (model) => {
      expect(model.info).toMatchObject({
        engine: "ort",
        vocabulary: 4096,
        context: 512,
        cacheBytesPerToken: 2 * 8 * 2 * 32 * 4,
      });
      // Linears and head in float32, and the embedding's rows as they are stored.
      expect(model.info.weightBytes).toBeGreaterThan(4 * (3_145_728 + 2 * 4096 * 192));
      return Promise.resolve();
    }));

  test("waits at close for what runs, and refuses everything afterwards", async () => {
    const model = await loadOrt(await folderOf("llama"), { device: "wasm", threads: 1 });
    const sequence = model.open();
    const running = sequence.run(TOKENS);
    await model.close();
    await model.close();
    expect(["nothing", "MODEL_CLOSED"]).toContain(await thrown(running));
    expect(await thrown(sequence.run([1]))).toBe("MODEL_CLOSED");
    expect(() => model.open()).toThrow("closed");
  });

  test("cannot have a longer context than it was compiled for", async () => {
    const folder = await folderOf("llama", { values: "f32", context: 32 });
    expect(await thrown(loadOrt(folder, { device: "wasm", context: 33 }))).toBe("CONTEXT_OVERFLOW");
    const shorter = workshop.fresh("shorter");
    cpSync(folder, shorter, { recursive: true });
    editJson(shorter, "config.json", (config) => void (config.max_position_embeddings = 31));
    expect(await thrown(loadOrt(shorter, { device: "wasm", context: 32 }))).toBe(
      "CONTEXT_OVERFLOW",
    );
  });

  test("is not found in a folder that holds none", async () => {
    expect(await thrown(loadOrt(workshop.path, { device: "wasm" }))).toBe("CHECKPOINT_NOT_FOUND");
  });
});
