/**
 * `load`, and the model that it gives: as a user of the library has it.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import type { ProgressEvent } from "../../src/api/options.ts";
import { hasNode } from "../../src/engine/ort/node_module.ts";
import { partPath, PARTS } from "../../src/engine/parts_source.ts";
import { load } from "../../src/generate/load.ts";
import { cachedSource, runCompiled, urlSource } from "../../src/generate/run.ts";
import type { LoadOptions } from "../../src/generate/load_options.ts";
import type { Model } from "../../src/generate/model.ts";
import type { ModelLocation } from "../../src/generate/place.ts";
import {
  addUnknownOperator,
  checkpointLogits,
  CompileWorkshop,
  distance,
  forgetHashes,
  LONG,
  sourceOf,
  TOKENS,
} from "../compile/support.ts";
import { editJson } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

const TINY = fromRoot("examples/tiny");
/** ONNX Runtime where every machine has it. */
const ORT: LoadOptions = { engine: "ort", device: "wasm", threads: 1 };

let compiled: Promise<string> | undefined;
/** The example compiled, made once. */
function compiledTiny(): Promise<string> {
  return compiled ??= workshop.compile(TINY, { values: "int8" }).then(({ output }) => output);
}

/** A copy of it that may be changed. */
async function copyOfTiny(): Promise<string> {
  const folder = workshop.fresh("copy");
  cpSync(await compiledTiny(), folder, { recursive: true });
  forgetHashes(folder);
  return folder;
}

/** A copy whose logits pass through an operator that no decoder has. */
async function withUnknownOperator(): Promise<string> {
  const folder = await copyOfTiny();
  addUnknownOperator(folder);
  return folder;
}

/** What loading or a use of a model fails with. */
async function thrown(work: () => unknown): Promise<{ code: string; message: string }> {
  try {
    await work();
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return { code: code ?? "none", message };
  }
  return { code: "nothing", message: "" };
}

/** Calls `use` with a loaded model, and closes that. */
async function withModel<T>(
  location: ModelLocation,
  options: LoadOptions,
  use: (model: Model) => Promise<T>,
): Promise<T> {
  await using model = await load(location, options);
  return await use(model);
}

async function textOf(model: Model, prompt: string | number[], maxTokens = 8): Promise<string> {
  let text = "";
  for await (const piece of model.generate(prompt, { maxTokens })) {
    if (piece.type === "text") text += piece.text;
  }
  return text;
}

/** Calls `use` with a temporary folder of our own as the system's; tells what was left in it. */
async function leftovers(use: () => Promise<unknown>): Promise<string[]> {
  const folder = workshop.fresh("temporary");
  mkdirSync(folder);
  const before = process.env.TMPDIR;
  process.env.TMPDIR = folder;
  try {
    await use();
  } finally {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  }
  return readdirSync(folder);
}

