/**
 * onnxruntime-web in a binary: its WebAssembly lies in there, and it has one thread, since its others
 * start from a file of its own.
 * @module
 */
import { env } from "onnxruntime-web/wasm";
import { readAsset } from "../platform/assets.ts";

env.wasm.wasmBinary = await readAsset(new URL("./ort-wasm-simd-threaded.wasm", import.meta.url));
Object.defineProperty(env.wasm, "numThreads", { get: () => 1, set: () => {} });

export * from "onnxruntime-web/wasm";
