/**
 * Sizes foretold without compiling, against the files that compile writes; and what compile takes for
 * its defaults.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { expand } from "../../compile/expand.ts";
import { CompiledSizes } from "../../compile/predict.ts";
import { type Storing, storingFor } from "../../compile/storing.ts";
import { prune } from "../../src/api/prune.ts";
import { sharesOf } from "../../src/api/allocate.ts";
import type { PruneOptions } from "../../src/api/options.ts";
import { pattern as patternSchema } from "../../src/api/options.ts";
import { OpenModel } from "../../src/api/shared.ts";
import { cutIntoSections } from "../../src/onnx/sections.ts";
import { bytesIn } from "../../src/platform/folders.ts";
import { type Kept, keptOf } from "../../src/prune/kept.ts";
import type { Method } from "../../src/prune/types.ts";
import { type OutgoingTensor, writeSafetensors } from "../../src/checkpoint/safetensors_writer.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { rejectionOf, thrownBy } from "../checkpoint/support.ts";
import { fuzz, must } from "../support/fuzz.ts";
import { CompileWorkshop, LONG, sourceOf, TOKENS } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

const STORINGS: Storing[] = [
  { format: "auto", values: "int8", head: "int8" },
  { format: "auto", values: "int8", group: 32, head: "f16" },
  { format: "auto", values: "f16", head: "int8" },
  { format: "auto", values: "f32", head: "f32" },
  { format: "auto", values: "int4", head: "int8" },
  { format: "auto", values: "int4", group: 32, head: "int4" },
];

/** What is foretold for a model that was pruned with one density for all blocks. */
function foretold(
  model: string,
  pattern: string,
  density: number,
  storing: Storing,
  method: Method = "wanda",
): number {
  const opened = new OpenModel(isAbsolute(model) ? model : sourceOf(model));
  try {
    const kept = new Map<string, Kept>();
    const parsed = patternSchema.parse(pattern);
    for (const { index, linears } of cutIntoSections(opened.graph).blocks) {
      for (const linear of linears) {
        const share = sharesOf(new Float64Array(index + 1).fill(density), parsed)[index];
        if (density < 1) kept.set(linear.weight, keptOf(linear, method, parsed, share));
      }
    }
    return new CompiledSizes(opened).bytes(kept, storing);
  } finally {
    opened.checkpoint.close();
  }
}

/** Bytes of the model's files after compiling. */
async function reached(checkpoint: string, storing: Storing): Promise<number> {
  const { output, bytes } = await workshop.compile(checkpoint, storing);
  const found = bytesIn(join(output, "onnx"));
  expect(found).toBe(bytes.graph + bytes.data);
  return found;
}

describe("a size foretold", () => {
  test("is that of the file, to the byte, for N:M", async () => {
    for (const model of ["tiny", "opt", "qwen3", "llama-bias-linear-rope", "gemma4"]) {
      for (const pattern of model === "tiny" ? ["2:4", "4:16"] : ["8:16", "4:16"]) {
        const checkpoint = await workshop.pruned(model, pattern);
        const [n, m] = pattern.split(":").map(Number);
        for (const storing of STORINGS) {
          // Rows of the small models are no multiples of a group.
          if (storing.group && model !== "tiny") continue;
          const size = foretold(model, pattern, n / m, storing);
          const where = { model, pattern, storing };
          expect({ ...where, size }).toEqual({
            ...where,
            size: await reached(checkpoint, storing),
          });
        }
      }
    }
  }, LONG);

  test("is that of the file for a dense model", async () => {
    for (const storing of STORINGS) {
      expect(foretold("tiny", "unstructured", 1, storing))
        .toBe(await reached(sourceOf("tiny"), storing));
    }
  }, LONG);

  test(
    "is at most 1 % above that of the file for Wanda and magnitude, and never below",
    async () => {
      for (const sparsity of [0.5, 0.9, 0.97]) {
        const checkpoints = {
          magnitude: await workshop.pruned("tiny", sparsity),
          wanda: await wanda({ sparsity }),
        };
        for (const storing of STORINGS.slice(0, 2)) {
          for (const method of ["magnitude", "wanda"] as const) {
            const size = foretold("tiny", "unstructured", 1 - sparsity, storing, method);
            const file = await reached(checkpoints[method], storing);
            const where = { method, sparsity, storing, size, file };
            expect({ ...where, fits: size >= file && size <= 1.01 * file })
              .toEqual({ ...where, fits: true });
          }
        }
      }
    },
    LONG,
  );
});

