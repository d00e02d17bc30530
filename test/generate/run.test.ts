/** `espalier/run`: what it says to who hands over something else than it takes. @module */
import { describe, expect, test } from "bun:test";
import { bench } from "../../src/generate/bench.ts";
import { createApp } from "../../src/server/app.ts";
import { comparisonSvg } from "../../src/workflow/compare/svg.ts";
import { filesSource, modelName } from "../../src/engine/source.ts";
import type { RunOptions } from "../../src/engine/model.ts";
import type { TextForm } from "../../src/text/structured/mod.ts";
import { load } from "../../src/generate/load.ts";
import {
  type ModelSource,
  runCompiled,
  type SparseOptions,
  urlSource,
} from "../../src/generate/run.ts";
import { rejectionOf, thrownBy } from "../checkpoint/support.ts";
import { toyModel } from "../server/toy_server.ts";
import { fromRoot } from "../support/paths.ts";
import { babbler } from "./support.ts";

describe("runCompiled", () => {
  test("takes a source: a URL alone, as load takes one, or nothing is told what makes one", async () => {
    for (
      const given of [
        "https://models.example/llama/",
        new URL("https://x.example"),
        undefined,
        null,
        {},
      ]
    ) {
      const { code, message } = await rejectionOf(runCompiled(given as unknown as ModelSource));
      expect([given, code]).toEqual([given, "USAGE"]);
      expect(message).toContain("urlSource");
    }
  });

  test("refuses options that it has not, as load does", async () => {
    const { code, message } = await rejectionOf(
      runCompiled(filesSource({}), { contex: 64 } as SparseOptions),
    );
    expect([code, message]).toEqual(["USAGE", "unknown option contex"]);
    const none = await rejectionOf(runCompiled(filesSource({}), null as unknown as SparseOptions));
    expect(none.code).toBe("USAGE");
  });
});

test("a page that is not isolated, whose threads cannot share memory, has one", async () => {
  const isolated = (value: boolean | undefined) =>
    Object.defineProperty(globalThis, "crossOriginIsolated", { value, configurable: true });
  const before = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated;
  const llama = fromRoot("test/fixtures/architectures/llama");
  try {
    isolated(false);
    await using model = await load(llama, { engine: "sparse" });
    expect(model.info.threads).toBe(1);
  } finally {
    isolated(before);
  }
});

test("what is no list of tokens, no options, and no location of a model is told so", async () => {
  const model = toyModel(babbler());
  const nothing = null as unknown as number[];
  expect(thrownBy(() => model.generate("x", nothing as object)).code).toBe("USAGE");
  expect(thrownBy(() => model.text(nothing)).code).toBe("USAGE");
  expect(thrownBy(() => model.tokens(undefined as unknown as string)).code).toBe("USAGE");
  expect((await rejectionOf(model.perplexity(undefined as unknown as string))).code).toBe("USAGE");
  expect((await rejectionOf(model.logits(nothing))).code).toBe("USAGE");
  for (const location of ["http://", "file://host/x", "file:///tmp%2Fx"]) {
    const { code, message } = await rejectionOf(load(location));
    expect([location, code]).toEqual([location, "USAGE"]);
    expect(message).toMatch(/is no (URL|path)/);
  }
});

test("what is no options, or no list where one is wanted, is told so in words", async () => {
  const model = toyModel(babbler());
  const nothing = null as unknown as object, list = null as unknown as number[];
  const failures = [
    thrownBy(() => model.prepare("x", nothing)),
    thrownBy(() => model.tokens("x", nothing)),
    thrownBy(() => model.open(list)),
    thrownBy(() => createApp(model, nothing)),
    thrownBy(() => comparisonSvg("a", "b", list as unknown as [])),
    await rejectionOf(model.logits([1], nothing)),
    await rejectionOf(model.perplexity("x", nothing)),
    await rejectionOf(bench("x", nothing)),
  ];
  for (const { code, message } of failures) {
    expect([code, message]).toEqual(["USAGE", expect.stringMatching(/ must be an? (object|list)/)]);
  }
});

