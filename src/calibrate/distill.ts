/**
 * Distillation: the weights that stay learn, all blocks together, to foresee what the dense model does.
 *
 * What methods that mend do for one linear at a time by least squares, this does for the model as a whole
 * by gradient descent (Adam) on the Kullback-Leibler divergence between the two models' predictions on
 * the calibration windows. Pruned weights stay 0; the last norm, which says how sure predictions are,
 * learns with the rest. The gradients are nodes of each block's own graph (`src/onnx/gradient.ts`);
 * between blocks only the hidden states before each are kept, so that one block's activations are in
 * memory at a time.
 * @module
 */
import { BackwardModel } from "../engine/ort/backward.ts";
import { distillationLoss } from "../engine/ort/distillation_loss.ts";
import { logSumsOf } from "../engine/ort/soft_head.ts";
import type { Activations, Batch, StagedModel } from "../engine/ort/staged.ts";
import { throwIfAborted } from "../checks.ts";
import { NotFiniteError } from "../errors.ts";
import { uniformNumbers } from "../text/windows.ts";
import type { Parameters } from "./parameters.ts";
import { batchesOf } from "./plan.ts";
import type { WindowStates } from "./states.ts";
import { embedAll, runAll } from "./statistics.ts";

/** Tokens that one step looks at, about: more give better gradients, but fewer of them. */
export const TOKENS_PER_STEP = 1024;
/**
 * How far a weight moves in a step at first, as a part of its matrix's root mean square, times the model's
 * width and blocks: where many weights move together, each may move less. Measured on two models: the
 * example (width 192, 8 blocks) ends best with 0.03 of 0.013 to 0.05, SmolLM2-135M (576, 30) better with
 * 0.003 than with 0.006.
 */
const RATE = 46;
/** The most of it: in models smaller than both, steps of more lose more than they teach. */
const MOST = 0.03;
/** What the last norm's weights move by beside that: each of them changes every prediction. */
const NORM_RATE = 0.3;
/** Steps in which the rate grows to that, at most. */
const WARM_UP = 10;

/** What the dense model foresees in each calibration window. */
export interface Lessons {
  /** Its activations before the head, a batch for each window. */
  readonly hidden: WindowStates;
  /** log Σ exp of its logits at each window's positions. */
  readonly logSums: readonly Float64Array[];
}

/** Windows that one step takes. */
export function windowsPerStep(windows: number, length: number): number {
  return Math.max(1, Math.min(windows, Math.floor(TOKENS_PER_STEP / length)));
}

/** How far a weight moves in a step at first, as a part of its matrix's root mean square. */
export function highestRate(
  { blocks }: { readonly blocks: readonly { readonly linears: readonly { columns: number }[] }[] },
): number {
  // Not the head's, which some models reach by one linear more: OPT-350M's is half as wide.
  const width = blocks[0].linears[0].columns;
  return Math.min(MOST, RATE / (width * blocks.length));
}

/**
 * Runs the dense model over the calibration windows.
 *
 * @param model The dense model.
 * @param states Room for the windows' hidden states, in batches as they run.
 * @param hidden Room for what comes out in the end, in batches of one window each.
 */
export async function prepareLessons(
  model: StagedModel,
  states: WindowStates,
  hidden: WindowStates,
  { signal, onBlock }: { signal?: AbortSignal; onBlock?: (index: number) => void } = {},
): Promise<Lessons> {
  await embedAll(model, states, signal);
  for (const { index } of model.blocks) {
    const want = { norms: false, advance: true };
    await runAll(model, index, model.readBlock(index), states, want, undefined, signal);
    onBlock?.(index);
  }
  const logSums: Float64Array[] = [];
  for (let i = 0; i < states.batches.length; i++) {
    throwIfAborted(signal);
    const { windows, length } = states.batches[i];
    const finished = await model.finish(states.load(i));
    const [sums] = await logSumsOf(model, [finished]);
    const size = finished.length / windows;
    for (let w = 0; w < windows; w++) {
      hidden.store(logSums.length, finished.subarray(w * size, (w + 1) * size));
      logSums.push(sums.slice(w * length, (w + 1) * length));
    }
  }
  return { hidden, logSums };
}

/** What is asked of a distillation. */
export interface DistillRequest {
  /** Steps of gradient descent. */
  readonly steps: number;
  /** Seed of the order in which windows come. */
  readonly seed: number;
}

/** Hooks of a distillation. */
export interface DistillHooks {
  readonly signal?: AbortSignal;
  /** Called after each step with the steps done and its loss. */
  readonly onStep?: (done: number, loss: number) => void;
}

/**
 * Moves the kept weights.
 *
 * @param model The dense model: all that is not among the parameters is its.
 * @param parameters The kept weights, and those of the last norm; changed.
 * @param windows The calibration windows, all of one length.
 * @param lessons What the dense model foresees in them.
 * @throws {GraphError} When the model has an operator whose gradient is not known.
 * @throws {NotFiniteError} When the loss becomes NaN or infinite.
 */
