/**
 * What `compile` and `expand` refuse, and what they leave behind when they do not come to their end: nothing.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile } from "../../compile/compile.ts";
import { expand } from "../../compile/expand.ts";
import type { CompileOptions } from "../../compile/options.ts";
import { verify } from "../../compile/verify.ts";
import { editSafetensors, filesOf, rejectionOf } from "../checkpoint/support.ts";
import { SparseWorkshop } from "../engine/sparse/engines.ts";
import { fromRoot } from "../support/paths.ts";
import { flipBit, sourceOf } from "./support.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

describe("what cannot be compiled", () => {
  /** Compiles; returns the error, and checks that nothing is left. */
  async function refused(options: CompileOptions): Promise<Error & { code?: string }> {
    const place = workshop.folder();
    const error = await rejectionOf(compile({ output: join(place, "deep", "out"), ...options }));
    expect(readdirSync(place)).toEqual([]);
    return error;
  }

  test("is a linear without N:M as N:M; it is named with what to do", async () => {
    const error = await refused({ model: await workshop.pruned("llama", 0.1), format: "nm" });
    expect(error.code).toBe("FORMAT_UNFIT");
    for (const part of ["model.layers.0.self_attn.q_proj.weight", "10.0 %", "8:16", "bitmap"]) {
      expect(error.message).toContain(part);
    }
  });

  test("is a linear as N:M whose rows no M divides; that is what is said", async () => {
    const sizes = { hidden: 33, intermediate: 64, heads: 2, keyValueHeads: 1, headDim: 16 };
    const model = workshop.checkpoint({ ...sizes, vocabulary: 50, zeros: 1 });
    const error = await refused({ model, format: "nm" });
    expect(error.code).toBe("FORMAT_UNFIT");
    expect(error.message).toContain("no M of 2, 4, 8, 16, 32 divides its rows of 33 weights");
    expect(error.message).not.toContain("--pattern");
  });

  test("is a linear whose rows the group does not divide", async () => {
    const error = await refused({ model: await workshop.pruned("llama", 0.7), group: 48 });
    expect(error.code).toBe("FORMAT_UNFIT");
    expect(error.message).toContain("--group 48");
    expect(error.message).toContain("model.layers.0.self_attn.q_proj.weight");
  });

  test("is a group that int4 has not", async () => {
    const source = await workshop.pruned("llama", "2:4");
    const output = workshop.fresh("compiled");
    const error = await rejectionOf(compile({ model: source, output, values: "int4", group: 48 }));
    expect(error.code).toBe("USAGE");
    expect(error.message).toContain("take 32 or 64");
  });

  test("is a group of floats, which have no scales", async () => {
    for (const values of ["f32", "f16"] as const) {
      const error = await refused({ model: sourceOf("tiny"), values, group: 32 });
      expect(error.code).toBe("USAGE");
      expect(error.message).toContain(`${values} has no scales`);
    }
  });

  test("is a weight that float16 cannot hold, as float16", async () => {
    const error = await refused({ model: workshop.withLargeWeight(), values: "f16" });
    expect(error.code).toBe("FORMAT_UNFIT");
    expect(error.message).toContain('"model.embed_tokens.weight" has 999424 at row 0, column 5');
  });

  test("is a weight that is not a number", async () => {
    const model = workshop.copy("qwen2");
    editSafetensors(model, "model.safetensors", (header, data) => {
      const [start] = header["model.layers.1.mlp.up_proj.weight"].data_offsets as number[];
      data.set([0xc0, 0x7f], start);
    });
    const error = await refused({ model });
    expect(error.code).toBe("NOT_FINITE");
    expect(error.message).toContain("model.layers.1.mlp.up_proj.weight");
  });

  test("is what is no checkpoint, or options that are none", async () => {
    expect((await refused({ model: workshop.folder() })).code).toBe("CHECKPOINT_NOT_FOUND");
    const model = sourceOf("llama");
    expect((await refused({ model, format: "coo" as "csr" })).code).toBe("USAGE");
    expect((await refused({ model, group: 1 })).code).toBe("USAGE");
    const { output } = await workshop.compile(await workshop.pruned("llama", "2:4"), {});
    expect((await refused({ model: output })).code).toBe("CHECKPOINT_NOT_FOUND");
  });
});

