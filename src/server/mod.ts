/**
 * The server where there is no file system, as in edge functions: `espalier/server`.
 *
 * @example
 * ```js
 * import { createApp, runCompiled, urlSource } from "espalier/server";
 *
 * const model = await runCompiled(urlSource("https://example.com/model/"));
 * export default { fetch: createApp(model, { parallel: 2 }).fetch };
 * ```
 * @module
 */
export * from "../generate/run.ts";
export { type AppOptions, createApp } from "./app.ts";
export type { App, AppEnv } from "./context.ts";
export type { Log, LogEntry } from "./log.ts";
