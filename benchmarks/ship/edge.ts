/**
 * Edge functions: how large, how soon the first text comes, how fast, in how much memory.
 * @module
 */
import { spawn } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { gzipSync } from "node:zlib";
import { pathsIn } from "../../src/platform/folders.ts";
import { freePort } from "../../test/consumers/edge_programs.ts";
import { fromRoot } from "../../test/support/paths.ts";
import { npmFolder } from "../engine/packages.ts";
import { markdownTable, median } from "../support/print.ts";
import {
  espalier,
  findRuntime,
  ownRuntime,
  ProgramError,
  runJson,
  throwIfInterrupted,
  withFolder,
} from "../support/process.ts";
import type { ShipSettings } from "./main.ts";

/** The newest that runs on Node 20. */
const MINIFLARE = "miniflare@4.20260426.0";
const PROMPT = "The population of the country";
/** Requests of the last run, after which memory is looked at. */
const REQUESTS = 200;

/** One model in one place. */
export interface EdgeRow {
  readonly model: string;
  readonly where: string;
  /** Of the program without the model, as it is and compressed, and of the model. */
  readonly bytes: { readonly program: number; readonly compressed: number; readonly model: number };
  /** Milliseconds until the first text: from the request in workerd, from the process's start in Deno. */
  readonly firstText: { readonly median: number; readonly most: number };
  readonly tokensPerSecond: number;
  /** What `bundle` counted for a Worker. */
  readonly counted?: number;
  /** What the process took more than before it had the model, or in all (Deno). */
  readonly resident: number;
  /** V8's heap in workerd, as measured between requests. */
  readonly heap?: { readonly least: number; readonly most: number };
}

/** What `bundle --json` prints, as far as it is used. */
interface Bundled {
  readonly model: string;
  readonly bytes: { readonly model: number };
  readonly memory?: { readonly total: number };
}

/** What edge_workerd.mjs prints. */
interface WorkerRun {
  readonly version: string;
  readonly milliseconds: { readonly firstText: number };
  readonly tokensPerSecond: number;
  readonly requests: { readonly all: number; readonly failed: number };
  readonly bytes: {
    readonly before: number;
    readonly peak: number;
    readonly heap?: { readonly least: number; readonly most: number };
  };
}

/** Bundles each model for workerd, one sequence at once, and runs it. */
export function measureWorkers(
  settings: ShipSettings,
  say: (line: string) => void,
): Promise<EdgeRow[]> {
  return withFolder(async (cache) => {
    const tools = await npmFolder(cache, [MINIFLARE], true);
    const driver = join(tools, "edge_workerd.mjs");
    copyFileSync(fromRoot("benchmarks/ship/edge_workerd.mjs"), driver);
    return await eachModel(settings, "cloudflare", say, async (made, folder) => {
      const runs: WorkerRun[] = [];
      for (let round = 0; round < settings.repeat; round++) {
        throwIfInterrupted();
        const requests = round === settings.repeat - 1 ? REQUESTS : 0;
        const words = ["node", driver, folder, `${requests}`, `${settings.tokens}`];
        runs.push((await runJson(words)).value as WorkerRun);
        const { failed } = runs.at(-1)!.requests;
        if (failed > 0) throw new ProgramError(`${failed} requests failed in workerd`);
      }
      const { version, bytes } = runs.at(-1)!;
      return {
        where: `workerd ${version}`,
        firstText: ofTimes(runs.map(({ milliseconds }) => milliseconds.firstText)),
        tokensPerSecond: median(runs.map(({ tokensPerSecond }) => tokensPerSecond)),
        counted: made.memory?.total,
        resident: bytes.peak - bytes.before,
        heap: bytes.heap,
      };
    });
  });
}

/** Bundles each model for Deno, and runs it with its own permissions. */
export async function measureDeno(
  settings: ShipSettings,
  say: (line: string) => void,
): Promise<EdgeRow[]> {
  const deno = (await findRuntime("deno")).path;
  return await eachModel(settings, "deno", say, async (_, folder) => {
    const runs: { firstText: number; rate: number; resident: number }[] = [];
    for (let round = 0; round < settings.repeat; round++) {
      throwIfInterrupted();
      runs.push(await runDeno(deno, folder, settings.tokens));
    }
    return {
      where: "Deno",
      firstText: ofTimes(runs.map(({ firstText }) => firstText)),
      tokensPerSecond: median(runs.map(({ rate }) => rate)),
      resident: Math.max(...runs.map(({ resident }) => resident)),
    };
  });
}

