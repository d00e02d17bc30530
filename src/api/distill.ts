/**
 * The last step of `prune`: distillation of what was written from the dense model.
 * @module
 */
import { distill, type Lessons, prepareLessons, windowsPerStep } from "../calibrate/distill.ts";
import { Parameters } from "../calibrate/parameters.ts";
import { batchesOf, type DistillationWork, planForDistillation } from "../calibrate/plan.ts";
import { WindowStates } from "../calibrate/states.ts";
import type { CheckpointWriter } from "../checkpoint/writer.ts";
import type { StagedModel } from "../engine/ort/staged.ts";
import { roundTo } from "../onnx/element_type.ts";
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
  const { steps, seed, windows, linears, writer } = task;
  const { phases, signal } = bench;
  const model = await bench.model();
  const written = new OpenModel(task.folder);
  const work = workOf(model, written, task);
  const plan = planForDistillation(work, task.memory);
  const parameters = new Parameters(plan.spillParameters);
  const hidden = new WindowStates(
    batchesOf(windows, 1),
    model.sections.head.columns,
    plan.spillLessons,
  );
  try {
    const { tensors } = written.checkpoint;
    const { finalNorms } = model.sections;
    const valuesOf = (weight: string, length: number) => {
      const values = new Float32Array(length);
      written.checkpoint.readFloats(weight, values);
      return values;
    };
    for (const { weight, rows, columns } of linears) {
      const values = valuesOf(weight, rows * columns);
      const group = task.groups?.get(weight);
      const grid = group && matrixGrid(values, columns, group);
      parameters.add(weight, values, task.masks.get(weight)!, grid);
    }
    for (const { weight, length } of finalNorms) {
      parameters.add(weight, valuesOf(weight, length), packMask(new Uint8Array(length).fill(1)));
    }
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
    const write = (weight: string, length: number) => {
      const values = new Float32Array(length);
      parameters.read(weight, values);
      roundTo(values, tensors.get(weight)!.type!);
      writer.replace(weight, values);
      return values;
    };
    for (const { weight, rows, columns } of linears) {
      task.zeros.set(weight, countZeros(write(weight, rows * columns)));
    }
    for (const { weight, length } of finalNorms) write(weight, length);
    const eighth = Math.ceil(steps / 8);
    const mean = (part: number[]) => part.reduce((sum, loss) => sum + loss, 0) / part.length;
    return {
      steps,
      divergence: { start: mean(losses.slice(0, eighth)), end: mean(losses.slice(-eighth)) },
    };
  } finally {
    await model.freeSessions();
    parameters.close();
    hidden.close();
    written.checkpoint.close();
  }
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
