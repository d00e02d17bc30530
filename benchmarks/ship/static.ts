/**
 * Folders for any web server: how large, how soon the first text comes in a browser, how fast.
 * @module
 */
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { findChromium } from "../../test/browser/pages/chromium.ts";
import { fromRoot } from "../../test/support/paths.ts";
import { npmFolder } from "../engine/packages.ts";
import { markdownTable, median } from "../support/print.ts";
import { espalier, findRuntime, ownRuntime, ProgramError, runJson } from "../support/process.ts";
import { withFolder } from "../support/process.ts";
import type { ShipSettings } from "./main.ts";

const PLAYWRIGHT = "playwright-core@1.65.1";
const PROMPT = "The population of the country";
/** Rounds; each loads the model four times, into an empty browser and again, with two ways. */
const MOST_ROUNDS = 5;

/** One model, with one thread or with several. */
export interface StaticRow {
  readonly model: string;
  readonly chromium: string;
  readonly threads: number;
  /** Of the page without the model, and of the model. */
  readonly bytes: { readonly page: number; readonly model: number };
  /** Milliseconds from opening the page until the first text: the first time, and with what was kept. */
  readonly firstText: { readonly first: number; readonly again: number };
  /** The same until the model is there. */
  readonly loaded: { readonly first: number; readonly again: number };
  readonly tokensPerSecond: number;
}

/** What `bundle --json` prints, as far as it is used. */
interface Bundled {
  readonly model: string;
  readonly bytes: { readonly all: number; readonly model: number };
}

interface Times {
  readonly loaded: number;
  readonly firstText: number;
}

/** What static_page.mjs prints. */
interface Measured {
  readonly version: string;
  readonly ways: readonly {
    readonly threads: number;
    readonly first: readonly Times[];
    readonly again: readonly Times[];
    readonly rates: readonly number[];
  }[];
}

/** Bundles each model, and uses its page. */
export async function measureStatic(
  { models, repeat, tokens }: ShipSettings,
  say: (line: string) => void,
): Promise<StaticRow[]> {
  const chromium = await findChromium();
  if ("why" in chromium) throw new ProgramError(chromium.why);
  const name = ownRuntime();
  const program = espalier(name, (await findRuntime(name)).path);
  const rows: StaticRow[] = [];
  for (const model of [undefined, ...models]) {
    say(model === undefined ? "the example" : basename(model));
    await withFolder(async (folder) => {
      const tools = await npmFolder(join(folder, "tools"), [PLAYWRIGHT], true);
      const script = "benchmarks/ship/static_page.mjs";
      for (const file of [script, "test/browser/site/server.mjs"]) {
        cpSync(fromRoot(file), join(tools, file));
      }
      const site = join(folder, "site");
      mkdirSync(site);
      const words = [...model === undefined ? [] : [model], "--target", "static", "--json"];
      const made = await runJson([...program, "bundle", ...words, "-o", site]);
      const task = join(folder, "task.json");
      writeFileSync(
        task,
        JSON.stringify({
          chromium: chromium.path,
          folder: site,
          prompt: PROMPT,
          tokens,
          repeat: Math.min(repeat, MOST_ROUNDS),
        }),
      );
      const measured = await runJson(["node", join(tools, script), task]);
      rows.push(...rowsOf(made.value as Bundled, measured.value as Measured));
    });
  }
  return rows;
}

function rowsOf({ model, bytes }: Bundled, { version, ways }: Measured): StaticRow[] {
  const of = (times: readonly Times[], name: keyof Times) =>
    median(times.map((time) => time[name]));
  return ways.map(({ threads, first, again, rates }) => ({
    model,
    chromium: version,
    threads,
    bytes: { page: bytes.all - bytes.model, model: bytes.model },
    firstText: { first: of(first, "firstText"), again: of(again, "firstText") },
    loaded: { first: of(first, "loaded"), again: of(again, "loaded") },
    tokensPerSecond: median(rates),
  }));
}

/** The rows as a table. */
export function describeStatic(rows: readonly StaticRow[]): string {
  const mb = (bytes: number) => (bytes / 1e6).toFixed(1);
  const table = markdownTable(
    ["model", "threads", "page, MB", "first text, ms", "second visit, ms", "tokens/s"],
    rows.map(({ model, threads, bytes, firstText, tokensPerSecond }) => [
      `${model} (${mb(bytes.model)} MB)`,
      String(threads),
      mb(bytes.page),
      firstText.first.toFixed(0),
      firstText.again.toFixed(0),
      tokensPerSecond.toFixed(0),
    ]),
  );
  return `Chromium ${rows[0].chromium}, from a server on the same machine\n\n${table}`;
}
