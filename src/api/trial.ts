/**
 * Pruning in memory only, to see what it costs.
 * @module
 */
import {
  type PassHooks,
  type PrunedLinear,
  prunePass,
  type PruneRules,
} from "../calibrate/passes.ts";
import { roundedHead } from "../calibrate/round_head.ts";
import { measureLosses } from "../evaluate/perplexity.ts";
import { runsPerBlock, type Workbench } from "./workbench.ts";

/** Windows of calibration, and of text kept apart, that a trial takes. */
export const TRIAL_WINDOWS = 16;

/**
 * The perplexity of the model pruned by some rules; nothing is written.
 *
 * @param phase What to call the work.
 * @param calibration Windows to take statistics of.
 * @param heldOut Windows to measure on.
 * @param onLinear Takes each pruned linear before its block runs on, and may change its weights.
 * @param onDense Takes each linear that is left dense, likewise.
 */
export async function tryRules(
  bench: Workbench,
  phase: string,
  rules: PruneRules,
  calibration: readonly Int32Array[],
  heldOut: readonly Int32Array[],
  onLinear: (linear: PrunedLinear) => void = () => {},
  onDense?: PassHooks["onDense"],
): Promise<number> {
  const states = await bench.roomForTrial(rules.method, calibration, heldOut);
  try {
    return await bench.overBlocks(
      phase,
      runsPerBlock(rules.method, states),
      async (hooks) => {
        const model = await bench.model();
        await prunePass(model, rules, states, onLinear, { ...hooks, onDense });
        const { headGroup } = rules;
        const head = headGroup === undefined
          ? undefined
          : roundedHead(model, states.pruned!, headGroup, bench.signal);
        return (await measureLosses(model, states.heldOut, bench.signal, head)).perplexity;
      },
    );
  } finally {
    bench.freeAll(states);
  }
}
