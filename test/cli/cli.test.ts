/**
 * The command line as people meet it: each test starts the program in a process of its own, in the
 * runtime that runs the tests.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import process from "node:process";
import { compileSchema, expandSchema, verifySchema } from "../../compile/options.ts";
import { evaluateSchema, inspectSchema, pruneSchema } from "../../src/api/options.ts";
import { exportCommandSchema } from "../../src/cli/export.ts";
import {
  benchCommandSchema,
  chatCommandSchema,
  generateCommandSchema,
} from "../../src/generate/command_options.ts";
import { pullSchema } from "../../src/hub/pull.ts";
import { runtime } from "../../src/platform/runtime.ts";
import { VERSION } from "../../src/version.ts";
import { compareCommandSchema } from "../../src/workflow/compare/options.ts";
import { filesOf, Workshop } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";
import { fail, failAll, matches, report, start, succeed } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const ROOT = fromRoot("");
const TINY = fromRoot("examples/tiny");
const TEXT = join(TINY, "calibration.txt");
const HELD_OUT = join(TINY, "evaluation.txt");
/** Where the model runs, and on how little: enough to see that it does. */
const QUICK = ["--seqlen", "32", "--backend", "wasm", "--threads", "1"];
const CALIBRATED = ["--calibration", TEXT, "--samples", "4", ...QUICK];
/** No model needs to run for this. */
const PLAIN = ["--method", "magnitude", "--allocation", "uniform"];

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
    });
  }

  test("says how to start the program in this runtime", async () => {
    const { stdout } = await succeed("prune", "--help");
    const start = runtime().name === "deno" ? "deno run -A mod.ts" : "bun mod.ts";
    expect(stdout).toContain(`${start} prune`);
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
      [["expnd"], "did you mean expand?"],
      [[...prune, "--sparsty", "0.5"], "unknown option --sparsty", "did you mean --sparsity?"],
      [[...prune, "--sparsty=0.5"], "unknown option --sparsty:", "did you mean --sparsity?"],
      [[...prune, "--dryrun"], "did you mean --dry-run?"],
      [["eval", TINY, "--txt", TEXT], "did you mean --text?"],
      [["inspect", TINY, "--jsn"], "did you mean --json?"],
      [[...prune, "-x"], "unknown option -x"],
      [["inspect", TINY, "--sparsity", "0.5"], "unknown option --sparsity"],
    ]);
  });

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

  test("is refused where options contradict each other or the model", async () => {
    const densities = join(place, "..", "densities-for-nm.json");
    writeFileSync(densities, JSON.stringify(new Array(8).fill(0.5)));
    await failAll(2, "USAGE", [
      [[...prune, "--pattern", "2:4", "--sparsity", "0.6"], "2:4 has a sparsity of 0.5"],
      [[...prune, "--pattern", "4:4"], "4:4 prunes nothing"],
      [[...prune, "--pattern", "2:4", "--densities", densities], "--densities"],
      [[...prune, "--skip", "*.nothing_proj"], "--skip *.nothing_proj", "self_attn.q_proj"],
      [[...prune, "--skip", "*"], "leaves nothing to prune"],
    ]);
  });

  test("leaves nothing behind", () => {
    expect(readdirSync(place)).toEqual([]);
  });
});