describe("load", () => {
  test("takes a compiled model's folder, by path and by URL", async () => {
    const folder = await compiledTiny();
    const texts: string[] = [];
    for (const location of [folder, pathToFileURL(folder), pathToFileURL(folder).href]) {
      const model = await load(location, ORT);
      texts.push(await textOf(model, "The population of"));
      expect(model.info.name).toBe(folder.split("/").at(-1)!);
      await model.close();
    }
    expect(texts[0].length).toBeGreaterThan(0);
    expect(new Set(texts).size).toBe(1);
  }, LONG);

  test("compiles a checkpoint into a folder that is gone after close", async () => {
    const phases = new Set<string>();
    const left = await leftovers(async () => {
      const onProgress = (event: ProgressEvent) =>
        void (event.type === "progress" && phases.add(event.phase));
      const model = await load(TINY, ORT, { onProgress });
      expect(model.info.name).toBe("tiny");
      expect(await textOf(model, "The population of")).not.toBe("");
      await model.close();
      await model.close();
    });
    expect(left).toEqual([]);
    expect([...phases]).toContain("pack linears");
  }, LONG);

  test(
    "says of how a checkpoint is to be stored that a compiled model has its own way",
    async () => {
      const notes: string[] = [];
      const onProgress = (event: ProgressEvent) =>
        void (event.type === "note" && notes.push(event.text));
      const how = { ...ORT, values: "int4", format: "nm" } as const;
      await (await load(await compiledTiny(), how, { onProgress })).close();
      const told = notes.filter((text) => text.includes("compiled already"));
      expect(told.map((text) => text.split(": ")[1].split(" is for")[0])).toEqual([
        "values int4",
        "format nm",
      ]);
      notes.length = 0;
      await (await load(TINY, { ...ORT, values: "int4" }, { onProgress })).close();
      expect(notes.filter((text) => text.includes("compiled already"))).toEqual([]);
    },
    LONG,
  );

  test("stores a checkpoint's weights as it is told", async () => {
    const expected = await checkpointLogits(TINY);
    const distances: number[] = [];
    for (const values of ["f32", "int8"] as const) {
      await using model = await load(TINY, { ...ORT, values });
      distances.push(distance(await model.logits(TOKENS), expected));
    }
    expect(distances[0]).toBeLessThan(1e-4);
    expect(distances[1]).toBeGreaterThan(1e-4);
  }, LONG);

  test("leaves nothing behind when it is stopped or fails", async () => {
    const left = await leftovers(async () => {
      const stop = new AbortController();
      const onProgress = (event: ProgressEvent) => {
        if (event.type === "progress" && event.phase === "pack linears") stop.abort();
      };
      const stopped = await thrown(() => load(TINY, ORT, { signal: stop.signal, onProgress }));
      expect(stopped.code).toBe("ABORTED");
      // ONNX Runtime itself cannot be stopped: what it made is closed.
      const [late, folder] = [new AbortController(), await compiledTiny()];
      const loading = thrown(() => load(folder, ORT, { signal: late.signal }));
      late.abort();
      expect((await loading).code).toBe("ABORTED");
      const refused = await thrown(() => load(TINY, { ...ORT, memory: "1MB" }));
      expect(refused.code).toBe("MEMORY_BUDGET");
    });
    expect(left).toEqual([]);
  }, LONG);

  test("refuses a model that does not fit into memory, with the figures", async () => {
    const { code, message } = await thrown(async () =>
      load(await compiledTiny(), { ...ORT, memory: "20MB", context: 512 })
    );
    expect(code).toBe("MEMORY_BUDGET");
    expect(message).toMatch(
      /needs about \d+\.\d MB .*cache of 512 tokens 2\.1 MB.*--memory allows 20 MB/,
    );
  });

  test("refuses a context that a checkpoint has not before it is compiled", async () => {
    const events: ProgressEvent[] = [];
    const { code, message } = await thrown(() =>
      load(TINY, { context: 513 }, { onProgress: (event) => events.push(event) })
    );
    expect([code, events]).toEqual(["CONTEXT_OVERFLOW", []]);
    expect(message).toBe("a context of 513 tokens was asked for: the model allows 512");
  });

  test("refuses a tokenizer that is broken before a checkpoint is compiled, and says where it is", async () => {
    const folder = workshop.fresh("broken");
    cpSync(TINY, folder, { recursive: true });
    writeFileSync(join(folder, "tokenizer_config.json"), "{");
    const events: ProgressEvent[] = [];
    const { code, message } = await thrown(() =>
      load(folder, {}, { onProgress: (event) => events.push(event) })
    );
    expect([code, events]).toEqual(["TOKENIZER_INVALID", []]);
    expect(message).toContain(`${folder}: tokenizer_config.json is not valid JSON`);
  });

  test("refuses it for the sparse engine too", async () => {
    const { code, message } = await thrown(async () =>
      load(await compiledTiny(), { engine: "sparse", memory: "2MB", context: 64 })
    );
    expect(code).toBe("MEMORY_BUDGET");
    expect(message).toMatch(/needs about \d+\.\d MB .*--memory allows 2 MB/);
    // Small models keep keys and values in float32.
    const longer = await thrown(async () =>
      load(await compiledTiny(), { engine: "sparse", memory: "6MB", context: 512 })
    );
    expect(longer.code).toBe("MEMORY_BUDGET");
    expect(longer.message).toMatch(/cache of 512 tokens 2\.1 MB/);
  });

  test("says which engine runs the model, and why", async () => {
    const folder = await compiledTiny();
    await using asked = await load(folder, ORT);
    expect(asked.info).toMatchObject({
      engine: "ort",
      why: "it was asked for",
      vocabulary: 4096,
      context: 512,
    });
    expect(asked.info.loadSeconds).toBeGreaterThan(0);
    if (hasNode()) {
      await using native = await load(folder, { device: "cpu" });
      expect(native.info).toMatchObject({ engine: "ort", why: "cpu is ONNX Runtime's" });
    }
  });

  test(
    "goes to ONNX Runtime, with a note, where the sparse engine has not every operator",
    async () => {
      const folder = await withUnknownOperator();
      const notes: string[] = [];
      const onProgress = (event: ProgressEvent) =>
        void (event.type === "note" && notes.push(event.text));
      await using model = await load(folder, { device: "wasm", threads: 1 }, { onProgress });
      expect(model.info.engine).toBe("ort");
      expect(model.info.why).toContain("the sparse engine does not run this model");
      expect(notes.some((note) => note.startsWith("ONNX Runtime takes over"))).toBe(true);
      expect(await textOf(model, "The population of")).not.toBe("");
      const { code } = await thrown(() => load(folder, { engine: "sparse", threads: 1 }));
      expect(code).toBe("OPERATOR_UNSUPPORTED");
    },
    LONG,
  );

  test("refuses options that do not go together or are not known", async () => {
    const folder = await compiledTiny();
    const wrong: LoadOptions[] = [
      { engine: "sparse", device: "cpu" },
      { engine: "ort", kv: "int8" },
      { engine: "ort", activations: "int16" },
      { engine: "ort", embeddings: "file" },
      { threads: 0 },
      { engine: "fast" as "ort" },
      { speed: 3 } as LoadOptions,
    ];
    for (const options of wrong) {
      expect((await thrown(() => load(folder, options))).code).toBe("USAGE");
    }
  });

  test("refuses what is no model, by a code that says why", async () => {
    const empty = workshop.fresh("empty");
    const cases: [ModelLocation, string][] = [
      [empty, "CHECKPOINT_NOT_FOUND"],
      [5 as unknown as string, "USAGE"],
      [new URL("ftp://localhost/model"), "USAGE"],
    ];
    for (const [location, code] of cases) {
      expect((await thrown(() => load(location, ORT))).code).toBe(code);
    }
  });

  test("cannot give ONNX Runtime what is not in a folder, and says so", async () => {
    const { code, message } = await thrown(() => load({ files: {} }, ORT));
    expect(code).toBe("USAGE");
    expect(message).toContain("folder");
  });
});

