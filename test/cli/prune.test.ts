/**
 * `prune` as people meet it: each test starts the program in a process of its own, in the runtime that
 * runs the tests.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { readConfigFile } from "../../src/cli/args.ts";
import { VERSION } from "../../src/version.ts";
import { editSafetensors, filesOf, readJsonOf, Workshop } from "../checkpoint/support.ts";
import {
  CALIBRATED,
  fail,
  HELD_OUT,
  matches,
  PLAIN,
  QUICK,
  report,
  ROOT,
  succeed,
  TEXT,
  TINY,
} from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

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

  test("takes every path of such a file from where the file lies", () => {
    const place = workshop.folder();
    const config = join(place, "options.json");
    const paths = ["model", "output", "calibration", "text", "densities", "searchState"];
    writeFileSync(config, JSON.stringify(Object.fromEntries(paths.map((name) => [name, "a/b"]))));
    expect(readConfigFile(config)).toEqual(
      Object.fromEntries(paths.map((name) => [name, join(place, "a", "b")])),
    );
  });

  test("replaces the example's own output, and no folder that is named to it", async () => {
    const output = workshop.folder();
    writeFileSync(join(output, "config.json"), "{}");
    const words = ["prune", "-o", output, "--samples", "1", "--seqlen", "32", "--windows", "1"];
    await fail(1, "OUTPUT_EXISTS", words, output, "--force");
    expect(readdirSync(output)).toEqual(["config.json"]);
    await succeed(...words, "--force", "--compare=false");
    expect(readdirSync(output)).toContain("espalier.json");
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

  test("says that a dry run measures nothing, where it was asked to", async () => {
    const place = workshop.folder();
    const words = ["prune", TINY, ...CALIBRATED, "-o", join(place, "out"), "--dry-run"];
    expect((await succeed(...words)).stderr).not.toContain("measures no perplexity");
    const text = ["--text", join(ROOT, "examples/tiny/evaluation.txt"), "--windows", "1"];
    expect((await succeed(...words, ...text)).stderr).toContain("--text is passed over");
    const both = await succeed(...words, ...text, "--compare");
    expect(both.stderr).toContain("--text and --compare are passed over");
  });

  test("says which options do nothing beside the others", async () => {
    const words = ["prune", TINY, ...CALIBRATED, "--dry-run"];
    const idle = ["--search-budget", "3", "--windows", "1"];
    const { stderr } = await succeed(...words, ...idle);
    expect(stderr).toContain("--search-budget does nothing without --allocation search");
    expect(stderr).toContain("--windows does nothing without --text");
    const text = ["--text", join(ROOT, "examples/tiny/evaluation.txt"), "--windows", "1"];
    const output = ["-o", join(workshop.folder(), "out")];
    const compared = await succeed(
      ...["prune", TINY, ...CALIBRATED, ...output, ...text],
      ...["--pattern", "8:16", "--method", "magnitude", "--compare"],
    );
    expect(compared.stderr).toContain("--compare is passed over");
  });

  test("says which options of allocations and of calibration are passed over", async () => {
    const notesOf = async (...words: string[]) => {
      const output = ["-o", join(workshop.folder(), "out"), "--dry-run"];
      const { stderr } = await succeed("prune", TINY, ...output, ...words);
      return stderr.split("\n").filter((line) => /\bdo(es)? nothing\b/.test(line));
    };
    const settings = ["--alpha", "0.1", "--lambda", "0.1", "--beta", "0.1", "--group", "32"];
    const [owl, atp, int4, ...others] = await notesOf(...CALIBRATED, ...settings);
    expect(owl).toContain("--lambda does nothing where no OWL allocation is made");
    expect(atp).toContain("--beta does nothing where no ATP allocation is made");
    expect(int4).toContain("--group does nothing without --values int4");
    expect(others).toEqual([]);
    const [unread, ...more] = await notesOf(...CALIBRATED, ...PLAIN, "--seed", "3");
    expect(unread).toContain("--calibration, --samples, --seed and --seqlen do nothing where");
    expect(more).toEqual([]);
    const [settled] = await notesOf(...CALIBRATED, "--pattern", "8:16", "--alpha", "0.1");
    expect(settled).toContain("--alpha does nothing where no allocation is made");
    expect(await notesOf(...CALIBRATED, "--allocation", "auto", ...settings.slice(0, 6)))
      .toEqual([]);
    expect(await notesOf(...CALIBRATED, "--distill", "2", ...PLAIN)).toEqual([]);
  });

  test("says when bounds of an allocation move what was asked for", async () => {
    const words = ["prune", TINY, ...CALIBRATED, "--dry-run"];
    expect((await succeed(...words)).stderr).not.toContain("denser");
    for (const allocation of ["dlp", "owl", "atp"]) {
      const few = [...words, "--allocation", allocation, "--sparsity", "0.05"];
      const { blocks } = await report(...few);
      const densities: number[] = blocks.map(({ density }: { density: number }) => density);
      const reached = 100 - 100 * densities.reduce((a, b) => a + b) / 8;
      expect(reached).toBeGreaterThan(5.05);
      const { stderr } = await succeed(...few);
      expect(stderr).toContain(`lose ${reached.toFixed(1)} % of their weights, not 5.0 %`);
    }
  });

  test("says when whole numbers of M keep more than was asked for", async () => {
    const words = ["prune", TINY, ...PLAIN, "--dry-run", "--pattern"];
    expect((await succeed(...words, "mixed:4", "--sparsity", "0.7")).stderr).not.toContain("keeps");
    const { stderr } = await succeed(...words, "mixed:4", "--sparsity", "0.9");
    expect(stderr).toContain("mixed:4 keeps at least 1 of 4 weights");
    expect(stderr).toContain("lose 75.0 % of their weights, not 90.0 %");
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

  test("says which files it does not copy, since they hold the dense weights in another form", async () => {
    const place = workshop.folder();
    const model = join(place, "model");
    cpSync(TINY, model, { recursive: true });
    const others = ["model.onnx", "original/consolidated.00.pth"];
    mkdirSync(join(model, "original"));
    for (const name of others) writeFileSync(join(model, name), "dense");
    const output = join(place, "out");
    const { notes } = await report("prune", model, `-o${output}`, ...PLAIN, "--sparsity", "0.5");
    expect(notes).toEqual([
      `not copied, for they hold the dense model's weights in another form: ${others.join(", ")}`,
    ]);
    for (const name of others) expect(existsSync(join(output, name))).toBe(false);
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

  test("shares out between blocks of which something is pruned, and them alone", async () => {
    const skip = ["--skip", "model.layers.0.*", "--skip", "model.layers.5.*"];
    const words = ["prune", TINY, ...CALIBRATED, "--dry-run", "--sparsity", "0.5", ...skip];
    for (const allocation of ["uniform", "dlp", "owl", "atp"]) {
      const { blocks } = await report(...words, "--allocation", allocation);
      const densities: number[] = blocks.map(({ density }: { density: number }) => density);
      expect([densities[0], densities[5]]).toEqual([1, 1]);
      const others = densities.filter((_, index) => index !== 0 && index !== 5);
      expect(others.reduce((a, b) => a + b) / 6).toBeCloseTo(0.5, 9);
      // The distance that was asked for is between them.
      const distance = { uniform: 0, dlp: 0.3, owl: 0.16, atp: 0.3 }[allocation]!;
      expect(Math.max(...others) - Math.min(...others)).toBeCloseTo(distance, 9);
    }
    // What is not pruned is not judged.
    const { blocks: judged } = await report(...words, "--allocation", "dlp");
    expect(judged.map(({ score }: { score?: number }) => score !== undefined))
      .toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((index) => index !== 0 && index !== 5));
    const { blocks } = await report(...words, "--pattern", "mixed:16");
    const kept: number[] = blocks.map(({ kept }: { kept: number }) => kept);
    expect([kept[0], kept[5]]).toEqual([16, 16]);
    expect(kept.reduce((a, b) => a + b)).toBe(2 * 16 + 6 * 8);
    const fixed = await report(...words, "--pattern", "8:16");
    matches(fixed.blocks[0], { density: 1, kept: 16 });
    matches(fixed.blocks[1], { density: 0.5, kept: 8 });
    const few = [...words, "--allocation", "dlp", "--alpha", "0.5", "--sparsity", "0.9"];
    const stderr = await fail(1, "ALLOCATION_IMPOSSIBLE", few, "leaves nothing of it");
    expect(stderr).toMatch(/ give block [1-467] /);
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

  test("takes a pattern that says its own sparsity for the example, too", async () => {
    const few = ["--samples", "1", "--seqlen", "32", "--windows", "1"];
    const { sparsity } = await report("prune", "--pattern", "8:16", "--dry-run", ...few);
    expect(sparsity.asked).toBe(0.5);
    const usual = await report("prune", "--dry-run", ...few);
    expect(usual.sparsity.asked).toBe(0.7);
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
      // What they mean is what was asked for, in the record as well.
      expect(found.sparsity.asked).toBeCloseTo(1 - 4.45 / 8, 9);
      const record = readJsonOf(join(place, "out"), "espalier.json");
      matches(record, { options: { sparsity: found.sparsity.asked }, sparsity: found.sparsity });
      found.blocks.forEach((block: { density: number; sparsity: number }, index: number) => {
        expect(block.density).toBe(densities[index]);
        expect(block.sparsity).toBeCloseTo(1 - densities[index], 2);
      });
    }
  });

  test("says what a run left dense whose densities are given", async () => {
    const place = workshop.folder();
    const plain = ["--method", "magnitude", "--allocation", "uniform", "--sparsity", "0.5"];
    const skip = ["--skip", "*.down_proj"];
    await report("prune", TINY, "-o", join(place, "first"), ...plain, ...skip);
    const again = ["prune", TINY, "--method", "magnitude", "--densities", join(place, "first")];
    const without = await report(...again, "-o", join(place, "second"));
    expect(without.notes.join()).toContain("*.down_proj dense: without --skip it is pruned");
    const same = await report(...again, "-o", join(place, "third"), ...skip);
    expect(same.notes.join()).not.toContain("--skip");
  });

  test("keeps all of a block that is skipped as a whole, whatever given densities say of it", async () => {
    const path = join(workshop.folder(), "densities.json");
    writeFileSync(path, JSON.stringify(new Array(8).fill(0.5)));
    const words = ["prune", TINY, "--method", "magnitude", "--densities", path, "--dry-run"];
    for (const [pattern, kept] of [["unstructured", undefined], ["mixed:16", 16]] as const) {
      const found = await report(...words, "--pattern", pattern, "--skip", "model.layers.0.*");
      const [skipped, pruned] = found.blocks;
      expect([skipped.density, skipped.kept]).toEqual([1, kept]);
      expect([pruned.density, pruned.kept]).toEqual([0.5, kept && 8]);
      expect(found.sparsity.asked).toBeCloseTo(0.5, 9);
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

  test("takes windows that the text kept apart can fill, and says so", async () => {
    const text = join(workshop.folder(), "short.txt");
    writeFileSync(text, readFileSync(TEXT, "utf8").slice(0, 1500));
    const words = ["prune", TINY, "--calibration", text, "--samples", "2", "--allocation", "auto"];
    const found = await report(...words, "--dry-run");
    const { seqlen } = found.calibration;
    expect(found.notes)
      .toContain(
        `windows have ${seqlen} tokens: the fifth of the text that is kept apart has no more`,
      );
    expect(found.trials.length).toBe(4);
    const more = [...words, "--seqlen", String(seqlen + 1)];
    await fail(
      1,
      "TEXT_UNUSABLE",
      more,
      "the fifth of the text that is kept apart",
      `${seqlen} tokens`,
    );
  });

  test("takes one of them where every perplexity is infinite", async () => {
    const model = join(workshop.folder(), "loud");
    cpSync(TINY, model, { recursive: true });
    editSafetensors(model, "model.safetensors", (header, data) => {
      const [start, end] = header["model.norm.weight"].data_offsets as number[];
      for (let at = start; at < end; at += 2) data.set([0xff, 0x7b], at); // The greatest float16.
    });
    const text = join(workshop.folder(), "little.txt");
    writeFileSync(text, readFileSync(TEXT, "utf8").slice(0, 3000));
    const few = ["--calibration", text, "--samples", "2", ...QUICK];
    const found = await report("prune", model, ...few, "--allocation", "auto", "--dry-run");
    expect(found.allocation).toBe("uniform");
    expect(found.trials.map((trial: { perplexity: number | null }) => trial.perplexity))
      .toEqual([null, null, null, null]);
  });

  test("takes a negative number for a value", async () => {
    const words = ["--allocation", "atp", "--beta", "-0.01", "--dry-run"];
    const found = await report("prune", TINY, ...CALIBRATED, ...words);
    const densities = found.blocks.map(({ density }: { density: number }) => density);
    expect(densities[7] - densities[0]).toBeCloseTo(0.07, 6);
  });
});
