/**
 * `--allocation search`: from the best fixed allocation on, by measured loss.
 * @module
 */
import type { PruneRules } from "../calibrate/passes.ts";
import type { WindowStates } from "../calibrate/states.ts";
import { AbortError } from "../errors.ts";
import {
  type BlockNorms,
  MaskedSlice,
  type MaskRules,
  prunedStatistics,
} from "../evaluate/masked_slice.ts";
import type { StagedModel } from "../engine/ort/staged.ts";
import type { Share } from "../prune/block.ts";
import { type Answer, DensitySearch, type Question } from "../prune/search.ts";
import { uniformNumbers } from "../text/windows.ts";
import { levelled } from "./allocate.ts";
import type { RunHooks } from "./options.ts";
import { partsOf, weightsIn } from "./search_parts.ts";
import type { SearchState } from "./search_state.ts";
import type { Workbench } from "./workbench.ts";

/** Tokens of a piece that losses are measured on: many short pieces say more than few long ones. */
const PIECE = 256;
/** Tokens times weights of a measurement, about: more tokens for small models, whose time allows it. */
const WORK = 6e11;
/** Bounds of the tokens. */
const LEAST_TOKENS = 1024;
const MOST_TOKENS = 16384;
/** Default budget, in measurements: after a dozen moves what is left to gain is of the slice alone. */
const BUDGET = 40;

/** How to search. */
export interface SearchRequest {
  /** Densities of the blocks to start from. */
  readonly start: Float64Array;
  /** What is pruned; the method is the one that will prune in the end. */
  readonly rules: Pick<PruneRules, "method" | "pattern" | "skipped">;
  readonly budget?: number;
  readonly seed: number;
  /** Windows that statistics are taken on. */
  readonly calibration: readonly Int32Array[];
  /** Windows that losses are measured on. */
  readonly apart: readonly Int32Array[];
}

/** What a search found. */
export interface SearchResult {
  readonly shares: readonly Share[];
  /** Density of each part that the search moves: blocks, or linears. */
  readonly densities: Float64Array;
  readonly budget: number;
  /** Allocations whose loss or slopes were measured. */
  readonly evaluations: number;
  /** Loss on the slice, in nats a token; see {@linkcode MaskedSlice}. */
  readonly loss: { readonly start: number; readonly end: number };
  readonly slice: { readonly windows: number; readonly seqlen: number };
}

/**
 * Searches densities of the same mean as the start's, of single linears where the pattern lets them differ.
 *
 * Candidates are masked by statistics that were taken once, with Wanda's scores where the method has
 * statistics: what mends weights takes far longer, and the blocks that suffer are the same.
 *
 * @param state What was measured before, and where it is kept.
 * @param onSearch Told how the search may be ended early.
 * @throws {SearchStateError} When the state does not fit what is measured.
 */
