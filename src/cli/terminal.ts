/**
 * What a person sees while work runs: one line a phase that redraws itself on a terminal, plain lines
 * elsewhere. All of it goes to standard error: standard output is for results.
 * @module
 */
import process from "node:process";
import type { ProgressEvent } from "../api/options.ts";
import { withoutControls } from "../checks.ts";
import { tell } from "../platform/output.ts";

/** Least milliseconds between two drawings of a line. */
const REDRAW = 100;
/** Least milliseconds between two plain lines of one phase. */
const PLAIN = 10_000;

/** Whether a stream, standard output where none is named, is a terminal that shows colours. */
export function colours(stream: { isTTY?: boolean } = process.stdout): boolean {
  return Boolean(stream.isTTY) && !process.env.NO_COLOR && !isDumb();
}

/** Whether the terminal says that it only writes on, as those of editors do. */
function isDumb(): boolean {
  return process.env.TERM === "dumb";
}

/** Columns of the terminal, or a width that fits most. */
export function columns(): number {
  return Math.max(60, Math.min(process.stdout.columns || 100, 140));
}

/** Text of a model, for standard output: at a terminal without control characters but line breaks and tabulators. */
export function shownText(text: string): string {
  return process.stdout.isTTY ? withoutControls(text, "\n\t") : text;
}

/** Shows progress events; {@linkcode finish} ends the last line. */
export class ProgressView {
  readonly #live = Boolean(process.stderr.isTTY) && !isDumb();
  #phase = "";
  #started = 0;
  #drawn = 0;
  /** How far the phase was, and whether that was its end. */
  #done = 0;
  #complete = false;
  #lineOpen = false;

  /** Takes an event. */
  show(event: ProgressEvent): void {
    const now = performance.now();
    if (event.type === "note") {
      this.#endLine();
      tell(`${withoutControls(event.text, "\n")}\n`);
      return;
    }
    const { phase, done, total, unit } = event;
    // One that begins again is another; several workers may each say that they begin.
    if (phase !== this.#phase || done < this.#done || (this.#complete && done === 0)) {
      this.#endLine();
      this.#phase = phase;
      this.#started = now;
      this.#drawn = this.#live ? -Infinity : now;
    }
    const complete = total > 0 && done >= total;
    this.#done = done;
    this.#complete = complete;
    if (!complete && now - this.#drawn < (this.#live ? REDRAW : PLAIN)) return;
    this.#drawn = now;
    const line = progressLine(phase, done, total, unit, (now - this.#started) / 1000);
    if (this.#live) {
      // The last time all of it: it is not drawn again.
      tell(`\r\x1b[2K${complete ? line : inOneRow(line, phase)}`);
      this.#lineOpen = true;
      if (complete) this.#endLine();
    } else {
      tell(`${line}\n`);
    }
  }

  /** Ends a line that is still open. */
  finish(): void {
    this.#endLine();
  }

  #endLine(): void {
    if (this.#lineOpen) tell("\n");
    this.#lineOpen = false;
  }
}

/**
 * A line as it stands in one row of the terminal: of several only the last could be drawn again. What is cut
 * is its phase, as far as that goes.
 */
function inOneRow(line: string, phase: string): string {
  // One less: a full row ends in the next one at some terminals.
  const room = (process.stderr.columns || Infinity) - 1;
  if (line.length <= room) return line;
  const kept = Math.max(1, phase.length - (line.length - room) - 1);
  return `${line.slice(0, kept)}…${line.slice(phase.length)}`.slice(0, room);
}

/**
 * One line of progress: what, how far, how fast, how long still.
 *
 * @param done May be a fraction: blocks begun count in part.
 * @param seconds Since the phase began.
 */
export function progressLine(
  phase: string,
  done: number,
  total: number,
  unit: string,
  seconds: number,
): string {
  const bytes = unit === "bytes";
  const count = (n: number) => bytes ? formatBytes(n) : `${Math.floor(n)}`;
  const share = total > 0 ? done / total : 0;
  const parts = [`${phase}: ${count(done)} of ${count(total)}${bytes ? "" : ` ${unit}`}`];
  if (done > 0 && seconds > 0) {
    const rate = done / seconds;
    parts.push(bytes ? `${formatBytes(rate)}/s` : `${rate.toPrecision(3)} ${unit}/s`);
    parts.push(
      share >= 1 ? `${formatSeconds(seconds)}` : `${formatSeconds((total - done) / rate)} left`,
    );
  }
  return parts.join(", ");
}

/** Seconds as people say them. */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Bytes as people say them, in powers of ten. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (bytes >= 999.5 && unit < units.length - 1) {
    bytes /= 1000;
    unit++;
  }
  return `${bytes >= 99.5 || unit === 0 ? Math.round(bytes) : bytes.toPrecision(3)} ${units[unit]}`;
}
