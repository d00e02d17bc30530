/**
 * Weights on their way from a file to their place: read a piece at a time, checked, and packed by the
 * kernels into the layouts that they read. Nothing is dense on its way that was not dense in the file.
 * @module
 */
import { quote, throwIfAborted } from "../../../checks.ts";
import { UnsupportedOperatorError } from "../../../errors.ts";
import { letEventsIn } from "../../../platform/events.ts";
import type { MatrixRef, RotaryTables } from "../ir.ts";
import type { Kernels } from "../kernels.ts";
import type { EngineMemory } from "../memory.ts";
import type { ModelReader } from "../model_reader.ts";
import { placeKernels } from "./convolution.ts";
import { bytesToStageDense, placeDense } from "./dense.ts";
import type { PlacedMatrix } from "./placed.ts";
import { type PlacedTables, placeTables } from "./rotary.ts";
import { type PlacedSketch, placeSketch, sketchBytes } from "./sketch.ts";
import { bytesToStageSparse, placeSparse } from "./sparse.ts";
import { type Helpers, type HowRead, Stage } from "./stage.ts";

/** Columns are indexed by 16 bits. */
const MOST_COLUMNS = 1 << 16;

/** Places the weights of one model. */
export class WeightLoader {
  readonly #stage: Stage;
  readonly #matrices = new Map<string, PlacedMatrix>();
  readonly #tables = new Map<RotaryTables, PlacedTables>();
  readonly #signal: AbortSignal | undefined;
  #sketchBytes = 0;

  /**
   * @param matrices All that will be asked for: they decide how much room packing takes.
   * @param helpers Other threads that pack.
   * @param signal Stops between two matrices.
   */
  constructor(
    reader: ModelReader,
    memory: EngineMemory,
    kernels: Kernels,
    matrices: readonly MatrixRef[],
    helpers?: Helpers,
    signal?: AbortSignal,
  ) {
    const bytesOf = (ref: MatrixRef) =>
      ref.kind === "dense" ? bytesToStageDense(ref) : bytesToStageSparse(reader, ref);
    const most = matrices.reduce((most, ref) => Math.max(most, bytesOf(ref)), 0);
    this.#stage = new Stage(reader, memory, kernels, most, helpers);
    this.#signal = signal;
  }

  /** The room that packing took, free once all weights are placed. */
  get stage(): { readonly address: number; readonly bytes: number } {
    return this.#stage;
  }

  /** Bytes of all weights that were placed, sketches among them. */
  get bytes(): number {
    return [...this.#matrices.values()].reduce((sum, { bytes }) => sum + bytes, this.#sketchBytes);
  }

  /**
   * Gives a matrix its place; one that is asked for again has one. It is there when all has
   * {@linkcode WeightLoader.settle}d.
   *
   * @throws {PackedFormatError} When it is damaged.
   * @throws {UnsupportedOperatorError} When it has more columns than kernels can index.
   * @throws {AbortError} When the signal says so.
   */
  async matrix(ref: MatrixRef): Promise<PlacedMatrix> {
    // All of it: a damaged file may have two matrices share some of their tensors.
    const key = JSON.stringify(ref);
    let placed = this.#matrices.get(key);
    if (!placed) {
      if (ref.columns > MOST_COLUMNS) {
        throw new UnsupportedOperatorError(
          `${quote(ref.name)} has ${ref.columns} columns; the sparse engine takes ${MOST_COLUMNS}`,
        );
      }
      if (this.#signal) await letEventsIn();
      throwIfAborted(this.#signal);
      placed = ref.kind === "dense"
        ? await placeDense(this.#stage, ref)
        : await placeSparse(this.#stage, ref);
      this.#matrices.set(key, placed);
    }
    return placed;
  }

  /**
   * Waits until all matrices are where they belong.
   *
   * @throws {PackedFormatError} When one is damaged.
   * @throws {WorkerLostError} When a thread is lost.
   */
  settle(): Promise<void> {
    return this.#stage.settle();
  }

  /**
   * Makes a sketch of a head.
   *
   * @throws {AbortError} When the signal says so.
   */
  sketch(head: PlacedMatrix): Promise<PlacedSketch> {
    this.#sketchBytes += sketchBytes(head);
    return placeSketch(this.#stage, head, this.#signal);
  }

  /**
   * Places rotary tables; those that are asked for again have a place.
   *
   * @param positions Rows from the first on that are needed: as many as they have, or fewer, and always as many.
   * @throws {AbortError} When the signal says so.
   */
  async tables(tables: RotaryTables, positions: number): Promise<PlacedTables> {
    const placed = this.#tables.get(tables) ??
      await placeTables(this.#stage, tables, positions, this.#signal);
    this.#tables.set(tables, placed);
    return placed;
  }

  /**
   * Places a float32 tensor, with zeros behind it up to a multiple of 16 elements.
   *
   * @param how What is done with its elements.
   * @returns Its address.
   */
  vector(name: string, how: HowRead = {}): Promise<number> {
    return this.#stage.vector(name, how);
  }

  /** The kernels of a convolution; see {@linkcode placeKernels}. */
  kernels(name: string, channels: number, length: number): Promise<number> {
    return placeKernels(this.#stage, name, channels, length);
  }
}
