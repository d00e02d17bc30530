/**
 * The last step of `prune`: distillation of what was written from the dense model.
 * @module
 */
import { distill, type Lessons, prepareLessons, windowsPerStep } from "../calibrate/distill.ts";
import { Parameters } from "../calibrate/parameters.ts";
import { batchesOf, type DistillationWork, planForDistillation } from "../calibrate/plan.ts";
import { WindowStates } from "../calibrate/states.ts";
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import type { CheckpointWriter } from "../checkpoint/writer.ts";
import type { StagedModel } from "../engine/ort/staged.ts";
import { type FloatType, roundTo } from "../onnx/element_type.ts";
import { type GroupColumns, matrixGrid } from "../prune/int4_grid.ts";
import { countZeros, packMask } from "../prune/mask.ts";
import type { BlockLinear } from "./prune_report.ts";
import { OpenModel, workloadOf } from "./shared.ts";
import type { Workbench } from "./workbench.ts";

/** How a distillation went. */
export interface DistillReport {
  readonly steps: number;
  /**
   * Kullback-Leibler divergence of the predictions from the dense model's on calibration windows, in nats a
   * token: mean over the first and over the last eighth of the steps.
   */
  readonly divergence: { readonly start: number; readonly end: number };
}

/** What to distill. */
export interface DistillTask {
  readonly steps: number;
  readonly seed: number;
  /** Linears whose weights move where they stay. */
  readonly linears: readonly BlockLinear[];
  /** Calibration windows. */
  readonly windows: readonly Int32Array[];
  /** Folder of the pruned checkpoint. */
  readonly folder: string;
  /** Writes there. */
  readonly writer: CheckpointWriter;
  /** Masks of the linears by the names of their weights, packed. */
  readonly masks: ReadonlyMap<string, Uint8Array>;
  /** Where weights are rounded: columns that share a scale, by the names of the weights. */
  readonly groups?: ReadonlyMap<string, GroupColumns>;
  /** Zeros of each linear by the name of its weight; kept up to date. */
  readonly zeros: Map<string, number>;
  /** Bytes that the process may take. */
  readonly memory?: number;
}

/**
 * Refuses a distillation that will not fit, before hours have gone into what it is to distill.
 *
 * @param bench With the dense model open.
 * @throws {MemoryBudgetError} When one step needs more memory than it may take.
 */
export async function assertDistillable(
  bench: Workbench,
  opened: OpenModel,
  task: Pick<DistillTask, "windows" | "linears" | "memory">,
): Promise<void> {
  planForDistillation(
    workOf(await bench.model(), opened, { ...task, zeros: new Map() }),
    task.memory,
  );
}

/**
 * Distills a pruned checkpoint in place.
 *
 * @param bench With the dense model open.
 * @throws {MemoryBudgetError} When one step needs more memory than it may take.
 */
export async function distillWritten(bench: Workbench, task: DistillTask): Promise<DistillReport> {
  const model = await bench.model();
  const written = new OpenModel(task.folder);
  let parameters: Parameters | undefined;
  let hidden: WindowStates | undefined;
  try {
    const plan = planForDistillation(workOf(model, written, task), task.memory);
    parameters = new Parameters(plan.spillParameters);
    addParameters(parameters, written.checkpoint, model, task);
    hidden = new WindowStates(
      batchesOf(task.windows, 1),
      model.sections.head.columns,
      plan.spillLessons,
    );
    const losses = await learn(bench, model, task, parameters, hidden);
    const tensors = written.checkpoint.tensors;
    writeParameters(parameters, model, task, (weight) => tensors.get(weight)!.type!);
    const eighth = Math.ceil(task.steps / 8);
    const mean = (part: number[]) => part.reduce((sum, loss) => sum + loss, 0) / part.length;
    return {
      steps: task.steps,
      divergence: { start: mean(losses.slice(0, eighth)), end: mean(losses.slice(-eighth)) },
    };
  } finally {
    await model.freeSessions();
    parameters?.close();
    hidden?.close();
    written.checkpoint.close();
  }
}

/** Takes in what is to learn: the kept weights of linears, and all of the last norms. */
function addParameters(
  parameters: Parameters,
  checkpoint: Checkpoint,
  { sections: { finalNorms } }: StagedModel,
  { linears, groups, masks }: DistillTask,
): void {
  const valuesOf = (weight: string, length: number) => {
    const values = new Float32Array(length);
    checkpoint.readFloats(weight, values);
    return values;
  };
  for (const { weight, rows, columns } of linears) {
    const values = valuesOf(weight, rows * columns);
    const group = groups?.get(weight);
    const grid = group && matrixGrid(values, columns, group);
    parameters.add(weight, values, masks.get(weight)!, grid);
  }
  for (const { weight, length } of finalNorms) {
    parameters.add(weight, valuesOf(weight, length), packMask(new Uint8Array(length).fill(1)));
  }
}

/** Has the dense model teach; returns the loss of each step. */
async function learn(
  bench: Workbench,
  model: StagedModel,
  { steps, seed, windows }: DistillTask,
  parameters: Parameters,
  hidden: WindowStates,
): Promise<number[]> {
  const { phases, signal } = bench;
  const lessons = await prepare(bench, model, windows, hidden);
  const losses: number[] = [];
  await phases.run(
    "distill",
    "steps",
    steps,
    (step) =>
      distill(model, parameters, windows, lessons, { steps, seed }, {
        signal,
        onStep: (done, loss) => {
          losses.push(loss);
          step(done);
        },
      }),
  );
  return losses;
}

/** Writes what has been learnt, and counts its zeros. */
function writeParameters(
  parameters: Parameters,
  { sections: { finalNorms } }: StagedModel,
  { linears, writer, zeros }: DistillTask,
  typeOf: (weight: string) => FloatType,
): void {
  const write = (weight: string, length: number) => {
    const values = new Float32Array(length);
    parameters.read(weight, values);
    roundTo(values, typeOf(weight));
    writer.replace(weight, values);
    return values;
  };
  for (const { weight, rows, columns } of linears) {
    zeros.set(weight, countZeros(write(weight, rows * columns)));
  }
  for (const { weight, length } of finalNorms) write(weight, length);
}

/** Runs the dense model over the calibration windows. */
async function prepare(
  bench: Workbench,
  model: StagedModel,
  windows: readonly Int32Array[],
  hidden: WindowStates,
): Promise<Lessons> {
  const states = await bench.room(windows);
  try {
    return await bench.phases.run(
      "run dense model",
      "blocks",
      model.blocks.length,
      (step) =>
        prepareLessons(model, states, hidden, {
          signal: bench.signal,
          onBlock: (index) => step(index + 1),
        }),
    );
  } finally {
    bench.free(states);
    await model.freeSessions();
  }
}

/** What the plan of its memory depends on. */
function workOf(
  model: StagedModel,
  { spec }: OpenModel,
  { windows, linears, zeros }: Pick<DistillTask, "windows" | "linears" | "zeros">,
): DistillationWork {
  const weights = linears.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  return {
    ...workloadOf(model, spec, windows),
    blocks: model.blocks.length,
    windowsPerStep: windowsPerStep(windows.length, windows[0].length),
    kept: linears.reduce((sum, { weight }) => sum - (zeros.get(weight) ?? 0), weights),
    weights,
  };
}
