/** Which processes there are. @module */
import process from "node:process";

/** Whether a process of this machine goes on; true where the system does not say. */
export function isRunning(id: number): boolean {
  try {
    process.kill(id, 0);
    return true;
  } catch (cause) {
    return (cause as { code?: string }).code !== "ESRCH";
  }
}
