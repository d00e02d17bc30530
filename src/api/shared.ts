/** What prune, evaluate and inspect do alike. @module */
import {
  batchesOf,
  planFor,
  sessionsMayKeep,
  type WindowSizes,
  type Workload,
} from "../calibrate/plan.ts";
import { WindowStates } from "../calibrate/states.ts";
import { widthBetween } from "../checkpoint/architectures/carried.ts";
import { buildGraph, decoderOf } from "../checkpoint/architectures/mod.ts";
import { type DecoderSpec, headDimsOf } from "../checkpoint/architectures/spec.ts";
import { Checkpoint } from "../checkpoint/checkpoint.ts";
import { type Backend, type BackendName, openBackend } from "../engine/ort/backend.ts";
import { StagedModel } from "../engine/ort/staged.ts";
import { TextError } from "../errors.ts";
import type { GraphProto } from "../onnx/generated/onnx_pb.ts";
import { giveLargeBack } from "../platform/malloc.ts";
import { type Corpus, readCorpus } from "../text/corpus.ts";
import { openTokenizer } from "../text/folder.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { assertInVocabulary, consecutiveWindows } from "../text/windows.ts";
import { checkHooks, type ProgressEvent, type RunHooks } from "./options.ts";

/** Windows are this long unless the caller, the model or the text says otherwise. */
const DEFAULT_SEQLEN = 2048;
/** Tokens of the shortest window: one, and the one that it foretells. */
const SHORTEST = 2;

/** Bytes of a block's weights from which on memory is given back after every run. */
const LARGE_BLOCK = 128e6;

/** A text's token ids, or windows that are fixed. */
export type WindowSource =
  | {
    readonly tokens: Int32Array;
    /** How messages call it; `the text` where left out. */
    readonly called?: string;
  }
  | { readonly windows: Int32Array[] };

/** A checkpoint with its description; the tokenizer is opened when text needs it. */
export class OpenModel {
  readonly checkpoint: Checkpoint;
  readonly spec: DecoderSpec;
  /** Its graph, for looking into: it runs windows of one token only. */
  readonly graph: GraphProto;
  #tokenizer: Tokenizer | undefined;

  constructor(folder: string) {
    this.checkpoint = Checkpoint.open(folder);
    try {
      this.spec = decoderOf(this.checkpoint);
      // Finds missing tensors and wrong shapes before any work is done.
      this.graph = buildGraph(this.checkpoint, this.spec, 1);
    } catch (error) {
      this.checkpoint.close();
      throw error;
    }
  }

