/**
 * ONNX Runtime, in whichever build this machine has: native, WebAssembly, or WebGPU.
 * @module
 */
import type * as Ort from "onnxruntime-common";
import { basename, dirname, join } from "node:path";
import { BackendError } from "../../errors.ts";
import { letEventsIn } from "../../platform/events.ts";
import { readBytes } from "../../platform/files.ts";
import { threadsOfOnnxRuntimeWeb } from "../../platform/machine.ts";
import { hasPackage } from "../../platform/packages.ts";
import { isBinary, processors, runtime } from "../../platform/runtime.ts";
import { webgpuAdapter } from "../../platform/webgpu.ts";
import { hasNode, type OrtModule, requireNode } from "./node_module.ts";

/** Where graphs run. */
export type BackendName = "node" | "wasm" | "webgpu";

/** A tensor as sessions take and give it. */
export type Tensor = Ort.Tensor;

/** A loaded graph. */
export interface Session {
  /** Runs it; outputs are on the CPU, but for those that were asked to stay. */
  run(feeds: Record<string, Tensor>): Promise<Record<string, Tensor>>;
  /** Frees what it holds. */
  release(): Promise<void>;
}

/** A build of ONNX Runtime, ready to load graphs. */
export interface Backend {
  readonly name: BackendName;
  /** What is shown to people, e.g. `onnxruntime-node 1.30.0, 2 threads`. */
  readonly label: string;
  readonly threads: number;
  /** Why it is not the one that would have been taken, where that is installed. */
  readonly insteadOf?: string;
  /**
   * Loads a model.
   *
   * @param model A serialised ModelProto.
   * @throws {BackendError} When the runtime refuses it.
   */
  load(model: Uint8Array): Promise<Session>;
  /**
   * Loads a model file whose weights lie in `NAME_data` beside it.
   *
   * @param stay Outputs to leave on the device where there is one, until they are disposed of.
   * @throws {BackendError} When the runtime refuses it.
   */
  loadFile(path: string, stay?: readonly string[]): Promise<Session>;
  /** Makes a float32 tensor; the data is not copied. */
  floats(data: Float32Array, dims: readonly number[]): Tensor;
  /** Makes an int32 tensor. */
  int32(data: Int32Array, dims: readonly number[]): Tensor;
  /** Makes an int64 tensor. */
  int64(data: BigInt64Array, dims: readonly number[]): Tensor;
}

/**
 * Opens a backend.
 *
 * @param wanted `auto` takes onnxruntime-node where it is installed, else WebAssembly.
 * @param threads Threads for the CPU; all processors when left out, of onnxruntime-web as many as it is safe with.
 * @param options `lean`: give memory back after every run. It costs a little time, and little only
 *   where runs are long.
 * @throws {BackendError} When the wanted one is not there.
 */
export async function openBackend(
  wanted: BackendName | "auto",
  threads?: number,
  options: { lean?: boolean } = {},
): Promise<Backend> {
  const lean = options.lean ?? false;
  switch (wanted) {
    case "node":
      return nodeBackend(requireNode(), threads ?? processors(), lean);
    case "wasm":
      return await wasmBackend(threads ?? threadsOfOnnxRuntimeWeb());
    case "webgpu":
      return await webgpuBackend();
    case "auto": {
      if (!hasNode()) return await openBackend("wasm", threads);
      try {
        return await openBackend("node", threads, options);
      } catch (error) {
        // Installed, but without a library for this platform, or not allowed to load it.
        const { message } = error as Error;
        return Object.assign(await openBackend("wasm", threads), { insteadOf: message });
      }
    }
  }
}

