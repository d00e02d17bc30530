/** Which processes there are, and on which machine. @module */
import { hostname } from "node:os";
import process from "node:process";

/** What this machine is called; nothing where Deno was not told to allow it. */
export function hostName(): string {
  try {
    return hostname();
  } catch {
    return "";
  }
}

/** Whether a process of this machine goes on; true where the system does not say. */
export function isRunning(id: number): boolean {
  try {
    process.kill(id, 0);
    return true;
  } catch (cause) {
    return (cause as { code?: string }).code !== "ESRCH";
  }
}