  /** Token ids of a text file, or the windows that it fixes. */
  read(path: string): WindowSource {
    const corpus: Corpus = readCorpus(path);
    if (corpus.kind === "windows") return { windows: corpus.windows };
    this.#tokenizer ??= openTokenizer(this.checkpoint.folder);
    return { tokens: this.#tokenizer.encode(corpus.text) };
  }

  /**
   * Opens a backend that suits the model's size and the work.
   *
   * @param how `length`: the longest window; `memory`: bytes the process may take; `changes`: whether the
   *   weights that stay are to be changed. Methods that do so have a session for each input of a block, and
   *   each keeps what its greatest run took: SmolLM2-135M peaked at 1.6 GB with `espalier` and 1.0 with
   *   `sparsegpt`, at 0.75 and 0.7 where all is given back after every run, in the same time.
   */
  openBackend(
    wanted: BackendName | "auto",
    threads: number | undefined,
    how: { readonly length: number; readonly memory?: number; readonly changes?: boolean },
  ): Promise<Backend> {
    const { hidden, intermediate } = this.spec;
    const { length, memory, changes } = how;
    const blockBytes = 4 * (4 * hidden * hidden + 3 * hidden * intermediate);
    const work = { ...sizesOf(this.spec), length, blockBytes };
    const lean = blockBytes > LARGE_BLOCK || changes || !sessionsMayKeep(work, memory);
    // What is given back is to be the system's again, where somebody counts it.
    if (lean && memory !== undefined) giveLargeBack();
    return openBackend(wanted, threads, { lean });
  }

  /** The model, ready to run windows of up to `length` tokens. */
  stage(backend: Backend, length: number): StagedModel {
    return new StagedModel(
      buildGraph(this.checkpoint, this.spec, length),
      this.checkpoint,
      backend,
    );
  }
}

/**
 * Tokens a window, as far as model and text allow.
 *
 * @param wanted What the caller asked for, if he did.
 * @param context The model's longest context.
 * @param source The text, or windows whose length is fixed.
 * @param note Told when it is less than was asked for.
 * @throws {TextError} When the text cannot fill a window, or fixed windows are too long.
 */
export function windowLength(
  wanted: number | undefined,
  context: number,
  source: WindowSource,
  note: (text: string) => void,
): number {
  if ("windows" in source) {
    const fixed = source.windows[0].length;
    if (wanted !== undefined && wanted > fixed) {
      throw new TextError(`the windows given have ${fixed} tokens: --seqlen ${wanted} is too long`);
    }
    const length = wanted ?? fixed;
    if (length > context) {
      throw new TextError(
        `windows of ${length} tokens are longer than the model's context of ${context}: cut them with --seqlen`,
      );
    }
    return length;
  }
  const { tokens, called = "the text" } = source;
  if (tokens.length < SHORTEST) {
    throw new TextError(
      `${called} has ${
        tokens.length === 1 ? "1 token" : `${tokens.length} tokens`
      }, a window needs ${SHORTEST} at least: give more text`,
    );
  }
  let length = wanted ?? DEFAULT_SEQLEN;
  if (length > context) {
    length = context;
    note(`windows have ${length} tokens: the model's context ends there`);
  }
  if (tokens.length < length) {
    if (wanted !== undefined) {
      throw new TextError(
        `${called} has ${tokens.length} tokens, one window needs ${length}: give more text or a smaller --seqlen`,
      );
    }
    length = tokens.length;
    note(`windows have ${length} tokens: ${called} has no more`);
  }
  return length;
}

/** Cuts fixed windows to a length. */
export function cutWindows(windows: readonly Int32Array[], length: number): Int32Array[] {
  return windows.map((window) => window.subarray(0, length));
}

/**
 * Windows to measure on: those that a file fixes, or consecutive ones of a text.
 *
 * @param most At most so many; all when left out.
 * @throws {TextError} When the text is shorter than one window.
 * @throws {TokenRangeError} When an id is outside the vocabulary.
 */
export function evaluationWindows(
  source: WindowSource,
  length: number,
  vocabulary: number,
  most?: number,
): Int32Array[] {
  const windows = "windows" in source
    ? cutWindows(source.windows, length).slice(0, most)
    : consecutiveWindows(source.tokens, length, most);
  assertInVocabulary(windows, vocabulary);
  return windows;
}

/**
 * Makes room for the hidden states of windows, within the budget.
 *
 * @param copies How often such room is made at the same time.
 */
export function roomFor(
  model: StagedModel,
  spec: DecoderSpec,
  windows: readonly Int32Array[],
  budget: number | undefined,
  how: Pick<Workload, "method" | "copies" | "backward"> = {},
): WindowStates {
  const plan = planFor({ ...workloadOf(model, spec, windows), ...how }, budget);
  const batches = batchesOf(windows, plan.windowsPerBatch);
  return new WindowStates(batches, widthBetween(spec), plan.spill);
}

/** What the memory of a run over windows depends on. */
export function workloadOf(
  model: StagedModel,
  spec: DecoderSpec,
  windows: readonly Int32Array[],
): Workload {
  return {
    windows: windows.length,
    length: windows[0].length,
    ...sizesOf(spec),
    blockBytes: model.largestBlockBytes,
    copiesWeights: model.backend.name !== "node",
  };
}

/** Sizes on which the memory of a window depends, whatever its length. */
function sizesOf(spec: DecoderSpec): Pick<Workload, Exclude<WindowSizes, "length">> {
  return {
    hidden: widthBetween(spec),
    intermediate: spec.intermediate,
    heads: spec.heads,
    attended: spec.heads * Math.max(...headDimsOf(spec)),
    rows: elementsLookedUp(spec),
  };
}

/** What a block looks up of each token: its row of each table of which all blocks are given parts, and of the embedding. */
function elementsLookedUp({ perLayer, layers, hidden }: DecoderSpec): number {
  return perLayer ? layers * perLayer.width + hidden : 0;
}

/** Reports progress and keeps the time that each phase took. */
export class Phases {
  /** Seconds by phase. */
  readonly seconds: Record<string, number> = {};
  readonly notes: string[] = [];
  readonly #hooks: RunHooks;

  /** @throws {UsageError} When they are none. */
  constructor(hooks: RunHooks) {
    checkHooks(hooks);
    this.#hooks = hooks;
  }

  /** Runs a phase. `step` tells how far it is. */
  async run<T>(
    phase: string,
    unit: string,
    total: number,
    work: (step: (done: number, total?: number) => void) => Promise<T>,
  ): Promise<T> {
    const start = performance.now();
    const report = (done: number, all = total) =>
      this.#tell({ type: "progress", phase, done, total: all, unit });
    report(0);
    try {
      return await work(report);
    } finally {
      const seconds = (performance.now() - start) / 1000;
      this.seconds[phase] = (this.seconds[phase] ?? 0) + seconds;
    }
  }

  /** Says something that a person should know. */
  note(text: string): void {
    this.notes.push(text);
    this.#tell({ type: "note", text });
  }

  #tell(event: ProgressEvent): void {
    this.#hooks.onProgress?.(event);
  }
}
