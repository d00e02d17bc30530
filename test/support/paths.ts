/** Where the tests' files are. @module */
import { fileURLToPath } from "node:url";

/** A path from the root of the project. */
export function fromRoot(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}
