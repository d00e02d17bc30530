/**
 * How calibration is cut so that it fits a memory budget.
 * @module
 */
import { MemoryBudgetError } from "../errors.ts";
import type { Batch } from "../engine/ort/staged.ts";
import type { Method } from "../prune/types.ts";

/** What the plan depends on; all sizes in elements unless said otherwise. */
export interface Workload {
  readonly windows: number;
  readonly length: number;
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  /** Elements that all heads of a layer give of each token; counted as `hidden` where fewer, or left out. */
  readonly attended?: number;
  /** Elements of rows of tables that every block is given of each token; none when left out. */
  readonly rows?: number;
  /** Bytes of the largest block's weights as float32. */
  readonly blockBytes: number;
  /** Times that the hidden states of all windows are kept; once when left out. */
  readonly copies?: number;
  /** Whether the runtime copies weights into a memory of its own (WebAssembly, GPU). */
  readonly copiesWeights: boolean;
  /** How the blocks are pruned, where that is what the windows are for. */
  readonly method?: Method;
  /** Whether the model is run backwards, too. */
  readonly backward?: boolean;
}

/** What a window's activations depend on. */
export type WindowSizes = "length" | "hidden" | "intermediate" | "heads" | "attended" | "rows";

/** How to cut it. */
export interface Plan {
  readonly windowsPerBatch: number;
  /** Whether hidden states go to a temporary file. */
  readonly spill: boolean;
  /** Bytes that the work is expected to need, the runtime's own included. */
  readonly bytes: number;
}

/** What a JavaScript runtime with ONNX Runtime takes before any work. */
const RUNTIME_BYTES = 300e6;
/**
 * What products of matrices leave behind until it is collected: SparseGPT on SmolLM2-135M peaked 0.1 GB
 * above what it uses under V8, 0.5 GB under JavaScriptCore.
 */
const GARBAGE_BYTES = 500e6;
/** Times a block's weights lie in memory where the runtime copies them: ours, its own, and packing. */
const COPIES = 2.3;
/** Tokens a run above which larger batches gain nothing: the weights are reused enough. */
const TOKENS_PER_RUN = 2048;
/** The same where gradients are computed, which takes several times the memory. */
const TOKENS_PER_BACKWARD_RUN = 1024;
/** Times a block's weights lie in memory while its gradients are computed. */
const BACKWARD_COPIES = 3;
/** Times a window's activations do. */
const BACKWARD_ACTIVATIONS = 3;
/** A piece of the vocabulary: two models' logits, and what is computed from them. */
const LOSS_BYTES = 250e6;
/** A weight that is moved, and the two moments of its gradients. */
const BYTES_PER_KEPT = 12;
/**
 * Times a run's activations stay with sessions that keep what they took. SmolLM2-135M peaked at 1.7 GB with
 * one window of 2048 tokens a run, at 0.77 where all is given back, which takes 1.8 times as long.
 */
const KEPT_BY_SESSIONS = 4.5;
/** Room that is used when the caller sets no budget. */
const DEFAULT_BUDGET = 1.3e9;

/**
 * Chooses windows a run, and whether hidden states stay in memory.
 *
 * @param work What is to be done.
 * @param budget Bytes the whole process may take; 1.3 GB, or what the model needs at least, when left out.
 * @throws {MemoryBudgetError} When even one window at a time needs more than the given budget.
 */
export function planFor(work: Workload, budget?: number): Plan {
  const weights = work.blockBytes * (work.copiesWeights ? COPIES : 1);
  const mending = mendingBytes(work);
  // The repair carries the windows through the dense model, too.
  const copies = work.copies ?? (work.method === "espalier" ? 2 : 1);
  const statesBytes = copies * work.windows * work.length * work.hidden * 4;
  const backward = work.backward
    ? GARBAGE_BYTES + LOSS_BYTES + BACKWARD_COPIES * work.blockBytes
    : 0;
  const windowTimes = work.backward ? BACKWARD_ACTIVATIONS : 1;
  const tokens = work.backward ? TOKENS_PER_BACKWARD_RUN : TOKENS_PER_RUN;
  const need = (windowsPerBatch: number, spill: boolean): number =>
    RUNTIME_BYTES + weights + mending + backward +
    windowsPerBatch * windowTimes * windowBytes(work) + (spill ? 0 : statesBytes);

  const least = need(1, true);
  if (budget !== undefined && least > budget) {
    throw new MemoryBudgetError(
      `--memory ${megabytes(budget)} is too little: one block's weights take ${
        megabytes(weights)
      }, ` +
        (mending > 0
          ? `what --method ${work.method} sums up and leaves behind ${megabytes(mending)}, `
          : "") +
        (backward > 0 ? `gradients ${megabytes(backward)}, ` : "") +
        `one window of ${work.length} tokens ${
          megabytes(windowTimes * windowBytes(work))
        }, the runtime ${megabytes(RUNTIME_BYTES)}; give ${megabytes(least)} or a smaller --seqlen`,
    );
  }
  const limit = Math.max(budget ?? DEFAULT_BUDGET, least);
  let windowsPerBatch = Math.max(
    1,
    Math.min(work.windows, Math.floor(tokens / work.length)),
  );
  while (windowsPerBatch > 1 && need(windowsPerBatch, true) > limit) windowsPerBatch--;
  const spill = need(windowsPerBatch, false) > limit;
  return { windowsPerBatch, spill, bytes: need(windowsPerBatch, spill) };
}

