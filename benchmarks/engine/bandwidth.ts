/**
 * How fast this machine reads memory: what a model's weights cannot come faster than.
 * @module
 */
import type { Passed, Way } from "./bandwidth_worker.ts";
import { median } from "../support/print.ts";

/** Bytes that are read in a pass, by all threads together: more than caches hold. */
const BYTES = 256 * 2 ** 20;
/** Passes before those that count, in which WebAssembly is compiled for good. */
const WARM = 10;
const PASSES = 7;
const WAYS: readonly Way[] = ["in one place", "in two places", "in four places"];

/** Threads that read, ready to do so as often as asked. */
export interface Reader {
  /** Bytes a second, in the way that is faster here. */
  measure(): Promise<number>;
  close(): void;
}

/** Starts threads with memory of their own to read, by SIMD loads in WebAssembly. */
export async function openReader(threads: number): Promise<Reader> {
  const share = Math.floor(BYTES / threads / 2 ** 16) * 2 ** 16;
  const workers = Array.from(
    { length: threads },
    () => new Worker(new URL("bandwidth_worker.ts", import.meta.url), { type: "module" }),
  );
  /** Has every worker do the same, and waits for all. */
  const all = <T>(message: unknown): Promise<T[]> =>
    Promise.all(workers.map((worker) =>
      new Promise<T>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => reject(new Error(message));
        worker.postMessage(message);
      })
    ));
  const pass = async (way: Way) => {
    const passed = await all<Passed>(way);
    const from = Math.min(...passed.map(({ start }) => start));
    const to = Math.max(...passed.map(({ end }) => end));
    return share * threads / ((to - from) / 1000);
  };
  await all(share);
  for (let i = 0; i < WARM; i++) await pass(WAYS[i % WAYS.length]);
  return {
    async measure() {
      const rates = WAYS.map((): number[] => []);
      for (let i = 0; i < PASSES; i++) {
        for (const [which, way] of WAYS.entries()) rates[which].push(await pass(way));
      }
      return Math.max(...rates.map(median));
    },
    close: () => workers.forEach((worker) => worker.terminate()),
  };
}