function nodeBackend(ort: OrtModule, threads: number, lean: boolean): Backend {
  return new OrtBackend(ort, "node", `onnxruntime-node ${ort.env.versions.node ?? ""}`, threads, {
    executionProviders: ["cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    // Every session keeps an arena of its own, and a second one once it has learnt the pattern of its
    // allocations: with large blocks that is a gigabyte which nobody uses.
    enableCpuMemArena: !lean,
    enableMemPattern: !lean,
  });
}

let wasmThreads: number | undefined;

async function wasmBackend(threads: number): Promise<Backend> {
  const ort = await import("onnxruntime-web");
  // The thread pool is made once a process, with the first session.
  wasmThreads ??= threads;
  ort.env.wasm.numThreads = wasmThreads;
  // In a binary there is one, whatever is asked for.
  wasmThreads = ort.env.wasm.numThreads;
  return new OrtBackend(ort, "wasm", `onnxruntime-web ${ort.env.versions.web ?? ""}`, wasmThreads, {
    executionProviders: ["wasm"],
  });
}

async function webgpuBackend(): Promise<Backend> {
  if (isBinary()) {
    throw new BackendError("a program of one file has no WebGPU: take --device wasm");
  }
  const adapter = await webgpuAdapter();
  if (!adapter) {
    const { name } = runtime();
    throw new BackendError(
      `${name} finds no WebGPU adapter here: ` +
        `${
          name === "bun" && !hasPackage("bun-webgpu") ? "install the package bun-webgpu, or " : ""
        }use the CPU or WebAssembly`,
    );
  }
  const ort = await import("onnxruntime-web/webgpu");
  ort.env.wasm.numThreads = 1;
  return new OrtBackend(ort, "webgpu", `onnxruntime-web ${ort.env.versions.web ?? ""} WebGPU`, 1, {
    executionProviders: ["webgpu"],
  });
}

class OrtBackend implements Backend {
  readonly label: string;
  readonly #ort: OrtModule;
  readonly #options: Ort.InferenceSession.SessionOptions;

  constructor(
    ort: OrtModule,
    readonly name: BackendName,
    product: string,
    readonly threads: number,
    options: Ort.InferenceSession.SessionOptions,
  ) {
    this.#ort = ort;
    this.#options = { ...options, graphOptimizationLevel: "all", logSeverityLevel: 3 };
    this.label = `${product.trim()}, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  }

  load(model: Uint8Array): Promise<Session> {
    return this.#open(() => this.#ort.InferenceSession.create(model, this.#options));
  }

  loadFile(path: string, stay: readonly string[] = []): Promise<Session> {
    if (this.name === "node") {
      return this.#open(() => this.#ort.InferenceSession.create(path, this.#options));
    }
    const location = `${basename(path)}_data`;
    const options: Ort.InferenceSession.SessionOptions = {
      ...this.#options,
      externalData: [{ path: location, data: readBytes(join(dirname(path), location)) }],
    };
    if (this.name === "webgpu") {
      options.preferredOutputLocation = Object.fromEntries(
        stay.map((name) => [name, "gpu-buffer"]),
      );
    }
    return this.#open(() => this.#ort.InferenceSession.create(readBytes(path), options));
  }

  async #open(create: () => Promise<Ort.InferenceSession>): Promise<Session> {
    try {
      const session = await create();
      return {
        run: async (feeds) => {
          try {
            return await session.run(feeds) as Record<string, Tensor>;
          } catch (cause) {
            throw this.#failed("could not run a graph", cause);
          } finally {
            await letEventsIn();
          }
        },
        release: () => session.release(),
      };
    } catch (cause) {
      throw this.#failed("refused a graph", cause);
    }
  }

  floats(data: Float32Array, dims: readonly number[]): Tensor {
    return new this.#ort.Tensor("float32", data, dims);
  }

  int32(data: Int32Array, dims: readonly number[]): Tensor {
    return new this.#ort.Tensor("int32", data, dims);
  }

  int64(data: BigInt64Array, dims: readonly number[]): Tensor {
    return new this.#ort.Tensor("int64", data, dims);
  }

  #failed(what: string, cause: unknown): BackendError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new BackendError(`${this.label} ${what}: ${reason.replaceAll("\n", " ")}`, { cause });
  }
}