/**
 * Whether sessions may keep the memory that a run took for the next one.
 *
 * @param work What is to be done, in as large runs as there are.
 * @param budget Bytes the whole process may take; where none is set, sessions may.
 */
export function sessionsMayKeep(
  work: Pick<Workload, WindowSizes | "blockBytes">,
  budget: number | undefined,
): boolean {
  if (budget === undefined) return true;
  const windows = Math.max(1, Math.floor(TOKENS_PER_RUN / work.length));
  const kept = KEPT_BY_SESSIONS * windows * windowBytes(work);
  return RUNTIME_BYTES + work.blockBytes + kept <= budget;
}

/** What a distillation depends on; sizes in elements unless said otherwise. */
export interface DistillationWork extends Workload {
  readonly blocks: number;
  /** Windows that one step takes. */
  readonly windowsPerStep: number;
  /** Weights that stay, of those that it moves. */
  readonly kept: number;
  /** All of those weights, pruned ones included. */
  readonly weights: number;
}

/**
 * Chooses whether the weights that a distillation moves stay in memory, and what the dense model foresees.
 *
 * @param work What is to be done.
 * @param budget As for {@linkcode planFor}.
 * @throws {MemoryBudgetError} When one step needs more than the given budget.
 */
export function planForDistillation(
  work: DistillationWork,
  budget?: number,
): { spillParameters: boolean; spillLessons: boolean } {
  const { blockBytes, hidden, length, blocks, kept, weights } = work;
  const tokens = work.windowsPerStep * length;
  const least = RUNTIME_BYTES + GARBAGE_BYTES + LOSS_BYTES +
    blockBytes * (BACKWARD_COPIES + (work.copiesWeights ? COPIES : 1)) +
    BACKWARD_ACTIVATIONS * work.windowsPerStep * windowBytes(work) +
    (blocks + 1) * tokens * hidden * 4 + weights / 8;
  if (budget !== undefined && least > budget) {
    throw new MemoryBudgetError(
      `--memory ${
        megabytes(budget)
      } is too little to distill with: a step of ${tokens} tokens takes ${
        megabytes(least)
      }; give that much, a smaller --seqlen, or --distill 0`,
    );
  }
  const limit = Math.max(budget ?? DEFAULT_BUDGET, least);
  const lessons = 4 * work.windows * length * hidden;
  const spillLessons = least + lessons > limit;
  const left = limit - least - (spillLessons ? 0 : lessons);
  return { spillParameters: BYTES_PER_KEPT * kept > left, spillLessons };
}

/** Bytes that methods take which mend: square matrices as wide as a linear's input, mostly. */
function mendingBytes(work: Workload): number {
  const { method, hidden, intermediate, blockBytes } = work, attended = attendedOf(work);
  const widest = 4 * Math.max(attended, intermediate) ** 2;
  switch (method) {
    case "sparsegpt":
      // The Hessian of every input; a product, the factor, what of it is not done, and parts of these.
      return 4 * (2 * hidden ** 2 + attended ** 2 + intermediate ** 2) + 4 * widest + GARBAGE_BYTES;
    case "espalier":
      // One input's sums, penalised and as they were, and the same; the block's dense weights.
      return 6 * widest + blockBytes + GARBAGE_BYTES;
    default:
      return 0;
  }
}

/** Bytes that one window's activations take inside a block at their peak. */
function windowBytes(work: Pick<Workload, WindowSizes>): number {
  const { length, hidden, intermediate, heads, rows = 0 } = work, attended = attendedOf(work);
  // Scores before and after softmax; what is normed and what comes out; queries, keys, values, what heads give.
  const attention = 2 * heads * length * length + 2 * length * hidden + 4 * length * attended;
  const mlp = 4 * length * intermediate + 2 * length * hidden;
  // Rows of a table as they are read, by token, and on the way from the one to the other.
  return 4 * Math.max(attention, mlp) + 4 * 2 * length * hidden + 4 * 3 * length * rows;
}

function attendedOf({ hidden, attended = 0 }: Pick<Workload, "hidden" | "attended">): number {
  return Math.max(hidden, attended);
}

/** Groups windows into batches. */
export function batchesOf(windows: readonly Int32Array[], perBatch: number): Batch[] {
  const batches: Batch[] = [];
  for (let first = 0; first < windows.length; first += perBatch) {
    const group = windows.slice(first, first + perBatch);
    const length = group[0].length;
    const tokens = new Int32Array(group.length * length);
    group.forEach((window, i) => tokens.set(window, i * length));
    batches.push({ tokens, windows: group.length, length });
  }
  return batches;
}

function megabytes(bytes: number): string {
  return bytes < 1e6 ? `${bytes} bytes` : `${Math.ceil(bytes / 1e6)} MB`;
}