describe("a loaded model", () => {
  test("turns text into tokens and back", async () => {
    await using model = await load(await compiledTiny(), ORT);
    const tokens = model.tokens("The population of the country");
    expect(tokens.length).toBeGreaterThan(2);
    expect(model.text(tokens)).toBe("The population of the country");
  });

  test("gives logits of every token in an array of its own", async () => {
    await using model = await load(await compiledTiny(), ORT);
    const first = await model.logits(TOKENS);
    const copy = first.slice();
    await model.logits([1, 2, 3]);
    expect(first.length).toBe(TOKENS.length * 4096);
    expect(distance(first, copy)).toBe(0);
  });

  test("continues text, and token ids, with the same text each time", async () => {
    await using model = await load(await compiledTiny(), ORT);
    const text = await textOf(model, "The population of");
    expect(await textOf(model, "The population of")).toBe(text);
    expect(await textOf(model, [...model.tokens("The population of")])).toBe(text);
  });

  test("measures perplexity on a text", async () => {
    await using model = await load(await compiledTiny(), ORT);
    const text = readFileSync(join(TINY, "evaluation.txt"), "utf8");
    const perplexity = await model.perplexity(text, { seqlen: 128, windows: 4 });
    expect(perplexity).toBeGreaterThan(10);
    expect(perplexity).toBeLessThan(120);
    for (
      const options of [{ seqlen: 0 }, { seqlen: 1 }, { seqlen: 1.5 }, { seqlen: -3 }, {
        windows: 0,
      }]
    ) {
      expect((await thrown(() => model.perplexity(text, options))).code).toBe("USAGE");
    }
  });

  test("works without a tokenizer on token ids, and says what text would need", async () => {
    const source = sourceOf("llama");
    await using model = await load(source, { ...ORT, values: "f32" });
    const found = await model.logits(TOKENS);
    expect(distance(found, await checkpointLogits(source))).toBeLessThan(1e-4);
    expect((await thrown(() => model.tokens("text"))).code).toBe("TOKENIZER_INVALID");
    expect((await thrown(() => model.generate("text"))).code).toBe("TOKENIZER_INVALID");
  }, LONG);

  test("without a chat template takes no messages", async () => {
    await using model = await load(await compiledTiny(), ORT);
    expect(model.canChat).toBe(false);
    const ask = () => model.generate([{ role: "user", content: "Hello" }]);
    expect((await thrown(ask)).code).toBe("CHAT_TEMPLATE");
  });

  test("with a chat template answers messages", async () => {
    const folder = await copyOfTiny();
    editJson(folder, "tokenizer_config.json", (config) => {
      config.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    });
    await using model = await load(folder, ORT);
    expect(model.canChat).toBe(true);
    let end;
    const messages = [{ role: "user", content: "The population of" }];
    for await (const piece of model.generate(messages, { maxTokens: 4 })) end = piece;
    expect(end).toMatchObject({
      type: "end",
      promptTokens: model.tokens("user: The population of\n").length,
    });
  });

  test("takes no chat template that is not UTF-8", async () => {
    const folder = await copyOfTiny();
    const template = new Uint8Array([0xff, 0xfe, ...new TextEncoder().encode("{{ messages }}")]);
    writeFileSync(join(folder, "chat_template.jinja"), template);
    const error = await thrown(() => load(folder, ORT));
    expect(error.code).toBe("TOKENIZER_INVALID");
    expect(error.message).toContain("chat_template.jinja is not UTF-8 text");
  });

  test("cannot be used when it is closed", async () => {
    const model = await load(await compiledTiny(), ORT);
    await model.close();
    expect((await thrown(() => model.logits([1]))).code).toBe("MODEL_CLOSED");
    expect((await thrown(() => textOf(model, "The"))).code).toBe("MODEL_CLOSED");
  });
});

