/**
 * One file for a machine.
 * @module
 */
import { UsageError } from "../../errors.ts";
import type { Target } from "../target.ts";

/** Not written yet. */
export const makeBinary: Target = () =>
  Promise.reject(new UsageError("--target binary: not there yet"));
