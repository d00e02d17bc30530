/**
 * The commands around compiled models, as people meet them: each test starts the program in a process
 * of its own. What they compute is tested in `test/compile`.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { prune } from "../../src/api/prune.ts";
import { editJson, filesOf, readJsonOf, Workshop } from "../checkpoint/support.ts";
import { forgetHashes } from "../compile/support.ts";
import { fromRoot } from "../support/paths.ts";
import { failAll, HELD_OUT, matches, report, start, succeed, TINY } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** A limit for tests that start several processes; Bun's own is 5 s. */
const LONG = 120_000;

/** The example pruned to 8:16, and a folder that it was compiled into. */
const pruned = join(workshop.path, "pruned");
const compiled = join(workshop.path, "compiled");

beforeAll(async () => {
  await prune({
    model: TINY,
    output: pruned,
    method: "magnitude",
    allocation: "uniform",
    pattern: "8:16",
  });
  await succeed("compile", pruned, "-o", compiled, "--format", "nm");
}, LONG);

/** A copy of the compiled model with its graph or its data changed. */
function damaged(
  file: "model.onnx" | "model.onnx_data",
  change: (bytes: Uint8Array) => Uint8Array,
) {
  const folder = workshop.fresh("damaged");
  cpSync(compiled, folder, { recursive: true });
  const path = join(folder, "onnx", file);
  writeFileSync(path, change(new Uint8Array(readFileSync(path))));
  return folder;
}

describe("compile", () => {
  test("prints one JSON object with what it did", async () => {
    const output = workshop.fresh("out");
    const words = ["--values", "f16", "--context", "64", "--logits", "last"];
    const found = await report("compile", pruned, "-o", output, "--format", "nm", ...words);
    expect(Object.keys(found).sort()).toEqual([
      "bytes",
      "linears",
      "model",
      "notes",
      "options",
      "output",
      "peakBytes",
      "seconds",
      "sparsity",
    ]);
    matches(found, {
      model: basename(pruned),
      output,
      options: { format: "nm", values: "f16", head: "f16", context: 64, logits: "last" },
      sparsity: 0.5,
      bytes: {
        linears: 3_145_728 / 2 * 2.5,
        embeddings: 2 * 4096 * 192,
        graph: statSync(join(output, "onnx", "model.onnx")).size,
        data: statSync(join(output, "onnx", "model.onnx_data")).size,
        perWeight: 1.25,
      },
      notes: [],
      seconds: expect.any(Number),
      peakBytes: expect.any(Number),
    });
    expect(found.linears).toHaveLength(56);
    expect(Object.keys(found.linears[0])).toEqual([
      "name",
      "shape",
      "format",
      "pattern",
      "values",
      "sparsity",
      "bytes",
    ]);
    // The record beside the model says the same.
    matches(readJsonOf(output, "espalier.json"), {
      kind: "compiled",
      options: found.options,
      linears: found.linears,
    });
  });

  test("shows a person the same, and its progress on standard error", async () => {
    const output = workshop.fresh("out");
    const { stdout, stderr } = await succeed("compile", pruned, "-o", output, "--format", "nm");
    for (const part of ["nm 8:16, int8", "56", "50.0 %", "context 512", `written to ${output}`]) {
      expect(stdout).toContain(part);
    }
    expect(stdout + stderr).not.toContain("\u001b[");
    for (const phase of ["pack linears", "pack embeddings"]) {
      expect(stderr).toContain(`${phase}: `);
      expect(stdout).not.toContain(`${phase}: `);
    }
    expect([...filesOf(output)]).toEqual([...filesOf(compiled)]);
  });

  test("takes options from a file, and flags over them", async () => {
    const place = workshop.folder();
    const config = join(place, "compile.json");
    const options = { model: pruned, output: "out", values: "f16", format: "bitmap", force: true };
    writeFileSync(config, JSON.stringify(options));
    const found = await report("compile", "--config", config, "--values", "int8");
    expect(found.output).toBe(join(place, "out"));
    expect(found.options).toMatchObject({ format: "bitmap", values: "int8" });
    expect(new Set(found.linears.map(({ format }: { format: string }) => format)))
      .toEqual(new Set(["bitmap"]));
  });

  test("without a folder compiles the example, and prunes it first where it must", async () => {
    // A copy of the program, so that nothing is written where it lies.
    const root = workshop.folder();
    const configs = ["deno.json", "package.json", "tsconfig.json"];
    for (const name of ["mod.ts", ...configs, "src", "compile", "examples"]) {
      cpSync(fromRoot(name), join(root, name), { recursive: true });
    }
    symlinkSync(fromRoot("node_modules"), join(root, "node_modules"), "junction");
    editJson(join(root, "examples", "tiny"), "prune.json", (options) => {
      Object.assign(options, { samples: 2, seqlen: 32, backend: "wasm", threads: 1 });
    });
    const bare = async (...words: string[]) => {
      const { code, stdout, stderr } = await start(["compile", ...words], { root }).ended;
      expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
      return { stdout, stderr };
    };
    const first = await bare("--json");
    const found = JSON.parse(first.stdout);
    expect(first.stderr).toContain("prune blocks: ");
    expect(found.sparsity).toBeCloseTo(0.7, 2);
    expect(basename(found.output)).toBe("tiny-pruned-onnx");
    expect(readdirSync(join(root, "out")).sort()).toEqual(["tiny-pruned", "tiny-pruned-onnx"]);
    const files = filesOf(join(root, "out"));

    // Again: what is pruned stays, what was compiled is replaced.
    const second = await bare();
    expect(second.stderr).not.toContain("prune blocks: ");
    expect(second.stdout).toContain("tiny-pruned-onnx");
    expect([...filesOf(join(root, "out"))]).toEqual([...files]);

    // No folder that somebody names is.
    const other = workshop.folder();
    writeFileSync(join(other, "config.json"), "{}");
    const { code, stderr } = await start(["compile", "-o", other], { root }).ended;
    expect(stderr).toContain("error OUTPUT_EXISTS: ");
    expect(code).toBe(1);
    expect(readdirSync(other)).toEqual(["config.json"]);
    await bare("-o", other, "--force");
    expect(readdirSync(other)).toContain("onnx");
  }, LONG);
});

