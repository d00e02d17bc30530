/**
 * The pruning pass of methods that change the weights which stay.
 * @module
 */
import { OrtAlgebra } from "../engine/ort/algebra.ts";
import type { BlockWeights, StagedModel } from "../engine/ort/staged.ts";
import { throwIfAborted } from "../checks.ts";
import { NotFiniteError } from "../errors.ts";
import { residualOf } from "../onnx/residual.ts";
import type { Linear } from "../onnx/sections.ts";
import { letEventsIn } from "../platform/events.ts";
import { type LinearShare, shareOfLinear } from "../prune/block.ts";
import { type InverseFactor, inverseFactor } from "../prune/cholesky.ts";
import { espalier } from "../prune/espalier.ts";
import { countZeros } from "../prune/mask.ts";
import type { Algebra, Matrix } from "../prune/matrix.ts";
import { NEXT_TO_NOTHING, penalised, penaltyOf, ridge } from "../prune/repair.ts";
import {
  DAMPING,
  int4Rounding,
  type Reconstructed,
  type Rounding,
  sparseGpt,
} from "../prune/sparsegpt.ts";
import { standingMask } from "../prune/standing.ts";
import type { Mask, Pattern } from "../prune/types.ts";
import { Gram, groupsOf, residualTarget } from "./grams.ts";
import {
  giveDense,
  type PassHooks,
  type PassStates,
  type PrunedLinear,
  type PruneRules,
} from "./passes.ts";
import { roundedRows } from "./round_head.ts";
import type { WindowStates } from "./states.ts";
import { embedAll, runAll } from "./statistics.ts";

/** The windows of such a pass. */
type States = PassStates & { readonly pruned: WindowStates };

/** One block in the making. */
interface Work {
  readonly model: StagedModel;
  readonly index: number;
  readonly rules: PruneRules;
  readonly states: States;
  /** The block's weights; those that are pruned already are. */
  readonly weights: BlockWeights;
  readonly algebra: Algebra;
  readonly hooks: PassHooks;
  readonly onLinear: (linear: PrunedLinear) => void;
}

/**
 * Prunes block by block with SparseGPT, or with our repair beyond it.
 *
 * SparseGPT takes the Hessians of all of a block's linears from one run of the dense block on inputs
 * that come from the pruned blocks before it, as the released code does. The repair takes them one
 * after the other, each with those before it in the block pruned already.
 *
 * @param model The dense model; its files are not changed.
 * @param rules What to prune.
 * @param states Room for the windows.
 * @param onLinear Takes each pruned linear.
 */
export async function reconstructPass(
  model: StagedModel,
  rules: PruneRules,
  states: States,
  onLinear: (linear: PrunedLinear) => void,
  hooks: PassHooks = {},
): Promise<void> {
  const { signal, onPart, onBlock } = hooks;
  const algebra = new OrtAlgebra(model.backend, signal);
  const last = model.blocks.length - 1;
  const advance = { norms: false, advance: true };
  try {
    const { dense, ...others } = states;
    if (dense) await embedAll(model, dense, signal);
    const change = roundedRows(model.sections.head.weight, rules.headGroup);
    for (const each of [others.pruned, others.heldOut]) {
      if (each) await embedAll(model, each, signal, change);
    }
    for (let index = 0; index <= last; index++) {
      const weights = model.readBlock(index);
      const work = { model, index, rules, states, weights, algebra, hooks, onLinear };
      await (states.dense ? repairBlock(work, states.dense) : sparseGptBlock(work));
      giveDense(model.blocks[index].linears, weights, rules, hooks);
      if (index < last || rules.headGroup !== undefined) {
        await runAll(model, index, weights, states.pruned, advance, onPart, signal);
      }
      if (states.heldOut) {
        await runAll(model, index, weights, states.heldOut, advance, onPart, signal);
      }
      onBlock?.(index);
    }
  } finally {
    await algebra.close();
  }
}

/** SparseGPT as released. */
async function sparseGptBlock(work: Work): Promise<void> {
  const { model, index, weights, states, algebra, hooks } = work;
  const { pattern } = work.rules;
  const linears = linearsOf(work);
  if (linears.length === 0) return;
  const inputs = [...new Set(linears.map(({ input }) => input))];
  const grams = new Map(inputs.map((input) => [input, new Gram(algebra)]));
  for (let i = 0; i < states.pruned.batches.length; i++) {
    throwIfAborted(hooks.signal);
    const { taps } = await model.runBlock(index, weights, states.pruned.load(i), { taps: inputs });
    for (const [input, gram] of grams) await gram.add(taps.get(input)!, taps.get(input)!);
    hooks.onPart?.();
  }
  for (const group of groupsOf(linears)) {
    const hessian = grams.get(group[0].input)!.sum(group[0].input);
    const dead = reviveDead(hessian);
    const { upper } = await factorOf(work, hessian, DAMPING, group);
    for (const linear of group) {
      const dense = matrixOf(linear, weights);
      for (const c of dead) {
        for (let r = 0; r < dense.rows; r++) dense.data[r * dense.columns + c] = 0;
      }
      const { share, mask } = linear;
      const rounding = roundingOf(work, share);
      const request = { weights: dense, upper, pattern, share, mask, rounding };
      await finish(work, linear, await sparseGpt(request, algebra));
    }
  }
}

/**
 * The repair. Each group of linears with one input, in the order of computation: inputs X from the
 * block as pruned so far, target Y from the dense model (for linears that join the residual stream, so
 * that the *stream* is as in the dense model; else what the dense linear gives on its own inputs).
 * The dense weights that fit best are pruned by SparseGPT, and what stays is solved for.
 */
