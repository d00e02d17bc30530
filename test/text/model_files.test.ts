/**
 * The files that a model's text is described by, and what reads them.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { TokenizerError } from "../../src/errors.ts";
import { openTokenizer } from "../../src/text/folder.ts";
import { modelTextFrom } from "../../src/text/model_text.ts";
import { tokenizerFrom } from "../../src/text/tokenizer.ts";
import { thrownBy, Workshop } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const TINY = fromRoot("examples/tiny");
const tinyJson = JSON.parse(readFileSync(join(TINY, "tokenizer.json"), "utf8"));

describe("files of a model", () => {
  test("that cannot be used are named", () => {
    const tokenizer = tinyJson;
    const cases: [object, string][] = [
      [{ tokenizer: null }, "tokenizer.json"],
      [{ tokenizer: { ...tinyJson, added_tokens: [{ id: "0", content: "a" }] } }, "tokenizer.json"],
      [{
        tokenizer: {
          ...tinyJson,
          post_processor: {
            type: "TemplateProcessing",
            single: "$A",
            pair: [],
            special_tokens: {},
          },
        },
      }, "tokenizer.json"],
      [{ tokenizer, tokenizerConfig: { eos_token: 5 } }, "tokenizer_config.json"],
      [{ tokenizer, tokenizerConfig: [] }, "tokenizer_config.json"],
      [{ tokenizer, config: { eos_token_id: "0" } }, "config.json"],
      [{ tokenizer, generationConfig: { eos_token_id: [0.5] } }, "generation_config.json"],
      [{ tokenizer, generationConfig: null }, "generation_config.json"],
    ];
    for (const [files, name] of cases) {
      const error = thrownBy(() => tokenizerFrom(files as Parameters<typeof tokenizerFrom>[0]));
      expect(error).toBeInstanceOf(TokenizerError);
      expect(error.message).toContain(name);
    }
  });

  test("are read from its folder", () => {
    const folder = workshop.folder();
    cpSync(join(TINY, "tokenizer.json"), join(folder, "tokenizer.json"));
    writeFileSync(join(folder, "generation_config.json"), '{"eos_token_id": [7, 8]}');
    expect([...openTokenizer(folder).endIds]).toEqual([7, 8]);

    writeFileSync(join(folder, "generation_config.json"), "{");
    const error = thrownBy(() => openTokenizer(folder));
    expect(error).toBeInstanceOf(TokenizerError);
    expect(error.message).toContain(join(folder, "generation_config.json"));
  });

  test("make a tokenizer and, where there is one, a chat template", () => {
    const files = { tokenizer: tinyJson };
    expect(modelTextFrom(files).template).toBeUndefined();
    const { tokenizer, template } = modelTextFrom({
      ...files,
      chatTemplate: "{{ messages[0].content }}!",
    });
    expect(template?.render([{ role: "user", content: "Hello" }])).toBe("Hello!");
    expect(tokenizer.decode(tokenizer.encode("Hello"))).toBe("Hello");
  });
});

describe("src/text", () => {
  /** Files that need a file system, and are meant to. */
  const OF_FILES = ["folder.ts", "corpus.ts"];

  test("runs where there is no file system, but for what opens files", () => {
    const root = fromRoot("src/text");
    const needs = (path: string, seen: Set<string>): string[] => {
      if (seen.has(path)) return [];
      seen.add(path);
      const imports = [
        ...readFileSync(path, "utf8").matchAll(/^(?:import|export)[^"]*? from "(.+?)"/gms),
      ];
      return imports.map(([, name]) => name).flatMap((name) =>
        name.startsWith(".")
          ? needs(resolve(dirname(path), name), seen)
          : name.startsWith("node:")
          ? [`${relative(root, path)} imports ${name}`]
          : []
      );
    };
    const files = readdirSync(root, { recursive: true }).map(String).filter((name) =>
      name.endsWith(".ts") && !OF_FILES.includes(name)
    );
    expect(files.length).toBeGreaterThan(10);
    for (const name of files) expect(needs(join(root, name), new Set())).toEqual([]);
    expect(needs(join(root, "folder.ts"), new Set()).length).toBeGreaterThan(0);
    for (const name of ["generate.ts", "options.ts", "prompt.ts", "run.ts"]) {
      expect(needs(fromRoot(`src/generate/${name}`), new Set())).toEqual([]);
    }
  });
});