describe("through the sparse engine, load", () => {
  const sparse: LoadOptions = { threads: 1 };

  test("takes the files themselves, and files on a web server", async () => {
    const folder = await compiledTiny();
    const expected = await withModel(folder, sparse, (model) => textOf(model, "The population of"));
    const files = Object.fromEntries(
      readdirSync(folder, { recursive: true }).map(String)
        .filter((name) => statSync(join(folder, name)).isFile())
        .map((name) => [name, new Uint8Array(readFileSync(join(folder, name)))]),
    );
    const inMemory = { files, name: "in memory" };
    expect(await withModel(inMemory, sparse, (model) => textOf(model, "The population of")))
      .toBe(expected);

    const server = createServer((request, response) => {
      const content = files[decodeURI(request.url!).replace(/^\/models\/tiny\//, "")];
      response.writeHead(content ? 200 : 404).end(content);
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const { port } = server.address() as AddressInfo;
    try {
      const url = `http://127.0.0.1:${port}/models/tiny/`;
      const text = await withModel(url, sparse, (model) => {
        expect(model.info.name).toBe("tiny");
        return textOf(model, "The population of");
      });
      expect(text).toBe(expected);
      for (const source of [urlSource(url), await cachedSource(url, { caches: null })]) {
        await using model = await runCompiled(source, { threads: 1 });
        expect(model.info.name).toBe("tiny");
      }

      // As a bundle has them, whose page reads the same folder.
      const data = "onnx/model.onnx_data";
      const [partBytes, whole] = [1 << 20, files[data]];
      const parts = { format: 1, partBytes, files: { [data]: whole.length } };
      files[PARTS] = new TextEncoder().encode(JSON.stringify(parts));
      delete files[data];
      for (let at = 0, index = 0; at < whole.length; at += partBytes, index++) {
        files[partPath(data, index)] = whole.slice(at, at + partBytes);
      }
      expect(await withModel(url, sparse, (model) => textOf(model, "The population of")))
        .toBe(expected);
    } finally {
      server.close();
    }
  }, LONG);

  test("is the first choice, and says so", async () => {
    await withModel(await compiledTiny(), sparse, (model) => {
      expect(model.info).toMatchObject({ engine: "sparse", why: "it has every operator" });
      return Promise.resolve();
    });
  });

  test("gives the logits that ONNX Runtime gives for the same file", async () => {
    const f32: LoadOptions = { values: "f32", threads: 1 };
    const expected = await withModel(TINY, { ...ORT, ...f32 }, (model) => model.logits(TOKENS));
    const found = await withModel(TINY, { ...f32, engine: "sparse" }, (m) => m.logits(TOKENS));
    expect(distance(found, expected)).toBeLessThan(1e-4);
  }, LONG);
});
