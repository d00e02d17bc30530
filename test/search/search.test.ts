/** `prune --allocation search`, as a function: what it finds, stops, goes on from and refuses. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { ProgressEvent, PruneOptions, RunHooks } from "../../src/api/options.ts";
import { prune } from "../../src/api/prune.ts";
import {
  AbortError,
  FileWriteError,
  MemoryBudgetError,
  SearchStateError,
  UsageError,
} from "../../src/errors.ts";
import { filesOf, Workshop } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";

const LONG = 600_000;
const BUDGET = 14;

const workshop = new Workshop();
afterAll(() => workshop.remove());

const text = join(workshop.folder(), "text.txt");
writeFileSync(
  text,
  readFileSync(fromRoot("examples/tiny/calibration.txt"), "utf8").slice(0, 6000),
);

/** A search on very little, in a folder of its own. */
function searched(more: Partial<PruneOptions> = {}, hooks?: RunHooks) {
  return prune({
    model: fromRoot("examples/tiny"),
    output: join(workshop.folder(), "out"),
    sparsity: 0.6,
    allocation: "search",
    searchBudget: BUDGET,
    calibration: text,
    samples: 4,
    seqlen: 32,
    seed: 3,
    backend: "wasm",
    threads: 1,
    ...more,
  }, hooks);
}

