/**
 * The quantised forms of values: made when a product first asks for one, known until the value is gone.
 * @module
 */
import type { Value } from "../ir.ts";
import { roundUp, SEGMENT, segmentsOf } from "../layout.ts";
import type { Buffer, Buffers } from "./buffers.ts";
import type { Program, QuantisedVectors, Vectors } from "./encode.ts";

/**
 * Segments whose largest input is more than this times the root mean square of all inputs have 14 bits.
 * Measured on a pruned model of 135 million weights: 5 % of segments, and perplexity 0.2 % above that
 * of exact inputs; with 7 bits everywhere it is 1.6 % above.
 */
const OUTLIER = 8;

interface Form extends QuantisedVectors {
  readonly buffers: readonly Buffer[];
  /** Whether threads have not met since it was written. */
  dirty: boolean;
}

/** How values are quantised. */
export interface QuantisedOptions {
  readonly threads: number;
  /** 14 bits where there are outliers and 7 elsewhere, or 14 everywhere. */
  readonly activations: "int8" | "int16";
  /** Whether a matrix of the program asks for sums of segments. */
  readonly needsSums: boolean;
}

/** The quantised forms of one program's values. */
export class QuantisedForms {
  readonly #program: Program;
  readonly #buffers: Buffers;
  readonly #options: QuantisedOptions;
  readonly #forms = new Map<Value, Form>();

  constructor(program: Program, buffers: Buffers, options: QuantisedOptions) {
    this.#program = program;
    this.#buffers = buffers;
    this.#options = options;
  }

  /**
   * The quantised form of a value, of which threads see all.
   *
   * @param width Elements of a vector.
   * @param rows Vectors that there must be room for, a multiple of eight.
   * @param read Tells where the value lies; called if it has to be quantised.
   */
  of(value: Value, width: number, rows: number, read: () => Vectors): QuantisedVectors {
    const form = this.#forms.get(value) ?? this.#make(value, width, rows, read());
    if (form.dirty) this.#program.barrier("forMany");
    form.dirty = false;
    return form;
  }

  /** Gives the room of a value's form back, if it has one. */
  forget(value: Value): void {
    for (const buffer of this.#forms.get(value)?.buffers ?? []) this.#buffers.give(buffer);
    this.#forms.delete(value);
  }

  /** All threads have met: everybody sees what was written. */
  met(): void {
    for (const form of this.#forms.values()) form.dirty = false;
  }

  #make(value: Value, width: number, rows: number, input: Vectors): Form {
    const { threads, activations, needsSums } = this.#options;
    const segments = segmentsOf(width);
    // Not a power of two: vectors one after the other would compete for the same places in caches.
    const stride = segments * SEGMENT + 16;
    const bytes = this.#buffers.take(2 * rows * stride);
    const scales = this.#buffers.take(rows * segments * 4);
    // And a unit for each token.
    const steps = this.#buffers.take(rows * (segments + 1) * 4);
    const flags = this.#buffers.take(Math.max(roundUp(rows, 8), 8 * threads) * segments);
    // For each segment two sums.
    const sumBytes = 8 * segments;
    const sums = needsSums ? this.#buffers.take(rows * sumBytes) : undefined;
    const form = {
      address: bytes.address,
      stride,
      copy: stride,
      low: rows * stride,
      scales: scales.address,
      scalesCopy: segments * 4,
      steps: steps.address,
      flags: flags.address,
      flagsCopy: segments * 8,
      sums: sums?.address ?? 0,
      sumsCopy: sumBytes,
      buffers: [bytes, scales, steps, flags, ...(sums ? [sums] : [])],
      dirty: true,
    };
    this.#program.quantise(input, form, width, activations === "int8" ? OUTLIER : 0);
    this.#forms.set(value, form);
    return form;
  }
}