export async function distill(
  model: StagedModel,
  parameters: Parameters,
  windows: readonly Int32Array[],
  lessons: Lessons,
  { steps, seed }: DistillRequest,
  { signal, onStep }: DistillHooks = {},
): Promise<void> {
  const student = new Student(model, parameters);
  const size = windowsPerStep(windows.length, windows[0].length);
  const order = shuffledForever(windows.length, seed);
  const width = model.sections.head.columns;
  const highest = highestRate(model);
  const warmUp = Math.min(WARM_UP, Math.ceil(steps / 4));
  for (let step = 0; step < steps; step++) {
    const picked = Array.from({ length: size }, () => order.next().value);
    const [batch] = batchesOf(picked.map((i) => windows[i]), size);
    const grown = Math.min(1, (step + 1) / warmUp);
    const rate = highest * grown * (1 + Math.cos(Math.PI * step / steps)) / 2;
    const loss = await student.learn(
      batch,
      lessonOf(lessons, picked, width),
      { rate, step },
      signal,
    );
    if (!Number.isFinite(loss)) {
      throw new NotFiniteError(
        `distillation does not converge: its loss is ${loss} after ${step} of ${steps} steps`,
      );
    }
    onStep?.(step + 1, loss);
  }
}

/** A model whose kept weights are in the making. */
class Student {
  readonly #model: StagedModel;
  readonly #parameters: Parameters;
  readonly #backward: BackwardModel;
  /** Names of each block's weights that move. */
  readonly #moving: readonly string[][];
  /** And of the last norm's. */
  readonly #norms: readonly string[];

  constructor(model: StagedModel, parameters: Parameters) {
    this.#model = model;
    this.#parameters = parameters;
    this.#backward = new BackwardModel(model);
    this.#moving = model.blocks.map(({ linears }) =>
      linears.map(({ weight }) => weight).filter((name) => parameters.has(name))
    );
    this.#norms = model.sections.finalNorms.map(({ weight }) => weight)
      .filter((name) => parameters.has(name));
  }

  /** One step; gives the loss before it. */
  async learn(
    batch: Batch,
    lesson: { hidden: Float32Array; logSums: Float64Array },
    { rate, step }: { rate: number; step: number },
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const model = this.#model;
    const activations = await model.embed(batch);
    const before: Float32Array[] = [];
    for (const { index } of model.blocks) {
      throwIfAborted(signal);
      before.push(activations.hidden);
      activations.hidden = await this.#forward(index, activations);
    }
    const last = await model.finish(activations, this.#parameters);
    const { loss, gradient } = await distillationLoss(model, last, lesson);
    const finished = await this.#backward.finish(
      activations,
      gradient,
      this.#norms,
      this.#parameters,
    );
    for (const name of this.#norms) {
      this.#parameters.move(name, finished.weights.get(name)!, NORM_RATE * rate, step);
    }
    let above = finished.hidden!;
    for (let index = before.length - 1; index >= 0; index--) {
      throwIfAborted(signal);
      const by = this.#moving[index];
      const hidden = index > 0;
      if (by.length === 0 && !hidden) break;
      const found = await this.#backward.block(
        index,
        model.readBlock(index, this.#parameters),
        { ...activations, hidden: before[index] },
        above,
        { by, hidden },
      );
      // At once: the gradients of one block are all that is ever in memory.
      for (const name of by) {
        this.#parameters.move(name, found.weights.get(name)!, rate, step);
      }
      above = found.hidden ?? above;
    }
    return loss;
  }

  async #forward(index: number, activations: Activations): Promise<Float32Array> {
    const weights = this.#model.readBlock(index, this.#parameters);
    const result = await this.#model.runBlock(index, weights, activations, { output: true });
    return result.hidden!;
  }
}

function lessonOf({ hidden, logSums }: Lessons, picked: readonly number[], width: number) {
  const { length } = logSums[picked[0]];
  const size = length * width;
  const lesson = {
    hidden: new Float32Array(picked.length * size),
    logSums: new Float64Array(picked.length * length),
  };
  picked.forEach((window, i) => {
    lesson.hidden.set(hidden.load(window).hidden, i * size);
    lesson.logSums.set(logSums[window], i * length);
  });
  return lesson;
}

/** Numbers below `count`, each once before any comes again, in an order that the seed gives. */
function* shuffledForever(count: number, seed: number): Generator<number, never> {
  const random = uniformNumbers(seed);
  const numbers = Array.from({ length: count }, (_, i) => i);
  for (;;) {
    for (let i = count - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [numbers[i], numbers[j]] = [numbers[j], numbers[i]];
    }
    yield* numbers;
  }
}