async function repairBlock(work: Work, dense: WindowStates): Promise<void> {
  const { model, index, weights, states, algebra, hooks, rules } = work;
  const { pattern } = rules;
  const block = model.blocks[index];
  const linears = linearsOf(work);
  const original = new Map(
    [...weights].map(([name, values]) => [
      name,
      linears.some(({ weight }) => weight === name) ? values.slice() : values,
    ]),
  );
  const groups = groupsOf(linears);
  if (groups.length === 0) {
    // The dense states go on with the last group, and here is none.
    const advance = { norms: false, advance: true };
    await runAll(model, index, weights, dense, advance, hooks.onPart, hooks.signal);
  }
  const done: Linear[] = block.linears.filter(({ weight }) => rules.skipped(weight));
  for (const [g, group] of groups.entries()) {
    const [{ input }] = group;
    const residual = group.length === 1
      ? residualOf(model.graph, block, group[0], done)
      : undefined;
    const aimed = residual && (residual.bias === undefined || weights.has(residual.bias))
      ? residual
      : undefined;
    const wants = {
      // The dense states go on with the last group, whose run comes closest to the block's end.
      dense: { taps: [aimed?.sum ?? input], output: g === groups.length - 1 },
      pruned: { taps: aimed ? [input, aimed.other] : [input] },
    };
    const gram = new Gram(algebra);
    const cross = new Gram(algebra);
    for (let i = 0; i < states.pruned.batches.length; i++) {
      throwIfAborted(hooks.signal);
      const aim = await model.runBlock(index, original, dense.load(i), wants.dense);
      const now = await model.runBlock(index, weights, states.pruned.load(i), wants.pruned);
      const x = now.taps.get(input)!;
      await gram.add(x, x);
      const y = aimed ? residualTarget(aimed, aim, now, weights) : aim.taps.get(input)!;
      await cross.add(y, x);
      if (aim.hidden) dense.take(i, aim.hidden);
      hooks.onPart?.();
    }
    const sum = gram.sum(input);
    const penalty = penaltyOf(sum, gram.tokens);
    const hessian = penalised(sum, penalty);
    const factor = await factorOf(work, hessian, NEXT_TO_NOTHING, group);
    for (const linear of group) {
      const own = matrixOf(linear, weights);
      const towards = aimed ? cross.sum(input) : await algebra.product(own, cross.sum(input));
      const target = await ridge(own, towards, penalty, factor.upper, algebra);
      const { share, mask } = linear;
      const rounding = roundingOf(work, share);
      const request = { target, hessian, upper: factor.upper, pattern, share, mask, rounding };
      await finish(work, linear, await espalier(request, algebra));
    }
    done.push(...group);
  }
}

/** A linear that is pruned. */
interface PrunedShare extends Linear {
  /** How much of it stays. */
  readonly share: LinearShare;
  /** What stays, where that is what other runs have left. */
  readonly mask?: Mask;
}

/** The block's linears that are not skipped, as they are before any of them is pruned. */
function linearsOf({ model, index, rules, weights }: Work): PrunedShare[] {
  return model.blocks[index].linears
    .filter(({ weight }) => !rules.skipped(weight))
    .map((linear, i) => {
      const share = shareOfLinear(rules.shares[index], i);
      return { ...linear, share, ...standing(weights.get(linear.weight)!, rules.pattern, share) };
    });
}

/** What stays of a linear that is as sparse as it is to become, and how much that is. */
function standing(
  values: Float32Array,
  pattern: Pattern,
  share: LinearShare,
): Partial<Pick<PrunedShare, "share" | "mask">> {
  const mask = standingMask(values, pattern, share);
  if (!mask) return {};
  return { share: { ...share, density: 1 - countZeros(mask) / mask.length }, mask };
}

function matrixOf({ weight, rows, columns }: Linear, weights: BlockWeights): Matrix {
  return { data: weights.get(weight)!, rows, columns };
}

function roundingOf({ rules: { int4Group } }: Work, share: LinearShare): Rounding | undefined {
  return int4Group === undefined ? undefined : int4Rounding(share, int4Group);
}

/** Puts a pruned linear where the block runs with it, and hands it over. */
async function finish(
  { rules, weights, onLinear, hooks }: Work,
  { weight }: Linear,
  { mask, values }: Reconstructed,
): Promise<void> {
  rules.store?.(weight, values);
  onLinear({ weight, mask, values });
  // After whoever takes it: a trial rounds values to what they will be stored as.
  weights.get(weight)!.set(values);
  hooks.onPart?.();
  await letEventsIn();
  throwIfAborted(hooks.signal);
}

/** Inputs that are always 0 get a 1 on the diagonal (released code); returns their columns. */
function reviveDead({ data, rows: n }: Matrix): number[] {
  const dead: number[] = [];
  for (let c = 0; c < n; c++) {
    if (data[c * n + c] !== 0) continue;
    data[c * n + c] = 1;
    dead.push(c);
  }
  return dead;
}

/** Factors a group's Hessian, and says so where it took more damping than usual. */
async function factorOf(
  { algebra, index, hooks }: Work,
  hessian: Matrix,
  fraction: number,
  group: readonly Linear[],
): Promise<InverseFactor> {
  const of = `block ${index}, ${group.map(({ name }) => name).join(", ")}`;
  const factor = await inverseFactor(hessian, fraction, algebra);
  hooks.onPart?.();
  if (!factor) {
    throw new NotFiniteError(
      `the Hessian of ${of} is not positive definite with any damping: its activations are damaged`,
    );
  }
  if (factor.raised > 0) {
    hooks.onNote?.(
      `the Hessian of ${of} is not positive definite: its damping is ${
        fraction * 10 ** factor.raised
      } of the mean diagonal`,
    );
  }
  return factor;
}