describe("expand", () => {
  test("prints one JSON object, and writes a checkpoint", async () => {
    const output = workshop.fresh("dense");
    const found = await report("expand", compiled, "-o", output, "--dtype", "f32");
    expect(found).toEqual({
      model: basename(compiled),
      output,
      dtype: "f32",
      tensors: 74,
      seconds: expect.any(Number),
      notes: [],
    });
    const { stdout } = await succeed("expand", compiled, "-o", output, "--force");
    expect(stdout).toContain(`74 tensors in f16 written to ${output}`);
    const { linears, blocks } = await report("inspect", output);
    expect(linears.sparsity).toBeGreaterThanOrEqual(0.5);
    expect(blocks[0].linears[0].dtype).toBe("F16");
  }, LONG);
});

describe("verify", () => {
  const words = ["verify", compiled, "--against", pruned, "--text", HELD_OUT];
  const quick = ["--windows", "1", "--seqlen", "48", "--backend", "wasm", "--threads", "1"];

  test("prints one JSON object with what it compared", async () => {
    const found = await report(...words, ...quick);
    expect(Object.keys(found).sort()).toEqual([
      "against",
      "agreement",
      "backend",
      "largestDifference",
      "model",
      "notes",
      "perplexity",
      "relativeDifference",
      "seconds",
      "seqlen",
      "windows",
    ]);
    matches(found, {
      model: basename(compiled),
      against: basename(pruned),
      windows: 1,
      seqlen: 48,
      backend: expect.stringContaining("onnxruntime-web"),
      perplexity: { compiled: expect.any(Number), checkpoint: expect.any(Number) },
      notes: [],
    });
    expect(Object.keys(found.seconds)).toEqual(["load compiled model", "compare"]);
    expect(found.perplexity.compiled / found.perplexity.checkpoint).toBeCloseTo(1, 1);

    const { stdout } = await succeed(...words, ...quick);
    expect(stdout).toContain(`perplexity ${found.perplexity.compiled.toFixed(3)} compiled`);
    expect(stdout).toContain("on 1 windows of 48 tokens");
  }, LONG);
});

describe("inspect", () => {
  test(
    "tells a compiled model from a checkpoint, and shows how its linears are packed",
    async () => {
      const found = await report("inspect", compiled);
      expect(Object.keys(found)).toEqual(["model", "kind", "architecture", "linears", "totals"]);
      matches(found, { model: basename(compiled), kind: "compiled", architecture: "llama" });
      expect(found.linears[0]).toEqual({
        name: "model.layers.0.self_attn.q_proj",
        shape: [192, 192],
        format: "nm",
        pattern: "8:16",
        values: "int8",
        sparsity: expect.any(Number),
        bytes: 192 * 192 / 2 * 1.5 + 4 * 192,
        bytesPerWeight: expect.any(Number),
      });
      expect(found.totals).toEqual({
        weights: 3_145_728,
        sparsity: expect.closeTo(0.5, 1),
        bytes: expect.any(Number),
        bytesPerWeight: expect.closeTo(0.765, 2),
        fileBytes: expect.any(Number),
        dense: {
          f16: 2 * 3_145_728,
          int8: expect.any(Number),
          int4: Math.ceil(3_145_728 * 0.5625),
        },
      });
      const { stdout, stderr } = await succeed("inspect", compiled);
      for (const part of ["llama, compiled", "mlp.down_proj", "192 × 512", "nm 8:16", "int4"]) {
        expect(stdout).toContain(part);
      }
      expect(stderr).toBe("");
    },
    LONG,
  );
});

