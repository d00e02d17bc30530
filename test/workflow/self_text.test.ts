/**
 * Calibration text that a model writes itself.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { ProgressEvent } from "../../src/api/options.ts";
import { prune as pruneAlone } from "../../src/api/prune.ts";
import { writeWindows, type WritingOrder } from "../../src/workflow/self_text.ts";
import { prune } from "../../src/workflow/prune.ts";
import { rejectionOf, Workshop } from "../checkpoint/support.ts";
import { run, start } from "../cli/support.ts";
import { certainly, ToyModel } from "../generate/toy_model.ts";
import { fromRoot } from "../support/paths.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const LONG = 120_000;
const TINY = fromRoot("examples/tiny");
const BEGIN = 1;
const END = 2;
const ORDER: WritingOrder = {
  windows: 3,
  length: 40,
  seed: 5,
  begin: BEGIN,
  ends: new Set([END]),
};

/** A model of eight tokens that gives each of 3, 4 and END a third, whatever came before. */
function thirds(): ToyModel {
  const logits = new Float32Array(8).fill(-1e9);
  for (const token of [3, 4, END]) logits[token] = 0;
  return new ToyModel({ vocabulary: 8, logits: () => logits });
}

const lists = (windows: readonly Int32Array[]) => windows.map((window) => [...window]);

describe("what a model writes", () => {
  test("is texts from their first token to their end, without memory of each other", async () => {
    const model = thirds();
    const [window] = await writeWindows(model, { ...ORDER, windows: 1, length: 200 });
    expect(window.length).toBe(200);
    expect(window[0]).toBe(BEGIN);
    for (let i = 1; i < window.length; i++) {
      expect(window[i] === BEGIN).toBe(window[i - 1] === END);
    }
    // Each text is a sequence of its own, and none is left open.
    expect(model.opened).toBe(window.filter((token) => token === BEGIN).length);
    expect(model.closed).toBe(model.opened);
  });

  test("has one token between two texts where the same one begins and ends them", async () => {
    const model = thirds();
    const [window] = await writeWindows(model, {
      ...ORDER,
      windows: 1,
      begin: END,
      length: 200,
    });
    expect(window[0]).toBe(END);
    expect(window.length).toBe(200);
    expect(model.opened).toBe(window.filter((token) => token === END).length);
  });

  test("follows the model's own distribution", async () => {
    const windows = await writeWindows(thirds(), { ...ORDER, windows: 30, length: 100 });
    const drawn = lists(windows).flat().filter((token) => token !== BEGIN);
    for (const token of [3, 4, END]) {
      // Five standard deviations of 2,000 draws are 0.053.
      const share = drawn.filter((other) => other === token).length / drawn.length;
      expect(Math.abs(share - 1 / 3)).toBeLessThan(0.053);
    }
  });

  test("is the same for the same seed, and begins alike when more is asked for", async () => {
    const three = lists(await writeWindows(thirds(), ORDER));
    expect(lists(await writeWindows(thirds(), ORDER))).toEqual(three);
    expect(lists(await writeWindows(thirds(), { ...ORDER, windows: 5 })).slice(0, 3)).toEqual(
      three,
    );
    const other = lists(await writeWindows(thirds(), { ...ORDER, seed: 6 }));
    // No window of one seed is one of the next.
    for (const window of other) expect(three).not.toContainEqual(window);
  });

  test("stops when it is told to, and tells how far it is", async () => {
    const stop = new AbortController();
    const steps: number[] = [];
    const model = new ToyModel({ vocabulary: 8, logits: () => certainly(3, 8) });
    const error = await rejectionOf(writeWindows(model, ORDER, (done) => {
      steps.push(done);
      if (done > 50) stop.abort();
    }, stop.signal));
    expect(error.code).toBe("ABORTED");
    expect(model.closed).toBe(model.opened);
    expect(steps.every((done, i) => i === 0 || done >= steps[i - 1])).toBe(true);
  });
});

