/**
 * WebGPU outside browsers: Deno has it, Bun takes it from the package `bun-webgpu`.
 * @module
 */
import { runtime } from "./runtime.ts";

/** As much of WebGPU as is used here; the types of the runtimes disagree on the rest. */
interface Gpu {
  requestAdapter(options?: { powerPreference?: string }): Promise<Adapter | null>;
}
interface Adapter {
  requestDevice(descriptor?: { requiredLimits?: Record<string, number> }): Promise<Device>;
}
interface Device {
  readonly queue: {
    writeBuffer(buffer: unknown, at: number, data: unknown, ...range: number[]): void;
  };
}

/** The machine's preferred GPU, or undefined when there is none that this runtime can use. */
export async function webgpuAdapter(): Promise<unknown> {
  try {
    if (runtime().name === "bun") await (bunIsSetUp ??= setUpBun());
    return await gpu()?.requestAdapter({ powerPreference: "high-performance" }) ?? undefined;
  } catch {
    // No package, no driver, no device: the caller says so.
    return undefined;
  }
}

function gpu(): Gpu | undefined {
  return (globalThis.navigator as { gpu?: Gpu } | undefined)?.gpu;
}

let bunIsSetUp: Promise<void> | undefined;

/** Installs `navigator.gpu` from `bun-webgpu`, and mends what ONNX Runtime stumbles over there. */
async function setUpBun(): Promise<void> {
  // By a name in a variable: the package is optional, and no other runtime has it.
  const name = "bun-webgpu";
  const { setupGlobals } = await import(name) as { setupGlobals: () => Promise<void> };
  await setupGlobals();
  const found = gpu()!;
  const requestAdapter = found.requestAdapter.bind(found);
  found.requestAdapter = async (options) => {
    const adapter = await requestAdapter(options);
    return adapter && mended(adapter);
  };
}

/** Limits that bun-webgpu wants to be told of, and that ONNX Runtime has never heard of. */
const UNHEARD_OF = [
  "maxStorageBuffersInVertexStage",
  "maxStorageBuffersInFragmentStage",
  "maxStorageTexturesInVertexStage",
  "maxStorageTexturesInFragmentStage",
];

function mended(adapter: Adapter): Adapter {
  const requestDevice = adapter.requestDevice.bind(adapter);
  adapter.requestDevice = async (descriptor = {}) => {
    const limits = Object.fromEntries(UNHEARD_OF.map((limit) => [limit, 0]));
    const device = await requestDevice({
      ...descriptor,
      requiredLimits: { ...limits, ...descriptor.requiredLimits },
    });
    const { queue } = device;
    const writeBuffer = queue.writeBuffer.bind(queue);
    queue.writeBuffer = (buffer, at, data, ...range) =>
      isShared(data)
        ? writeBuffer(buffer, at, copied(data, ...range))
        : writeBuffer(buffer, at, data, ...range);
    return device;
  };
  return adapter;
}

/** Whether bytes lie in shared memory, from which bun-webgpu does not take them. */
function isShared(data: unknown): data is Uint8Array {
  return data instanceof Uint8Array && data.buffer instanceof SharedArrayBuffer;
}

function copied(data: Uint8Array, first = 0, count = data.length - first): Uint8Array {
  return data.slice(first, first + count);
}
