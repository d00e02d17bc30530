/**
 * Commands that fail on what they are given, that are stopped, or that find no room on the disk.
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
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { z } from "zod";
import { type CommandEntry, runWords } from "../../src/cli/program.ts";
import { runtime } from "../../src/platform/runtime.ts";
import { filesOf, Workshop } from "../checkpoint/support.ts";
import {
  CALIBRATED,
  COMMAND,
  fail,
  failAll,
  PLAIN,
  QUICK,
  ROOT,
  runInShell,
  start,
  succeed,
  TEXT,
  TINY,
} from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

function write(name: string, content: unknown): string {
  const path = join(workshop.path, name);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

describe("a command that fails on its model, its text or its output", () => {
  const place = workshop.folder();
  const prune = ["prune", TINY, "-o", join(place, "out"), ...CALIBRATED];
  const uncalibrated = ["prune", TINY, "-o", join(place, "out"), "--samples", "4", ...QUICK];
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

  test.if(process.platform !== "win32")("takes no pipe for a file of the model", () => {
    for (const name of ["config.json", "model.safetensors"]) {
      const model = workshop.folder();
      cpSync(TINY, model, { recursive: true });
      rmSync(join(model, name), { force: true });
      expect(spawnSync("mkfifo", [join(model, name)]).status).toBe(0);
      // Waiting for a writer would end by no other signal.
      const { status, stderr } = spawnSync(process.execPath, [...COMMAND, "inspect", model], {
        cwd: ROOT,
        encoding: "utf8",
        timeout: 60_000,
        killSignal: "SIGKILL",
      });
      expect(status, name).toBe(1);
      expect(stderr).toMatch(/^error [A-Z_]+: /);
    }
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

  test("says that DLP cannot judge a model of which most is 0 already, and auto leaves it out", async () => {
    const sparse = join(workshop.folder(), "sparse");
    await succeed("prune", TINY, "-o", sparse, ...PLAIN, "--sparsity", "0.6");
    const again = ["prune", sparse, "-o", join(place, "out"), ...CALIBRATED, "--sparsity", "0.8"];
    for (const words of [again, [...again, "--pattern", "mixed:16"]]) {
      await fail(1, "ALLOCATION_IMPOSSIBLE", words, "score of 0", "--reducer mean");
    }
    const text = join(workshop.folder(), "text.txt");
    writeFileSync(text, readFileSync(TEXT, "utf8").slice(0, 6000));
    const auto = ["--calibration", text, "--allocation", "auto", "--dry-run"];
    const { stdout, stderr } = await succeed(...again, ...auto);
    expect(stderr).toContain("dlp is left out: ");
    expect(stdout).not.toContain("NaN");
    expect(readdirSync(place)).toEqual([]);
  });

  test("says that a text is shorter than a window", async () => {
    const short = write("short.txt", "Only a few words.");
    const empty = write("empty.txt", "");
    await failAll(1, "TEXT_UNUSABLE", [
      [[...uncalibrated, "--calibration", short], "32", "--seqlen"],
      [[...uncalibrated, "--calibration", empty], "0 tokens"],
      [["eval", TINY, "--text", short, ...QUICK], "32", "--seqlen"],
      // Of which no smaller --seqlen makes a window.
      [["eval", TINY, "--text", empty], "0 tokens, a window needs 2 at least: give more text"],
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

  test("says that windows are too long for the model, and cuts them where it is told to", async () => {
    const text = write("long.json", { windows: [new Array(600).fill(5)] });
    const few = write("few-windows.json", { windows: [new Array(40).fill(5)] });
    const output = join(workshop.folder(), "cut");
    const words = ["prune", TINY, "-o", output, "--calibration", few, "--text", text];
    await fail(1, "TEXT_UNUSABLE", words, "windows of 600 tokens", "context of 512", "--seqlen");
    const more = ["--samples", "3", "--json", ...QUICK];
    const { stdout } = await succeed(...words, ...more);
    const { perplexity, notes } = JSON.parse(stdout);
    expect(perplexity).toMatchObject({ windows: 1, seqlen: 32 });
    expect(notes).toContain("calibration windows: 1, the file has no more");
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
      [
        ["prune", "--config", write("bad.json", { model: TINY, sparsity: "0.5" })],
        "bad.json: sparsity: ",
      ],
      [["prune", "--config", write("type.json", { model: 7 })], "model"],
    ]);
  });

  test("says that given densities are not one for each block, before any work", async () => {
    const few = write("few.json", [0.5, 0.5]);
    const words = [...prune, "--densities", few];
    const stderr = await fail(1, "ALLOCATION_IMPOSSIBLE", words, "2 densities", "8 blocks");
    expect(stderr).not.toContain("copy");
    const none = write("none-of-them.json", { densities: "all" });
    await failAll(1, "ALLOCATION_INVALID", [
      [[...prune, "--densities", write("zero.json", new Array(8).fill(0))], "zero.json"],
      [[...prune, "--densities", write("more.json", new Array(8).fill(1.5))], "more.json"],
      [[...prune, "--densities", none], "none-of-them.json"],
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

describe("a run that is stopped", () => {
  const unix = process.platform !== "win32";
  /** Elsewhere it is not known whether a process without a terminal is to outlive one. */
  const linux = process.platform === "linux";
  const long = ["--samples", "256", "--seqlen", "256", "--backend", "wasm", "--threads", "1"];

  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    test.if(signal === "SIGHUP" ? linux : unix)(
      `by ${signal} ends soon, says so and leaves nothing behind`,
      async () => {
        const place = workshop.folder();
        const output = join(place, "out");
        const running = start(["prune", TINY, "-o", output, "--calibration", TEXT, ...long]);
        await running.says("copy and check weights");
        expect(readdirSync(place).join()).toMatch(/^\.out\.[0-9a-f]{8}\.\d+\.tmp$/);
        await new Promise((resolve) => setTimeout(resolve, 500));
        const asked = performance.now();
        running.kill(signal);
        const { code, stdout, stderr } = await running.ended;
        expect(performance.now() - asked).toBeLessThan(10_000);
        expect(code).toBe(1);
        expect(stdout).toBe("");
        expect(stderr).toContain("error ABORTED: ");
        expect(readdirSync(place)).toEqual([]);
      },
    );
  }

  test.if(linux)("by SIGHUP goes on where it was started with nohup", async () => {
    const densities = write("densities.json", new Array(8).fill(0.5));
    const { code, stdout } = await runInShell(
      `trap '' HUP; (sleep 3; cat '${densities}') | "$@" export - & sleep 1.5
      kill -HUP $!; wait $!`,
    );
    expect(code).toBe(0);
    expect(stdout).toContain("WandaPruningModifier");
  });

  test.if(unix)("while it waits for its standard input ends soon", async () => {
    for (const words of [["generate", TINY], ["export", "-"]]) {
      for (const signal of ["SIGINT", "SIGTERM"] as const) {
        const running = start(words, { staysOpen: true });
        await running.feed("The population of ".repeat(40_000));
        running.kill(signal);
        const { code, stdout, stderr } = await running.ended;
        expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
        expect(stderr).toContain("error ABORTED: ");
      }
    }
  });

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

  const windows = ["--samples", "32", "--seqlen", "256", "--memory", "310MB"];
  for (
    const [what, ...words] of [
      ["hidden states", "prune", TINY, "--dry-run", "--calibration", TEXT, ...windows],
      ["a model that is compiled first", "generate", TINY, "--prompt", "The"],
    ]
  ) {
    test.if(mounts)(`is that for temporary files, where there is no room for ${what}`, async () => {
      const disk = workshop.folder();
      const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]);
      expect(mounted.status).toBe(0);
      const before = process.env.TMPDIR;
      process.env.TMPDIR = disk;
      try {
        const advice = "free some space or set TMPDIR to a place with room";
        await fail(1, "DISK_FULL", words, disk, advice);
        expect(readdirSync(disk)).toEqual([]);
      } finally {
        if (before === undefined) delete process.env.TMPDIR;
        else process.env.TMPDIR = before;
        spawnSync("umount", [disk]);
      }
    });
  }
});