async function eachModel(
  { models }: ShipSettings,
  target: "cloudflare" | "deno",
  say: (line: string) => void,
  measure: (made: Bundled, folder: string) => Promise<Omit<EdgeRow, "model" | "bytes">>,
): Promise<EdgeRow[]> {
  const name = ownRuntime();
  const program = espalier(name, (await findRuntime(name)).path);
  const rows: EdgeRow[] = [];
  for (const model of [undefined, ...models]) {
    say(model === undefined ? "the example" : basename(model));
    await withFolder(async (parent) => {
      const folder = join(parent, "bundle");
      const words = model === undefined ? [] : [model];
      const made = (await runJson([
        ...program,
        "bundle",
        ...words,
        "--target",
        target,
        "--json",
        ...target === "cloudflare" ? ["--parallel", "1"] : [],
        "-o",
        folder,
      ])).value as Bundled;
      const measured = await measure(made, folder);
      const isModel = (path: string) => /^(assets|model)\//.test(path);
      const code = pathsIn(folder).filter((path) => /\.(js|wasm)$/.test(path) && !isModel(path))
        .map((path) => readFileSync(join(folder, path)));
      const bytes = {
        program: code.reduce((sum, { length }) => sum + length, 0),
        compressed: code.reduce((sum, file) => sum + gzipSync(file).length, 0),
        model: made.bytes.model,
      };
      rows.push({ model: made.model, bytes, ...measured });
    });
  }
  return rows;
}

/** Starts the program once, and asks it. */
async function runDeno(
  deno: string,
  folder: string,
  tokens: number,
): Promise<{ firstText: number; rate: number; resident: number }> {
  const port = await freePort();
  const task = JSON.parse(readFileSync(join(folder, "deno.json"), "utf8")).tasks.start as string;
  const started = performance.now();
  const child = spawn(deno, task.split(" ").slice(1), {
    cwd: folder,
    stdio: "ignore",
    env: { PATH: "", HOME: mkdtempSync(`${folder}-home-`), ESPALIER_PORT: String(port) },
  });
  const ended = new Promise((resolve) => child.on("close", resolve));
  const ask = (body: object) =>
    fetch(`http://127.0.0.1:${port}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: PROMPT, temperature: 0, ...body }),
    });
  try {
    let answer: Response | undefined;
    while (!answer) {
      answer = await ask({ stream: true, max_tokens: 1 }).catch(() => undefined);
      if (!answer) await new Promise((resolve) => setTimeout(resolve, 5));
      if (child.exitCode !== null) throw new ProgramError("the program of Deno has ended");
    }
    const reader = answer.body!.getReader();
    await reader.read();
    const firstText = performance.now() - started;
    await reader.cancel();
    const timed = async (max_tokens: number) => {
      const begun = performance.now();
      const response = await ask({ max_tokens, logit_bias: { 0: -100 } });
      const { usage } = await response.json();
      return { milliseconds: performance.now() - begun, tokens: usage.completion_tokens as number };
    };
    await timed(tokens);
    const [short, long] = [await timed(1), await timed(tokens)];
    return {
      firstText,
      rate: 1000 * (long.tokens - short.tokens) / (long.milliseconds - short.milliseconds),
      resident: peakOf(child.pid!),
    };
  } finally {
    child.kill("SIGTERM");
    await ended;
  }
}

/** The most that a process has had resident, as the kernel counts it; not a number where it does not. */
function peakOf(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return 1024 * Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? NaN);
  } catch {
    return NaN;
  }
}

function ofTimes(times: readonly number[]): EdgeRow["firstText"] {
  return { median: median(times), most: Math.max(...times) };
}

/** The rows as a table. */
export function describeEdge(rows: readonly EdgeRow[]): string {
  const mb = (bytes: number | undefined) => bytes === undefined ? "" : (bytes / 1e6).toFixed(1);
  return markdownTable(
    [
      "model",
      "where",
      "program, MB (gzip)",
      "first text, ms (most)",
      "tokens/s",
      "counted, MB",
      "resident, MB",
      "heap, MB",
    ],
    rows.map(({ model, where, bytes, firstText, tokensPerSecond, counted, resident, heap }) => [
      `${model} (${mb(bytes.model)} MB)`,
      where,
      `${mb(bytes.program)} (${mb(bytes.compressed)})`,
      `${firstText.median.toFixed(0)} (${firstText.most.toFixed(0)})`,
      tokensPerSecond.toFixed(0),
      mb(counted),
      mb(resident),
      heap ? `${mb(heap.least)} to ${mb(heap.most)}` : "",
    ]),
  );
}
