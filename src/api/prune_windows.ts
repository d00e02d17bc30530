/**
 * The windows that `prune` runs: to calibrate on, and to measure on.
 * @module
 */
import { createHash } from "node:crypto";
import { basename } from "node:path";
import { TextError, UsageError } from "../errors.ts";
import { type CalibrationWriter, type Sampling, SELF } from "./calibration_writer.ts";
import { assertInVocabulary, consecutiveWindows, randomWindows } from "../text/windows.ts";
import type { PruneSettings } from "./options.ts";
import {
  cutWindows,
  evaluationWindows,
  type OpenModel,
  type Phases,
  windowLength,
} from "./shared.ts";

const DEFAULT_SAMPLES = 128;
/** Windows, and tokens of each, that a model writes unless the caller says otherwise: it takes its time. */
const WRITTEN = { samples: 32, seqlen: 512 };
const DEFAULT_HELD_OUT = 32;
/** Part of the calibration text that `auto` and `search` keep apart to judge allocations on. */
const APART = 0.2;

/** Windows, and where they are from. */
export interface PruneWindows {
  /** Name of the file; undefined where the model wrote the windows. */
  readonly file?: string;
  /** How it wrote them. */
  readonly sampling?: Sampling;
  readonly windows: Int32Array[];
  /** Tokens a window. */
  readonly length: number;
  /** Windows of the same text that calibration does not see, for `auto` and `search`. */
  readonly apart?: Int32Array[];
  /** SHA-256 of those. */
  readonly apartSha256?: string;
  /** SHA-256 of the windows' ids as little-endian int32. */
  readonly sha256: string;
}

/**
 * The calibration windows.
 *
 * @param keepApart Whether to keep a part of the text for judging allocations.
 * @param run `write` writes the text of `--calibration self`.
 * @throws {UsageError} When no text was named.
 * @throws {TextError} When the text cannot fill a window.
 * @throws {TokenRangeError} When an id is outside the vocabulary.
 */
export async function calibrationWindows(
  settings: PruneSettings,
  opened: OpenModel,
  keepApart: boolean,
  run: {
    readonly phases: Phases;
    readonly signal: AbortSignal | undefined;
    readonly write: CalibrationWriter;
  },
): Promise<PruneWindows> {
  const { calibration, samples, seed, seqlen } = settings;
  if (!calibration) {
    throw new UsageError(
      "--calibration FILE is needed: text like that which the model will meet (magnitude with uniform, atp or given densities does without)",
    );
  }
  const { phases } = run;
  if (calibration === SELF) return await writtenWindows(settings, opened, keepApart, run);
  const source = opened.read(calibration);
  const split = "tokens" in source && keepApart
    ? Math.floor(source.tokens.length * (1 - APART))
    : undefined;
  // Windows are as long in both parts, so the shorter one says how long.
  const shortest = "tokens" in source && split !== undefined
    ? { tokens: source.tokens.subarray(split), called: "the fifth of the text that is kept apart" }
    : source;
  const length = windowLength(seqlen, opened.spec.context, shortest, (text) => phases.note(text));
  let windows: Int32Array[];
  let apart: Int32Array[] | undefined;
  if ("windows" in source) {
    windows = cutWindows(source.windows, length);
    if (keepApart) {
      const kept = Math.max(1, Math.floor(windows.length * APART));
      if (windows.length < 2) {
        throw new TextError(`${calibration}: auto and search need two windows or more`);
      }
      apart = windows.splice(windows.length - kept);
    }
    if (samples !== undefined && samples > windows.length) {
      const beside = keepApart ? ", beside those kept apart" : "";
      phases.note(`calibration windows: ${windows.length}, the file has no more${beside}`);
    }
    windows = windows.slice(0, samples);
  } else {
    let { tokens } = source;
    if (split !== undefined) {
      apart = consecutiveWindows(tokens.subarray(split), length);
      tokens = tokens.subarray(0, split);
    }
    windows = randomWindows(tokens, samples ?? DEFAULT_SAMPLES, length, seed);
  }
  assertInVocabulary([...windows, ...apart ?? []], opened.spec.vocabulary);
  return {
    file: basename(calibration),
    windows,
    length,
    apart,
    apartSha256: apart && fingerprint(apart),
    sha256: fingerprint(windows),
  };
}

/** The windows of `--calibration self`. */
async function writtenWindows(
  { samples = WRITTEN.samples, seqlen = WRITTEN.seqlen, seed }: PruneSettings,
  { spec }: OpenModel,
  keepApart: boolean,
  { phases, signal, write }: Parameters<typeof calibrationWindows>[3],
): Promise<PruneWindows> {
  const length = Math.min(seqlen, spec.context);
  if (length < seqlen) phases.note(`windows have ${length} tokens: the model's context ends there`);
  const apart = keepApart ? Math.max(1, Math.round(samples * APART / (1 - APART))) : 0;
  const order = { windows: samples + apart, length, seed, phases, signal };
  const { windows, sampling } = await write(order);
  assertInVocabulary(windows, spec.vocabulary);
  const calibration = windows.slice(0, samples);
  return {
    sampling,
    windows: calibration,
    length,
    apart: keepApart ? windows.slice(samples) : undefined,
    sha256: fingerprint(calibration),
  };
}

/**
 * The windows of `--text`, as long as the calibration's where there are any.
 *
 * @throws {TextError} When the text cannot fill a window.
 */
export function heldOutWindows(
  settings: PruneSettings,
  opened: OpenModel,
  calibrated: number | undefined,
  phases: Phases,
): PruneWindows {
  const path = settings.text!;
  const source = opened.read(path);
  const fixed = "windows" in source;
  const most = settings.windows ?? (fixed ? undefined : DEFAULT_HELD_OUT);
  // Windows that a file fixes stay as they are; those that the model cannot take are cut where that is asked.
  const wanted = !fixed
    ? calibrated ?? settings.seqlen
    : source.windows[0].length > opened.spec.context
    ? settings.seqlen
    : undefined;
  const length = windowLength(wanted, opened.spec.context, source, (text) => phases.note(text));
  const windows = evaluationWindows(source, length, opened.spec.vocabulary, most);
  return { file: basename(path), windows, length, sha256: fingerprint(windows) };
}

/** SHA-256 of windows' token ids. */
function fingerprint(windows: readonly Int32Array[]): string {
  const hash = createHash("sha256");
  for (const window of windows) {
    hash.update(new Uint8Array(window.buffer, window.byteOffset, window.byteLength));
  }
  return hash.digest("hex");
}
