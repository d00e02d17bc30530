/** Folders in which nothing can be written, or not much. @module */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

/** A folder with a limit; `release` lifts it. */
export interface Limited {
  readonly release: () => void;
}

/**
 * Puts a small disk into an empty folder.
 *
 * @param size As `mount` has it: `6m`.
 * @returns Nothing where this process may not mount one: then no disk can be full.
 */
export function smallDisk(folder: string, size: string): Limited | undefined {
  return mounted(folder, `size=${size}`);
}

/** Whether {@linkcode smallDisk} works here. */
export function hasSmallDisks(): boolean {
  const folder = mkdtempSync(join(tmpdir(), "espalier-disk-"));
  const limited = smallDisk(folder, "1m");
  limited?.release();
  rmSync(folder, { recursive: true });
  return limited !== undefined;
}

/** Takes the right to write in an empty folder away, from the administrator as well. */
export function readOnlyFolder(folder: string): Limited | undefined {
  if (process.platform === "win32") return undefined;
  if (process.getuid?.() === 0) return mounted(folder, "ro");
  chmodSync(folder, 0o555);
  return { release: () => chmodSync(folder, 0o755) };
}

function mounted(folder: string, options: string): Limited | undefined {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return undefined;
  const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder]);
  return status === 0 ? { release: () => void spawnSync("umount", [folder]) } : undefined;
}
