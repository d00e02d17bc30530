/**
 * Help, and commands that cannot be right.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compileSchema, expandSchema, verifySchema } from "../../compile/options.ts";
import { evaluateSchema, inspectSchema, pruneSchema } from "../../src/api/options.ts";
import { readCommandLine } from "../../src/cli/args.ts";
import { exportCommandSchema } from "../../src/cli/export.ts";
import {
  benchCommandSchema,
  chatCommandSchema,
  generateCommandSchema,
} from "../../src/generate/command_options.ts";
import { pullSchema } from "../../src/hub/pull.ts";
import { runtime } from "../../src/platform/runtime.ts";
import { INT4_GROUP } from "../../src/prune/int4_grid.ts";
import { VERSION } from "../../src/version.ts";
import { compareCommandSchema } from "../../src/workflow/compare/options.ts";
import { thrownBy, Workshop } from "../checkpoint/support.ts";
import { CALIBRATED, fail, failAll, succeed, TEXT, TINY } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

describe("help", () => {
  const commands = {
    pull: { schema: pullSchema, folder: "hf:OWNER/NAME" },
    prune: { schema: pruneSchema, folder: "MODEL_DIR" },
    compile: { schema: compileSchema, folder: "PRUNED_DIR" },
    eval: { schema: evaluateSchema, folder: "MODEL_DIR" },
    inspect: { schema: inspectSchema, folder: "MODEL_DIR" },
    export: { schema: exportCommandSchema, folder: "ALLOCATION" },
    verify: { schema: verifySchema, folder: "OUT" },
    expand: { schema: expandSchema, folder: "OUT" },
    generate: { schema: generateCommandSchema, folder: "MODEL" },
    chat: { schema: chatCommandSchema, folder: "MODEL" },
    bench: { schema: benchCommandSchema, folder: "MODEL" },
    compare: { schema: compareCommandSchema, folder: "MODEL_DIR" },
  };

  test("lists the commands, however it is asked for", async () => {
    for (const words of [[], ["--help"], ["-h"], ["help"]]) {
      const { stdout, stderr } = await succeed(...words);
      for (const name of [...Object.keys(commands), "--help", "Usage:"]) {
        expect(stdout).toContain(name);
      }
      expect(stderr).toBe("");
    }
  });

  for (const [command, { schema, folder }] of Object.entries(commands)) {
    test(`on ${command} names every option with its meaning and its default`, async () => {
      const { stdout, stderr } = await succeed(command, "--help");
      expect(stderr).toBe("");
      const options = stdout.slice(stdout.indexOf("Options:"), stdout.indexOf("Examples:"));
      for (const [field, type] of Object.entries(schema.shape)) {
        if (field === "model") continue;
        const flag = `--${field.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
        const line = options.split("\n").find((line) => line.includes(`${flag} `)) ?? "";
        const meaning = type.description;
        expect(line).toMatch(/\S {2,}\S/);
        if (meaning) expect(line).toContain(meaning);
        const { defaultValue } = type.def as { defaultValue?: unknown };
        const shown = typeof defaultValue === "string" || typeof defaultValue === "number";
        if (shown) expect(line).toContain(`(default: ${defaultValue})`);
      }
      for (const flag of ["--config", "--json", "-h, --help", "Examples:", folder]) {
        expect(stdout).toContain(flag);
      }
      expect((await succeed("help", command)).stdout).toBe(stdout);
      expect((await succeed(command, "nowhere", "-h")).stdout).toBe(stdout);
      expect((await succeed(command, "nowhere", "--help=true")).stdout).toBe(stdout);
    });
  }

  test("says how to start the program in this runtime", async () => {
    const { stdout } = await succeed("prune", "--help");
    const start = runtime().name === "deno" ? "deno run -A mod.ts" : "bun mod.ts";
    expect(stdout).toContain(`${start} prune`);
  });

  test("on compile says how many weights of int4 share a scale where nobody says", async () => {
    const { stdout } = await succeed("compile", "--help");
    expect(stdout).toContain(`int4: kept weights that do, 32 or 64 (default: ${INT4_GROUP})`);
  });

  test("goes with a version", async () => {
    expect((await succeed("--version")).stdout).toBe(`espalier ${VERSION}\n`);
  });
});

describe("a command that cannot be right", () => {
  const place = workshop.folder();
  const prune = ["prune", TINY, "-o", join(place, "out"), ...CALIBRATED];

  test("is refused with the nearest that is", async () => {
    await failAll(2, "USAGE", [
      [["prun"], "unknown command prun", "did you mean prune?"],
      [["evla"], "did you mean eval?"],
      [["inspekt", TINY], "did you mean inspect?"],
      [
        ["zzz"],
        "unknown command zzz",
        "pull, prune, compile, generate, chat, serve, key, ",
      ],
      [["compil"], "did you mean compile?"],
      [["help", "compil"], "unknown command compil", "did you mean compile?"],
      [["key", "till-3", "--name", "till-4"], 'unexpected argument "till-3"'],
      [["expnd"], "did you mean expand?"],
      [[...prune, "--sparsty", "0.5"], "unknown option --sparsty", "did you mean --sparsity?"],
      [[...prune, "--sparsty=0.5"], "unknown option --sparsty:", "did you mean --sparsity?"],
      [[...prune, "--dryrun"], "did you mean --dry-run?"],
      [["eval", TINY, "--txt", TEXT], "did you mean --text?"],
      [["inspect", TINY, "--jsn"], "did you mean --json?"],
      [[...prune, "-x"], "unknown option -x"],
      [["inspect", TINY, "--sparsity", "0.5"], "unknown option --sparsity"],
      [["chat", TINY, "--logprobs", "2"], "unknown option --logprobs"],
      [["inspect", TINY, "-o", join(place, "out")], "unknown option -o"],
      [["inspect", TINY, `--output=${join(place, "out")}`], "unknown option --output"],
    ]);
  });

  test("is refused where a config file has an option that there is not, which is told by the file", async () => {
    const config = join(place, "..", "unknown-option.json");
    const told = async (field: string, ...parts: string[]) => {
      writeFileSync(config, JSON.stringify({ [field]: 0.5 }));
      await failAll(2, "USAGE", [
        [["prune", TINY, "--config", config], `${config}: unknown option ${field}`, ...parts],
      ]);
    };
    await told("sparsty", "did you mean sparsity?");
    // Fields have their names in the library, not those of flags.
    await told("dry-run", "did you mean dryRun?");
    await told("toString");
  });

  test(
    "is refused where a config file has a wrong value, which is told by the file in every command",
    async () => {
      const config = join(place, "..", "wrong-value.json");
      const told = async (command: string, field: string, beside: object = {}) => {
        writeFileSync(config, JSON.stringify({ ...beside, [field]: [] }));
        const model = field === "model" || command === "key" ? [] : [TINY];
        await fail(2, "USAGE", [command, ...model, "--config", config], `${config}: ${field}: `);
      };
      await told("prune", "samples");
      await told("compare", "samples", { text: TEXT });
      await told("compile", "context");
      await told("eval", "seqlen", { text: TEXT });
      await told("inspect", "model");
      await told("verify", "seqlen", { against: TINY, text: TEXT });
      await told("expand", "dtype");
      await told("generate", "maxTokens");
      await told("chat", "maxTokens");
      await told("bench", "repeat");
      await told("bundle", "context", { target: "static" });
      await told("pull", "output");
      await told("export", "method");
      await told("key", "name");
    },
    60_000,
  );

  test("is refused where a value is out of its range", async () => {
    const bad = (flag: string, value: string, ...parts: string[]): [string[], ...string[]] => [
      [...prune, flag, value],
      flag,
      ...parts,
    ];
    await failAll(2, "USAGE", [
      bad("--sparsity", "0"),
      bad("--sparsity", "1"),
      bad("--sparsity", "-0.5"),
      bad("--sparsity", "1e999"),
      bad("--sparsity", "abc", '"abc" is not a number'),
      bad("--sparsity", "50%", '"50%" is not a number'),
      bad("--pattern", "5:4", "5:4", "1 to 4"),
      bad("--pattern", "0:4", "0:4"),
      bad("--pattern", "2:40", "2:40", "2 to 32"),
      bad("--pattern", "mixed:1", "mixed:1"),
      bad("--pattern", "foo", '"foo"', "2:4", "mixed:16"),
      bad("--method", "foo", '"wanda"', '"magnitude"'),
      bad("--allocation", "foo", '"dlp"', '"auto"'),
      bad("--reducer", "max", '"median"'),
      bad("--backend", "cuda", '"wasm"'),
      bad("--alpha", "0.6"),
      bad("--alpha", "-0.1"),
      bad("--beta", "2"),
      bad("--samples", "0"),
      bad("--samples", "2.5"),
      bad("--seqlen", "1"),
      bad("--seed", "-1"),
      bad("--seed", "4294967296"),
      bad("--threads", "0"),
      bad("--windows", "0"),
      bad("--memory", "lots", "800MB"),
      bad("--memory", "0GB", '"0GB"'),
    ]);
  });

  test("is refused where a value is missing", async () => {
    const bare = ["prune", TINY];
    await failAll(2, "USAGE", [
      [[...bare, "--sparsity"], "--sparsity needs a value"],
      [[...bare, "--sparsity", "--json"], "--sparsity needs a value"],
      [[...bare, "--sparsity="], "--sparsity needs a value"],
      [[...bare, "-o"], "--output needs a value"],
      [[...bare, "--calibration="], "--calibration needs a value"],
      [[...bare, "--config"], "--config needs a value"],
      [[...bare, "--skip"], "--skip"],
      [["eval", TINY], "--text is needed"],
      [["eval"], "name the folder of a model"],
      [["inspect"], "name the folder of a model"],
      [["inspect", TINY, "another"], "another"],
      [[...bare, "-o", join(place, "out")], "--calibration FILE is needed"],
    ]);
  });

  test("is read where a value begins with a dash, or is empty", () => {
    const read = (...words: string[]) =>
      readCommandLine(words, generateCommandSchema, { modelIsOptional: true }).options;
    for (const text of ["- a list", "---\ntitle: a", "-5 degrees", "-", "-f is a flag", "-x\n"]) {
      expect(read("M", "--prompt", text)).toEqual({ model: "M", prompt: text });
      expect(read("--stop", text, "--stop", "b", "M")).toEqual({ model: "M", stop: [text, "b"] });
    }
    expect(read("--top-p", "-.5", "M")).toEqual({ model: "M", topP: -0.5 });
    expect(read("M", "--stop", "")).toEqual({ model: "M", stop: [""] });
    const refused = (...words: string[]) => thrownBy(() => read("M", ...words)).message;
    expect(refused("--prompt", "")).toBe("--prompt needs a value");
    expect(refused("--prompt", "--stop", "a")).toBe("--prompt needs a value");
    expect(refused("--prompt", "--stp=a")).toContain("did you mean --stop?");
    expect(refused("--prompt", "--")).toBe("--prompt needs a value");
  });

  test("is refused where options contradict each other or the model", async () => {
    const densities = join(place, "..", "densities-for-nm.json");
    writeFileSync(densities, JSON.stringify(new Array(8).fill(0.5)));
    await failAll(2, "USAGE", [
      [[...prune, "--pattern", "2:4", "--sparsity", "0.6"], "2:4 has a sparsity of 0.5"],
      [[...prune, "--pattern", "4:4"], "4:4 prunes nothing"],
      [[...prune, "--pattern", "2:4", "--densities", densities], "--densities"],
      [[...prune, "--sparsity", "0.6", "--densities", densities], "leave --sparsity out"],
      [[...prune, "--skip", "*.nothing_proj"], "--skip *.nothing_proj", "self_attn.q_proj"],
      [[...prune, "--skip", "*"], "leaves nothing to prune"],
      [[...prune, "--compare"], "--compare", "--text"],
    ]);
  });

  test("leaves nothing behind", () => {
    expect(readdirSync(place)).toEqual([]);
  });
});

describe("a text that begins with a dash", () => {
  const read = (...words: string[]) => readCommandLine(words, generateCommandSchema).options;

  test("is the value of the option before it", () => {
    for (const prompt of ["- milk", "-1 is", "-", "---", "-5"]) {
      expect(read("M", "--prompt", prompt)).toEqual({ model: "M", prompt });
      expect(read("M", "--stop", prompt, "--seed", "1"))
        .toEqual({ model: "M", stop: [prompt], seed: 1 });
    }
  });

  test("is an option where it may be one, unless it is joined to the one before it", () => {
    expect(() => read("M", "--prompt", "--seed", "1")).toThrow(/--prompt needs a value/);
    expect(() => read("M", "--prompt", "-n")).toThrow(/unknown option -n/);
    expect(read("M", "--prompt=-n")).toEqual({ model: "M", prompt: "-n" });
  });
});

test("a value that is given several times is the last of them, and a list has all", () => {
  const words = ["--seed", "1", "--stop", "a", "--seed=2", "--stop", "b"];
  expect(readCommandLine(["M", ...words], generateCommandSchema).options)
    .toEqual({ model: "M", seed: 2, stop: ["a", "b"] });
});
