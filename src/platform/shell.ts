/** Commands that a person copies into a shell. @module */
import process from "node:process";

/** What a shell takes as it stands; on Windows with backslashes in it. */
const PLAIN = process.platform === "win32" ? /^[\w./:\\@+=,-]+$/ : /^[\w./:@%+=,-]+$/;

/**
 * A path as one word of a command: quoted where it must be, and no option.
 *
 * @param path Not empty.
 */
export function pathWord(path: string): string {
  const word = path.startsWith("-") ? `./${path}` : path;
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
