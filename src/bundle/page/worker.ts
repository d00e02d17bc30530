/**
 * The worker of a page: loads the model into the engine, and generates. So the page stays free, and the
 * engine's first thread is one that may sleep.
 * @module
 */
import { isBroken } from "../../engine/again.ts";
import { isEndOfModel } from "../../engine/end_of_model.ts";
import { BackendError, EspalierError, FileReadError } from "../../errors.ts";
import { cachedSource, type Model, runCompiled } from "../../generate/run.ts";
import { mayShareMemory, processors } from "../../platform/machine.ts";
import type { Failure, PageSettings, Reply, Request } from "./protocol.ts";

/** Threads beyond which phones get hot, and memory has nothing more to give. */
const MOST_THREADS = 8;

const scope = self as unknown as {
  onmessage: (event: { data: Request }) => void;
  postMessage(reply: Reply): void;
};
let model: Model | undefined;
/** What was loaded: it is loaded again where the engine has broken off. */
let wanted: { readonly url: string; readonly settings: PageSettings } | undefined;
const running = new Map<number, AbortController>();

scope.onmessage = ({ data }) => {
  if (data.type === "load") void load(data.url, data.settings);
  else if (data.type === "generate") void generate(data);
  else running.get(data.id)?.abort();
};

async function load(url: string, settings: PageSettings): Promise<void> {
  try {
    wanted = { url, settings };
    model = await open(wanted);
    const { info, canChat, card } = model;
    scope.postMessage({ type: "loaded", info, canChat, card });
  } catch (error) {
    scope.postMessage({ type: "unloaded", failure: failureOf(error) });
  }
}

async function open(
  { url, settings: { context, kv } }: NonNullable<typeof wanted>,
): Promise<Model> {
  const source = await cachedSource(url, {
    onProgress: (loaded) => scope.postMessage({ type: "progress", ...loaded }),
  });
  const run = (threads: number) => runCompiled(source, { threads, context, kv });
  const threads = mayShareMemory() ? Math.min(processors(), MOST_THREADS) : 1;
  return await run(threads).catch((error) => {
    if (threads === 1 || !isOfThreads(error)) throw error;
    return run(1);
  });
}

/** Whether it may be that one thread works where several do not: shared memory is reserved as a whole. */
function isOfThreads(error: unknown): boolean {
  return error instanceof RangeError || error instanceof BackendError;
}

async function generate(
  { id, prompt, options, json }: Request & { readonly type: "generate" },
): Promise<void> {
  const stop = new AbortController();
  running.set(id, stop);
  try {
    if (!wanted) throw new Error("the model is not there yet");
    // It lies in the page's cache.
    model ??= await open(wanted);
    const constraint = json ? await model.constrain("json") : undefined;
    for await (
      const piece of model.generate(prompt, { ...options, constraint, signal: stop.signal })
    ) {
      if (piece.type === "end") scope.postMessage({ type: "end", id, end: piece });
      else if (piece.text !== "") scope.postMessage({ type: "text", id, text: piece.text });
    }
  } catch (error) {
    if (model && isEndOfModel(error, model.info)) {
      // Nobody else can load it again, and what was said so far need not be lost with it.
      model.close().catch(() => {});
      model = undefined;
    }
    scope.postMessage({ type: "failed", id, failure: failureOf(error) });
  } finally {
    running.delete(id);
  }
}

function failureOf(error: unknown): Failure {
  return {
    ...(error instanceof EspalierError
      ? { code: error.code }
      : error instanceof RangeError
      ? { code: "MEMORY_BUDGET" }
      : {}),
    message: error instanceof Error ? error.message : String(error),
    // What fetch throws where it has no answer is of that class.
    offline: error instanceof FileReadError &&
      (isBroken(error) || error.cause instanceof TypeError),
  };
}
