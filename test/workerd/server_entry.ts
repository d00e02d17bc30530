/** What the Worker of the server is made of, as one module. @module */
export { createApp } from "../../src/server/app.ts";
export { filesSource, runCompiled } from "../../src/generate/run.ts";