/** What a program says that has one command, which is loaded like this. */
async function told(load: CommandEntry["load"], words = ["serve"]): Promise<string> {
  let text = "";
  const { write } = process.stderr;
  process.stderr.write = (piece: string | Uint8Array) => {
    text += String(piece);
    return true;
  };
  try {
    const commands = [{ name: "serve", load }];
    const { signal } = new AbortController();
    expect(await runWords({ about: "", commands }, words, signal)).toBe(1);
  } finally {
    process.stderr.write = write;
  }
  return text;
}

describe("a command whose packages are not there", () => {
  test("says so, and how to get them", async () => {
    const missing = new URL("./none_of_ours.ts", import.meta.url).href;
    const command = {
      name: "serve",
      summary: "",
      usage: "",
      schema: z.strictObject({}),
      examples: [],
      run: () => import(missing),
    };
    const texts = [
      await told(() => import(missing)),
      await told(() => Promise.resolve(command)),
      // Deno without a network.
      await told(() => Promise.reject(new TypeError("Failed loading https://npm.example/hono"))),
    ];
    for (const text of texts) {
      expect(text).toMatch(
        /^error PACKAGE_MISSING: serve needs a package that could not be loaded: /,
      );
      expect(text).toContain("deno cache mod.ts");
    }
    // It looks at all commands.
    expect(await told(() => import(missing), ["--help"])).toMatch(/^error PACKAGE_MISSING: --help/);
  });

  test("is no other fault of the program", async () => {
    const text = await told(() => Promise.reject(new TypeError("x is not a function")));
    expect(text).toMatch(/^internal error, please report it: TypeError: x is not a function/);
  });
});

