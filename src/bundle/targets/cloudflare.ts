/**
 * A Worker of Cloudflare.
 * @module
 */
import { UsageError } from "../../errors.ts";
import type { Target } from "../target.ts";

/** Not written yet. */
export const makeCloudflare: Target = () =>
  Promise.reject(new UsageError("--target cloudflare: not there yet"));
