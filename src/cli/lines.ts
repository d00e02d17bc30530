/**
 * What a person types, a line at a time: at a terminal with editing and history, or from a pipe.
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import { setImmediate } from "node:timers";
import { tell } from "../platform/output.ts";

/** Lines of standard input. */
export interface LineReader {
  /**
   * The next line.
   *
   * @param prompt What stands before it at a terminal.
   * @returns Undefined at the end of input, after Ctrl-D or Ctrl-C, and when the signal says so.
   */
  next(prompt: string): Promise<string | undefined>;
  /** Forgets lines of a terminal that were there before they were asked for, as it does itself at Ctrl-C. */
  drop(): void;
  /** Ends reading. */
  close(): void;
}

/** Reads standard input in the way that suits it. */
export function openLines(signal: AbortSignal): LineReader {
  return process.stdin.isTTY ? new TerminalLines(signal) : new PipedLines(signal);
}

/** Whether a person sits before it. */
export function isTerminal(): boolean {
  return Boolean(process.stdin.isTTY);
}

/**
 * A terminal. While a line is typed, Ctrl-C is a key; in between it must be a signal again, so each
 * line has an interface of its own.
 */
class TerminalLines implements LineReader {
  readonly #signal: AbortSignal;
  /** The latest first. */
  #history: string[] = [];
  /** Lines that came in one piece with one that was asked for: pasted, or typed while an answer was written. */
  #ahead: string[] = [];
  /** The beginning of a line that came with them. */
  #begun = "";

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  next(prompt: string): Promise<string | undefined> {
    if (this.#signal.aborted) return Promise.resolve(undefined);
    const ahead = this.#ahead.shift();
    if (ahead !== undefined) {
      tell(`${prompt}${ahead}\n`);
      return Promise.resolve(ahead);
    }
    const typed = createInterface({
      input: process.stdin,
      // Not standard output: that is for answers.
      output: process.stderr,
      terminal: true,
      history: [...this.#history],
    });
    return new Promise((resolve) => {
      let line: string | undefined;
      const stop = () => typed.close();
      this.#signal.addEventListener("abort", stop);
      typed.on("line", (text: string) => {
        if (text.trim() !== "") this.#history = [text, ...this.#history];
        if (line !== undefined) {
          this.#ahead.push(text);
          return;
        }
        line = text;
        // Not at once: what came in one piece with it would be lost.
        setImmediate(() => typed.close());
      });
      typed.on("SIGINT", stop);
      // After Ctrl-Z: it pauses then, and would read no key any more, not even Ctrl-C.
      typed.on("SIGCONT", () => typed.resume());
      typed.on("close", () => {
        this.#signal.removeEventListener("abort", stop);
        if (line !== undefined) this.#begun = typed.line;
        if (line === undefined || this.#begun !== "") tell("\n");
        resolve(line);
      });
      typed.setPrompt(prompt);
      typed.prompt();
      if (this.#begun !== "") typed.write(this.#begun);
      this.#begun = "";
    });
  }

  drop(): void {
    this.#ahead = [];
    this.#begun = "";
  }

  close(): void {}
}

/** A pipe or a file: lines may come before they are asked for. */
class PipedLines implements LineReader {
  readonly #lines: string[] = [];
  #ended = false;
  #wake = () => {};
  readonly #input = createInterface({ input: process.stdin, terminal: false });

  constructor(signal: AbortSignal) {
    const end = () => {
      this.#ended = true;
      this.#wake();
    };
    let isFirst = true;
    this.#input.on("line", (line: string) => {
      // Editors put a mark before all text, which is none of it.
      this.#lines.push(isFirst ? line.replace(/^\uFEFF/, "") : line);
      isFirst = false;
      this.#wake();
    });
    this.#input.on("close", end);
    signal.addEventListener("abort", end);
  }

  async next(): Promise<string | undefined> {
    while (this.#lines.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return this.#lines.shift();
  }

  drop(): void {}

  close(): void {
    this.#input.close();
  }
}
