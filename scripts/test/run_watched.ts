/**
 * Runs a command that must not hang: one that says nothing for too long is ended, and what it was doing is told.
 *
 * @module
 */

import { spawn, spawnSync } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";

/** Milliseconds after a command's end in which its outputs are read. */
const LEFT_BEHIND = 5000;

/** How a command is run. */
export interface WatchedOptions {
  readonly cwd: string;
  readonly env: Record<string, string | undefined>;
  /** Takes what it prints, on stdout and stderr. */
  readonly write: (text: Uint8Array | string) => void;
  /** Milliseconds that it may be silent for. */
  readonly silence: number;
}

/** How a command ended. */
export interface Ending {
  readonly code: number;
  /** For people: what it did. */
  readonly ending: string;
  /** Whether it was ended because it was silent. */
  readonly hung: boolean;
}

/** Runs a command to its end, or until it has been silent for too long. */
export function runWatched(
  command: readonly string[],
  { cwd, env, write, silence }: WatchedOptions,
): Promise<Ending> {
  const child = spawn(command[0], command.slice(1), {
    cwd,
    stdio: ["ignore", "pipe", "pipe"],
    // Colours, where they can be seen.
    env: process.stdout.isTTY ? { FORCE_COLOR: "1", ...env } : env,
  });
  let hung = false;
  const end = async () => {
    hung = true;
    const processes = descendants(child.pid!);
    const doing = await Promise.all(processes.map(describe));
    write(`\nnothing was printed for ${silence / 1000} s by\n${doing.join("\n")}\n`);
    for (const { pid } of processes) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended meanwhile.
      }
    }
  };
  const watch = setTimeout(() => void end(), silence);
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Uint8Array) => {
      watch.refresh();
      write(chunk);
    });
  }
  return new Promise((settle) => {
    child.on("error", (error) => {
      clearTimeout(watch);
      settle({ code: 1, ending: `could not start: ${error.message}`, hung });
    });
    child.on("exit", (code, signal) => {
      clearTimeout(watch);
      const ending = hung
        ? `was ended after ${silence / 1000} s of silence`
        : code === null
        ? `was ended by ${signal}`
        : `exited with code ${code}`;
      // What it has printed is still to come; but who it has left behind may never close its outputs.
      const patience = setTimeout(done, LEFT_BEHIND);
      child.on("close", done);
      function done() {
        clearTimeout(patience);
        settle({ code: hung ? 1 : code ?? 1, ending, hung });
      }
    });
  });
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  /** Its state, the time that it has computed, and its command. */
  readonly text: string;
}

/** A process and all that it has started, where `ps` tells them; else itself. */
function descendants(pid: number): Process[] {
  const { stdout } = spawnSync("ps", ["-e", "-o", "pid=,ppid=,stat=,time=,args="], {
    encoding: "utf8",
  });
  const all = (stdout ?? "").split("\n").flatMap((line): Process[] => {
    const [, pid, parent, text] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? [];
    return pid === undefined ? [] : [{ pid: Number(pid), parent: Number(parent), text }];
  });
  const found = [all.find((each) => each.pid === pid) ?? { pid, parent: 0, text: "" }];
  for (const { pid } of found) found.push(...all.filter(({ parent }) => parent === pid));
  return found;
}

/** What a process is, and where Linux tells it what each of its threads does: `name state waits-in`. */
async function describe({ pid, text }: Process): Promise<string> {
  const lines = [`${pid} ${text.slice(0, 300)}`];
  const threads = `/proc/${pid}/task`;
  for (const thread of await readdir(threads).catch(() => [])) {
    const read = (name: string) => readFile(`${threads}/${thread}/${name}`, "utf8").catch(() => "");
    const state = /^State:\s*(\S)/m.exec(await read("status"))?.[1] ?? "?";
    lines.push(`  ${(await read("comm")).trim()} ${state} ${await read("wchan")}`);
  }
  return lines.join("\n");
}
