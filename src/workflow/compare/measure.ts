/**
 * A compiled variant, measured as it would be run.
 * @module
 */
import { join } from "node:path";
import type { RunHooks } from "../../api/options.ts";
import { throwIfAborted } from "../../checks.ts";
import { DECODE_CONTEXT, decodeRate, median } from "../../generate/bench.ts";
import { load } from "../../generate/load.ts";
import type { Model } from "../../generate/model.ts";
import { perplexityOf } from "../../generate/perplexity.ts";
import { bytesIn } from "../../platform/folders.ts";

/** How variants are measured, all alike. */
export interface Measuring {
  /** Windows of held-out text. */
  readonly windows: readonly Int32Array[];
  readonly threads?: number;
  /** Rounds in which speed is taken. */
  readonly repeat: number;
  /** Folder of the compiled model that speed is taken beside. */
  readonly reference: string;
  /** Most tokens of a sequence of either. */
  readonly context: number;
}

/** What was measured of a compiled model. */
export interface Figures {
  readonly bytes: number;
  /** Undefined where it is not finite. */
  readonly perplexity?: number;
  readonly tokensPerSecond?: number;
  readonly referenceTokensPerSecond?: number;
  readonly speedup?: number;
  readonly engine: string;
  readonly device: string;
}

/**
 * Measures a compiled model.
 *
 * Speed is taken in rounds: the reference, then the model, so that a machine that has more to do at one
 * time than at another is as slow for both. Each round is of the same tokens; the first warms up.
 *
 * @param folder Of the compiled model.
 * @throws {EspalierError} As `load` does.
 */
export async function measureCompiled(
  folder: string,
  { windows, threads, repeat, reference, context: most }: Measuring,
  hooks: RunHooks,
): Promise<Figures> {
  const { signal, onProgress } = hooks;
  const told = (phase: string, unit: string, done: number, total: number) =>
    onProgress?.({ type: "progress", phase, done, total, unit });
  const context = Math.min(most, Math.max(windows[0].length, DECODE_CONTEXT));
  const open = (folder: string) => load(folder, { threads, context }, { signal });
  const model = await open(folder);
  try {
    let sum = 0;
    for (const [i, window] of windows.entries()) {
      told("perplexity", "windows", i, windows.length);
      sum += Math.log(await perplexityOf(model, [window], signal));
    }
    told("perplexity", "windows", windows.length, windows.length);
    const perplexity = Math.exp(sum / windows.length);
    const speed = model.info.context < DECODE_CONTEXT ? {} : await inRounds(
      model,
      folder === reference ? undefined : await open(reference),
      repeat,
      (done) => told("speed", "rounds", done, repeat + 1),
      signal,
    );
    const { engine, device } = model.info;
    return {
      bytes: bytesIn(join(folder, "onnx")),
      ...(Number.isFinite(perplexity) ? { perplexity } : {}),
      ...speed,
      engine,
      device,
    };
  } finally {
    await model.close();
  }
}

/** The reference, which is closed afterwards, and the model by turns. */
async function inRounds(
  model: Model,
  reference: Model | undefined,
  repeat: number,
  onRound: (done: number) => void,
  signal: AbortSignal | undefined,
): Promise<Pick<Figures, "tokensPerSecond" | "referenceTokensPerSecond" | "speedup">> {
  try {
    const own: number[] = [];
    const beside: number[] = [];
    for (let round = 0; round <= repeat; round++) {
      onRound(round);
      throwIfAborted(signal);
      const other = reference && await decodeRate(reference, signal);
      const rate = await decodeRate(model, signal);
      if (round === 0) continue;
      own.push(rate);
      beside.push(other ?? rate);
    }
    onRound(repeat + 1);
    return {
      tokensPerSecond: median(own),
      referenceTokensPerSecond: median(beside),
      speedup: median(own.map((rate, i) => rate / beside[i])),
    };
  } finally {
    await reference?.close();
  }
}
