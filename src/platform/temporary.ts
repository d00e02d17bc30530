/**
 * Folders that go when their work is done, or when the process ends.
 * @module
 */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { FileWriteError } from "../errors.ts";
import { markTemporary } from "./file_errors.ts";
import { remove } from "./folders.ts";

/** A folder in the system's place for temporary files (`TMPDIR`). */
export class TemporaryFolder {
  readonly path: string;
  readonly #onExit = () => remove(this.path);
  readonly #unmark: () => void;

  /**
   * Makes it.
   *
   * @param purpose Part of its name.
   * @throws {FileWriteError} When it cannot be made.
   */
  constructor(purpose: string) {
    const prefix = join(tmpdir(), `espalier-${purpose}-`);
    try {
      this.path = mkdtempSync(prefix);
    } catch (cause) {
      throw new FileWriteError(
        `cannot make a temporary folder ${prefix}…: set TMPDIR to a place with room`,
        { cause },
      );
    }
    this.#unmark = markTemporary(this.path);
    // For an exit that no handler sees coming, a second Ctrl-C for example.
    process.on("exit", this.#onExit);
  }

  /** Removes it and all that is in it; a second call does nothing. */
  remove(): void {
    remove(this.path);
    this.#unmark();
    process.removeListener("exit", this.#onExit);
  }
}
