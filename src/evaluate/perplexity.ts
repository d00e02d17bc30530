/**
 * Perplexity: how well a model foresees a text.
 * @module
 */
import { runBlocks } from "../calibrate/statistics.ts";
import type { WindowStates } from "../calibrate/states.ts";
import { type HeadPiece, negativeLogLikelihoods } from "../engine/ort/head.ts";
import type { StagedModel } from "../engine/ort/staged.ts";
import { throwIfAborted } from "../checks.ts";

/** The loss of a model on some windows. */
export interface Evaluation {
  /** exp of the mean over windows of `losses`, as the released code's `eval_ppl_dataset` has it. */
  readonly perplexity: number;
  /** Mean negative log-likelihood in nats of each window's tokens but its first. */
  readonly losses: Float64Array;
}

/**
 * Runs a model over windows and measures its loss.
 *
 * @param model The model.
 * @param states Room for the windows' hidden states.
 * @param onStep Called after each run, with the runs done and the runs there will be.
 */
export async function evaluateWindows(
  model: StagedModel,
  states: WindowStates,
  onStep: (done: number, total: number) => void = () => {},
  signal?: AbortSignal,
): Promise<Evaluation> {
  const blocks = model.blocks.length;
  // The head costs about as much as a few blocks: it is counted as one step.
  await runBlocks(model, states, (done) => onStep(done, blocks + 1), signal);
  const evaluation = await measureLosses(model, states, signal);
  onStep(blocks + 1, blocks + 1);
  return evaluation;
}

/**
 * The loss at windows whose hidden states have passed all blocks.
 *
 * @param states Hidden states after the last block.
 * @param head Another head in place of the model's.
 */
export async function measureLosses(
  model: StagedModel,
  states: WindowStates,
  signal?: AbortSignal,
  head?: AsyncIterable<HeadPiece>,
): Promise<Evaluation> {
  // A window's last token foretells nothing that is known: its position is computed, not counted.
  const targets = states.batches.map(({ tokens, length }) =>
    tokens.map((_, t) => (t + 1) % length === 0 ? 0 : tokens[t + 1])
  );
  const scored = await negativeLogLikelihoods(model, targets, (i) => {
    throwIfAborted(signal);
    return model.finish(states.load(i));
  }, head);
  const losses: number[] = [];
  scored.forEach((values, i) => {
    const { windows, length } = states.batches[i];
    for (let w = 0; w < windows; w++) {
      const part = values.subarray(w * length, (w + 1) * length - 1);
      losses.push(part.reduce((a, b) => a + b) / part.length);
    }
  });
  const mean = losses.reduce((a, b) => a + b) / losses.length;
  // What is no number is worse than any: it must not win where models are compared.
  const perplexity = Number.isNaN(mean) ? Infinity : Math.exp(mean);
  return { perplexity, losses: Float64Array.from(losses) };
}
