/**
 * A folder for any web server.
 * @module
 */
import { UsageError } from "../../errors.ts";
import type { Target } from "../target.ts";

/** Not written yet. */
export const makeStatic: Target = () =>
  Promise.reject(new UsageError("--target static: not there yet"));
