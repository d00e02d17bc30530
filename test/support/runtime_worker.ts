/**
 * Keeps the runtime's own Worker for tests that watch threads: onnxruntime-web puts Node's in its place,
 * and `bun test` runs all files in one process. Loaded before them, by bunfig.toml.
 * @module
 */
Object.assign(globalThis, { runtimeWorker: globalThis.Worker });
