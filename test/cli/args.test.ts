import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { checkOptions, readCommandLine } from "../../src/cli/args.ts";
import { UsageError } from "../../src/errors.ts";
import { thrownBy } from "../checkpoint/support.ts";

const schema = z.object({ model: z.string(), port: z.int().default(1) });

test("whether JSON is printed can be said by a variable, which --json goes over", () => {
  const jsonOf = (words: string[], value: string | undefined) =>
    readCommandLine(["MODEL", ...words], schema, { environment: { ESPALIER_JSON: value } }).json;
  expect(jsonOf([], "1")).toBe(true);
  expect(jsonOf([], "false")).toBe(false);
  expect(jsonOf([], "")).toBe(false);
  expect(jsonOf([], undefined)).toBe(false);
  expect(jsonOf(["--json"], "0")).toBe(true);
  expect(() => jsonOf([], "perhaps")).toThrow(UsageError);
});

test("a flag that is on or off takes the words that a variable takes, and no others", () => {
  const switched = z.object({ model: z.string(), force: z.boolean().default(false) });
  const forceOf = (...words: string[]) =>
    readCommandLine(["MODEL", ...words], switched).options.force;
  expect([forceOf("--force"), forceOf("--force=1"), forceOf("--force=true")])
    .toEqual([true, true, true]);
  expect([forceOf("--force=0"), forceOf("--force=false"), forceOf("--force", "--force=0")])
    .toEqual([false, false, false]);
  for (const word of ["--force=no", "--force=False", "--force=", "--json=maybe"]) {
    const error = thrownBy(() => forceOf(word));
    expect([error.name, error.message]).toEqual([
      "UsageError",
      expect.stringContaining(word.split("=")[0]),
    ]);
  }
  expect(readCommandLine(["--", "--force=no"], switched).options.model).toBe("--force=no");
});

/** What a command line gives with a config file. */
function withConfig<T>(config: object, use: (path: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), "espalier-args-"));
  const path = join(folder, "config.json");
  try {
    writeFileSync(path, JSON.stringify(config));
    return use(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("a config file says of JSON, too, whether it is printed", () => {
  const jsonOf = (json: unknown, words: string[] = [], environment = {}) =>
    withConfig(
      { json },
      (path) =>
        readCommandLine(["MODEL", "--config", path, ...words], schema, { environment }).json,
    );
  expect([jsonOf(true), jsonOf(false), jsonOf(false, ["--json"])]).toEqual([true, false, true]);
  expect(jsonOf(true, [], { ESPALIER_JSON: "0" })).toBe(false);
  const error = thrownBy(() => jsonOf("yes"));
  expect([error.name, error.message]).toEqual(["UsageError", expect.stringContaining("json")]);
});

const server = z.strictObject({
  model: z.array(z.string()).optional(),
  cors: z.array(z.string()).default([]),
  port: z.int().default(1),
});

test("what is no path on the command line is none in a config file", () => {
  const words = z.strictObject({
    model: z.string(),
    promptFile: z.string(),
    calibration: z.string(),
    text: z.string(),
  });
  const config = {
    model: "https://models.example/a",
    promptFile: "-",
    calibration: "self",
    text: "texts/a.txt",
  };
  withConfig(config, (path) => {
    const { options } = readCommandLine(["--config", path], words, { modelIsOptional: true });
    expect(options).toEqual({ ...config, text: join(path, "..", "texts/a.txt") });
  });
  withConfig({ ...config, model: "file:///models/a" }, (path) => {
    const { options } = readCommandLine(["--config", path], words, { modelIsOptional: true });
    expect(options.model).toBe("file:///models/a");
  });
});

test("one of what may be several needs no list in a config file, as in a variable", () => {
  withConfig({ model: "../small", cors: "https://a.example" }, (path) => {
    const { options } = readCommandLine(["--config", path], server, {
      severalModels: true,
      modelIsOptional: true,
    });
    expect(checkOptions(server, options)).toEqual({
      model: [join(path, "../../small")],
      cors: ["https://a.example"],
      port: 1,
    });
  });
});

test("what is wrong in a config file is named by it, and not as a flag that nobody has typed", () => {
  withConfig({ port: "80", cors: [5] }, (path) => {
    const messageOf = (words: string[], environment = {}) => {
      const line = readCommandLine(["--config", path, ...words], server, {
        severalModels: true,
        modelIsOptional: true,
        environment,
      });
      return thrownBy(() => checkOptions(server, line.options, line.sources)).message;
    };
    expect(messageOf(["--cors", "x"])).toContain(`${path}: port: `);
    expect(messageOf(["--port", "8"])).toContain(`${path}: cors`);
    expect(messageOf(["--port", "8.5", "--cors", "x"])).toMatch(/^--port: /);
    expect(messageOf(["--cors", "x"], { ESPALIER_PORT: "8.5" })).toMatch(/^ESPALIER_PORT: /);
  });
});

test("the name that the parser keeps other words under is no flag", () => {
  for (const words of [["--_", "x"], ["--_=x"], ["-_"]]) {
    const { code, message } = thrownBy(() => readCommandLine(["MODEL", ...words], schema));
    expect(code).toBe("USAGE");
    expect(message).toContain("--_");
  }
  const behind = readCommandLine(["--", "--_"], schema);
  expect(behind.options.model).toBe("--_");
});

test("the output behind -o is all that follows, whatever it has in it", () => {
  const written = z.object({
    model: z.string(),
    output: z.string().optional(),
    prompt: z.string().optional(),
  });
  const optionsOf = (...words: string[]) => readCommandLine(["MODEL", ...words], written).options;
  for (const path of ["run=5.yaml", "/tmp/run=5.yaml", "recipe.yaml", "a=b=c"]) {
    expect(optionsOf(`-o${path}`)).toMatchObject({ model: "MODEL", output: path });
    expect(optionsOf(`-o=${path}`).output).toBe(path);
    expect(optionsOf("-o", path).output).toBe(path);
  }
  expect(optionsOf("-o", "-5").output).toBe("-5");
  for (const words of [["-o"], ["-o="], ["-o", "--prompt", "text"], ["-o", "--", "x"]]) {
    expect(() => optionsOf(...words)).toThrow(UsageError);
  }
  expect(() => readCommandLine(["-oplace"], schema)).toThrow("-o");
  expect(readCommandLine(["--", "-oplace"], written).options.model).toBe("-oplace");
  expect(optionsOf("--prompt", "-o is a flag")).toMatchObject({ prompt: "-o is a flag" });
});