describe("a command that fails on its model, its text or its output", () => {
  const place = workshop.folder();
  const prune = ["prune", TINY, "-o", join(place, "out"), ...CALIBRATED];
  const uncalibrated = ["prune", TINY, "-o", join(place, "out"), "--samples", "4", ...QUICK];
  const write = (name: string, content: unknown) => {
    const path = join(workshop.path, name);
    writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
    return path;
  };

  test("says that a model is not there", async () => {
    const nowhere = join(place, "nowhere");
    await failAll(1, "CHECKPOINT_NOT_FOUND", [
      [["inspect", nowhere], nowhere],
      [["eval", nowhere, "--text", TEXT], nowhere],
      [["prune", nowhere, "--calibration", TEXT], nowhere],
      [["inspect", "007"], "007 does not exist"],
      [["inspect", join(TINY, "config.json")], "is a file"],
      [["inspect", join(TINY, "config.json", "x")], "does not exist"],
    ]);
  });

  test("says that an M does not divide a linear's rows", async () => {
    for (const pattern of ["3:7", "mixed:7"]) {
      const words = [...prune, "--pattern", pattern];
      await fail(1, "PATTERN_IMPOSSIBLE", words, "M = 7", "q_proj", "192");
    }
  });

  test("says that an alpha would empty a block, and which", async () => {
    const words = [...prune, "--alpha", "0.5", "--sparsity", "0.8"];
    await fail(1, "ALLOCATION_IMPOSSIBLE", words, "alpha 0.5", "block", "smaller alpha");
    expect(readdirSync(place)).toEqual([]);
  });

  test("says the same of lambda and beta", async () => {
    const owl = [...prune, "--allocation", "owl", "--lambda", "0.5", "--sparsity", "0.8"];
    await fail(1, "ALLOCATION_IMPOSSIBLE", owl, "lambda 0.5");
    const atp = [...prune, "--allocation", "atp", "--beta", "-0.1"];
    await fail(1, "ALLOCATION_IMPOSSIBLE", atp, "beta -0.1");
    expect(readdirSync(place)).toEqual([]);
  });

  test("says that a text is shorter than a window", async () => {
    const short = write("short.txt", "Only a few words.");
    const empty = write("empty.txt", "");
    await failAll(1, "TEXT_UNUSABLE", [
      [[...uncalibrated, "--calibration", short], "32", "--seqlen"],
      [[...uncalibrated, "--calibration", empty], "0 tokens"],
      [["eval", TINY, "--text", short, ...QUICK], "32", "--seqlen"],
      [[...prune, "--text", short], "32", "--seqlen"],
    ]);
  });

  test("says what is wrong with a file of text", async () => {
    await failAll(1, "TEXT_UNUSABLE", [
      [[...uncalibrated, "--calibration", write("a.jsonl", "{}\n")], "a.jsonl, line 1"],
      [[...uncalibrated, "--calibration", write("b.jsonl", '{"text":""}\n{')], "line 2"],
      [[...uncalibrated, "--calibration", write("c.json", { text: "" })], "c.json", "windows"],
      [
        [...uncalibrated, "--calibration", write("d.json", { windows: [[1, 2], [1, 2, 3]] })],
        "window 1 has 3 tokens",
      ],
      [
        [...uncalibrated, "--calibration", write("e.json", { windows: [[1, 2, 3]] })],
        "3 tokens",
        "--seqlen 32 is too long",
      ],
    ]);
    const missing = [...uncalibrated, "--calibration", join(place, "missing.txt")];
    await fail(1, "FILE_UNREADABLE", missing, "missing.txt");
  });

  test("says that a token is outside of the vocabulary", async () => {
    const window = new Array(32).fill(5);
    const windows = write("windows.json", { windows: [window, window.with(7, 4096)] });
    await failAll(1, "TOKEN_OUT_OF_RANGE", [
      [[...uncalibrated, "--calibration", windows], "window 1, token 7", "4096"],
      [["eval", TINY, "--text", windows, ...QUICK], "window 1, token 7", "4096"],
    ]);
  });

  test("says that a config file is missing or wrong", async () => {
    await failAll(1, "FILE_UNREADABLE", [
      [["prune", "--config", join(place, "missing.json")], "missing.json"],
      [["prune", "--config", write("broken.json", "{")], "broken.json", "not valid JSON"],
    ]);
    await failAll(2, "USAGE", [
      [["prune", "--config", write("list.json", [])], "list.json", "not a JSON object"],
      [["prune", "--config", write("none.json", {})], "name the folder of a model"],
      [["prune", "--config", write("odd.json", { model: TINY, sparsty: 1 })], "sparsty"],
      [["prune", "--config", write("bad.json", { model: TINY, sparsity: "0.5" })], "--sparsity"],
      [["prune", "--config", write("type.json", { model: 7 })], "model"],
    ]);
  });

  test("says that given densities are not one for each block, before any work", async () => {
    const few = write("few.json", [0.5, 0.5]);
    const words = [...prune, "--densities", few];
    const stderr = await fail(1, "ALLOCATION_IMPOSSIBLE", words, "2 densities", "8 blocks");
    expect(stderr).not.toContain("copy");
    const none = write("none-of-them.json", { densities: "all" });
    await failAll(2, "USAGE", [
      [[...prune, "--densities", write("zero.json", new Array(8).fill(0))], "densities"],
      [[...prune, "--densities", write("more.json", new Array(8).fill(1.5))], "densities"],
      [[...prune, "--densities", none], "densities"],
    ]);
  });

  test("keeps an output folder that is not empty, unless it is to be replaced", async () => {
    const output = join(place, "kept");
    mkdirSync(output);
    writeFileSync(join(output, "notes.txt"), "mine");
    const words = ["prune", TINY, "-o", output, ...PLAIN];
    await fail(1, "OUTPUT_EXISTS", words, output, "not empty", "--force");
    await fail(1, "OUTPUT_EXISTS", [...words, "--force"], output, "holds no model");
    expect(readdirSync(output)).toEqual(["notes.txt"]);
    expect(readFileSync(join(output, "notes.txt"), "utf8")).toBe("mine");

    writeFileSync(join(output, "config.json"), "{}");
    await fail(1, "OUTPUT_EXISTS", words, output, "--force");
    expect(readdirSync(output).sort()).toEqual(["config.json", "notes.txt"]);
    await succeed(...words, "--force");
    expect(readdirSync(output)).toContain("espalier.json");
    expect(readdirSync(output)).not.toContain("notes.txt");
    expect(readdirSync(place)).toEqual(["kept"]);
  });

  test("never writes into the model's folder, whatever name it is given by", async () => {
    const model = join(workshop.folder(), "model");
    cpSync(TINY, model, { recursive: true });
    const link = workshop.fresh("link");
    symlinkSync(model, link);
    const before = filesOf(model);
    const cases = [
      [model, model],
      [model, join(model, "pruned")],
      [model, join(model, "..")],
      [model, link],
      [model, join(link, "a", "b")],
      [link, model],
    ];
    await failAll(
      1,
      "OUTPUT_EXISTS",
      cases.map(([from, to]) => [["prune", from, "-o", to, "--force", ...PLAIN], "in one another"]),
    );
    expect(filesOf(model)).toEqual(before);
  });

  test("says that an output cannot be made", async () => {
    const file = write("file", "");
    const below = ["prune", TINY, "-o", join(file, "below", "out"), ...PLAIN];
    await fail(1, "FILE_UNWRITABLE", below, file);
    await fail(1, "OUTPUT_EXISTS", ["prune", TINY, "-o", file, ...PLAIN], "is a file");
  });

  test("takes the folders away that it made on the way", async () => {
    const output = join(place, "new", "newer", "out");
    const words = [
      "prune",
      TINY,
      "-o",
      output,
      ...CALIBRATED,
      "--alpha",
      "0.5",
      "--sparsity",
      "0.8",
    ];
    await fail(1, "ALLOCATION_IMPOSSIBLE", words);
    expect(existsSync(join(place, "new"))).toBe(false);
  });

  test("leaves nothing behind", () => {
    expect(readdirSync(place).filter((name) => name !== "kept")).toEqual([]);
  });
});

