/**
 * WebGPU outside browsers: Deno has it, Bun takes it from the package `bun-webgpu`.
 * @module
 */
import { createRequire } from "node:module";
import { runtime } from "./runtime.ts";

/** As much of WebGPU as is asked here; the types of the runtimes disagree on the rest. */
interface Gpu {
  requestAdapter(options?: { powerPreference?: string }): Promise<unknown>;
}

/** The machine's preferred GPU, or undefined when there is none that this runtime can use. */
export async function webgpuAdapter(): Promise<unknown> {
  if (runtime().name === "bun") setUpBun();
  const gpu = (globalThis.navigator as { gpu?: Gpu } | undefined)?.gpu;
  try {
    return await gpu?.requestAdapter({ powerPreference: "high-performance" }) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Installs `navigator.gpu` from `bun-webgpu`, where that package is installed. */
function setUpBun(): void {
  try {
    createRequire(import.meta.url)("bun-webgpu").setupGlobals();
  } catch {
    // Not installed, or no driver: the caller finds no adapter, and says so.
  }
}
