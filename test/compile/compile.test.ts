/**
 * Compiled models through ONNX Runtime: they compute what the pruned checkpoint computes, with a cache
 * and without.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { verify, type VerifyReport } from "../../compile/verify.ts";
import { Checkpoint, type CheckpointTensor } from "../../src/checkpoint/checkpoint.ts";
import { hasNode } from "../../src/engine/ort/node_module.ts";
import { editJson, rejectionOf } from "../checkpoint/support.ts";
import { FAST } from "../support/models.ts";
import { fromRoot } from "../support/paths.ts";
import { ours } from "../support/turns.ts";
import {
  type BackendName,
  checkpointLogits,
  compiledLogits,
  CompileWorkshop,
  distance,
  formatsFor,
  type How,
  LONG,
  PATTERNS,
  ROOT,
  Running,
  sourceOf,
  TOKENS,
} from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

const ARCHITECTURES = readdirSync(fromRoot(ROOT));
const TINY_TEXT = fromRoot("examples/tiny/evaluation.txt");
const BACKENDS: readonly BackendName[] = hasNode() ? ["wasm", "node"] : ["wasm"];

/** A tensor of a checkpoint, to know its type by. */
function firstTensor(folder: string): CheckpointTensor {
  const checkpoint = Checkpoint.open(folder);
  checkpoint.close();
  return checkpoint.tensors.values().next().value!;
}

const VALUES: readonly How[] = [
  { values: "f32" },
  { values: "f16" },
  { values: "int8" },
  { values: "int8", group: 16 },
  { values: "int4" },
  { values: "int4", group: 32, head: "int4" },
];
/** Largest difference of a logit, over the largest logit, where the same weights are computed with. */
const SAME = 1e-4;
/** The same where float16 has rounded them: bfloat16 loses what is below 2^-14. */
const NEAR = 2e-3;

/** Architectures that are compiled in every way; the others take each way of storing values in turn. */
const IN_EVERY_WAY = ["llama", "opt"];

function waysFor(model: string, pattern: string | number): (How & { on: BackendName })[] {
  const place = ARCHITECTURES.indexOf(model) + PATTERNS.findIndex((p) => p === pattern);
  return formatsFor(pattern).flatMap((format, i) => {
    const values = IN_EVERY_WAY.includes(model)
      ? VALUES
      : [VALUES[(place + i) % VALUES.length], VALUES[(place + i + 2) % VALUES.length]].slice(i % 2);
    return values.map((value, j) => ({
      format,
      ...value,
      on: (place + i + j) % 4 === 0 ? "wasm" : FAST,
    }));
  });
}

describe("a compiled model gives the logits of its pruned checkpoint", () => {
  for (const [i, model] of ARCHITECTURES.entries()) {
    for (const pattern of ours(PATTERNS, i)) {
      test(`${model}, pruned to ${pattern}`, async () => {
        const folder = await workshop.pruned(model, pattern);
        const masked = await checkpointLogits(folder);
        const { type } = firstTensor(folder);
        /** Where values are rounded, what that leaves is the truth: the same in all formats. */
        const rounded = new Map<string, Float32Array>();
        for (const { on, ...way } of waysFor(model, pattern)) {
          const { output, linears } = await workshop.compile(folder, way);
          expect(linears.filter(({ format }) => format !== way.format)).toEqual([]);
          let expected = masked;
          let bound = way.values === "f16" ? NEAR : SAME;
          if (
            way.values === "int8" || way.values === "int4" ||
            (way.values === "f16" && type === "f32")
          ) {
            bound = SAME;
            // Dense linears have a scale a row, whatever the group is.
            const isByRow = way.format === "dense" && way.values === "int8";
            const key = `${way.values} ${isByRow ? undefined : way.group}`;
            if (!rounded.has(key)) {
              const dense = await workshop.expand(output, "f32");
              rounded.set(key, await checkpointLogits(dense));
            }
            expected = rounded.get(key)!;
          }
          const found = distance(await compiledLogits(output, on), expected);
          if (!(found < bound)) {
            throw new Error(`${JSON.stringify(way)} on ${on}: ${found}`);
          }
        }
      }, LONG);
    }
  }
});

