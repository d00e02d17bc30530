/**
 * Threads: web Workers where there are any, else those of Node. The only file that looks which.
 * @module
 */
import { builtinModule } from "./builtin.ts";

/** A running thread. */
export interface Thread {
  post(message: unknown): void;
  terminate(): void;
}

/** What a thread tells; who listens may change. */
export interface ThreadListener {
  onMessage: (message: unknown) => void;
  onError: (reason: string) => void;
}

const NOT_STARTED =
  "it was not let in: a page's Content-Security-Policy must allow worker-src blob:";

/**
 * Starts a thread.
 *
 * @param source A script. It finds `self.onmessage` and `self.postMessage` in every runtime.
 */
export async function startThread(source: string, listener: ThreadListener): Promise<Thread> {
  if (typeof Worker === "undefined") return await startNodeThread(source, listener);
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  let worker: Worker;
  try {
    worker = new Worker(url, { type: "module" });
  } catch {
    // onnxruntime-web puts Node's Worker, which takes no such addresses, in the place of Bun's.
    URL.revokeObjectURL(url);
    return await startNodeThread(source, listener);
  }
  // What waits for a thread has a timer, which keeps the process. Not all runtimes can be told.
  (worker as { readonly unref?: () => void }).unref?.();
  worker.onmessage = (event) => listener.onMessage(event.data);
  worker.onerror = (event) => {
    event.preventDefault?.();
    // One that was never started has nothing to say.
    listener.onError(event.message || NOT_STARTED);
  };
  return {
    post: (message) => worker.postMessage(message),
    terminate: () => {
      worker.terminate();
      URL.revokeObjectURL(url);
    },
  };
}

async function startNodeThread(source: string, listener: ThreadListener): Promise<Thread> {
  const { Worker: NodeWorker } = await builtinModule<typeof import("node:worker_threads")>(
    "node:worker_threads",
  );
  // By `node --input-type=module` this is a module, which has no require.
  const prelude = `const { parentPort } = typeof require === "function"
  ? require("node:worker_threads")
  : process.getBuiltinModule("node:worker_threads");
const self = { postMessage: (message) => parentPort.postMessage(message) };
parentPort.on("message", (data) => self.onmessage({ data }));
`;
  const worker = new NodeWorker(prelude + source, { eval: true });
  worker.on("message", (message) => listener.onMessage(message));
  worker.on("error", (error) => listener.onError(String(error)));
  worker.unref();
  return {
    post: (message) => worker.postMessage(message),
    terminate: () => void worker.terminate(),
  };
}