describe("a command that lacks a permission of Deno", () => {
  test("says which, and the flag that gives it", async () => {
    // As Deno throws it where environment, network or processes are asked for.
    const denial = Object.assign(new Error('Requires env access to "A", run with --allow-env'), {
      name: "NotCapable",
    });
    expect(await told(() => Promise.reject(denial))).toBe(
      'error PERMISSION_MISSING: serve lacks a permission: Requires env access to "A", run with --allow-env\n',
    );
  });

  if (runtime().name === "deno") {
    test("to read a model or a text says where, not that nothing is there", () => {
      const elsewhere = join(workshop.folder(), "model");
      cpSync(TINY, elsewhere, { recursive: true });
      const text = join(elsewhere, "calibration.txt");
      for (
        const [words, path] of [
          [["inspect", elsewhere], elsewhere],
          [["generate", elsewhere, "--prompt", "hi"], elsewhere],
          [["eval", TINY, "--text", text], text],
        ] as const
      ) {
        const { status, stderr } = spawnSync(
          process.execPath,
          ["run", "--no-check", "--no-prompt", "--allow-read=.", "mod.ts", ...words],
          { cwd: ROOT, encoding: "utf8", env: { ...process.env, NO_COLOR: "1" } },
        );
        expect(status).toBe(1);
        expect(stderr).toContain(`error FILE_UNREADABLE: cannot read ${path}`);
        expect(stderr).toContain("--allow-read");
      }
    });
  }
});

test("what a file says does not command the terminal", async () => {
  const model = join(workshop.folder(), "model");
  cpSync(TINY, model, { recursive: true });
  const path = join(model, "tokenizer.json");
  const tokenizer = JSON.parse(readFileSync(path, "utf8"));
  const normalizer = { type: "\x1b]0;owned\x07\x9b2J" };
  writeFileSync(path, JSON.stringify({ ...tokenizer, normalizer }));
  const stderr = await fail(1, "TOKENIZER_INVALID", ["eval", model, "--text", TEXT], "owned");
  expect(stderr.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
});