/** Stops at a number of allocations measured. */
function stopAt(evaluations: number): RunHooks {
  const stop = new AbortController();
  return {
    signal: stop.signal,
    onProgress: (event) => {
      const searching = event.type === "progress" && event.phase === "search";
      if (searching && event.done >= evaluations) stop.abort();
    },
  };
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;

describe("a search", () => {
  test("that is stopped goes on to the same bytes as one that was not", async () => {
    const whole = await searched();
    const output = join(workshop.folder(), "out");
    const place = dirname(output);
    for (const evaluations of [0, 10]) {
      await expect(searched({ output }, stopAt(evaluations))).rejects.toThrow(AbortError);
      expect(readdirSync(place)).toEqual(["out.search.json"]);
    }
    const again = await searched({ output });
    expect(again.notes.join()).toContain("goes on from");
    expect(filesOf(output)).toEqual(filesOf(whole.output!));
    // The result is there: what was measured on the way is not needed any more.
    expect(readdirSync(place)).toEqual(["out"]);

    const { search, trials, blocks, sparsity } = whole;
    expect(search!.evaluations).toBe(BUDGET);
    expect(search!.loss.end).toBeLessThanOrEqual(search!.loss.start);
    const fixed = trials.filter(({ allocation }) => allocation !== "search");
    const best = fixed.reduce((a, b) => a.perplexity <= b.perplexity ? a : b);
    expect(best.allocation).toBe(search!.from);
    expect(search!.perplexity).toEqual({
      start: best.perplexity,
      end: trials.find(({ allocation }) => allocation === "search")!.perplexity,
    });
    const won = search!.perplexity.end < search!.perplexity.start;
    expect(search!.taken).toBe(won ? "search" : best.allocation);
    // Rows round up to whole weights, so a little less may be asked of the blocks than of the whole.
    expect(Math.abs(mean(blocks.map(({ density }) => density)) - 0.4)).toBeLessThan(0.005);
    expect(sparsity.reached).toBeGreaterThan(0.595);
    const record = JSON.parse(readFileSync(join(whole.output!, "espalier.json"), "utf8"));
    expect(record.search).toEqual(search);
    expect(record.options.allocation).toBe("search");
  }, LONG);

  test("ends early with the best so far, and writes it", async () => {
    let end = () => {};
    let over = 0;
    const found = await searched({}, {
      onSearch: (ends) => {
        end = ends;
        return () => over++;
      },
      onProgress: (event) => {
        if (event.type === "progress" && event.phase === "search" && event.done === 5) end();
      },
    });
    expect(over).toBe(1);
    expect(found.search!.evaluations).toBe(5);
    expect(found.search!.budget).toBe(BUDGET);
    expect(existsSync(join(found.output!, "model.safetensors"))).toBe(true);
  }, LONG);

  test("goes on with a larger budget from a state that was named, which stays", async () => {
    const searchState = join(workshop.folder(), "state.json");
    await searched({ searchState, searchBudget: 4, dryRun: true });
    const measured: number[] = [];
    const found = await searched({ searchState, searchBudget: 8, dryRun: true }, {
      onProgress: (event) => {
        if (event.type === "progress" && event.phase === "search") measured.push(event.done);
      },
    });
    expect(measured.filter((done) => done > 0)).toEqual([4, 5, 6, 7, 8]);
    expect(found.search!.evaluations).toBe(8);
    expect(readdirSync(dirname(searchState))).toEqual([basename(searchState)]);
  }, LONG);

  test("keeps no state where its output is to be, and says so before it measures", async () => {
    const output = workshop.fresh("out");
    for (const searchState of [output, `${output}/`, join(output, "state.json")]) {
      const phases = new Set<string>();
      const onProgress = (event: ProgressEvent) => {
        if (event.type === "progress") phases.add(event.phase);
      };
      const refused = searched({ output, searchState }, { onProgress });
      await expect(refused).rejects.toThrow(UsageError);
      expect([...phases]).not.toContain("search");
    }
  }, LONG);

  test("does not go on from what was measured with other options, and says which", async () => {
    const searchState = join(workshop.folder(), "state.json");
    await searched({ searchState, searchBudget: 1, dryRun: true });
    const other = searched({ searchState, sparsity: 0.5, seed: 4, dryRun: true });
    await expect(other).rejects.toThrow(SearchStateError);
    await expect(other).rejects.toThrow(/another sparsity, seed, calibration windows/);
  }, LONG);

  test("does not go on from losses that this model does not have", async () => {
    const searchState = join(workshop.folder(), "state.json");
    await searched({ searchState, searchBudget: 2, dryRun: true });
    const state = JSON.parse(readFileSync(searchState, "utf8"));
    writeFileSync(searchState, JSON.stringify({ ...state, answers: [0.5] }));
    await expect(searched({ searchState, dryRun: true })).rejects.toThrow(SearchStateError);
  }, LONG);

  test("counts whole weights of every M, and takes magnitudes", async () => {
    const found = await searched({
      pattern: "mixed:16",
      method: "magnitude",
      sparsity: 0.5,
      dryRun: true,
    });
    const kept = found.blocks.map(({ kept }) => kept!);
    expect(kept.every(Number.isInteger)).toBe(true);
    expect(mean(kept)).toBe(8);
  }, LONG);

  test("gives linears densities of their own, which prune again the same way", async () => {
    // Magnitudes do not hang on the windows, of which a search keeps some apart.
    const same: Partial<PruneOptions> = {
      method: "magnitude",
      sparsity: 0.7,
      skip: ["*.layers.3.*"],
    };
    const found = await searched({ ...same, searchBudget: 5 });
    expect(found.search!.taken).toBe("search");
    const [{ densities, density, linears }] = found.blocks;
    expect(new Set(Object.values(densities!)).size).toBeGreaterThan(1);
    // As many weights as the densities say, rows rounded up to whole weights.
    for (const [name, own] of Object.entries(densities!)) {
      const columns = name === "mlp.down_proj" ? 512 : 192;
      const kept = 1 - linears![name];
      expect(kept).toBeGreaterThan(own - 1e-3);
      expect(kept).toBeLessThan(own + 1 / columns + 1e-3);
    }
    expect(density).toBeGreaterThan(Math.min(...Object.values(densities!)));
    expect(found.blocks[3].linears).toEqual({});
    // The block that is left dense has no part in it.
    expect(found.sparsity.reached).toBeGreaterThan(0.69);

    const record = join(found.output!, "espalier.json");
    const output = join(workshop.folder(), "again");
    const given = { sparsity: undefined, densities: record, allocation: "dlp" } as const;
    const again = await searched({ ...same, ...given, output });
    expect(again.allocation).toBe("given");
    expect(Math.abs(again.sparsity.asked - again.sparsity.reached!)).toBeLessThan(0.01);
    const weights = (folder: string) => readFileSync(join(folder, "model.safetensors"));
    expect(weights(output).equals(weights(found.output!))).toBe(true);
    // What was left dense there has no density to be pruned by.
    await expect(searched({ ...given, dryRun: true })).rejects.toThrow(
      "block 3 has no density for self_attn.q_proj",
    );
  }, LONG);

  test("moves the slots of the blocks that have any, and leaves a dense block alone", async () => {
    const found = await searched({ pattern: "slots", skip: ["*.layers.3.*"], dryRun: true });
    expect(found.search!.evaluations).toBe(BUDGET);
    expect(found.search!.loss.end).toBeLessThan(found.search!.loss.start);
    expect(found.blocks.every(({ densities }) => densities === undefined)).toBe(true);
  }, LONG);

  test("that does not fit into --memory is refused before allocations are tried", async () => {
    const begun: string[] = [];
    const refused = searched({ memory: "400MB" }, {
      onProgress: (event) => void (event.type === "progress" && begun.push(event.phase)),
    });
    await expect(refused).rejects.toThrow(MemoryBudgetError);
    await expect(refused).rejects.toThrow("gradients");
    expect(begun.some((phase) => phase.startsWith("try"))).toBe(false);
  });

  test("does not keep its state in the folder that its result will be", async () => {
    const output = join(workshop.folder(), "out");
    const refused = searched({ output, searchState: join(output, "state.json") });
    await expect(refused).rejects.toThrow(UsageError);
    await expect(refused).rejects.toThrow("name another place");
  });

  test("is refused where its state cannot be kept, before anything is measured", async () => {
    const nowhere = join(workshop.folder(), "nowhere");
    const begun: string[] = [];
    const refused = searched({ searchState: join(nowhere, "state.json"), dryRun: true }, {
      onProgress: (event) => void (event.type === "progress" && begun.push(event.phase)),
    });
    await expect(refused).rejects.toThrow(FileWriteError);
    await expect(refused).rejects.toThrow(`there is no folder ${nowhere}`);
    expect(begun).toEqual([]);
  });

  test("may keep its state in a folder that is made for its output", async () => {
    const place = join(workshop.folder(), "new");
    const searchState = join(place, "state.json");
    await searched({ output: join(place, "out"), searchState, searchBudget: 1 });
    expect(readdirSync(place).sort()).toEqual(["out", "state.json"]);
  }, LONG);

  test("is refused where every block keeps the same", async () => {
    const refused = searched({ pattern: "2:4", sparsity: undefined });
    await expect(refused).rejects.toThrow(UsageError);
    await expect(refused).rejects.toThrow("mixed:4 lets it choose");
    const rounded = searched({ sparsity: 0, method: "espalier", values: "int4" });
    await expect(rounded).rejects.toThrow("nothing to search where --sparsity is 0");
  });
});
