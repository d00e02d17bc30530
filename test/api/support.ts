/** Pruning the example by a few of the oracle's windows. @module */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prune, type PruneOptions, type PruneReport } from "../../mod.ts";
import { FAST } from "../support/models.ts";
import { readOracle } from "../support/oracle.ts";
import { fromRoot } from "../support/paths.ts";

/** A folder for results, and how to make one. */
export interface ExampleRuns {
  readonly folder: string;
  /** File with windows to measure on. */
  readonly text: string;
  /** Prunes the example into a folder of its own. */
  run(options: Partial<PruneOptions>): Promise<PruneReport>;
  /** The same, but once for the same options: for tests that only read what comes of it. */
  once(options: Partial<PruneOptions>): Promise<PruneReport>;
}

/**
 * Makes a temporary folder, which the caller removes.
 *
 * @param name What it is called after.
 * @param held Windows to measure on.
 * @param always Options of every run.
 * @param seen Windows to calibrate on.
 */
export function exampleRuns(
  name: string,
  held: number,
  always: Partial<PruneOptions>,
  seen = 8,
): ExampleRuns {
  const folder = mkdtempSync(join(tmpdir(), `espalier-${name}-`));
  const oracle = readOracle("tiny");
  const calibration = join(folder, "calibration.json");
  const text = join(folder, "text.json");
  writeFileSync(calibration, JSON.stringify({ windows: oracle.calibration.tokens.slice(0, seen) }));
  writeFileSync(text, JSON.stringify({ windows: oracle.evaluation.tokens.slice(0, held) }));
  let count = 0;
  const run = (options: Partial<PruneOptions>) => {
    const output = join(folder, String(count++));
    const model = fromRoot("examples/tiny");
    // Distillation takes longer than all else, and has tests of its own.
    return prune({
      ...{ model, output, calibration, text },
      backend: FAST,
      distill: 0,
      ...always,
      ...options,
    });
  };
  const known = new Map<string, Promise<PruneReport>>();
  const once = (options: Partial<PruneOptions>) => {
    const key = JSON.stringify(Object.entries(options).sort());
    if (!known.has(key)) known.set(key, run(options));
    return known.get(key)!;
  };
  return { folder, text, run, once };
}
