/**
 * Text that a model writes itself, to calibrate on where no other is at hand (`--calibration self`).
 *
 * The idea is that of Williams, Chrysostomou and Aletras, "Self-calibration for Language Model
 * Quantization and Pruning" (2024). The temperature is 1 throughout, which draws from the model's own
 * distribution.
 * @module
 */
import type { EngineModel } from "../engine/model.ts";
import { throwIfAborted } from "../checks.ts";
import { letEventsIn } from "../platform/events.ts";
import { Sampler } from "../text/sampler.ts";
import { samplingSchema, type SamplingSettings } from "../text/sampling_options.ts";

/** How such text is drawn. */
export const SELF_TEMPERATURE = 1;
/** Tokens between two looks at the event loop. */
const STRIDE = 8;

/** What is to be written. */
export interface WritingOrder {
  readonly windows: number;
  /** Tokens a window; at most the model's context. */
  readonly length: number;
  readonly seed: number;
  /** The token that a text begins with. */
  readonly begin: number;
  /** Tokens after which a text has ended. */
  readonly ends: ReadonlySet<number>;
}

/**
 * Has a model write windows of tokens.
 *
 * A window is texts, one after the other, each from the token that begins one; where one ends, the next
 * begins without any memory of it, and the last is cut. Window `i` is drawn with a seed of its own, so
 * that more windows begin with the same ones. The same model, engine settings and seed give the same
 * tokens in every runtime, with any number of threads.
 *
 * @param model A loaded model.
 * @param order What to write.
 * @param onTokens Told of the tokens written so far.
 * @returns Windows of `order.length` tokens, the one that begins a text included.
 * @throws {AbortError} When the signal says so.
 */
export async function writeWindows(
  model: Pick<EngineModel, "info" | "open">,
  order: WritingOrder,
  onTokens: (done: number) => void = () => {},
  signal?: AbortSignal,
): Promise<Int32Array[]> {
  const windows: Int32Array[] = [];
  for (let i = 0; i < order.windows; i++) {
    const written = i * order.length;
    windows.push(await writeWindow(model, order, i, (done) => onTokens(written + done), signal));
  }
  return windows;
}

async function writeWindow(
  model: Pick<EngineModel, "info" | "open">,
  { length, seed, begin, ends }: WritingOrder,
  index: number,
  onTokens: (done: number) => void,
  signal: AbortSignal | undefined,
): Promise<Int32Array> {
  const window = new Int32Array(length);
  const sampler = new Sampler(settingsFor(seed, index), model.info.vocabulary);
  let done = 0;
  while (done < length) {
    const sequence = model.open();
    try {
      window[done++] = begin;
      while (done < length) {
        if (done % STRIDE === 0) {
          await letEventsIn();
          throwIfAborted(signal);
          onTokens(done);
        }
        const logits = await sequence.run([window[done - 1]], { signal });
        const { token } = sampler.next(logits);
        // Where one token does both, it stands once between two texts.
        if (token === begin && ends.has(token)) break;
        window[done++] = token;
        if (ends.has(token)) break;
      }
    } finally {
      sequence.close();
    }
  }
  onTokens(done);
  return window;
}

/** Seeds of neighbours share no window: seed 0 window 1 is not seed 1 window 0. */
function settingsFor(seed: number, index: number): SamplingSettings {
  return samplingSchema.parse({ temperature: SELF_TEMPERATURE, seed: seed * 2 ** 20 + index });
}
