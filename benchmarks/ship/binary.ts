/**
 * Binaries: how large, how soon the first text comes, how fast, in how much memory.
 * @module
 */
import { spawn } from "node:child_process";
import { basename, join } from "node:path";
import { markdownTable, median } from "../support/print.ts";
import {
  espalier,
  findRuntime,
  ownRuntime,
  ProgramError,
  run,
  runJson,
  throwIfInterrupted,
  withFolder,
} from "../support/process.ts";
import type { ShipSettings } from "./main.ts";

const PROMPT = "The population of the country";

/** One model in a binary. */
export interface BinaryRow {
  readonly model: string;
  /** Whether the model lies in a folder beside. */
  readonly external: boolean;
  /** Of the binary, and of the model in it or beside it. */
  readonly bytes: { readonly binary: number; readonly model: number };
  readonly secondsToBuild: number;
  /** Milliseconds from the start of the process: until `--version` has ended, until the first text. */
  readonly milliseconds: { readonly version: number; readonly firstText: number };
  /** After the first token. */
  readonly tokensPerSecond: number;
  /** Largest resident memory of the process, as the kernel counts it. */
  readonly peakBytes?: number;
}

/** What `bundle --json` prints, as far as it is used. */
interface Bundled {
  readonly model: string;
  readonly output: string;
  readonly bytes: { readonly all: number; readonly model: number };
  readonly seconds: number;
}

/** Bundles each model, in the binary and beside it, and runs it. */
export async function measureBinaries(
  { models, repeat, tokens }: ShipSettings,
  say: (line: string) => void,
): Promise<BinaryRow[]> {
  const name = ownRuntime();
  const program = espalier(name, (await findRuntime(name)).path);
  const rows: BinaryRow[] = [];
  for (const model of [undefined, ...models]) {
    for (const external of [false, true]) {
      say(`${model === undefined ? "the example" : basename(model)}${external ? ", beside" : ""}`);
      await withFolder(async (folder) => {
        const words = [...model === undefined ? [] : [model], "--target", "binary", "--json"];
        if (external) words.push("--external-model");
        const made = await runJson([
          ...program,
          "bundle",
          ...words,
          "-o",
          join(folder, "program"),
        ]);
        rows.push(await measureBinary(made.value as Bundled, external, repeat, tokens));
      });
    }
  }
  return rows;
}

async function measureBinary(
  made: Bundled,
  external: boolean,
  repeat: number,
  tokens: number,
): Promise<BinaryRow> {
  const { output: binary, bytes } = made;
  const version: number[] = [];
  const firstText: number[] = [];
  const rates: number[] = [];
  let peakBytes: number | undefined;
  const words = ["generate", "--prompt", PROMPT, "--max-tokens", `${tokens}`, "--ignore-eos"];
  for (let round = 0; round <= repeat; round++) {
    throwIfInterrupted();
    const seconds = { version: (await run([binary, "--version"])).seconds };
    const first = await millisecondsToText([binary, ...words]);
    const full = await runJson([binary, ...words, "--json"]);
    // The first round reads the file from the disk, or not: who has just written it cannot know.
    if (round === 0) continue;
    version.push(1000 * seconds.version);
    firstText.push(first);
    rates.push((full.value as { tokensPerSecond: number }).tokensPerSecond);
    peakBytes = Math.max(peakBytes ?? 0, full.peakBytes ?? 0) || undefined;
  }
  return {
    model: made.model,
    external,
    bytes: { binary: external ? bytes.all - bytes.model : bytes.all, model: bytes.model },
    secondsToBuild: made.seconds,
    milliseconds: { version: median(version), firstText: median(firstText) },
    tokensPerSecond: median(rates),
    peakBytes,
  };
}

/** Milliseconds from the start of a program until it has written something. */
function millisecondsToText([command, ...words]: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    // Nothing on its path: it needs nothing.
    const child = spawn(command, words, { stdio: ["ignore", "pipe", "ignore"], env: { PATH: "" } });
    let first: number | undefined;
    child.stdout.on("data", () => first ??= performance.now() - started);
    child.on("error", ({ message }) => reject(new ProgramError(message)));
    child.on("close", (code) => {
      if (code === 0 && first !== undefined) resolve(first);
      else reject(new ProgramError(`${command} ended with ${code}`));
    });
  });
}

/** The rows as a table. */
export function describeBinaries(rows: readonly BinaryRow[]): string {
  const mb = (bytes: number | undefined) => bytes === undefined ? "?" : (bytes / 1e6).toFixed(1);
  return markdownTable(
    [
      "model",
      "binary, MB",
      "of it Bun, code",
      "first text, ms",
      "--version, ms",
      "tokens/s",
      "peak, MB",
    ],
    rows.map(({ model, external, bytes, milliseconds, tokensPerSecond, peakBytes }) => [
      `${model}, ${external ? "beside" : "inside"} (${mb(bytes.model)} MB)`,
      mb(bytes.binary),
      mb(external ? bytes.binary : bytes.binary - bytes.model),
      milliseconds.firstText.toFixed(0),
      milliseconds.version.toFixed(0),
      tokensPerSecond.toFixed(0),
      mb(peakBytes),
    ]),
  );
}
