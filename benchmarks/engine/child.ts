/**
 * Engines in processes of their own, which stay loaded and do what they are told.
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { ProgramError, ROOT } from "../support/process.ts";
import type { EngineConfig, Generated, Prompt } from "./adapters/engine.ts";

/** Milliseconds after which an engine hangs: the longest prompt takes the slowest a minute. */
const LONGEST_ANSWER = 10 * 60_000;
/** Milliseconds that a process has to end by itself. */
const PATIENCE = 5000;
/** What answers begin with; other lines are what the runtimes have to say. */
const ANSWER = "\u001e";
/** Lines of standard error that may tell why a process ended. */
const LAST_WORDS = 5;

const SCRIPT = fileURLToPath(new URL("child.mjs", import.meta.url));
const running = new Set<Child>();

/** What a process says when its model is loaded. */
export interface Loaded {
  /** Name and version of the engine. */
  readonly product: string;
  /** Bytes of weights that a token reads, where the engine says it. */
  readonly tokenBytes?: number;
  /** From nothing to a model that can run: the engine's code, the file, what the engine makes of it. */
  readonly seconds: number;
}

/** What a process can be told; see `Engine`. */
interface Calls {
  generate(prompt: Prompt, steps: number): Generated;
  hold(prompt: Prompt): Generated;
  resume(steps: number): Generated;
  /** Largest resident memory so far. */
  memory(): number | undefined;
}

/** One process with one model. */
export class Child {
  readonly #process: ChildProcess;
  readonly #ended: Promise<void>;
  #waiting: { resolve(value: unknown): void; reject(error: Error): void } | undefined;
  #lastWords: string[] = [];

  private constructor(command: readonly string[]) {
    const child = spawn(command[0], command.slice(1), {
      cwd: ROOT,
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#process = child;
    running.add(this);
    createInterface({ input: child.stdout }).on("line", (line) => {
      if (line.startsWith(ANSWER)) this.#answer(JSON.parse(line.slice(ANSWER.length)));
    });
    createInterface({ input: child.stderr }).on("line", (line) => {
      if (line.trim() !== "") this.#lastWords = [...this.#lastWords, line].slice(-LAST_WORDS);
    });
    // A process that has ended takes no more commands; the request then fails by its end.
    child.stdin.on("error", () => {});
    this.#ended = new Promise((resolve) => {
      const end = (reason: string) => {
        running.delete(this);
        this.#waiting?.reject(new ProgramError(reason));
        this.#waiting = undefined;
        resolve();
      };
      child.on("error", ({ message }) => end(`${command[0]}: ${message}`));
      child.on("close", (code, signal) => {
        const how = signal === null ? `ended with code ${code}` : `ended by ${signal}`;
        end([how, ...this.#lastWords].join(": "));
      });
    });
  }

  /**
   * Starts a process and loads its model.
   *
   * @param runtime Words that start the program.
   * @param adapter Path of the adapter that it loads the engine by.
   * @throws {ProgramError} When it cannot be started, or the engine does not load.
   */
  static async start(
    runtime: readonly string[],
    adapter: string,
    config: EngineConfig,
  ): Promise<{ child: Child; loaded: Loaded }> {
    const child = new Child([...runtime, SCRIPT, adapter, JSON.stringify(config)]);
    try {
      return { child, loaded: await child.#wait<Loaded>() };
    } catch (error) {
      await child.close();
      throw error;
    }
  }

  /**
   * Has the process do something.
   *
   * @throws {ProgramError} When it fails at it, or ends.
   */
  call<Name extends keyof Calls>(
    name: Name,
    ...given: Parameters<Calls[Name]>
  ): Promise<ReturnType<Calls[Name]>> {
    const answer = this.#wait<ReturnType<Calls[Name]>>();
    this.#process.stdin!.write(`${JSON.stringify({ call: name, arguments: given })}\n`);
    return answer;
  }

  /** Ends the process; waits until it is gone. */
  async close(): Promise<void> {
    // Its standard input's end is the sign.
    this.#process.stdin!.end();
    const term = setTimeout(() => this.#process.kill("SIGTERM"), PATIENCE);
    const kill = setTimeout(() => this.#process.kill("SIGKILL"), 2 * PATIENCE);
    await this.#ended;
    clearTimeout(term);
    clearTimeout(kill);
  }

  /** Ends the process at once. */
  stop(): void {
    // Not SIGKILL: it has a browser to end.
    this.#process.kill("SIGTERM");
    void this.close();
  }

  #wait<T>(): Promise<T> {
    if (!running.has(this)) return Promise.reject(new ProgramError("it has ended"));
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        this.#waiting?.reject(
          new ProgramError(`no answer for ${LONGEST_ANSWER / 60_000} minutes: it hangs`),
        );
        this.#waiting = undefined;
        this.stop();
      }, LONGEST_ANSWER);
      this.#waiting = {
        resolve: (value) => {
          clearTimeout(late);
          resolve(value as T);
        },
        reject: (error) => {
          clearTimeout(late);
          reject(error);
        },
      };
    });
  }

  #answer({ value, error }: { value?: unknown; error?: string }): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (error === undefined) waiting?.resolve(value);
    else waiting?.reject(new ProgramError(error));
  }
}

/** Ends all processes at once. */
export function stopAll(): void {
  for (const child of running) child.stop();
}
