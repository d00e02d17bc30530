/**
 * What the commands that run a model do alike: loading, figures.
 * @module
 */
import { flagName, type RunHooks } from "../api/options.ts";
import type { EndPiece } from "../generate/generate.ts";
import { load } from "../generate/load.ts";
import { loadFields, type LoadOptions } from "../generate/load_options.ts";
import type { LoadedInfo, Model } from "../generate/model.ts";
import { generationFields, type GenerationOptions } from "../generate/options.ts";
import { tell } from "../platform/output.ts";
import { loadOwn } from "./own_model.ts";
import { formatSeconds } from "./terminal.ts";

/** Options of a command, as they were typed or stand in a file. */
export type Options = Readonly<Record<string, unknown>>;

/**
 * Loads the model of a command: the one that it names, or the program's own.
 *
 * @param options The command's, checked by its schema.
 */
export async function openModel(options: Options, hooks: RunHooks): Promise<Model> {
  const settings = loadingOf(options) as LoadOptions;
  if (options.model !== undefined) return await load(options.model as string, settings, hooks);
  return await loadOwn(settings, hooks);
}

/** The options that `load` takes. */
export function loadingOf(options: Options): Record<string, unknown> {
  return pick(options, loadFields);
}

/** The options that `generate` takes. */
export function generationOf(options: Options): GenerationOptions {
  return pick(options, generationFields) as GenerationOptions;
}

/** What draws of the likeliest tokens are narrowed by. */
const NARROWING = ["topK", "topP", "minP"] as const;

/**
 * Says which options do nothing because nothing is drawn.
 *
 * @param options The command's, checked.
 * @param given Those that somebody wrote.
 */
export function idleSampling({ temperature }: Options, given: Options): string[] {
  if (temperature !== 0) return [];
  return NARROWING.filter((field) => given[field] !== undefined).map((field) =>
    `--${
      flagName(field)
    } does nothing at --temperature 0, which takes the likeliest token each time`
  );
}

/** The options that are among some fields. */
export function pick(options: Options, fields: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(options).filter(([name]) => name in fields));
}

/** What a generation took, for a script. */
export interface Figures {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly secondsToFirstToken: number;
  /** Of the tokens after the first; undefined where there is none. */
  readonly tokensPerSecond?: number;
}

/** Figures of a generation that has ended. */
export function figuresOf(end: EndPiece): Figures {
  const { promptTokens, cachedTokens, completionTokens, seconds } = end;
  const later = completionTokens - 1;
  return {
    promptTokens,
    cachedTokens,
    completionTokens,
    secondsToFirstToken: seconds.prefill,
    tokensPerSecond: later > 0 && seconds.decode > 0 ? later / seconds.decode : undefined,
  };
}

/** The figures as a person reads them. */
export function describeFigures(figures: Figures): string {
  const { promptTokens, cachedTokens, completionTokens, tokensPerSecond } = figures;
  const cached = cachedTokens > 0 ? ` (${cachedTokens} of them kept from before)` : "";
  const rate = tokensPerSecond === undefined ? "" : `, ${tokensPerSecond.toFixed(1)} tokens/s`;
  const first = figures.secondsToFirstToken;
  const waited = first < 1 ? `${Math.ceil(1000 * first)} ms` : formatSeconds(first);
  return `${promptTokens} tokens in${cached}, ${completionTokens} out: first after ${waited}${rate}`;
}

/** What runs a model, and why, as a person reads it. */
export function describeEngine({ engine, device, why, loadSeconds }: LoadedInfo): string {
  const name = engine === "sparse" ? "sparse engine" : "ONNX Runtime";
  return `${name} on ${device}: ${why}; ready after ${formatSeconds(loadSeconds)}`;
}

/** Writes a line to standard error, where it does not mix with results. */
export function say(line: string): void {
  tell(`${line}\n`);
}