describe("the example, compiled,", () => {
  const ways: [pattern: string | number, how: How, on: BackendName][] = [
    ["2:4", { format: "nm", values: "f32" }, FAST],
    ["2:4", { format: "auto", values: "int8" }, "wasm"],
    ["8:16", { format: "nm", values: "f16" }, FAST],
    ["8:16", { format: "auto", values: "int8", group: 64 }, FAST],
    [0.7, { format: "csr", values: "int8" }, FAST],
    [0.7, { format: "bitmap", values: "f16" }, "wasm"],
    [0.7, { format: "bitmap", values: "f32" }, FAST],
    [0.7, { format: "dense", values: "int8" }, FAST],
    [0.7, { format: "auto", values: "int8", head: "f16" }, FAST],
    ["8:16", { format: "auto", values: "int4" }, FAST],
  ];
  for (const [pattern, how, on] of ways) {
    test(`foretells what its checkpoint does: ${pattern}, ${JSON.stringify(how)}`, async () => {
      const against = await workshop.pruned("tiny", pattern);
      const { output } = await workshop.compile(against, how);
      const report = await verify({
        model: output,
        against,
        text: TINY_TEXT,
        windows: 2,
        seqlen: 96,
        backend: on,
        threads: 1,
      });
      expect(report.windows).toBe(2);
      const ratio = report.perplexity.compiled / report.perplexity.checkpoint;
      if (how.values === "int4") {
        // Rounded after pruning, and the model is tiny.
        expect(Math.abs(ratio - 1)).toBeLessThan(0.1);
        expect(report.agreement).toBeGreaterThan(0.7);
      } else if (how.values === "int8") {
        expect(Math.abs(ratio - 1)).toBeLessThan(0.01);
        expect(report.agreement).toBeGreaterThan(0.9);
      } else {
        expect(report.relativeDifference).toBeLessThan(how.values === "f32" ? SAME : NEAR);
        expect(Math.abs(ratio - 1)).toBeLessThan(how.values === "f32" ? 1e-4 : 2e-3);
        expect(report.agreement).toBeGreaterThan(0.98);
      }
      expect(report.agreement).toBeLessThanOrEqual(1);
    }, LONG);
  }

  test(
    "is verified over all windows: by the largest difference of any, and the means of all",
    async () => {
      const against = await workshop.pruned("tiny", "8:16");
      const { output } = await workshop.compile(against, { values: "int4" });
      const place = workshop.folder();
      const on = (windows: number[][], name: string) => {
        const text = join(place, name);
        writeFileSync(text, JSON.stringify({ windows }));
        return verify({ model: output, against, text, backend: FAST, threads: 1 });
      };
      const windows = [7, 191, 1009].map((step) =>
        Array.from({ length: 24 }, (_, i) => 1 + (step * (i + 1)) % 4000)
      );
      const whole = await on(windows, "all.json");
      const each: VerifyReport[] = [];
      for (const [i, window] of windows.entries()) each.push(await on([window], `${i}.json`));
      const differences = each.map(({ largestDifference }) => largestDifference);
      expect(new Set(differences).size).toBe(3);
      expect(whole.largestDifference).toBe(Math.max(...differences));
      const logits = each.map(({ relativeDifference }, i) => differences[i] / relativeDifference);
      expect(whole.relativeDifference).toBeCloseTo(
        whole.largestDifference / Math.max(...logits),
        9,
      );
      const mean = (of: (one: (typeof each)[number]) => number) =>
        each.reduce((sum, one) => sum + of(one), 0) / each.length;
      expect(whole.agreement).toBeCloseTo(mean(({ agreement }) => agreement), 9);
      for (const side of ["compiled", "checkpoint"] as const) {
        const loss = mean(({ perplexity }) => Math.log(perplexity[side]));
        expect(Math.log(whole.perplexity[side])).toBeCloseTo(loss, 9);
      }
    },
    LONG,
  );

  test("with logits for the last position alone cannot be verified, and says so", async () => {
    const against = await workshop.pruned("tiny", "2:4");
    const { output } = await workshop.compile(against, { values: "f16", logits: "last" });
    const options = { model: output, against, text: TINY_TEXT, windows: 1, seqlen: 16 };
    const error = await rejectionOf(verify({ ...options, backend: FAST, threads: 1 }));
    expect(error.code).toBe("ONNX_INVALID");
    expect(error.message).toContain("--logits all");
  });

  test("cannot be verified against a checkpoint of another shape, and says what differs", async () => {
    const { output } = await workshop.compile(await workshop.pruned("tiny", "2:4"), {});
    const options = { model: output, against: sourceOf("llama"), text: TINY_TEXT };
    const error = await rejectionOf(verify({ ...options, backend: FAST, threads: 1 }));
    expect(error.code).toBe("ONNX_INVALID");
    expect(error.message).toContain("it has 8 blocks, the checkpoint 3");
  });
});

test("what was compiled for a short context is verified on windows that it can hold", async () => {
  const against = await workshop.pruned("tiny", "2:4");
  const { output } = await workshop.compile(against, { context: 32 });
  const options = { model: output, against, windows: 1, backend: FAST, threads: 1 } as const;
  const report = await verify({ ...options, text: TINY_TEXT });
  expect(report.seqlen).toBe(32);
  expect(report.notes.join()).toContain("windows have 32 tokens");
  const windows = join(workshop.folder(), "windows.json");
  writeFileSync(windows, JSON.stringify({ windows: [new Array(33).fill(5)] }));
  const error = await rejectionOf(verify({ ...options, text: windows }));
  expect(error.code).toBe("TEXT_UNUSABLE");
  expect(error.message).toContain("context of 32");
}, LONG);

