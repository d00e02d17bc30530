/**
 * What a runner's report says.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { basename, relative, resolve } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { type Plan, ROOT } from "./plans.ts";
import type { Ending } from "./run_watched.ts";

/** What a process made of its tests. */
export interface Outcome {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** What went wrong beyond failed tests, a sentence each. */
  readonly troubles: readonly string[];
}

/** One test in a JUnit report. */
interface TestCase {
  name: string;
  /** The test file. Only Bun's report tells it; Deno's tells who called `Deno.test`, our shim. */
  file: string | undefined;
  outcome: "passed" | "failed" | "skipped";
}

/**
 * Reads the test cases of a JUnit report.
 *
 * The three runners agree on `testcase` with a child `failure`, `error` or `skipped`, and on little
 * else: totals are missing, or count something else.
 */
function parseReport(xml: string): TestCase[] {
  const cases: TestCase[] = [];
  let open: TestCase | undefined;
  // Comments and CDATA hold what tests print, and may look like tags.
  const markup = xml.replace(/<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>/g, "");
  const tags = /<(\/?)([\w:.-]+)((?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(\/?)>/g;
  for (const [, close, tag, attributes, selfClosing] of markup.matchAll(tags)) {
    if (tag === "testcase") {
      open = undefined;
      if (close) continue;
      const attribute = (name: string) => new RegExp(`\\s${name}="([^"]*)"`).exec(attributes)?.[1];
      const testCase: TestCase = {
        name: attribute("name") ?? "",
        file: attribute("file"),
        outcome: "passed",
      };
      cases.push(testCase);
      if (!selfClosing) open = testCase;
    } else if (open && (tag === "failure" || tag === "error")) {
      open.outcome = "failed";
    } else if (open && tag === "skipped" && open.outcome === "passed") {
      open.outcome = "skipped";
    }
  }
  return cases;
}

/**
 * Reads a run's report, and turns all that went wrong without a failed test into a failure.
 *
 * @param printed What the runner printed.
 */
export async function judge(
  plan: Plan,
  exit: Ending,
  printed: string,
): Promise<Outcome> {
  const tally = { passed: 0, failed: 0, skipped: 0 };
  const troubles: string[] = [];
  const trouble = (sentence: string) => {
    tally.failed++;
    troubles.push(sentence);
  };

  const xml = await readFile(plan.reportPath, "utf8").catch(() => undefined);
  if (xml === undefined) {
    trouble(`the runner crashed: it ${exit.ending} and left no report`);
    return { ...tally, troubles };
  }

  const silent = new Set(plan.files);
  for (const { name, file, outcome } of parseReport(xml)) {
    // Node reports a file as if it were a test, passed unless its process failed, when it has no
    // tests to report or ended outside of them.
    const bundled = plan.bundles?.get(basename(name));
    if (bundled === undefined) {
      tally[outcome]++;
      if (file !== undefined) silent.delete(relative(ROOT, resolve(ROOT, file)));
    } else if (outcome === "failed") {
      trouble(`${bundled} crashed`);
    } else {
      trouble(`${bundled} reported no test: it exited early, or holds none`);
    }
  }
  // Deno's report has no files; it prints how many tests it found in each.
  if (plan.runtime === "deno") {
    const lines = stripVTControlCharacters(printed)
      .matchAll(/^running 0 tests from (?:\.\/)?(\S+)/gm);
    for (const [, file] of lines) trouble(`${file} holds no test`);
  }
  // A test that calls process.exit() ends all of Bun's run, with whatever code it likes.
  if (plan.runtime === "bun") {
    for (const file of silent) trouble(`${file} reported no test: it crashed, or holds none`);
  }
  if (exit.code !== 0 && tally.failed === 0) {
    trouble(`the runner crashed: it ${exit.ending} though no test failed`);
  }
  return { ...tally, troubles };
}
