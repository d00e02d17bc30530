/**
 * `compare`: each test starts the program in a process of its own, on the example with little text.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { load } from "../../../src/generate/load.ts";
import { bytesIn } from "../../../src/platform/folders.ts";
import { compile } from "../../../compile/compile.ts";
import { VariantMaker } from "../../../src/workflow/compare/make.ts";
import { compareSchema } from "../../../src/workflow/compare/options.ts";
import { defaultVariants } from "../../../src/workflow/compare/variants.ts";
import { prune } from "../../../src/workflow/prune.ts";
import { editJson, Workshop } from "../../checkpoint/support.ts";
import { fail, report, run, start, succeed } from "../../cli/support.ts";
import { readOnlyFolder } from "../../support/disks.ts";
import { fromRoot } from "../../support/paths.ts";
import { XMLValidator } from "./xml.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const LONG = 240_000;
const TINY = fromRoot("examples/tiny");
const TEXT = join(TINY, "evaluation.txt");
const CALIBRATION = join(TINY, "calibration.txt");
const LITTLE = [
  "--method",
  "wanda",
  "--samples",
  "2",
  "--seqlen",
  "48",
  "--windows",
  "2",
  "--repeat",
  "1",
];
const words = (state: string, ...more: string[]) => [
  ...["compare", TINY, "--text", TEXT, "--calibration", CALIBRATION, "--state", state],
  ...LITTLE,
  ...more,
];

describe("compare", () => {
  const folder = workshop.fresh("state");
  mkdirSync(folder);
  const state = join(folder, "state.json");
  const variants = ["--variants", "dense:int8,8:16:int8:uniform"];

  test("measures what prune, compile and perplexity give", async () => {
    const found = await report(...words(state, ...variants));
    expect(found.variants.map(({ name }: { name: string }) => name))
      .toEqual(["8:16:int8:uniform", "dense:int8"]);
    const [sparse, dense] = found.variants;

    const pruned = workshop.fresh("pruned");
    const how = { pattern: "8:16", allocation: "uniform", samples: 2, seqlen: 48 } as const;
    await prune({ model: TINY, output: pruned, calibration: CALIBRATION, ...how });
    for (const [variant, checkpoint] of [[sparse, pruned], [dense, TINY]] as const) {
      const { output } = await compile({ model: checkpoint, output: workshop.fresh("compiled") });
      expect(variant.bytes).toBe(bytesIn(join(output, "onnx")));
      await using model = await load(output, { context: 64 });
      const text = readFileSync(TEXT, "utf8");
      const perplexity = await model.perplexity(text, { seqlen: 48, windows: 2 });
      expect(Math.abs(variant.perplexity / perplexity - 1)).toBeLessThan(1e-9);
      expect(variant.tokensPerSecond).toBeGreaterThan(1);
      expect(variant.engine).toBe("sparse");
    }
    expect(sparse.sparsity).toBeGreaterThan(0.49);
    expect(dense.sparsity).toBe(0);
    expect(dense.speedup).toBe(1);
    expect(found.frontier.size).toContain("dense:int8");
    expect(found.measured).toBe(2);
    expect(readdirSync(folder)).toEqual(["state.json"]);
  }, LONG);

  test(
    "does not measure again what it has, unless it is told to or something is different",
    async () => {
      const again = await report(...words(state, ...variants));
      expect(again.measured).toBe(0);
      expect(again.variants.length).toBe(2);
      const other = await report(...words(state, "--variants", "dense:int8", "--windows", "1"));
      expect(other.measured).toBe(1);
      const fresh = await report(...words(state, "--variants", "dense:int8", "--fresh"));
      expect(fresh.measured).toBe(1);
      // The same tokens in windows of another length.
      const halves = ["--windows", "4", "--seqlen", "24"];
      const short = await report(...words(state, "--variants", "dense:int8", ...halves));
      expect(short.measured).toBe(1);
    },
    LONG,
  );

  test("notes a variant that cannot be, and measures the others", async () => {
    const own = join(workshop.folder(), "impossible.json");
    const found = await report(...words(own, "--variants", "3:7:int8:uniform,dense:int8"));
    expect(found.variants.map(({ name }: { name: string }) => name)).toEqual(["dense:int8"]);
    expect(found.notes.join()).toContain("3:7:int8:uniform: ");
    await fail(1, "PATTERN_IMPOSSIBLE", words(own, "--variants", "3:7:int8:uniform"), "M = 7");
  }, LONG);

  test("measures a model whose context is too short for its speed", async () => {
    const short = workshop.fresh("short");
    cpSync(TINY, short, { recursive: true });
    editJson(short, "config.json", (config) => ({ ...config, max_position_embeddings: 48 }));
    const own = ["--state", join(workshop.folder(), "short.json"), "--variants", "dense:int8"];
    const { variants } = await report("compare", short, "--text", TEXT, ...own, ...LITTLE);
    expect(variants[0].perplexity).toBeGreaterThan(1);
    expect(variants[0]).not.toHaveProperty("tokensPerSecond");
  }, LONG);

  test("does not say of the dense variants that they are to be pruned first", async () => {
    const own = join(workshop.folder(), "dense.json");
    const { stderr } = await succeed(...words(own, "--variants", "dense:int8,dense:f16"));
    expect(stderr).toContain("dense:f16: pack linears");
    expect(stderr).not.toContain("prune first");
  }, LONG);

  test("measures a dense model whose head is int4 as one of its own", async () => {
    const file = join(workshop.folder(), "state.json");
    const found = await report(...words(file, "--variants", "dense:int8,dense:int8:int4-head"));
    const bytes = Object.fromEntries(
      found.variants.map((
        variant: { name: string; bytes: number },
      ) => [variant.name, variant.bytes]),
    );
    expect(bytes["dense:int8:int4-head"]).toBeLessThan(0.95 * bytes["dense:int8"]);
  }, LONG);

  test("takes weights that are rounded to 0 for no pruning", async () => {
    const { variants } = await report(...words(state, "--variants", "dense:int4:sparsegpt"));
    expect(variants[0]).toMatchObject({ kind: "dense", values: "int4", sparsity: 0 });
  }, LONG);

  test("finds the best for a size, draws it, and prints it for a README", async () => {
    const svg = workshop.fresh("plot");
    const at = ["--at", "500kB,2.6MB,5MB", ...variants, "--svg", svg];
    const { stdout } = await succeed(...words(state, ...at));
    expect(stdout).toContain("at 0.5 MB nothing fits: nothing fits into 500000 bytes");
    expect(stdout).toMatch(
      /at 2.6 MB: fit@2.6MB \(perplexity [\d.]+, 2.6 MB\); of the dense ones none/,
    );
    expect(stdout).toMatch(/at 5 MB (dense|pruned) is better: /);
    expect(stdout).toContain("Perplexity by size");
    expect(XMLValidator(readFileSync(svg, "utf8"))).toEqual({ root: "svg", problem: undefined });
    await fail(1, "OUTPUT_EXISTS", words(state, ...variants, "--svg", svg), svg);
    // Not even where files may be replaced.
    for (const needed of [state, workshop.fresh("new.json")]) {
      await fail(2, "USAGE", words(needed, ...variants, "--svg", needed, "--force"), needed);
    }
    const usual = "tiny-compare.json";
    const unnamed = words(state, ...variants, "--svg", usual).filter((word, i, all) =>
      word !== "--state" && all[i - 1] !== "--state"
    );
    expect(await fail(2, "USAGE", unnamed, usual)).not.toContain("measure");
    expect(existsSync(usual)).toBe(false);

    const markdown = (await succeed(...words(state, ...variants, "--markdown"))).stdout.split("\n");
    const rows = markdown.filter((line) => line.startsWith("|"));
    expect(rows.length).toBe(4);
    for (const row of rows) expect(row.split(/(?<!\\)\|/).length).toBe(11);
    expect(markdown[0]).toContain("2 windows of 48 tokens of evaluation.txt");
  }, LONG);

  test("goes on after Ctrl-C, which leaves the state file and nothing else", async () => {
    const temporary = workshop.fresh("temporary");
    mkdirSync(temporary);
    const own = join(workshop.folder(), "stopped.json");
    const all = words(own, ...variants);
    const running = start(all, { env: { TMPDIR: temporary } });
    await running.says("8:16:int8:uniform: prune blocks");
    running.kill("SIGINT");
    const { code, stderr } = await running.ended;
    expect(stderr).toContain("error ABORTED: ");
    expect(code).toBe(1);
    expect(readdirSync(temporary)).toEqual([]);
    expect(Object.keys(JSON.parse(readFileSync(own, "utf8")).variants).length).toBe(1);
    const { measured } = await report(...all);
    expect(measured).toBe(1);
  }, LONG);

  test("refuses what could never work before it begins", async () => {
    const own = join(workshop.folder(), "none.json");
    await fail(2, "USAGE", words(own, "--variants", "9:8"), "--variants", "PATTERN[@SPARSITY]");
    await fail(2, "USAGE", words(own, "--at", "much"), "--at");
    await fail(2, "USAGE", ["compare", TINY, "--text", TEXT, "--state", own], "--calibration");
    await fail(2, "USAGE", words(own, "--at", "2MB", "--allocation", "auto"), "allocation");
    const search = words(own, "--allocation", "search");
    await fail(2, "USAGE", search, "8:16:int8: ", "8:16:int8:uniform");
    await fail(2, "USAGE", [...search, "--variants", "fit@2MB"], "not search");
    await fail(2, "USAGE", ["compare", TINY, "--calibration", CALIBRATION], "--text is needed");
    const both = [
      "compare",
      TINY,
      "--text",
      TEXT,
      "--calibration",
      CALIBRATION,
      "--markdown",
      "--json",
    ];
    await fail(2, "USAGE", both, "--markdown and --json");
    writeFileSync(own, "{}");
    await fail(1, "COMPARE_STATE_INVALID", words(own), own);
    expect(existsSync(own)).toBe(true);
  }, LONG);

  test("refuses a place where nothing can be written before it measures anything", async () => {
    const nowhere = join(workshop.folder(), "nowhere");
    const advice = `there is no folder ${nowhere}: make it, or name another place`;
    const own = join(workshop.folder(), "state.json");
    const plot = words(own, ...variants, "--svg", join(nowhere, "plot.svg"));
    await fail(1, "FILE_UNWRITABLE", plot, advice);
    expect(existsSync(own)).toBe(false);
    const unkept = words(join(nowhere, "state.json"), ...variants);
    await fail(1, "FILE_UNWRITABLE", unkept, advice);
    expect((await run(...unkept)).stderr).not.toContain("rounds");
    const disk = workshop.folder();
    const limited = readOnlyFolder(disk);
    if (!limited) return;
    try {
      await fail(1, "FILE_UNWRITABLE", words(join(disk, "state.json"), ...variants), disk);
    } finally {
      limited.release();
    }
  }, LONG);
});

test("windows that a file fixes are as long as they are, however its name is written", () => {
  const defaults = { method: "wanda", allocation: "uniform" } as const;
  const sparse = defaultVariants(defaults).find(({ pruning }) => pruning !== undefined)!;
  const seqlenOf = (calibration: string) =>
    new VariantMaker(compareSchema.parse({ model: TINY, text: TEXT, calibration }), "")
      .pruningOf(sparse)!.seqlen;
  expect(["a.txt", "a.json", "A.JSON"].map(seqlenOf)).toEqual([512, undefined, undefined]);
});
