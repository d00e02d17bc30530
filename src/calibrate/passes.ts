/**
 * The two passes over the blocks: one that judges them, one that prunes them.
 *
 * The released code runs every block four times: twice to judge it, twice to prune it. Here the
 * judging pass takes statistics and goes on in one run; the pruning pass runs a block once for the
 * statistics of its dense weights, as far as its last linear's input, and once with the pruned ones.
 * @module
 */
import type { BlockWeights, StagedModel } from "../engine/ort/staged.ts";
import { throwIfAborted } from "../checks.ts";
import type { Linear } from "../onnx/sections.ts";
import { letEventsIn } from "../platform/events.ts";
import { maskOf, mends, type Share, sharesOfLinears } from "../prune/block.ts";
import { blockScore, outlierPercent } from "../prune/importance.ts";
import { applyMask } from "../prune/mask.ts";
import type { Mask, Method, Pattern, Reducer } from "../prune/types.ts";
import { reconstructPass } from "./reconstruct.ts";
import type { WindowStates } from "./states.ts";
import { embedAll, runAll, weightOf } from "./statistics.ts";

/** What the judging pass finds. */
export interface Importance {
  /** DLP's score S of each block, where it was asked for. */
  readonly scores?: Float64Array;
  /** OWL's outlier percent of each block, where it was asked for. */
  readonly outliers?: Float64Array;
}

/** What to find out about each block. */
export interface Questions {
  /** DLP's score, by this reducer. */
  readonly reducer?: Reducer;
  /** OWL's outliers: scores above this multiple of their mean. */
  readonly threshold?: number;
  /** Whether a linear is left out. */
  readonly skipped: (name: string) => boolean;
}

/** Hooks of a pass. */
export interface PassHooks {
  readonly signal?: AbortSignal;
  /** Called after each run of a batch, and when something has been solved for. */
  readonly onPart?: () => void;
  /** Called when a block is done. */
  readonly onBlock?: (index: number) => void;
  /** Told what a person should know. */
  readonly onNote?: (text: string) => void;
  /** Given each linear that is left dense, before its block runs on; it may change the values. */
  readonly onDense?: (linear: Linear, values: Float32Array) => void;
}

/**
 * Judges every block of the dense model.
 *
 * @param model The dense model.
 * @param states Room for the calibration windows' hidden states.
 * @param questions What to find out.
 */
export async function judge(
  model: StagedModel,
  states: WindowStates,
  questions: Questions,
  hooks: PassHooks = {},
): Promise<Importance> {
  const { signal, onPart, onBlock } = hooks;
  const { reducer, threshold } = questions;
  await embedAll(model, states, signal);
  const count = model.blocks.length;
  const scores = new Float64Array(count);
  const outliers = new Float64Array(count);
  for (let index = 0; index < count; index++) {
    const weights = model.readBlock(index);
    // Nobody reads what the last block puts out.
    const want = { norms: true, advance: index < count - 1 };
    const norms = await runAll(model, index, weights, states, want, onPart, signal);
    const linears = model.blocks[index].linears
      .filter(({ weight }) => !questions.skipped(weight))
      .map((linear) => weightOf(linear, weights, norms));
    if (reducer && linears.length > 0) scores[index] = blockScore(linears, reducer);
    if (threshold && linears.length > 0) outliers[index] = outlierPercent(linears, threshold);
    onBlock?.(index);
  }
  return { scores: reducer && scores, outliers: threshold ? outliers : undefined };
}

/** What to prune, and how. */
export interface PruneRules {
  readonly method: Method;
  readonly pattern: Pattern;
  /** One share a block. */
  readonly shares: readonly Share[];
  /** Whether a weight of that name is left dense. */
  readonly skipped: (name: string) => boolean;
  /** Weights of a row that share a scale, where those that stay are rounded to int4. */
  readonly int4Group?: number;
  /** Rounds a weight's values to what the checkpoint can hold, where they were changed. */
  readonly store?: (name: string, values: Float32Array) => void;
  /** The same of the output head; methods that mend then carry `pruned` past the last block for it. */
  readonly headGroup?: number;
}

/** Windows that a pass carries from block to block. */
export interface PassStates {
  /** The calibration windows in the pruned model; not needed for magnitudes. */
  readonly pruned?: WindowStates;
  /** The same windows in the dense model, for methods that aim at it. */
  readonly dense?: WindowStates;
  /** Other windows to carry through the pruned model; their states are a result of the pass. */
  readonly heldOut?: WindowStates;
}

/** A pruned linear, while its weights are still in memory. */
export interface PrunedLinear {
  /** Name of its weight in the checkpoint. */
  readonly weight: string;
  readonly mask: Mask;
  /** The weights, pruned ones set to 0. */
  readonly values: Float32Array;
}

/**
 * Prunes block by block, each on what comes out of the pruned blocks before it.
 *
 * @param model The dense model; its files are not changed.
 * @param rules What to prune.
 * @param states Room for the windows.
 * @param onLinear Takes each mask, or nothing when only the losses of `heldOut` are wanted.
 */
export async function prunePass(
  model: StagedModel,
  rules: PruneRules,
  { pruned: states, dense, heldOut }: PassStates,
  onLinear: (linear: PrunedLinear) => void,
  hooks: PassHooks = {},
): Promise<void> {
  const { signal, onPart, onBlock } = hooks;
  const { method } = rules;
  if (mends(method)) {
    return await reconstructPass(
      model,
      rules,
      { pruned: states!, dense, heldOut },
      onLinear,
      hooks,
    );
  }
  if (states) await embedAll(model, states, signal);
  if (heldOut) await embedAll(model, heldOut, signal);
  const last = model.blocks.length - 1;
  const advance = { norms: false, advance: true };
  for (let index = 0; index <= last; index++) {
    const weights = model.readBlock(index);
    const norms = states
      ? await runAll(
        model,
        index,
        weights,
        states,
        { norms: true, advance: false },
        onPart,
        signal,
      )
      : new Map<string, Float32Array>();
    const linears = model.blocks[index].linears.filter(({ weight }) => !rules.skipped(weight));
    const pruned = linears.map((linear) => weightOf(linear, weights, norms));
    const shares = sharesOfLinears(pruned, method, rules.pattern, rules.shares[index]);
    for (const [i, linear] of linears.entries()) {
      const weight = pruned[i];
      const mask = maskOf(weight, method, rules.pattern, shares[i]);
      applyMask(weight.values, mask);
      onLinear({ weight: linear.weight, mask, values: weight.values });
      await letEventsIn();
      throwIfAborted(signal);
    }
    giveDense(model.blocks[index].linears, weights, rules, hooks);
    if (states && index < last) {
      await runAll(model, index, weights, states, advance, onPart, signal);
    }
    if (heldOut) await runAll(model, index, weights, heldOut, advance, onPart, signal);
    onBlock?.(index);
  }
}

/** Gives the linears of a block that are left dense to who asked for them. */
export function giveDense(
  linears: readonly Linear[],
  weights: BlockWeights,
  { skipped }: PruneRules,
  { onDense }: PassHooks,
): void {
  if (!onDense) return;
  for (const linear of linears) {
    if (skipped(linear.weight)) onDense(linear, weights.get(linear.weight)!);
  }
}
