/** `espalier/run`: what it says to who hands over something else than it takes. @module */
import { describe, expect, test } from "bun:test";
import { filesSource } from "../../src/engine/source.ts";
import type { TextForm } from "../../src/text/structured/mod.ts";
import { type ModelSource, runCompiled, type SparseOptions } from "../../src/generate/run.ts";
import { rejectionOf, thrownBy } from "../checkpoint/support.ts";
import { toyModel } from "../server/toy_server.ts";
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
  });
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