describe("a cache of keys and values", () => {
  for (const model of ["llama", "mistral-sliding", "qwen2-sliding", "qwen3", "opt"]) {
    const names: readonly BackendName[] = model === "mistral-sliding" ? BACKENDS : [FAST];
    for (const name of names) {
      test(`changes nothing: ${model}, ${name}`, async () => {
        const { output } = await workshop.compile(await workshop.pruned(model, "2:4"), {
          values: "f32",
        });
        const running = await Running.open(output, name);
        try {
          const { vocabulary } = running.spec;
          const whole = await running.step(TOKENS);
          expect(whole.length).toBe(TOKENS.length * vocabulary);
          // One by one, past the window that slides.
          running.reset();
          const steps = new Float32Array(whole.length);
          for (const [i, token] of TOKENS.entries()) {
            steps.set(await running.step([token]), i * vocabulary);
          }
          expect(distance(steps, whole)).toBeLessThan(1e-4);
          // A prompt, then one by one, as a chat does it.
          running.reset();
          const prompt = 11;
          const chat = new Float32Array(whole.length);
          chat.set(await running.step(TOKENS.slice(0, prompt)));
          for (let i = prompt; i < TOKENS.length; i++) {
            chat.set(await running.step([TOKENS[i]]), i * vocabulary);
          }
          expect(distance(chat, whole)).toBeLessThan(1e-4);
        } finally {
          await running.close();
        }
      });
    }
  }

  test("goes on after a prompt in two parts", async () => {
    const { output } = await workshop.compile(await workshop.pruned("llama", "2:4"), {
      values: "f32",
    });
    const running = await Running.open(output);
    try {
      const whole = await running.step(TOKENS);
      running.reset();
      const parts = new Float32Array(whole.length);
      parts.set(await running.step(TOKENS.slice(0, 12)));
      parts.set(await running.step(TOKENS.slice(12)), 12 * running.spec.vocabulary);
      expect(distance(parts, whole)).toBeLessThan(1e-4);
    } finally {
      await running.close();
    }
  });

  for (const name of BACKENDS) {
    test(`serves two rows at a time as each alone: ${name}`, async () => {
      const { output } = await workshop.compile(await workshop.pruned("llama", "2:4"), {
        values: "f32",
      });
      const running = await Running.open(output, name);
      try {
        const { vocabulary } = running.spec;
        const one = await running.step(TOKENS);
        running.reset();
        const two = await running.step(TOKENS, TOKENS);
        expect(two.length).toBe(2 * one.length);
        expect(distance(two.subarray(0, one.length), one)).toBeLessThan(1e-5);
        expect(two.slice(one.length)).toEqual(two.slice(0, one.length));
        const next = await running.step([7], [7]);
        expect(next.slice(vocabulary)).toEqual(next.slice(0, vocabulary));
      } finally {
        await running.close();
      }
    });
  }
});

test("a context that is longer than the model's is told of, and is the model's", async () => {
  const { notes, options } = await workshop.compile(await workshop.pruned("llama", "2:4"), {
    context: 4096,
  });
  expect(options.context).toBe(128);
  expect(notes.join()).toContain("context 128: the model has no more, and 4096 were asked for");
});

test("a model that transformers.js does not load comes with a word on that, and others with none", async () => {
  const notesOf = async (name: string) =>
    (await workshop.compile(sourceOf(name), { format: "dense" })).notes.join();
  expect(await notesOf("nemotron")).toContain("does not load models of type nemotron");
  expect(await notesOf("starcoder2")).not.toContain("transformers.js");
  expect(await notesOf("granite4-h")).not.toContain("transformers.js");
  const renamed = workshop.fresh("renamed");
  cpSync(sourceOf("granite4-h"), renamed, { recursive: true });
  editJson(renamed, "config.json", (config) => {
    config.layer_types = ["linear_attention", "full_attention", "linear_attention"];
  });
  const { notes } = await workshop.compile(renamed, { format: "dense" });
  expect(notes.join()).toContain("layer_types");
});

test("a model that caps its scores comes with a word on who does not", async () => {
  const { notes } = await workshop.compile(sourceOf("gemma2"), { format: "dense" });
  expect(notes.join()).toContain("not on WebGPU");
});

test("the data file has the same size for every context", async () => {
  const folder = await workshop.pruned("gemma3", "2:4");
  const [long, short] = await Promise.all(
    [128, 8].map((context) => workshop.compile(folder, { values: "int4", context })),
  );
  expect([long.options.context, short.options.context]).toEqual([128, 8]);
  expect(long.bytes.data).toBe(short.bytes.data);
  expect(long.notes).toEqual([]);
});

describe("logits for the last position alone", () => {
  test("are those of all positions there", async () => {
    const folder = await workshop.pruned("qwen3", "8:16");
    const all = await compiledLogits((await workshop.compile(folder, { values: "f32" })).output);
    const { output, options } = await workshop.compile(folder, { values: "f32", logits: "last" });
    expect(options.logits).toBe("last");
    const running = await Running.open(output);
    try {
      const { vocabulary } = running.spec;
      const last = await running.step(TOKENS);
      expect(last.length).toBe(vocabulary);
      expect(distance(last, all.slice(-vocabulary))).toBeLessThan(1e-5);
      expect((await running.step([5])).length).toBe(vocabulary);
      running.reset();
      const two = await running.step(TOKENS, TOKENS);
      expect(two.length).toBe(2 * vocabulary);
      expect(distance(two.slice(vocabulary), last)).toBeLessThan(1e-5);
    } finally {
      await running.close();
    }
  });
});