describe("prune", () => {
  test("writes the same bytes again, and nothing else than the weights changes", async () => {
    const place = workshop.folder();
    const before = filesOf(TINY);
    const [first, second] = ["first", "second"].map((name) => join(place, name));
    const words = ["prune", TINY, ...CALIBRATED, "--text", HELD_OUT, "--windows", "2"];
    await Promise.all([first, second].map((output) => succeed(...words, "-o", output)));
    const files = filesOf(first);
    expect([...filesOf(second)]).toEqual([...files]);
    expect(filesOf(TINY)).toEqual(before);
    expect([...files.keys()].sort()).toEqual([...before.keys(), "espalier.json"].sort());
    for (const [name, bytes] of before) {
      expect(name === "model.safetensors" || files.get(name) === bytes).toBe(true);
    }
    expect(files.get("model.safetensors")).not.toBe(before.get("model.safetensors"));
    expect(readdirSync(place).sort()).toEqual(["first", "second"]);

    const other = join(place, "other");
    await succeed(...words, "-o", other, "--seed", "1");
    const otherFiles = filesOf(other);
    expect(otherFiles.get("model.safetensors")).not.toBe(files.get("model.safetensors"));
  });

  test("prints one JSON object with what it did", async () => {
    const output = join(workshop.folder(), "out");
    const words = ["-o", output, "--sparsity", "0.5", "--text", HELD_OUT, "--windows", "2"];
    const found = await report("prune", TINY, ...CALIBRATED, ...words);
    matches(found, {
      model: "tiny",
      architecture: "llama",
      output,
      method: "wanda",
      allocation: "dlp",
      reducer: "median",
      pattern: "unstructured",
      skip: [],
      sparsity: { asked: 0.5, reached: expect.closeTo(0.5, 2) },
      trials: [],
      calibration: {
        file: "calibration.txt",
        windows: 4,
        seqlen: 32,
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      },
      perplexity: {
        text: "evaluation.txt",
        windows: 2,
        seqlen: 32,
        dense: expect.any(Number),
        pruned: expect.any(Number),
      },
      backend: expect.stringContaining("onnxruntime-web"),
      notes: [],
      peakBytes: expect.any(Number),
    });
    expect(found.perplexity.pruned).toBeGreaterThan(found.perplexity.dense);
    expect(Object.keys(found.seconds)).toEqual([
      "copy and check weights",
      "measure dense model",
      "judge blocks",
      "prune blocks",
      "measure pruned model",
    ]);
    expect(found.blocks).toHaveLength(8);
    found.blocks.forEach((block: Record<string, unknown>, index: number) => {
      matches(block, {
        index,
        density: expect.any(Number),
        score: expect.any(Number),
        sparsity: expect.closeTo(1 - (block.density as number), 2),
      });
      expect(Object.keys(block.linears as object)).toHaveLength(7);
    });
    const record = JSON.parse(readFileSync(join(output, "espalier.json"), "utf8"));
    expect(record).toMatchObject({ espalier: VERSION, source: "tiny", sparsity: found.sparsity });
    expect(JSON.stringify(record)).not.toContain(workshop.path);
  });

  test("shows a table on standard output, and its progress on standard error", async () => {
    const output = join(workshop.folder(), "out");
    const { stdout, stderr } = await succeed("prune", TINY, ...CALIBRATED, "-o", output);
    for (const part of ["block", "70.0 %", "score S", "dlp (median)", "peak memory", output]) {
      expect(stdout).toContain(part);
    }
    expect(stdout + stderr).not.toContain("\u001b[");
    for (const phase of ["copy and check weights", "judge blocks", "prune blocks"]) {
      expect(stderr).toContain(`${phase}: `);
      expect(stdout).not.toContain(`${phase}: `);
    }
  });

  test("takes options from a file, with paths from where it lies, and flags over them", async () => {
    const place = workshop.folder();
    const config = join(place, "options.json");
    const text = join(place, "text.txt");
    writeFileSync(text, readFileSync(TEXT, "utf8").slice(0, 20_000));
    writeFileSync(
      config,
      JSON.stringify({
        $schema: "https://example.com/schema.json",
        model: relative(place, TINY),
        output: "out/here",
        calibration: "text.txt",
        sparsity: 0.6,
        samples: 3,
        seqlen: 16,
        backend: "wasm",
        threads: 1,
        skip: ["*.down_proj"],
        force: true,
      }),
    );
    const found = await report("prune", "--config", config, "--samples", "2");
    expect(found.output).toBe(join(place, "out", "here"));
    expect(found.sparsity.asked).toBe(0.6);
    expect(found.calibration).toMatchObject({ file: "text.txt", windows: 2, seqlen: 16 });
    expect(Object.keys(found.blocks[0].linears)).not.toContain("mlp.down_proj");
    expect(existsSync(join(place, "out", "here", "espalier.json"))).toBe(true);
    // force and skip of the file hold while no flag says otherwise.
    await report("prune", "--config", config);
    const words = ["prune", "--config", config, "--force=false"];
    await fail(1, "OUTPUT_EXISTS", words, "not empty");
  });

  test("writes nothing in a dry run", async () => {
    const place = workshop.folder();
    const words = ["prune", TINY, ...CALIBRATED, "-o", join(place, "out"), "--dry-run"];
    const found = await report(...words);
    expect(found.output).toBeUndefined();
    expect(found.sparsity).toEqual({ asked: 0.7 });
    expect(found.blocks).toHaveLength(8);
    const { stdout } = await succeed(...words);
    expect(stdout).toContain("score S");
    expect(stdout).not.toContain("written to");
    expect(readdirSync(place)).toEqual([]);
    expect(existsSync(join(ROOT, "tiny-pruned"))).toBe(false);
  });

  test("needs no calibration text for magnitudes in equal shares", async () => {
    const output = join(workshop.folder(), "out");
    const found = await report("prune", TINY, `-o${output}`, ...PLAIN, "--sparsity", "0.5");
    expect(found.output).toBe(output);
    expect(found.calibration).toBeUndefined();
    expect(found.backend).toBeUndefined();
    const inspected = await report("inspect", output);
    for (const block of inspected.blocks) {
      for (const { sparsity } of block.linears) expect(sparsity).toBeCloseTo(0.5, 2);
    }
  });

  test("leaves linears dense that are to be skipped", async () => {
    const output = join(workshop.folder(), "out");
    const words = ["--skip", "*.down_proj", "--skip", "model.layers.3.self_attn.q_proj"];
    await succeed("prune", TINY, "-o", output, ...PLAIN, ...words);
    const [dense, pruned] = await Promise.all([report("inspect", TINY), report("inspect", output)]);
    let skipped = 0;
    pruned.blocks.forEach(({ linears }: { linears: { name: string }[] }, index: number) => {
      linears.forEach((linear, i) => {
        const name = linear.name;
        if (name.endsWith("down_proj") || (index === 3 && name.endsWith("q_proj"))) {
          expect(linear).toEqual(dense.blocks[index].linears[i]);
          skipped++;
        } else {
          expect(linear).toMatchObject({ name, sparsity: expect.closeTo(0.7, 2) });
        }
      });
    });
    expect(skipped).toBe(9);
  });

  test("keeps N of every M", async () => {
    const output = join(workshop.folder(), "out");
    const found = await report("prune", TINY, "-o", output, ...PLAIN, "--pattern", "2:4");
    matches(found, {
      pattern: "2:4",
      sparsity: { asked: 0.5, reached: 0.5 },
    });
    const { linears } = await report("inspect", output);
    expect(linears.sparsity).toBe(0.5);
  });

  test("keeps what given densities say", async () => {
    const densities = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25];
    const lists = { "list.json": densities, "object.json": { densities } };
    for (const [name, content] of Object.entries(lists)) {
      const place = workshop.folder();
      const path = join(place, name);
      writeFileSync(path, JSON.stringify(content));
      const words = ["-o", join(place, "out"), "--method", "magnitude", "--densities", path];
      const found = await report("prune", TINY, ...words);
      expect(found.allocation).toBe("given");
      found.blocks.forEach((block: { density: number; sparsity: number }, index: number) => {
        expect(block.density).toBe(densities[index]);
        expect(block.sparsity).toBeCloseTo(1 - densities[index], 2);
      });
    }
  });

  test("tries all allocations where it may choose, and takes the best", async () => {
    const text = join(workshop.folder(), "text.txt");
    writeFileSync(text, readFileSync(TEXT, "utf8").slice(0, 6000));
    const few = ["--calibration", text, "--samples", "4", ...QUICK];
    const words = ["prune", TINY, ...few, "--allocation", "auto", "--dry-run"];
    const [found, shown] = await Promise.all([report(...words), succeed(...words)]);
    const trials = found.trials as { allocation: string; on: string; perplexity: number }[];
    expect(trials.map(({ allocation }) => allocation)).toEqual(["uniform", "dlp", "owl", "atp"]);
    const best = trials.toSorted((a, b) => a.perplexity - b.perplexity)[0];
    expect(found.allocation).toBe(best.allocation);
    expect(trials.every(({ on }) => on === "calibration")).toBe(true);
    expect(shown.stdout).toContain("best first");
    for (const { allocation, perplexity } of trials) {
      expect(shown.stdout).toContain(allocation);
      expect(shown.stdout).toContain(perplexity.toFixed(2));
    }
    expect(found.notes.join()).toContain("auto tries 4 allocations");
  });

  test("takes a negative number for a value", async () => {
    const words = ["--allocation", "atp", "--beta", "-0.01", "--dry-run"];
    const found = await report("prune", TINY, ...CALIBRATED, ...words);
    const densities = found.blocks.map(({ density }: { density: number }) => density);
    expect(densities[7] - densities[0]).toBeCloseTo(0.07, 6);
  });
});

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

  test("shows a person the same", async () => {
    const { stdout, stderr } = await succeed("inspect", TINY);
    for (const part of ["llama, 8 blocks", "mlp.down_proj", "192 × 512", "F16", "3.9 million"]) {
      expect(stdout).toContain(part);
    }
    expect(stderr).toBe("");
  });
});

