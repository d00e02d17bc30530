/**
 * An entry for Deno Deploy.
 * @module
 */
import { UsageError } from "../../errors.ts";
import type { Target } from "../target.ts";

/** Not written yet. */
export const makeDeno: Target = () =>
  Promise.reject(new UsageError("--target deno: not there yet"));