describe("a command that cannot be right", () => {
  test("is refused with what to do, and exit code 2", async () => {
    const out = ["-o", workshop.fresh("never")];
    await failAll(2, "USAGE", [
      [["compile", pruned, ...out, "--fromat", "csr"], "did you mean --format?"],
      [["compile", pruned, ...out, "--format", "coo"], "--format", '"bitmap"'],
      [["compile", pruned, ...out, "--values", "int2"], "--values", '"int8"'],
      [["compile", pruned, ...out, "--group", "1"], "--group"],
      [["compile", pruned, ...out, "--group", "6.5"], "--group"],
      [["compile", pruned, ...out, "--context", "1"], "--context"],
      [["compile", pruned, ...out, "--logits", "some"], "--logits", '"last"'],
      [["compile", pruned, "another", ...out], "another"],
      // Without a model, too: before the example is pruned.
      [["compile", "--values", "int3"], "--values"],
      [["expand"], "name the folder of a model"],
      [["expand", compiled, ...out, "--dtype", "int8"], "--dtype", '"bf16"'],
      [["verify", compiled], "--against is needed"],
      [["verify", compiled, "--against", pruned], "--text is needed"],
      [
        ["verify", compiled, "--against", pruned, "--text", HELD_OUT, "--windows", "0"],
        "--windows",
      ],
    ]);
  }, LONG);
});

describe("a command that fails", () => {
  test("says why, and ends with exit code 1", async () => {
    const out = ["-o", workshop.fresh("never")];
    const nowhere = join(workshop.path, "nowhere");
    const text = ["--text", HELD_OUT];
    await failAll(1, "CHECKPOINT_NOT_FOUND", [
      [["compile", nowhere, ...out], nowhere],
      [["compile", compiled, ...out], "holds neither model.safetensors"],
      [["expand", pruned, ...out], pruned, "compile wrote"],
      [["verify", pruned, "--against", pruned, ...text], "compile wrote"],
      [["verify", compiled, "--against", compiled, ...text], "holds neither model.safetensors"],
    ]);
    await failAll(1, "FORMAT_UNFIT", [
      [["compile", TINY, ...out, "--format", "nm"], "q_proj", "bitmap"],
      [["compile", pruned, ...out, "--format", "nm", "--group", "100"], "--group 100"],
    ]);
    await failAll(1, "OUTPUT_EXISTS", [
      [["compile", pruned, "-o", compiled], compiled, "--force"],
      [["compile", pruned, "-o", pruned, "--force"], "in one another"],
      [["expand", compiled, "-o", pruned], pruned, "--force"],
      [["expand", compiled, "-o", compiled, "--force"], "in one another"],
    ]);
    expect(readdirSync(workshop.path).filter((name) => name.includes("never"))).toEqual([]);
  }, LONG);

  test("names what is damaged in a compiled model", async () => {
    const out = ["-o", workshop.fresh("never")];
    const cut = damaged("model.onnx", (bytes) => bytes.slice(0, bytes.length >> 1));
    const short = damaged("model.onnx_data", (bytes) => bytes.slice(0, -1));
    // The first linear's values take 192 · 96 bytes; its codes begin at the next page.
    const start = Math.ceil(192 * 96 / 4096) * 4096;
    const flipped = damaged("model.onnx_data", (bytes) => bytes.fill(0xff, start, start + 96));
    await failAll(1, "INTEGRITY", [
      [["expand", cut, ...out], join(cut, "onnx", "model.onnx")],
      [["verify", short, "--against", pruned, "--text", HELD_OUT], "model.onnx_data"],
      [["expand", flipped, ...out], "model.onnx_data"],
    ]);
    // What others have compiled may have no hashes.
    for (const folder of [cut, short, flipped]) forgetHashes(folder);
    await failAll(1, "ONNX_INVALID", [
      [["inspect", cut], join(cut, "onnx", "model.onnx")],
      [["expand", cut, ...out], "is not an ONNX model"],
      [["inspect", short], "model.onnx_data", "truncated"],
      [["verify", short, "--against", pruned, "--text", HELD_OUT], "truncated"],
    ]);
    await failAll(1, "PACKED_INVALID", [
      [["inspect", flipped], "model.layers.0.self_attn.q_proj", "codes"],
      [["expand", flipped, ...out], "model.layers.0.self_attn.q_proj", "codes"],
    ]);
    expect(readdirSync(workshop.path).filter((name) => name.includes("never"))).toEqual([]);
  }, LONG);
});
