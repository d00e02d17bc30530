/**
 * What a person types, a line at a time: at a terminal with editing and history, or from a pipe.
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import { setImmediate } from "node:timers";
import { tell } from "../platform/output.ts";
import { inputError, notUtf8, standardInput } from "./input.ts";
import { takeInterrupts } from "./interrupts.ts";

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

/**
 * Reads standard input in the way that suits it. A terminal's line is edited on standard error: where that goes
 * elsewhere, the terminal itself shows what is typed.
 *
 * @throws {FileReadError} When there is none that can be read.
 */
export function openLines(signal: AbortSignal): LineReader {
  const isEdited = standardInput().isTTY && process.stderr.isTTY;
  return isEdited ? new TerminalLines(signal) : new PipedLines(signal);
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

/** A pipe or a file: lines may come before they are asked for. They end with LF, or CR and LF, and nothing else. */
class PipedLines implements LineReader {
  readonly #lines: string[] = [];
  /** What has come of the next line. */
  #begun = "";
  // It takes away the mark that editors put before all text.
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #failure: Error | undefined;
  #ended = false;
  #wake = () => {};
  readonly #input: typeof process.stdin;
  readonly #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    this.#input = standardInput();
    this.#input.on("data", this.#take);
    this.#input.on("end", this.#last);
    this.#input.on("close", this.#end);
    this.#input.on("error", this.#fail);
    signal.addEventListener("abort", this.#end);
  }

  readonly #take = (part: Uint8Array) => {
    const [first, ...others] = this.#text(part).split("\n");
    this.#begun += first;
    for (const other of others) {
      this.#endLine();
      this.#begun = other;
    }
    this.#wake();
  };

  #endLine(): void {
    this.#lines.push(this.#begun.replace(/\r$/, ""));
    this.#begun = "";
  }

  /** The text of some bytes; of none at the end, where a character that is not whole is none. */
  #text(part?: Uint8Array): string {
    try {
      return part ? this.#decoder.decode(part, { stream: true }) : this.#decoder.decode();
    } catch (cause) {
      this.#failure ??= notUtf8(cause);
      this.#end();
      return "";
    }
  }

  readonly #last = () => {
    this.#begun += this.#text();
    if (this.#begun !== "") this.#endLine();
    this.#end();
  };

  readonly #fail = (cause: unknown) => {
    this.#failure ??= inputError(cause);
    this.#end();
  };

  readonly #end = () => {
    this.#ended = true;
    this.#wake();
  };

  readonly #interrupted = () => {
    this.#end();
    return true;
  };

  /** @throws {FileReadError} When standard input cannot be read, or is no text. */
  async next(): Promise<string | undefined> {
    // A person who types ends it so, as at a terminal whose lines are edited; a script's Ctrl-C is the program's.
    const giveBack = this.#input.isTTY ? takeInterrupts(this.#interrupted) : undefined;
    try {
      while (this.#lines.length === 0 && !this.#ended) {
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
    } finally {
      giveBack?.();
    }
    const line = this.#lines.shift();
    if (line === undefined && this.#failure) throw this.#failure;
    return line;
  }

  drop(): void {}

  close(): void {
    this.#signal.removeEventListener("abort", this.#end);
    this.#input.off("data", this.#take);
    this.#input.off("end", this.#last);
    this.#input.off("close", this.#end);
    this.#input.pause();
  }
}
