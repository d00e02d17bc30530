/**
 * The weights that distillation moves, with the moments of their gradients: in memory, or in a file that
 * leaves no trace.
 * @module
 */
import { type PositionedFile, temporaryFile } from "../platform/positioned_file.ts";
import { adamStep, type KeptWeights, packKept, unpackKept } from "../prune/adam.ts";
import { type MatrixGrid, roundMatrix } from "../prune/int4_grid.ts";

interface Entry {
  readonly bits: Uint8Array;
  readonly count: number;
  readonly grid?: MatrixGrid;
  /** Root mean square of the kept weights when they came. */
  readonly strength: number;
  /** In memory; without it the entry lies in the file, values, first and second moments in a row. */
  readonly kept?: KeptWeights;
  readonly offset: number;
}

/** Kept weights of many matrices, by name. */
export class Parameters {
  readonly #entries = new Map<string, Entry>();
  readonly #file: PositionedFile | undefined;
  #end = 0;

  /** @param spill Whether all but the masks lies in a file. */
  constructor(spill: boolean) {
    if (spill) this.#file = temporaryFile("parameters");
  }

  /**
   * Takes a pruned matrix.
   *
   * @param name Its name.
   * @param values Its weights; copied.
   * @param bits Its mask, packed; see `packMask`.
   * @param grid Where weights are rounded: the model runs with what they are rounded to, and that has the
   *   gradients by which the weights themselves move (the straight-through estimator, arXiv 1308.3432).
   */
  add(name: string, values: Float32Array, bits: Uint8Array, grid?: MatrixGrid): void {
    const kept = packKept(values, bits);
    const count = kept.values.length;
    let squares = 0;
    for (const v of kept.values) squares += v * v;
    const entry = { bits, count, grid, offset: this.#end };
    const strength = Math.sqrt(squares / Math.max(1, count));
    if (this.#file) {
      this.#entries.set(name, { ...entry, strength });
      this.#end += 3 * 4 * count;
      this.#save(entry, kept);
    } else {
      this.#entries.set(name, { ...entry, strength, kept });
    }
  }

  /** Whether there is a matrix of that name. */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** Writes a matrix as it is now to `target`; pruned weights are 0. */
  read(name: string, target: Float32Array): void {
    const entry = this.#entries.get(name)!;
    let values = entry.kept?.values;
    if (!values) {
      values = new Float32Array(entry.count);
      this.#file!.read(bytesOf(values), entry.offset);
    }
    unpackKept(entry.bits, values, target);
    if (entry.grid) roundMatrix(target, entry.grid);
  }

  /**
   * Moves a matrix against its gradient, by Adam.
   *
   * @param gradient By the whole matrix.
   * @param rate How far a weight may move, as a part of the matrix's root mean square.
   * @param step Steps before this one.
   */
  move(name: string, gradient: Float32Array, rate: number, step: number): void {
    const entry = this.#entries.get(name)!;
    const kept = entry.kept ?? this.#load(entry);
    adamStep(kept, gradient, rate * entry.strength, step);
    if (this.#file) this.#save(entry, kept);
  }

  /** Frees memory and file. */
  close(): void {
    this.#file?.close();
    this.#entries.clear();
  }

  #load({ bits, count, offset }: Entry): KeptWeights {
    const all = new Float32Array(3 * count);
    this.#file!.read(bytesOf(all), offset);
    const part = (i: number) => all.subarray(i * count, (i + 1) * count);
    return { bits, values: part(0), first: part(1), second: part(2) };
  }

  #save({ count, offset }: { count: number; offset: number }, kept: KeptWeights): void {
    for (const [i, part] of [kept.values, kept.first, kept.second].entries()) {
      this.#file!.write(bytesOf(part), offset + i * 4 * count);
    }
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
