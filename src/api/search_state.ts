/**
 * What a search has measured so far, in a file: one that was stopped goes on from it.
 *
 * A search is told losses and slopes and decides from them alone what comes next (`src/prune/search.ts`), so
 * they are its whole state. With them stands what they were measured on: under another model, text or
 * option they would mean something else.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import { stoppedKeeping } from "../checks.ts";
import { AbortError, SearchStateError } from "../errors.ts";
import { assertReplaceable, readJson, replaceText } from "../platform/files.ts";
import { remove } from "../platform/folders.ts";
import { exists } from "../platform/paths.ts";
import { hashFile } from "../platform/hash.ts";
import type { Answer } from "../prune/search.ts";
import { VERSION } from "../version.ts";
import type { PruneSettings } from "./options.ts";
import { patternText } from "./prune_report.ts";
import type { PruneWindows } from "./prune_windows.ts";
import type { OpenModel } from "./shared.ts";

/** Bytes of the largest state that is read: a million answers. */
const LARGEST_STATE = 32 << 20;
/** Bytes of a weight file that are in memory while it is hashed. */
const CHUNK = 8 << 20;
/** Losses of one candidate that differ by more are not of the same model. */
const SAME_LOSS = 1e-3;

/** JSON has no infinity: a loss that is infinite is `null`. */
const loss = z.number().min(0).nullable();

const stateSchema = z.strictObject({
  format: z.literal(2),
  kind: z.literal("espalier search"),
  about: z.record(z.string().max(64), z.union([z.string(), z.number(), z.null()])),
  trials: z.array(z.strictObject({
    allocation: z.string().max(64),
    densities: z.array(z.number()).max(1 << 16),
    perplexity: loss,
  })).max(64),
  answers: z.array(z.union([loss, z.array(z.number()).max(1 << 16)])).max(1 << 20),
});

/** What a state's answers depend on, by the words for it. */
export type SearchSubject = Readonly<Record<string, string | number | null>>;

/** All that the answers of a search depend on. */
export function subjectOf(
  settings: PruneSettings,
  opened: OpenModel,
  windows: PruneWindows,
  sparsity: number,
  backend: string,
): SearchSubject {
  const { checkpoint } = opened;
  const files = ["config.json", ...checkpoint.shards];
  return {
    version: VERSION,
    model: files.map((file) => hashFile(join(checkpoint.folder, file), CHUNK).sha256).join(" "),
    sparsity,
    method: settings.method,
    values: settings.values ? `${settings.values} ${settings.group}` : null,
    head: settings.head ?? null,
    pattern: patternText(settings.pattern),
    skip: JSON.stringify(settings.skip),
    reducer: settings.reducer,
    alpha: settings.alpha,
    lambda: settings.lambda,
    "outlier-threshold": settings.outlierThreshold,
    beta: settings.beta ?? null,
    seed: settings.seed,
    "calibration windows": windows.sha256,
    "windows kept apart": windows.apartSha256 ?? null,
    backend,
  };
}

/** An allocation that was tried. */
type Tried = z.output<typeof stateSchema>["trials"][number];

/** The file, and what is in it. Written after every measurement, never in halves. */
export class SearchState {
  readonly #path: string | undefined;
  readonly #about: SearchSubject;
  #trials: Tried[] = [];
  readonly #answers: Answer[] = [];
  #replayed = 0;