for (const engine of ["sparse", "ort"] as const) {
  test(`a run of no list, or with no options, is rejected, and changes nothing: ${engine}`, async () => {
    const llama = fromRoot("test/fixtures/architectures/llama");
    await using model = await load(llama, { engine, threads: 1 });
    const sequence = model.open();
    const nothing = null as unknown as number[];
    expect((await rejectionOf(sequence.run(nothing))).code).toBe("USAGE");
    expect((await rejectionOf(sequence.run([5], nothing as object))).code).toBe("USAGE");
    for (
      const wrong of [{ signal: {} }, { signal: null }, { logits: "some" }, { within: 3n }, {
        within: NaN,
      }]
    ) {
      const { code } = await rejectionOf(sequence.run([5], wrong as unknown as RunOptions));
      expect([wrong, code]).toEqual([wrong, "USAGE"]);
    }
    expect(sequence.length).toBe(0);
    const logits = await sequence.run([5, 6]);
    const all = await model.logits([5, 6]);
    expect(
      Buffer.from(logits.buffer, logits.byteOffset, logits.byteLength).equals(
        Buffer.from(all.slice(-logits.length).buffer),
      ),
    ).toBe(true);
    sequence.close();
  });
}

test("a model from the web is called as its folder is, which addresses write in their own letters", () => {
  const named = (name: string, isFar = true) =>
    modelName({ ...filesSource({ a: new Uint8Array() }), name, isFar });
  expect(named("https://x.example/b/tiny%208%3A16%20%C3%BC")).toBe("tiny 8:16 ü");
  for (const kept of ["50%", "a%2Fb", "a%0Ab", "%E0%A4"]) {
    expect(named(`https://x.example/${kept}`)).toBe(kept);
  }
  expect(named("tiny%20", false)).toBe("tiny%20");
});

/** What loading from a server that has these files alone fails with. */
function failureOf(...paths: string[]) {
  const fetch = (url: string) => {
    const isThere = paths.includes(new URL(url).pathname.slice("/llama/".length));
    return Promise.resolve(new Response(isThere ? "{}" : "no", { status: isThere ? 200 : 404 }));
  };
  return rejectionOf(runCompiled(urlSource("http://models.example/llama/", { fetch })));
}

test("a URL that no compiled model lies under is told what does, and what to name", async () => {
  for (const weights of ["model.safetensors", "model.safetensors.index.json"]) {
    const checkpoint = await failureOf("config.json", weights);
    expect(checkpoint.code).toBe("FILE_UNREADABLE");
    expect(checkpoint.message).toContain("llama/onnx/model.onnx: the server answered 404");
    expect(checkpoint.message).toContain("a checkpoint lies there, not what compile makes of one");
  }
  const nothing = await failureOf("config.json");
  expect(nothing.message).toContain("404: name the URL of a folder that compile wrote");
});

test("the page of a model at the Hub is no folder of files: load says how the model is named", async () => {
  for (
    const [page, name] of [
      ["https://huggingface.co/HuggingFaceTB/SmolLM2-135M", "hf:HuggingFaceTB/SmolLM2-135M"],
      ["https://hf.co/a/b.c/", "hf:a/b.c"],
      [new URL("https://huggingface.co/a/b/tree/main"), "hf:a/b"],
      ["https://huggingface.co/a/b/tree/v1.0", "hf:a/b@v1.0"],
    ] as const
  ) {
    const { code, message } = await rejectionOf(load(page));
    expect([page, code]).toEqual([page, "USAGE"]);
    expect(message.split(": ").at(-1)).toBe(`write ${name}`);
  }
});

test("filesSource refuses what is no bytes, and names the file", () => {
  for (const content of [new ArrayBuffer(4), "{}", undefined, 7]) {
    const files = { "config.json": new Uint8Array(1), "onnx/model.onnx": content } as object;
    for (const given of [files, new Map(Object.entries(files))]) {
      const { code, message } = thrownBy(() => filesSource(given as Record<string, Uint8Array>));
      expect([content, code]).toEqual([content, "USAGE"]);
      expect(message).toContain('"onnx/model.onnx"');
    }
  }
});

test("files that are named with their folder, as a browser names those of a chosen one, are told apart", async () => {
  const path = "my model/onnx/model.onnx";
  for (const given of [{ [path]: new Uint8Array(9) }, new Map([[path, new Blob(["x"])]])]) {
    const { code, message } = await rejectionOf(runCompiled(filesSource(given)));
    expect(code).toBe("FILE_UNREADABLE");
    expect(message).toContain(`there is no file "onnx/model.onnx", but "${path}"`);
    expect(message).toContain("as they are inside the model's folder");
  }
});

test("constrain takes json or a schema, and says so", async () => {
  const model = toyModel(babbler());
  for (const form of ["jso", undefined, null, { type: "object" }]) {
    const error = await rejectionOf(model.constrain(form as unknown as TextForm));
    expect([form, error.code]).toEqual([form, "USAGE"]);
    expect(error.message).toContain("{ schema }");
  }
});
