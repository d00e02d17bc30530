/**
 * What the library does, all of it: `mod.ts` exports it.
 * @module
 */
export { compile } from "../compile/compile.ts";
export { expand } from "../compile/expand.ts";
export { inspectCompiled } from "../compile/inspect.ts";
export { verify } from "../compile/verify.ts";
export { evaluate } from "./api/evaluate.ts";
export { exportRecipe } from "./api/export.ts";
export { inspect } from "./api/inspect.ts";
export { bench } from "./generate/bench.ts";
export { load } from "./generate/load.ts";
export { pull } from "./hub/pull.ts";
export { createApp } from "./server/app.ts";
export { compare } from "./workflow/compare/compare.ts";
export { comparisonSvg } from "./workflow/compare/svg.ts";
export { prune } from "./workflow/prune.ts";
