/**
 * Perplexity of a loaded model: how well it foresees tokens, by the engine that runs it.
 * @module
 */
import type { EngineModel } from "../engine/model.ts";
import { logprobsOf } from "../text/logprobs.ts";

/**
 * exp of the mean over windows of the mean loss of a window's tokens but its first.
 *
 * @param model A loaded model.
 * @param windows Windows of at least two tokens.
 * @throws {AbortError} When the signal says so.
 */
export async function perplexityOf(
  model: EngineModel,
  windows: readonly Int32Array[],
  signal?: AbortSignal,
): Promise<number> {
  const { vocabulary } = model.info;
  let sum = 0;
  for (const window of windows) {
    const sequence = model.open();
    try {
      const logits = await sequence.run(window, { signal, logits: "all" });
      let loss = 0;
      for (let t = 0; t + 1 < window.length; t++) {
        loss += lossOf(logits.subarray(t * vocabulary, (t + 1) * vocabulary), window[t + 1]);
      }
      sum += loss / (window.length - 1);
    } finally {
      sequence.close();
    }
  }
  return Math.exp(sum / windows.length);
}

/** Negative log-likelihood of a token, in nats. */
function lossOf(logits: Float32Array, token: number): number {
  let highest = -Infinity;
  for (const logit of logits) if (logit > highest) highest = logit;
  return -logprobsOf(logits, highest, token, 0).logprob;
}
