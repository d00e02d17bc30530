/**
 * The work on a checkpoint that was copied: pruning it, rounding its head, distilling it.
 * @module
 */
import { prunePass, type PruneRules } from "../calibrate/passes.ts";
import { roundedEmbedding, roundedHead } from "../calibrate/round_head.ts";
import { runBlocks } from "../calibrate/statistics.ts";
import type { WindowStates } from "../calibrate/states.ts";
import { OWN_HEADS } from "../checkpoint/architectures/own_head.ts";
import { tokenTables } from "../checkpoint/architectures/spec.ts";
import type { CheckpointWriter } from "../checkpoint/writer.ts";
import { mends } from "../prune/block.ts";
import { groupColumns } from "../prune/int4_grid.ts";
import { withPauses } from "../platform/steps.ts";
import { countZeros, packMask } from "../prune/mask.ts";
import type { Mask } from "../prune/types.ts";
import { type DistillReport, distillWritten } from "./distill.ts";
import { distillSteps, type PruneSettings } from "./options.ts";
import type { BlockLinear } from "./prune_report.ts";
import { OpenModel } from "./shared.ts";
import { runsPerBlock, type Workbench } from "./workbench.ts";
import { zerosOf } from "./zeros.ts";

/** What is decided, and where it is written. */
export interface Decided {
  readonly settings: PruneSettings;
  readonly rules: PruneRules;
  /** The linears that are pruned. */
  readonly linears: readonly BlockLinear[];
  /** Calibration windows, where the method needs any. */
  readonly windows?: readonly Int32Array[];
  /** Writes the copy. */
  readonly writer: CheckpointWriter;
  /** The copy's folder. */
  readonly folder: string;
}

/** What was changed. */
export interface Done {
  /** Zeros of each pruned linear by the name of its weight. */
  readonly zeros: ReadonlyMap<string, number>;
  readonly distilled?: DistillReport;
}

/** Changes nothing: the zeros are those that were there. */
export async function leaveAsItIs(
  { checkpoint }: OpenModel,
  linears: readonly BlockLinear[],
  signal: AbortSignal | undefined,
): Promise<Done> {
  const zeros = new Map<string, number>();
  for (const linear of linears) {
    zeros.set(linear.weight, await withPauses(zerosOf(checkpoint, linear), signal));
  }
  return { zeros };
}

/**
 * Prunes the copy, and distills it where that is asked for.
 *
 * What is pruned and rounded is rounded after it has learned: on a grid of int4 a weight that learns moves
 * by half a step or not at all, which is further than it may go in a model of some size. So is a head: how it is
 * rounded depends on what comes into it.
 */
export async function carryOut(bench: Workbench, decided: Decided): Promise<Done> {
  const { settings, rules } = decided;
  const prunes = rules.shares.some(({ density }) => density < 1);
  const steps = distillSteps(settings, prunes);
  if (steps === 0) return { zeros: await pruneCopy(bench, decided) };
  // Where nothing is pruned there is nothing to learn before it is rounded.
  const roundsLater = rules.int4Group !== undefined && prunes;
  const int4Group = roundsLater ? undefined : rules.int4Group;
  const first = { ...decided, rules: { ...rules, int4Group, headGroup: undefined } };
  const masks = new Map<string, Uint8Array>();
  const densities = new Map<string, number>();
  const zeros = await pruneCopy(bench, first, {
    onMask: (weight, mask) => {
      masks.set(weight, packMask(mask));
      densities.set(weight, 1 - countZeros(mask) / mask.length);
    },
  });
  const distilled = await distillCopy(bench, first, steps, { masks, densities, zeros });
  if (roundsLater) return { zeros: await roundCopy(bench, decided), distilled };
  const { headGroup } = rules;
  if (headGroup !== undefined) await roundHeadOfCopy(bench, decided, headGroup);
  return { zeros, distilled };
}

/**
 * Rounds the copy, in which the weights that stay have learned: each linear to what gives the same as the
 * learned one, on inputs from the rounded ones before it.
 */
function roundCopy(bench: Workbench, decided: Decided): Promise<Map<string, number>> {
  return besideCopy(
    bench,
    decided,
    (rounding) => pruneCopy(rounding, decided, { phase: "round weights" }),
  );
}

