/**
 * `eval` and `inspect` of a checkpoint.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { inspectCompiledInSteps } from "../../compile/inspect.ts";
import { inspectInSteps } from "../../src/api/inspect.ts";
import { AbortError } from "../../src/errors.ts";
import { withPauses } from "../../src/platform/steps.ts";
import { Workshop } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";
import { HELD_OUT, matches, QUICK, report, succeed, TINY } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

describe("eval", () => {
  test("prints one JSON object with what it measured", async () => {
    const words = ["--text", HELD_OUT, "--windows", "3", ...QUICK];
    const found = await report("eval", TINY, ...words);
    matches(found, {
      model: "tiny",
      text: HELD_OUT,
      windows: 3,
      tokens: 96,
      seqlen: 32,
      backend: expect.stringContaining("onnxruntime-web"),
      notes: [],
      seconds: expect.any(Number),
      peakBytes: expect.any(Number),
    });
    expect(found.losses).toHaveLength(3);
    const mean = found.losses.reduce((sum: number, loss: number) => sum + loss, 0) / 3;
    expect(found.perplexity).toBeCloseTo(Math.exp(mean), 6);

    const { stdout } = await succeed("eval", TINY, ...words);
    expect(stdout).toContain(`perplexity ${found.perplexity.toFixed(3)} on 3 windows`);
  });

  test("measures windows of token ids as it measures text", async () => {
    const path = join(workshop.folder(), "windows.json");
    const window = Array.from({ length: 40 }, (_, i) => 5 + i * 7);
    writeFileSync(path, JSON.stringify({ windows: [window, window] }));
    const found = await report("eval", TINY, "--text", path, ...QUICK);
    matches(found, { windows: 2, seqlen: 32, tokens: 64 });
    expect(found.losses[0]).toBeCloseTo(found.losses[1], 5);
  });
});

describe("inspect", () => {
  test("prints one JSON object with what a checkpoint holds", async () => {
    const found = await report("inspect", TINY);
    matches(found, {
      model: "tiny",
      architecture: "llama",
      layers: 8,
      hidden: 192,
      intermediate: 512,
      heads: 6,
      keyValueHeads: 2,
      headDim: 32,
      headDims: [32],
      vocabulary: 4096,
      context: 512,
      parameters: 3_935_424,
      bytes: 7_870_848,
      files: ["model.safetensors"],
      linears: { weights: 3_145_728, zeros: expect.any(Number), sparsity: expect.any(Number) },
    });
    expect(found.blocks).toHaveLength(8);
    matches(found.blocks[0], {
      index: 0,
      sparsity: expect.any(Number),
    });
    matches(found.blocks[0].linears[0], {
      name: "self_attn.q_proj",
      shape: [192, 192],
      dtype: "F16",
      bytes: 73_728,
      zeros: expect.any(Number),
      sparsity: expect.any(Number),
    });
  });

  test("shows which blocks have which linears where not all have the same", async () => {
    const { stdout } = await succeed("inspect", fromRoot("test/fixtures/architectures/lfm2"));
    // Two blocks convolve: 2 · 192 · 64 weights in bf16; one attends.
    expect(stdout).toMatch(/^conv\.in_proj +192 × 64 +BF16 +24\.6 kB +49\.2 kB$/m);
    expect(stdout).toMatch(/^self_attn\.q_proj +64 × 64 +BF16 +8\.19 kB +8\.19 kB$/m);
    const [header, first, second] = stdout.split("\n").slice(
      stdout.split("\n").findIndex(
        (line) => line.startsWith("block"),
      ),
    );
    const under = (row: string, name: string) => {
      const end = header.indexOf(` ${name}`) + 1 + name.length;
      return row.slice(end - name.length, end).trim();
    };
    for (const name of ["in_proj", "conv.out_proj"]) {
      expect([name, under(first, name), under(second, name)]).toEqual([name, "0.0 %", ""]);
    }
    for (const name of ["q_proj", "self_attn.out_proj"]) {
      expect([name, under(first, name), under(second, name)]).toEqual([name, "", "0.0 %"]);
    }
  });

  test("shows a person the same", async () => {
    const { stdout, stderr } = await succeed("inspect", TINY);
    for (const part of ["llama, 8 blocks", "mlp.down_proj", "192 × 512", "F16", "3.9 million"]) {
      expect(stdout).toContain(part);
    }
    expect(stderr).toBe("");
  });

  test("lets signals in between two linears, and stops there", async () => {
    const compiled = join(workshop.folder(), "compiled");
    await succeed("compile", TINY, "-o", compiled);
    for (const steps of [inspectInSteps({ model: TINY }), inspectCompiledInSteps(compiled)]) {
      const stop = new AbortController();
      setImmediate(() => stop.abort());
      const ended = await withPauses<object>(steps, stop.signal).catch((error) => error);
      expect(ended).toBeInstanceOf(AbortError);
      // It has closed its files.
      expect(steps.next().done).toBe(true);
    }
  });
});