describe("the most that weights take which may stay anywhere", () => {
  test("is foretold where a matrix is so small that they are N:M by chance", async () => {
    const source = await smallModel();
    const patterns = new Set<string | undefined>();
    for (const sparsity of [0.8, 0.9, 0.92, 0.94]) {
      const checkpoint = workshop.fresh("pruned");
      const how = { method: "magnitude", allocation: "uniform", sparsity } as const;
      await prune({ model: source, output: checkpoint, ...how });
      for (const storing of [STORINGS[0], STORINGS[2], STORINGS[4]]) {
        const size = foretold(source, "unstructured", 1 - sparsity, storing, "magnitude");
        const { output, linears } = await workshop.compile(checkpoint, storing);
        for (const { pattern } of linears) patterns.add(pattern);
        const file = bytesIn(join(output, "onnx"));
        const where = { sparsity, storing, size, file };
        expect({ ...where, fits: file <= size && file > 0.8 * size })
          .toEqual({ ...where, fits: true });
      }
    }
    expect(patterns.has("2:16")).toBe(true);
  }, LONG);

  test("is foretold where a row keeps as many as N:M does, since it is as long as M", async () => {
    const source = await smallModel(64, 32);
    const sparsity = 0.94;
    const checkpoint = await wanda({ model: source, sparsity, ...windowsOf32() });
    const storing = STORINGS[2];
    const size = foretold(source, "unstructured", 1 - sparsity, storing);
    const { output, linears } = await workshop.compile(checkpoint, storing);
    expect(new Set(linears.map(({ format }) => format))).toEqual(new Set(["nm", "bitmap"]));
    const file = bytesIn(join(output, "onnx"));
    expect({ size, file, fits: file <= size }).toEqual({ size, file, fits: true });
  }, LONG);
});

describe("the most that weights take which lie on a grid of int4 already", () => {
  test("is foretold with the groups of that grid", async () => {
    const dense = await workshop.compile(await smallModel(256, 512), { values: "int4" });
    const source = workshop.fresh("expanded");
    await expand({ model: dense.output, output: source });
    const storing = STORINGS[4];
    for (const [pattern, sparsity] of [["4:16", 0.75], ["unstructured", 0.8]] as const) {
      const checkpoint = await wanda({ model: source, pattern, sparsity, ...windowsOf32() });
      const size = foretold(source, pattern, 1 - sparsity, storing);
      const file = await reached(checkpoint, storing);
      const where = { pattern, size, file };
      expect({ ...where, fits: file <= size && file > 0.99 * size })
        .toEqual({ ...where, fits: true });
    }
  }, LONG);
});

describe("the most that slots can take", () => {
  test("is what is foretold, some percent above the file", async () => {
    for (const sparsity of [0.5, 0.75]) {
      const checkpoint = await wanda({ sparsity, pattern: "slots" });
      const size = foretold("tiny", "slots", 1 - sparsity, STORINGS[0]);
      const file = await reached(checkpoint, STORINGS[0]);
      expect(file).toBeLessThanOrEqual(size);
      // The example's matrices are small: a page more for each is much.
      expect(file).toBeGreaterThan(0.8 * size);
    }
  }, LONG);

  test("is at most that, too, where the weights make another format the smallest", async () => {
    for (const [sparsity, values] of [[0.25, "int4"], [0.45, "int8"], [0.45, "f16"]] as const) {
      const checkpoint = await wanda({ sparsity, pattern: "slots", method: "magnitude" });
      const storing: Storing = { format: "auto", values, head: "int8" };
      const size = foretold("tiny", "slots", 1 - sparsity, storing, "magnitude");
      const file = await reached(checkpoint, storing);
      const where = { sparsity, values, size, file };
      expect({ ...where, fits: file <= size && file > 0.8 * size }).toEqual({
        ...where,
        fits: true,
      });
    }
  }, LONG);
});

describe("the most that a method leaves which rounds weights to 0", () => {
  test("is foretold where two formats are as good, and some linears take the one", async () => {
    const calibration = `${workshop.fresh("windows")}.json`;
    writeFileSync(calibration, JSON.stringify({ windows: [TOKENS, TOKENS.toReversed()] }));
    for (const model of ["qwen2", "opt"]) {
      const checkpoint = await wanda({
        model: sourceOf(model),
        pattern: "4:16",
        method: "sparsegpt",
        values: "int4",
        calibration,
        seqlen: 20,
      });
      const storing: Storing = { format: "auto", values: "int4", group: 32, head: "int8" };
      const size = foretold(model, "4:16", 0.25, storing, "sparsegpt");
      const file = await reached(checkpoint, storing);
      expect({ model, fits: file <= size && file > 0.8 * size }).toEqual({ model, fits: true });
    }
  }, LONG);
});

