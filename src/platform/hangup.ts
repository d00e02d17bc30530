/**
 * The signal of a terminal that is closed.
 * @module
 */
import * as fs from "node:fs";
import process from "node:process";
import { isatty } from "node:tty";
import { runtime } from "./runtime.ts";

/** Its number. */
const HANGUP = 1n;

/**
 * Calls `take` when the process is hung up, unless it was started to go on then, as `nohup` starts it: a
 * handler would take that from it. To be called before any other signal is listened to.
 *
 * @param take Is told whether a terminal has gone: what is written to it fails then, or waits for ever.
 */
export function onHangup(take: (terminalHasGone: boolean) => void): void {
  const ignored = isIgnored();
  // Of a terminal that has gone the system says that it is none.
  const hasTerminal = [0, 1, 2].some((descriptor) => isatty(descriptor));
  // What nohup starts has no terminal to write to.
  if (!(ignored ?? !(isatty(1) || isatty(2)))) {
    process.on("SIGHUP", () => take(hasTerminal));
  } else if (ignored && runtime().name === "deno") {
    // With the first listener to any signal Deno takes this one as well, and ends the process by it.
    process.on("SIGHUP", () => {});
  }
}

/** Whether this process ignores the signal; undefined where that cannot be told, as outside Linux. */
function isIgnored(): boolean | undefined {
  try {
    const [, mask] = /^SigIgn:\s*([\da-f]+)$/m.exec(fs.readFileSync("/proc/self/status", "utf8"))!;
    return ((BigInt(`0x${mask}`) >> (HANGUP - 1n)) & 1n) === 1n;
  } catch {
    return undefined;
  }
}