  /**
   * Opens a state, or begins one.
   *
   * @param path Where it lies; nothing is kept when left out.
   * @param about What will be measured.
   * @param options `force`: begin anew where the file is of another search.
   * @throws {SearchStateError} When the file is no state, or one of another search.
   */
  constructor(path: string | undefined, about: SearchSubject, options: { force: boolean }) {
    this.#path = path;
    this.#about = about;
    if (path === undefined || !exists(path)) return;
    // What is no state at all is somebody's file, and stays.
    const read = readState(path);
    const other = differences(read.about, about);
    if (other.length > 0) {
      if (options.force) return;
      throw new SearchStateError(
        `${path} is the state of a search with another ${other.join(", ")}: ` +
          `remove it, pass --force to begin anew, or name another file with --search-state`,
      );
    }
    this.#trials = read.trials;
    this.#answers.push(
      ...read.answers.map((each) => Array.isArray(each) ? Float64Array.from(each) : fromJson(each)),
    );
  }

  /**
   * Checks that it can be written, before anything is measured.
   *
   * @throws {FileWriteError} When it cannot be.
   */
  assertWritable(): void {
    if (this.#path !== undefined) assertReplaceable(this.#path);
  }

  /** Answers that were there when it was opened, and are left to be replayed. */
  get known(): number {
    return this.#answers.length - this.#replayed;
  }

  /** Perplexity of an allocation that was tried with these densities; undefined where it was not. */
  trial(allocation: string, densities: ArrayLike<number>): number | undefined {
    const found = this.#trials.find((tried) =>
      tried.allocation === allocation && tried.densities.length === densities.length &&
      tried.densities.every((density, b) => density === densities[b])
    );
    return found && fromJson(found.perplexity);
  }

  /** Keeps the perplexity of an allocation; of each name the last. */
  keepTrial(allocation: string, densities: ArrayLike<number>, perplexity: number): void {
    this.#trials = [
      ...this.#trials.filter((tried) => tried.allocation !== allocation),
      { allocation, densities: Array.from(densities), perplexity: toJson(perplexity) },
    ];
    this.#write();
  }

  /**
   * The next answer that is {@linkcode known}, to a question for so many slopes or for a loss.
   *
   * @param slopes How many; none for a loss.
   * @throws {SearchStateError} When what is on record is no answer to it.
   */
  replay(slopes?: number): Answer {
    const answer = this.#answers[this.#replayed++];
    if ((typeof answer === "number" ? undefined : answer.length) === slopes) return answer;
    throw new SearchStateError(
      `${this.#path}: answer ${this.#replayed} is not of the kind that is asked for there: ` +
        `the file is damaged; remove it to begin anew`,
    );
  }

  /** Keeps the next answer. */
  keep(answer: Answer): void {
    this.#answers.push(answer);
    this.#replayed = this.#answers.length;
    this.#write();
  }

  /**
   * Checks that a candidate measured anew has the loss that is on record.
   *
   * @throws {SearchStateError} When it has another.
   */
  assertMeasured(recorded: number, measured: number): void {
    if (recorded === measured) return;
    const near = Math.abs(recorded - measured) <= SAME_LOSS * Math.max(1, Math.abs(recorded));
    if (Number.isFinite(recorded) && near) return;
    throw new SearchStateError(
      `${this.#path}: a candidate whose loss is recorded as ${recorded} has ${measured} now: ` +
        `the file is damaged, or of another machine; remove it to begin anew`,
    );
  }

  /** What is thrown for an error: of work that was stopped, one that says where what was measured is kept. */
  told(error: unknown): unknown {
    const isKept = this.#trials.length + this.#answers.length > 0;
    if (this.#path === undefined || !isKept || !(error instanceof AbortError)) return error;
    return stoppedKeeping(this.#path, error);
  }

  /** Removes the file. */
  remove(): void {
    if (this.#path !== undefined) remove(this.#path);
  }

  #write(): void {
    if (this.#path === undefined) return;
    const state: z.input<typeof stateSchema> = {
      format: 2,
      kind: "espalier search",
      about: this.#about,
      trials: this.#trials,
      answers: this.#answers.map((each) =>
        typeof each === "number" ? toJson(each) : Array.from(each)
      ),
    };
    replaceText(this.#path, `${JSON.stringify(state)}\n`, { private: false });
  }
}

function readState(path: string): z.output<typeof stateSchema> {
  let json: unknown;
  try {
    json = readJson(path, LARGEST_STATE);
  } catch (error) {
    throw notAState(path, (error as Error).message);
  }
  const parsed = stateSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw notAState(path, `${issue.path.join(".")}: ${issue.message}`);
}

function notAState(path: string, why: string): SearchStateError {
  return new SearchStateError(
    `${path} holds no state of a search (${why}): remove it, or name another file with --search-state`,
  );
}

/** Names of what two searches have differently. */
function differences(found: SearchSubject, wanted: SearchSubject): string[] {
  const names = new Set([...Object.keys(wanted), ...Object.keys(found)]);
  return [...names].filter((name) =>
    !Object.hasOwn(found, name) || !Object.hasOwn(wanted, name) || found[name] !== wanted[name]
  );
}

function toJson(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

function fromJson(value: number | null): number {
  return value ?? Infinity;
}
