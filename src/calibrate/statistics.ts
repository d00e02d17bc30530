/**
 * Activation statistics of a block: what Wanda and DLP need to know of each linear's input.
 * @module
 */
import type { BlockWeights, RowsChange, StagedModel } from "../engine/ort/staged.ts";
import { throwIfAborted } from "../checks.ts";
import { NotFiniteError } from "../errors.ts";
import type { Linear } from "../onnx/sections.ts";
import { InputNorms } from "../prune/importance.ts";
import type { Weight } from "../prune/types.ts";
import type { WindowStates } from "./states.ts";

/** Called after each run of a batch, so that long work can show where it is. */
export type OnBatch = () => void;

/**
 * Puts the embeddings of all windows into `states`.
 *
 * @param change What becomes of the embedding's rows before; see {@linkcode StagedModel.embed}.
 */
export async function embedAll(
  model: StagedModel,
  states: WindowStates,
  signal?: AbortSignal,
  change?: RowsChange,
): Promise<void> {
  for (let i = 0; i < states.batches.length; i++) {
    throwIfAborted(signal);
    states.start(i, await model.embed(states.batches[i], change));
  }
}

/**
 * Runs a block on all windows.
 *
 * @param model The model.
 * @param index The block.
 * @param weights Its weights.
 * @param states Hidden states before the block; after it, when `want.advance` is set.
 * @param want `norms`: whether statistics are taken; `advance`: whether the states go on.
 * @returns ‖X‖₂ by the name of the linear input, where wanted.
 * @throws {NotFiniteError} When the block's activations overflow.
 */
export async function runAll(
  model: StagedModel,
  index: number,
  weights: BlockWeights,
  states: WindowStates,
  want: { norms: boolean; advance: boolean },
  onBatch: OnBatch = () => {},
  signal?: AbortSignal,
): Promise<Map<string, Float32Array>> {
  const gathered = new Map<string, InputNorms>();
  for (let i = 0; i < states.batches.length; i++) {
    throwIfAborted(signal);
    const result = await model.runBlock(index, weights, states.load(i), {
      squares: want.norms,
      output: want.advance,
    });
    for (const [input, squares] of result.squares ?? []) {
      const columns = squares.length / states.batches[i].windows;
      const norms = gathered.get(input) ?? new InputNorms(columns);
      for (let at = 0; at < squares.length; at += columns) {
        norms.add(squares.subarray(at, at + columns));
      }
      gathered.set(input, norms);
    }
    if (result.hidden) states.take(i, result.hidden);
    onBatch();
  }
  const norms = new Map(Array.from(gathered, ([input, of]) => [input, of.norms()]));
  for (const [input, values] of norms) {
    if (!values.every(Number.isFinite)) {
      throw new NotFiniteError(
        `the activations of block ${index} become NaN or infinite (${input}): its weights are damaged`,
      );
    }
  }
  return norms;
}

/**
 * A linear with its weights and statistics, as the core takes it.
 *
 * @param norms From {@linkcode runAll}; ones where it was not run, so that scores are magnitudes.
 */
export function weightOf(
  { name, weight, input, rows, columns }: Linear,
  weights: BlockWeights,
  norms: ReadonlyMap<string, Float32Array>,
): Weight {
  return {
    name,
    values: weights.get(weight)!,
    rows,
    columns,
    norms: norms.get(input) ?? new Float32Array(columns).fill(1),
  };
}

/**
 * Runs a model over windows, up to what lies behind its last block.
 *
 * @param states Room for the windows' hidden states; after it, those behind the last block.
 * @param onBlock Called after each block, with the blocks done.
 */
export async function runBlocks(
  model: StagedModel,
  states: WindowStates,
  onBlock: (done: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  await embedAll(model, states, signal);
  for (let index = 0; index < model.blocks.length; index++) {
    const weights = model.readBlock(index);
    await runAll(model, index, weights, states, { norms: false, advance: true }, undefined, signal);
    onBlock(index + 1);
  }
}