describe("a run that is stopped", () => {
  const unix = process.platform !== "win32";
  const long = ["--samples", "256", "--seqlen", "256", "--backend", "wasm", "--threads", "1"];

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test.if(unix)(`by ${signal} ends soon, says so and leaves nothing behind`, async () => {
      const place = workshop.folder();
      const output = join(place, "out");
      const running = start(["prune", TINY, "-o", output, "--calibration", TEXT, ...long]);
      await running.says("copy and check weights");
      expect(readdirSync(place).join()).toMatch(/^\.out\.\d+\.tmp$/);
      await new Promise((resolve) => setTimeout(resolve, 500));
      const asked = performance.now();
      running.kill(signal);
      const { code, stdout, stderr } = await running.ended;
      expect(performance.now() - asked).toBeLessThan(10_000);
      expect(code).toBe(1);
      expect(stdout).toBe("");
      expect(stderr).toContain("error ABORTED: ");
      expect(readdirSync(place)).toEqual([]);
    });
  }

  test.if(unix)("in the middle of eval ends soon, too", async () => {
    const words = ["--seqlen", "1024", "--backend", "wasm", "--threads", "1"];
    const running = start(["eval", TINY, "--text", TEXT, ...words]);
    await running.says("the model's context ends there");
    await new Promise((resolve) => setTimeout(resolve, 500));
    running.kill("SIGINT");
    const { code, stderr } = await running.ended;
    expect(code).toBe(1);
    expect(stderr).toContain("error ABORTED: ");
  });
});

/** Whether this process may mount a file system of a size that it chooses. */
function canMount(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
  const folder = workshop.folder();
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]);
  if (mounted.status !== 0) return false;
  return spawnSync("umount", [folder]).status === 0;
}

describe("a disk that is full", () => {
  const mounts = canMount();
  for (const size of ["64k", "2m", "8m"]) {
    test.if(mounts)(`after ${size} is named, and nothing is left on it`, async () => {
      const disk = workshop.folder();
      const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", disk]);
      expect(mounted.status).toBe(0);
      try {
        const words = ["prune", TINY, "-o", join(disk, "sub", "out"), ...PLAIN];
        await fail(1, "DISK_FULL", words, "no room left", disk);
        expect(readdirSync(disk)).toEqual([]);
      } finally {
        spawnSync("umount", [disk]);
      }
    });
  }
});
