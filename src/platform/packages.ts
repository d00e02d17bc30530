/**
 * Packages that may be installed, and are not asked for by name: Deno fetches what an import names.
 * @module
 */
import { createRequire } from "node:module";

/** From here on packages are looked for: those of the project, or of whoever has installed it. */
export const requirePackage = createRequire(import.meta.url);

/** Whether a package can be found from here; whether it loads is another matter. */
export function hasPackage(name: string): boolean {
  try {
    requirePackage.resolve(name);
    return true;
  } catch {
    return false;
  }
}
