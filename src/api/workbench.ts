/**
 * Where `prune` runs its model: the backend, room for hidden states, progress in blocks.
 * @module
 */
import type { PassHooks, PassStates } from "../calibrate/passes.ts";
import { planFor, type Workload } from "../calibrate/plan.ts";
import type { WindowStates } from "../calibrate/states.ts";
import type { DecoderSpec } from "../checkpoint/architectures/spec.ts";
import { type Backend, type BackendName, openBackend } from "../engine/ort/backend.ts";
import type { StagedModel } from "../engine/ort/staged.ts";
import { evaluateWindows } from "../evaluate/perplexity.ts";
import { mends } from "../prune/block.ts";
import type { Method } from "../prune/types.ts";
import { type OpenModel, type Phases, roomFor, workloadOf } from "./shared.ts";

/** How to run. */
export interface WorkbenchSettings {
  readonly backend: BackendName | "auto";
  readonly threads?: number;
  /** Bytes that the process may take. */
  readonly memory?: number;
  /** How the model is to be pruned. */
  readonly method?: Method;
  /** Steps of distillation that are asked for. */
  readonly distill?: number;
}

/** Linears of a block that are solved for, and their inputs: seven and four, mostly. */
const SOLVED = 11;

/** How often a pass reports a run of a batch for each block, or something that is solved for, about. */
export function runsPerBlock(method: Method, { pruned, heldOut }: PassStates): number {
  // The repair looks at a block's linears one input after the other: at four of them, mostly.
  const rounds = method === "espalier" ? 5 : 2;
  const runs = rounds * (pruned?.batches.length ?? 0.25) + (heldOut?.batches.length ?? 0);
  return runs + (mends(method) ? SOLVED : 0);
}

/** Tokens of windows. */
function tokensIn(windows: readonly Int32Array[]): number {
  return windows.reduce((sum, { length }) => sum + length, 0);
}

/** A model and what it needs to run; {@linkcode close} it when done. */
export class Workbench {
  readonly phases: Phases;
  readonly signal: AbortSignal | undefined;
  readonly #opened: OpenModel;
  readonly #settings: WorkbenchSettings;
  readonly #states = new Set<WindowStates>();
  #backend: Backend | undefined;
  #model: StagedModel | undefined;

  constructor(
    opened: OpenModel,
    settings: WorkbenchSettings,
    phases: Phases,
    signal: AbortSignal | undefined,
  ) {
    this.#opened = opened;
    this.#settings = settings;
    this.phases = phases;
    this.signal = signal;
  }

  /** Opens the backend, and the model for windows of up to `length` tokens. */
  async open(length: number): Promise<void> {
    const { backend, threads, method, distill, memory } = this.#settings;
    const changes = (method !== undefined && mends(method)) || (distill ?? 0) > 0;
    this.#backend = await this.#opened.openBackend(backend, threads, { length, memory, changes });
    this.#model = this.#opened.stage(this.#backend, length);
    if (this.#backend.name === "wasm" && backend === "auto") {
      const { label, insteadOf } = this.#backend;
      this.phases.note(
        insteadOf
          ? `running in ${label}: ${insteadOf}`
          : `running in ${label}; with the package onnxruntime-node installed it takes a sixth to a third of the time`,
      );
    }
  }

  /** The model's decoder. */
  get spec(): DecoderSpec {
    return this.#opened.spec;
  }

  /** The backend, once it is open. */
  get backend(): Backend | undefined {
    return this.#backend;
  }

  /** The model; where none was opened, one that reads weights and runs nothing. */
  async model(): Promise<StagedModel> {
    return this.#model ??= this.#opened.stage(await openBackend("wasm", 1), 1);
  }

