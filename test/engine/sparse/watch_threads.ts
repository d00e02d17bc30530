/** Threads of the engine as tests see them. @module */

/** Threads that were started while `start` ran. Their script may be another. */
export async function watchThreads<T>(
  start: () => Promise<T>,
  change: (script: string) => string = (script) => script,
): Promise<{ result: T; workers: Worker[] }> {
  const real = { Worker: globalThis.Worker, Blob: globalThis.Blob };
  const workers: Worker[] = [];
  // test/support/runtime_worker.ts keeps it, where there is need.
  const { runtimeWorker = real.Worker } = globalThis as { runtimeWorker?: typeof Worker };
  globalThis.Worker = class extends runtimeWorker {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(url, options);
      workers.push(this);
    }
  };
  globalThis.Blob = class extends real.Blob {
    constructor(parts: BlobPart[] = [], options?: BlobPropertyBag) {
      super(parts.map((part) => typeof part === "string" ? change(part) : part), options);
    }
  };
  try {
    return { result: await start(), workers };
  } finally {
    Object.assign(globalThis, real);
  }
}