describe("an output folder that is there", () => {
  test("is kept, or replaced where that is asked for", async () => {
    const model = await workshop.pruned("llama", "2:4");
    const output = workshop.folder();
    writeFileSync(join(output, "notes.txt"), "mine");
    for (const force of [false, true]) {
      const error = await rejectionOf(compile({ model, output, force }));
      expect(error.code).toBe("OUTPUT_EXISTS");
      expect(readdirSync(output)).toEqual(["notes.txt"]);
    }
    writeFileSync(join(output, "config.json"), "{}");
    await compile({ model, output, force: true });
    expect(readdirSync(output).sort()).toEqual([
      "config.json",
      "espalier.json",
      "generation_config.json",
      "onnx",
    ]);
    expect((await rejectionOf(compile({ model, output }))).code).toBe("OUTPUT_EXISTS");
    await compile({ model, output, force: true });
  });

  test("is never the folder that is read", async () => {
    const model = workshop.copy("llama");
    const before = filesOf(model);
    for (const output of [model, join(model, "onnx"), join(model, "..")]) {
      const error = await rejectionOf(compile({ model, output, force: true }));
      expect(error.code).toBe("OUTPUT_EXISTS");
      expect(error.message).toContain("in one another");
    }
    expect(filesOf(model)).toEqual(before);

    const { output } = await workshop.compile(model, {});
    const after = filesOf(output);
    const error = await rejectionOf(expand({ model: output, output, force: true }));
    expect(error.message).toContain("in one another");
    expect(filesOf(output)).toEqual(after);
  });
});

test("a compiled model of which one bit has changed is neither expanded nor verified", async () => {
  const against = await workshop.pruned("tiny", "2:4");
  const { output: model } = await workshop.compile(against, {});
  const place = workshop.folder();
  for (const file of ["onnx/model.onnx_data", "onnx/model.onnx", "config.json"]) {
    flipBit(join(model, file));
    const refusals = [
      expand({ model, output: join(place, "out") }),
      verify({ model, against, text: fromRoot("examples/tiny/evaluation.txt") }),
    ].map(rejectionOf);
    for (const error of await Promise.all(refusals)) {
      expect([file, error.code]).toEqual([file, "INTEGRITY"]);
      expect(error.message).toContain(file);
    }
    flipBit(join(model, file));
  }
  expect(readdirSync(place)).toEqual([]);
  await expand({ model, output: join(place, "out") });
});

describe("work that is stopped in the middle", () => {
  for (const phase of ["pack linears", "pack embeddings"]) {
    test(`leaves nothing: ${phase}`, async () => {
      const place = workshop.folder();
      const stop = new AbortController();
      let unfinished = false;
      const error = await rejectionOf(
        compile(
          { model: await workshop.pruned("llama", "2:4"), output: join(place, "new", "out") },
          {
            signal: stop.signal,
            onProgress: (event) => {
              if (event.type !== "progress" || event.phase !== phase || event.done < 1) return;
              unfinished = readdirSync(join(place, "new")).length === 1;
              stop.abort();
            },
          },
        ),
      );
      expect(error.code).toBe("ABORTED");
      expect(unfinished).toBe(true);
      expect(readdirSync(place)).toEqual([]);
    });
  }

  test("stops inside an embedding, which may take minutes", async () => {
    const stop = new AbortController();
    let done = 0;
    const error = await rejectionOf(
      compile(
        { model: await workshop.pruned("llama", "2:4"), output: join(workshop.folder(), "out") },
        {
          signal: stop.signal,
          onProgress: (event) => {
            if (event.type !== "progress" || event.phase !== "pack embeddings") return;
            done = event.done;
            setImmediate(() => stop.abort());
          },
        },
      ),
    );
    expect(error.code).toBe("ABORTED");
    expect(done).toBe(0);
  });

  test("ends a comparison before the next window", async () => {
    const against = await workshop.pruned("tiny", "2:4");
    const { output: model } = await workshop.compile(against, { values: "f32" });
    const stop = new AbortController();
    let done = 0;
    const text = fromRoot("examples/tiny/evaluation.txt");
    const error = await rejectionOf(
      verify({ model, against, text, seqlen: 16, windows: 4, threads: 1 }, {
        signal: stop.signal,
        onProgress: (event) => {
          if (event.type !== "progress" || event.phase !== "compare") return;
          done = event.done;
          if (done === 1) stop.abort();
        },
      }),
    );
    expect([error.code, done]).toEqual(["ABORTED", 1]);
  });

  test("leaves nothing of a checkpoint that is expanded, either", async () => {
    const { output: model } = await workshop.compile(await workshop.pruned("llama", "2:4"), {});
    const place = workshop.folder();
    const stop = new AbortController();
    const error = await rejectionOf(
      expand({ model, output: join(place, "out") }, {
        signal: stop.signal,
        onProgress: (event) => {
          if (event.type === "progress" && event.done === 3) stop.abort();
        },
      }),
    );
    expect(error.code).toBe("ABORTED");
    expect(readdirSync(place)).toEqual([]);
  });
});