  /**
   * Refuses windows that there is no room for, before any work is done.
   *
   * @param method What they are carried along for, where it is to prune.
   * @throws {MemoryBudgetError} When it takes more memory than there may be.
   */
  async assertRoom(windows: readonly Int32Array[], method?: Method): Promise<void> {
    const work = workloadOf(await this.model(), this.#opened.spec, windows);
    planFor({ ...work, method }, this.#settings.memory);
  }

  /** Makes room for the hidden states of windows; give it back with {@linkcode free}. */
  async room(windows: readonly Int32Array[]): Promise<WindowStates> {
    await this.model();
    return this.makeRoom(windows);
  }

  /**
   * As {@linkcode room}, once the model is open.
   *
   * @param how `copies`: how often such room is made at the same time; `backward`: whether the model
   *   is run backwards from there.
   */
  makeRoom(
    windows: readonly Int32Array[],
    how?: Pick<Workload, "method" | "copies" | "backward">,
  ): WindowStates {
    const { memory } = this.#settings;
    const states = roomFor(this.#model!, this.#opened.spec, windows, memory, how);
    this.#states.add(states);
    return states;
  }

  /**
   * Makes room for what a method carries of the calibration windows.
   *
   * @param beside Tokens of other windows that are carried at the same time.
   */
  async roomFor(
    method: Method,
    windows: readonly Int32Array[] | undefined,
    beside = 0,
  ): Promise<PassStates> {
    if (!windows || method === "magnitude") return {};
    await this.model();
    const times = method === "espalier" ? 2 : 1;
    const make = () =>
      this.makeRoom(windows, { method, copies: times + beside / tokensIn(windows) });
    return times > 1 ? { pruned: make(), dense: make() } : { pruned: make() };
  }

  /**
   * Makes room for what a trial carries at the same time: the calibration windows, and those that it is measured on.
   */
  async roomForTrial(
    method: Method,
    calibration: readonly Int32Array[],
    heldOut: readonly Int32Array[],
  ): Promise<PassStates & { readonly heldOut: WindowStates }> {
    await this.model();
    const measured = tokensIn(heldOut);
    const states = await this.roomFor(method, calibration, measured);
    const carried = Object.keys(states).length * tokensIn(calibration);
    return {
      ...states,
      heldOut: this.makeRoom(heldOut, { method, copies: 1 + carried / measured }),
    };
  }

  /** Gives the room of a pass back. */
  freeAll(states: PassStates): void {
    for (const each of [states.pruned, states.dense, states.heldOut]) this.free(each);
  }

  /** Gives room back. */
  free(states: WindowStates | undefined): void {
    if (!states) return;
    states.close();
    this.#states.delete(states);
  }

  /**
   * Runs a pass with its progress counted in blocks, parts of a block included. What its sessions keep
   * is free before the next one has others.
   */
  async overBlocks<T>(
    phase: string,
    runsPerBlock: number,
    work: (hooks: PassHooks) => Promise<T>,
  ): Promise<T> {
    const model = await this.model();
    const blocks = model.blocks.length;
    const result = await this.phases.run(phase, "blocks", blocks, (step) => {
      let blocksDone = 0;
      let runs = 0;
      return work({
        signal: this.signal,
        onNote: (text) => this.phases.note(text),
        onPart: () => step(Math.min(blocksDone + ++runs / runsPerBlock, blocksDone + 0.99)),
        onBlock: (index) => {
          blocksDone = index + 1;
          runs = 0;
          step(blocksDone);
        },
      });
    });
    await model.freeSessions();
    return result;
  }

  /** The perplexity of the model, or of another checkpoint of its shape, on windows. */
  async measure(
    phase: string,
    windows: readonly Int32Array[],
    other?: OpenModel,
  ): Promise<number> {
    const model = other ? other.stage(this.#backend!, windows[0].length) : await this.model();
    const states = await this.room(windows);
    const steps = model.blocks.length + 1;
    const { perplexity } = await this.phases.run(
      phase,
      "blocks",
      steps,
      (step) => evaluateWindows(model, states, step, this.signal),
    );
    this.free(states);
    await (other ? model.close() : model.freeSessions());
    return perplexity;
  }

  /**
   * A bench for another checkpoint of the same shape, on the same backend; close it when done.
   *
   * @param length The longest window that it will run.
   */
  beside(other: OpenModel, length: number): Workbench {
    const bench = new Workbench(other, this.#settings, this.phases, this.signal);
    bench.#backend = this.#backend;
    bench.#model = other.stage(this.#backend!, length);
    return bench;
  }

  async close(): Promise<void> {
    for (const states of this.#states) states.close();
    await this.#model?.close();
  }
}
