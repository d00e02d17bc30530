/**
 * Where the values of a program lie, and who has written them: threads meet where one needs what another has written.
 * @module
 */
import type { Value } from "../ir.ts";
import { roundUp } from "../layout.ts";
import type { Buffer, Buffers } from "./buffers.ts";
import type { Program, QuantisedVectors, Vectors } from "./encode.ts";
import { type FusedDecoder, readBy } from "./fuse.ts";
import type { QuantisedForms } from "./quantised.ts";

/** Who has written a value since threads last met. */
type Dirt =
  /** Nobody: all threads see it. */
  | "clean"
  /** Each thread some rows: those that it has taken of a run of products. */
  | "rows"
  /** Each thread its tokens; with one token, each thread its own copy. */
  | "tokens"
  /** Each thread some of it, by another rule. */
  | "scattered";

/** Vectors of a value, and the buffer that they lie in. */
export interface Placed extends Vectors {
  readonly buffer: Buffer;
}

/** How many vectors there may be. */
interface Sizes {
  readonly threads: number;
  /** Most tokens of a run, and of a run that gives all logits. */
  readonly tokens: number;
  readonly tokensWithLogits: number;
}

/** Gives values their places, step by step, and has threads meet. Steps are told by their number. */
export class Values {
  readonly #widths: readonly number[];
  readonly #program: Program;
  readonly #buffers: Buffers;
  readonly #quantised: QuantisedForms;
  readonly #sizes: Sizes;
  readonly #placed = new Map<Value, Placed>();
  readonly #dirt = new Map<Value, Dirt>();
  /** The run of products that has written a value. */
  readonly #writtenBy = new Map<Value, number>();
  /** Steps that have still to read a value. */
  readonly #readers: number[];
  /** When threads last met, and when a value was last read. */
  #met = -1;
  readonly #lastRead = new Map<Value, number>();
  #selected = false;

  constructor(
    { steps, widths, results }: FusedDecoder,
    program: Program,
    buffers: Buffers,
    quantised: QuantisedForms,
    sizes: Sizes,
  ) {
    this.#widths = widths;
    this.#program = program;
    this.#buffers = buffers;
    this.#quantised = quantised;
    this.#sizes = sizes;
    this.#readers = new Array(widths.length).fill(0);
    for (const step of steps) for (const value of readBy(step)) this.#readers[value]++;
    for (const value of results) this.#readers[value]++;
  }

  /** Where a value lies, whoever has written it. */
  get(value: Value): Placed {
    return this.#placed.get(value)!;
  }

  /** Where a value lies, after a barrier if the reader needs what other threads have written. */
  toRead(value: Value, by: "rows" | "tokens" | "all", at: number): Placed {
    const dirt = this.#dirt.get(value) ?? "clean";
    const isOwn = dirt === "clean" || dirt === by;
    if (!isOwn) {
      // Each thread has its own copy when there is one token: then nobody need wait.
      if (dirt === "tokens") this.#program.barrier("forMany");
      else this.barrier(at);
      if (dirt === "tokens") this.#dirt.set(value, "clean");
    }
    this.#lastRead.set(value, at);
    return this.get(value);
  }

  /** The quantised form of a value. */
  toMultiply(value: Value, at: number): QuantisedVectors {
    const read = () => this.toRead(value, "tokens", at);
    return this.#quantised.of(value, this.#widths[value], this.#rows(), read);
  }

  /** Whether threads have rows of a value that another run of products has written: those of this run they share out anew. */
  isOfOtherRows(value: Value): boolean {
    return this.#dirt.get(value) === "rows" && this.#writtenBy.get(value) !== this.#program.run;
  }

  /** Says that the run of products that is being written gives a value. */
  writtenByRun(value: Value): void {
    this.#writtenBy.set(value, this.#program.run);
  }

  /** The step that read a value last; -1 for none. */
  lastRead(value: Value): number {
    return this.#lastRead.get(value) ?? -1;
  }

  /** Says that each thread has some of a value by a rule of its own, though they have met in the step. */
  writtenByAll(value: Value): void {
    this.#dirt.set(value, "scattered");
  }

  /**
   * Whether the step that reads a value now may write where it lies: it is the last to read it, and no thread may
   * still be reading it.
   *
   * @param readBefore The step that read it before.
   */
  mayBeReplaced(value: Value, readBefore: number): boolean {
    return this.#readers[value] === 1 && readBefore < this.#met && this.get(value).copy === 0;
  }

  /** Gives a value a place. @param isPrivate With one token, each thread has a copy. */
  place(value: Value, dirt: Dirt, isPrivate = false): Placed {
    const stride = roundUp(this.#widths[value], 32) * 4;
    const buffer = this.#buffers.take(this.#rows() * stride);
    const placed = { address: buffer.address, stride, copy: isPrivate ? stride : 0, buffer };
    this.#placed.set(value, placed);
    this.#dirt.set(value, dirt);
    return placed;
  }

  /** Lets a value take the place of another. */
  move(from: Value, to: Value, dirt: Dirt): Placed {
    const placed = this.get(from);
    this.#placed.delete(from);
    this.#placed.set(to, placed);
    this.#dirt.set(to, dirt);
    return placed;
  }

  /** Only tokens whose logits are wanted are left: of these there may be fewer. */
  select(values: readonly Value[]): void {
    this.#selected = true;
    // What is quantised does not move: it is made anew.
    for (const value of values) this.#quantised.forget(value);
  }

  /** A step has read a value; the last gives its place back. */
  done(value: Value, at: number): void {
    this.#lastRead.set(value, at);
    if (--this.#readers[value] > 0) return;
    const placed = this.#placed.get(value);
    if (placed) this.#buffers.give(placed.buffer);
    this.#quantised.forget(value);
  }

  /** Has all threads meet. */
  barrier(at: number): void {
    this.#program.barrier("always");
    this.meet(at);
  }

  /** Says that all threads meet in the step that is being written. */
  meet(at: number): void {
    this.#met = at;
    this.#dirt.clear();
    this.#quantised.met();
    this.#buffers.barrier();
  }

  /** Vectors that a buffer must have room for. */
  #rows(): number {
    const { tokens, tokensWithLogits, threads } = this.#sizes;
    // Quantised inputs are in tiles of eight tokens, and each thread may have a copy.
    return roundUp(Math.max(this.#selected ? tokensWithLogits : tokens, threads), 8);
  }
}