/** Rounds nothing but the head of the copy, and its embedding, by what the weights that have learned give it. */
function roundHeadOfCopy(bench: Workbench, decided: Decided, group: number): Promise<void> {
  return besideCopy(bench, decided, async (rounding) => {
    const states = await rounding.room(decided.windows!);
    const model = await rounding.model();
    await rounding.overBlocks("run learned model", states.batches.length, async ({ onBlock }) => {
      await runBlocks(model, states, (done) => onBlock?.(done - 1), rounding.signal);
    });
    await roundHead(rounding, decided.writer, states, group);
    await roundEmbeddings(rounding, decided.writer, group);
    rounding.free(states);
  });
}

/** Calls `work` with a bench for the copy as it is now. */
async function besideCopy<T>(
  bench: Workbench,
  { folder, windows }: Decided,
  work: (rounding: Workbench) => Promise<T>,
): Promise<T> {
  const written = new OpenModel(folder);
  const rounding = bench.beside(written, windows![0].length);
  try {
    return await work(rounding);
  } finally {
    await rounding.close();
    written.checkpoint.close();
  }
}

/** Distills the copy. */
function distillCopy(
  bench: Workbench,
  { settings: { seed, memory }, rules, linears, windows, writer, folder }: Decided,
  steps: number,
  { masks, densities, zeros }: {
    readonly masks: ReadonlyMap<string, Uint8Array>;
    /** Of the masks. */
    readonly densities: ReadonlyMap<string, number>;
    readonly zeros: Map<string, number>;
  },
): Promise<DistillReport> {
  const { int4Group } = rules;
  const groups = int4Group === undefined ? undefined : new Map(
    linears.map(({ weight }) => [weight, groupColumns(densities.get(weight) ?? 1, int4Group)]),
  );
  const written = { linears, windows: windows!, folder, writer, masks, groups, zeros };
  return distillWritten(bench, { steps, seed, memory, ...written });
}

/** Prunes the copy; returns the zeros of each linear by the name of its weight. */
async function pruneCopy(
  bench: Workbench,
  { rules, windows, writer }: Decided,
  { phase = "prune blocks", onMask }: {
    phase?: string;
    onMask?: (weight: string, mask: Mask) => void;
  } = {},
): Promise<Map<string, number>> {
  const zeros = new Map<string, number>();
  const { method } = rules;
  const states = await bench.roomFor(method, windows);
  const model = await bench.model();
  await bench.overBlocks(phase, runsPerBlock(method, states), async (hooks) => {
    await prunePass(
      model,
      rules,
      states,
      ({ weight, mask, values }) => {
        if (mends(method)) writer.replace(weight, values);
        else writer.prune(weight, mask);
        zeros.set(weight, countZeros(values));
        // What was 0 before is pruned already, and learns nothing.
        onMask?.(weight, mends(method) ? mask : mask.map((one, i) => values[i] === 0 ? 0 : one));
      },
      hooks,
    );
  });
  const { headGroup } = rules;
  if (headGroup !== undefined) {
    await roundHead(bench, writer, states.pruned!, headGroup);
    await roundEmbeddings(bench, writer, headGroup);
  }
  bench.freeAll(states);
  return zeros;
}

/**
 * Rounds the head by what comes out of the pruned blocks; tied embeddings are the same tensor. A copy that
 * lies beside them is rounded, too: two tensors that differ are a head that is not tied.
 */
async function roundHead(
  bench: Workbench,
  writer: CheckpointWriter,
  states: WindowStates,
  group: number,
): Promise<void> {
  const model = await bench.model();
  const { weight: name, rows, columns } = model.sections.head;
  // Where it is tied to the embedding some tools store that a second time.
  const copies = OWN_HEADS.map((own) => `${own}.weight`).filter((own) =>
    own !== name && writer.takes(own, [rows, columns])
  );
  const names = [name, ...copies];
  await bench.phases.run("round head", "rows", rows, async (step) => {
    for await (const piece of roundedHead(model, states, group, bench.signal)) {
      for (const each of names) writer.replace(each, piece.weight, piece.first * columns);
      step(piece.first + piece.size);
    }
  });
}

/** Rounds embeddings that are no head: who stores the one in int4 stores the others so. */
async function roundEmbeddings(
  bench: Workbench,
  writer: CheckpointWriter,
  group: number,
): Promise<void> {
  const model = await bench.model();
  const names = tokenTables(bench.spec).filter((name) => name !== model.sections.head.weight);
  for (const name of names) {
    const [rows, columns] = model.weights.tensors.get(name)!.shape;
    await bench.phases.run("round embedding", "rows", rows, async (step) => {
      const shape = [rows, columns] as const;
      for await (const piece of roundedEmbedding(model, name, shape, group, bench.signal)) {
        writer.replace(name, piece.weight, piece.first * columns);
        step(piece.first + piece.size);
      }
    });
  }
}