/** A Llama of four blocks. */
async function smallModel(width = 16, inner = width): Promise<string> {
  const folder = workshop.folder();
  const random = uniformNumbers(1);
  const tensors: OutgoingTensor[] = [];
  const add = (name: string, ...shape: number[]) =>
    tensors.push({
      name: `model.${name}.weight`,
      shape,
      read: () => new Float32Array(shape.reduce((a, b) => a * b)).map(() => random() - 0.5),
    });
  add("embed_tokens", 32, width);
  add("norm", width);
  for (let block = 0; block < 4; block++) {
    const within = `layers.${block}`;
    for (const norm of ["input_layernorm", "post_attention_layernorm"]) {
      add(`${within}.${norm}`, width);
    }
    for (const part of ["q", "k", "v", "o"]) add(`${within}.self_attn.${part}_proj`, width, width);
    for (const part of ["gate", "up"]) add(`${within}.mlp.${part}_proj`, inner, width);
    add(`${within}.mlp.down_proj`, width, inner);
  }
  await writeSafetensors(join(folder, "model.safetensors"), tensors, "f32", () => {});
  const config = {
    model_type: "llama",
    hidden_size: width,
    intermediate_size: inner,
    num_hidden_layers: 4,
    num_attention_heads: 1,
    vocab_size: 32,
    max_position_embeddings: 32,
    tie_word_embeddings: true,
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  return folder;
}

/** Calibration for models of 32 tokens. */
function windowsOf32(): Pick<PruneOptions, "calibration" | "seqlen"> {
  const calibration = `${workshop.fresh("windows")}.json`;
  const windows = [TOKENS, TOKENS.toReversed()].map((ids) => ids.map((id) => id % 32));
  writeFileSync(calibration, JSON.stringify({ windows }));
  return { calibration, seqlen: 20 };
}

async function wanda(options: Partial<PruneOptions>): Promise<string> {
  const output = workshop.fresh("wanda");
  await prune({
    model: sourceOf("tiny"),
    output,
    allocation: "uniform",
    calibration: join(sourceOf("tiny"), "calibration.txt"),
    samples: 2,
    seqlen: 32,
    ...options,
  });
  return output;
}

/** A checkpoint whose record says how it is to be compiled. */
async function recorded(compile: unknown): Promise<string> {
  const folder = workshop.fresh("recorded");
  const from = await workshop.pruned("tiny", "8:16");
  cpSync(from, folder, { recursive: true });
  const path = join(folder, "espalier.json");
  const record = JSON.parse(readFileSync(path, "utf8"));
  writeFileSync(path, JSON.stringify({ ...record, compile }));
  return folder;
}

describe("what compile does when it is not told", () => {
  test("is int8 in the smallest format", async () => {
    const { options } = await workshop.compile(await workshop.pruned("tiny", "8:16"), {});
    expect(options).toMatchObject({ format: "auto", values: "int8", head: "int8" });
    expect(options.group).toBeUndefined();
  }, LONG);

  test("is what the checkpoint was pruned for", async () => {
    const folder = await recorded({ values: "int8", group: 64, head: "f16", format: "nm" });
    const { options } = await workshop.compile(folder, {});
    expect(options).toMatchObject({ format: "nm", values: "int8", group: 64, head: "f16" });
    // Values that are asked for bring their own group and head.
    expect(storingFor(folder, { values: "f16" }))
      .toMatchObject({ format: "nm", values: "f16", group: undefined, head: "f16" });
    expect(storingFor(folder, { head: "int8" }))
      .toMatchObject({ format: "nm", values: "int8", group: 64, head: "int8" });
  }, LONG);

  test("is an error that names the field where the record says what cannot be", async () => {
    const folder = await recorded({ values: "int3" });
    const error = await rejectionOf(workshop.compile(folder, {}));
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.message).toContain("compile.values");
  }, LONG);

  test("never comes of a damaged record but as one of our errors", async () => {
    const folder = await recorded({ values: "int8", group: 64 });
    const path = join(folder, "espalier.json");
    const record = new TextEncoder().encode(
      '{"compile":{"values":"int8","group":64,"head":"f16"}}',
    );
    const endings = fuzz(300, (dice) => {
      const bytes = record.slice();
      for (let i = dice.below(3); i >= 0; i--) bytes[dice.below(bytes.length)] = dice.below(128);
      writeFileSync(path, bytes.subarray(0, dice.below(8) === 0 ? dice.below(60) : 60));
      const storing = storingFor(folder, {});
      must(["f32", "f16", "int8"].includes(storing.values), storing.values);
      must(storing.group === undefined || storing.group >= 2, `${storing.group}`);
    });
    expect([...endings.keys()].sort())
      .toEqual(["CONFIG_INVALID", "FILE_UNREADABLE", "result"]);
    writeFileSync(path, "[1, 2]");
    expect(storingFor(folder, {}).values).toBe("int8");
    writeFileSync(path, "{");
    expect((thrownBy(() => storingFor(folder, {})) as { code?: string }).code)
      .toBe("FILE_UNREADABLE");
  }, LONG);
});