export async function searchDensities(
  request: SearchRequest,
  bench: Workbench,
  state: SearchState,
  onSearch: RunHooks["onSearch"],
): Promise<SearchResult> {
  const { rules, calibration } = request;
  const { pattern, skipped } = rules;
  const scored: MaskRules = {
    pattern,
    skipped,
    method: rules.method === "magnitude" ? "magnitude" : "wanda",
  };
  const model = await bench.model();
  const parts = partsOf(pattern, model, request.start, skipped);
  const { start } = parts;
  const budget = request.budget ?? BUDGET;
  const pieces = slicesOf(request.apart, model);
  const norms = scored.method === "magnitude"
    ? undefined
    : await statisticsAt(parts.shares(start), scored, calibration, bench);

  const rooms: WindowStates[] = [];
  const room = () => {
    const states = makeRoom(bench, pieces, model);
    rooms.push(states);
    return states;
  };
  // What ends the search, and what stops everything, both end a measurement that has begun.
  const end = new AbortController();
  const signal = bench.signal ? AbortSignal.any([bench.signal, end.signal]) : end.signal;
  const over = onSearch?.(() => end.abort());
  const random = uniformNumbers(request.seed);
  const search = new DensitySearch(start, {
    random,
    ...(pattern.kind === "mixed"
      ? { quantum: 1 / pattern.m }
      : { sizes: parts.linears.map(weightsIn) }),
  });
  let first = Infinity;
  try {
    await bench.phases.run("search", "allocations", budget, async (step) => {
      const slice = await MaskedSlice.open(model, scored, norms, room, signal);
      const measure = ({ densities }: { densities: Float64Array }) =>
        slice.measure(parts.shares(densities), signal);
      const answer = async (question: Question) =>
        question.kind === "slopes"
          // Where activations overflow, the slopes say nothing.
          ? parts.slopes(await slice.margins(signal)).map((each) =>
            Number.isFinite(each) ? each : 0
          )
          : await measure(question);
      const tell = (told: Answer) => {
        if (search.evaluations === 0) first = told as number;
        return search.tell(told);
      };
      while (search.evaluations < budget && state.known > 0) {
        tell(state.replay(search.next().kind === "slopes" ? start.length : undefined));
      }
      if (search.evaluations > 0) {
        state.assertMeasured(search.best.loss, await measure(search.best));
        slice.accept();
      }
      for (step(search.evaluations); search.evaluations < budget; step(search.evaluations)) {
        const told = await answer(search.next());
        state.keep(told);
        if (tell(told)) slice.accept();
      }
    });
  } catch (error) {
    // Ended early, and not stopped: the best so far is the result.
    if (!(error instanceof AbortError && end.signal.aborted && !bench.signal?.aborted)) throw error;
  } finally {
    over?.();
    for (const states of rooms) bench.free(states);
  }
  // Masks that keep more would always be the better ones.
  const densities = pattern.kind === "unstructured"
    ? levelled(search.best.densities, start, parts.linears)
    : search.best.densities;
  return {
    shares: parts.shares(densities),
    densities,
    budget,
    evaluations: search.evaluations,
    loss: { start: first, end: search.best.loss },
    slice: { windows: pieces.length, seqlen: pieces[0].length },
  };
}

/**
 * Refuses a search that will not fit, before allocations are tried that it would begin with.
 *
 * @param bench With the dense model open.
 * @param apart Windows that losses would be measured on.
 * @throws {MemoryBudgetError} When its gradients need more memory than it may take.
 */
export async function assertSearchable(
  bench: Workbench,
  apart: readonly Int32Array[],
): Promise<void> {
  const model = await bench.model();
  bench.free(makeRoom(bench, slicesOf(apart, model), model));
}

/** One of the rooms of a slice, from which the model is run forwards and backwards. */
function makeRoom(
  bench: Workbench,
  pieces: readonly Int32Array[],
  { blocks }: StagedModel,
): WindowStates {
  return bench.makeRoom(pieces, { copies: 2 * blocks.length + 2, backward: true });
}

/** Statistics of all blocks, pruned by the shares that the search starts from. */
async function statisticsAt(
  shares: PruneRules["shares"],
  rules: MaskRules,
  calibration: readonly Int32Array[],
  bench: Workbench,
): Promise<BlockNorms[]> {
  const states = await bench.room(calibration);
  const norms = await bench.overBlocks(
    "statistics for the search",
    2 * states.batches.length,
    async (hooks) => prunedStatistics(await bench.model(), { ...rules, shares }, states, hooks),
  );
  bench.free(states);
  return norms;
}

/** Short pieces from all over the windows, as many as the model's size allows. */
function slicesOf(windows: readonly Int32Array[], { blocks, sections }: StagedModel): Int32Array[] {
  const length = Math.min(PIECE, windows[0].length);
  const pieces = windows.flatMap((window) =>
    Array.from(
      { length: Math.floor(window.length / length) },
      (_, i) => window.subarray(i * length, (i + 1) * length),
    )
  );
  const weights = blocks.reduce(
    (sum, { linears }) => sum + weightsIn(linears),
    sections.head.rows * sections.head.columns,
  );
  const tokens = Math.max(LEAST_TOKENS, Math.min(MOST_TOKENS, WORK / weights));
  const count = Math.min(Math.ceil(tokens / length), pieces.length);
  return Array.from(
    { length: count },
    (_, i) => pieces[Math.floor((i + 0.5) * pieces.length / count)],
  );
}