describe("prune --calibration self", () => {
  const options = {
    model: TINY,
    calibration: "self",
    samples: 3,
    seqlen: 32,
    seed: 7,
    pattern: "8:16",
  } as const;

  test("gives the same bytes with any number of threads, and says how it was made", async () => {
    const [one, two] = [workshop.fresh("one"), workshop.fresh("two")];
    const report = await prune({ ...options, output: one, threads: 1 });
    await prune({ ...options, output: two, threads: 2 });
    for (const file of ["model.safetensors", "espalier.json"]) {
      expect(readFileSync(join(one, file)).equals(readFileSync(join(two, file)))).toBe(true);
    }
    const { calibration, modelCard } = JSON.parse(
      readFileSync(join(one, "espalier.json"), "utf8"),
    );
    expect(calibration).toEqual({
      kind: "self",
      sampling: { temperature: 1, begin: 0, seed: 7, values: "int8" },
      windows: 3,
      seqlen: 32,
      sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect(report.calibration).toEqual(calibration);
    expect(modelCard).toContain("3 windows of 32 tokens that the model wrote itself");
  }, LONG);

  test("keeps windows apart for auto, beside those that were asked for", async () => {
    const { trials, calibration } = await prune({
      ...options,
      pattern: "unstructured",
      allocation: "auto",
      sparsity: 0.5,
      dryRun: true,
    });
    expect(trials.length).toBe(4);
    expect(calibration?.windows).toBe(3);
  }, LONG);

  test("writes nothing for a pruning that needs no text", async () => {
    const { calibration, seconds } = await prune({
      ...options,
      method: "magnitude",
      output: workshop.fresh("magnitude"),
    });
    expect(calibration).toBeUndefined();
    expect(Object.keys(seconds)).not.toContain("write calibration text");
  }, LONG);

  test(
    "is refused before it begins where there is no room, or nothing comes down to a size",
    async () => {
      for (
        const [limits, code] of [
          [{ memory: "1MB" }, "MEMORY_BUDGET"],
          [{ fit: "100kB", pattern: undefined }, "SIZE_UNREACHABLE"],
        ] as const
      ) {
        const phases = new Set<string>();
        const output = workshop.fresh("none");
        const order = { ...options, ...limits, output };
        const hooks = {
          onProgress: (event: ProgressEvent) =>
            void (event.type === "progress" && phases.add(event.phase)),
        };
        const error = await rejectionOf(prune(order, hooks));
        expect(error.code).toBe(code);
        expect([...phases]).not.toContain("write calibration text");
      }
    },
    LONG,
  );

  test("needs an engine, which the pruning alone has not", async () => {
    const error = await rejectionOf(pruneAlone({ ...options, output: workshop.fresh("none") }));
    expect(error.code).toBe("USAGE");
    expect(error.message).toContain("engine");
  });

  test("is a word in a config file, not a file beside it", async () => {
    const { stdout, code } = await run(
      "prune",
      "--config",
      fromRoot("examples/tiny/prune.json"),
      "--calibration",
      "self",
      ...["--samples", "2", "--seqlen", "32", "--dry-run", "--json"],
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout).calibration.kind).toBe("self");
  }, LONG);

  test("has nobody told to prune first, as compiling a dense model has", async () => {
    const few = ["--samples", "2", "--seqlen", "32", "--dry-run"];
    const { code, stderr } = await run("prune", TINY, "--calibration", "self", ...few);
    expect(code).toBe(0);
    expect(stderr).toContain("write calibration text");
    expect(stderr).not.toContain("prune first");
  }, LONG);

  test("leaves nothing behind after Ctrl-C", async () => {
    const temporary = workshop.fresh("temporary");
    mkdirSync(temporary);
    const output = workshop.fresh("stopped");
    const words = ["prune", TINY, "-o", output, "--calibration", "self", "--samples", "4000"];
    const running = start(words, { env: { TMPDIR: temporary } });
    await running.says("write calibration text");
    running.kill("SIGINT");
    const { code, stderr } = await running.ended;
    expect(stderr).toContain("error ABORTED: ");
    expect(code).toBe(1);
    expect(readdirSync(temporary)).toEqual([]);
    expect(readdirSync(workshop.path).filter((name) => name.includes("stopped"))).toEqual([]);
  }, LONG);
});
