/**
 * Words of steps, as the kernels read them: `assembly/linear.ts`, `vectors.ts`, `quantise.ts`,
 * `attention_step.ts`, `convolve.ts` and `delta.ts` have the same places.
 * @module
 */
import { ACTIVATION, BARRIER, ELEMENTWISE, OP, SKETCH_KIND, TAKEN_BYTES } from "../layout.ts";
import type { PlacedMatrix } from "../weights/placed.ts";
import type { PlacedSketch } from "../weights/sketch.ts";

/** Vectors that a step reads or writes. */
export interface Vectors {
  readonly address: number;
  /** Bytes from one token's vector to the next one's. */
  readonly stride: number;
  /** Bytes from one thread's copy to the next one's, where each has its own when there is one token; 0 else. */
  readonly copy: number;
}

/** Quantised vectors and their scales. */
export interface QuantisedVectors extends Vectors {
  /** Bytes from upper to lower seven bits. */
  readonly low: number;
  readonly scales: number;
  readonly scalesCopy: number;
  /** What scales are in units of each token's, and those. */
  readonly steps: number;
  readonly flags: number;
  readonly flagsCopy: number;
  /** Sums of segments, as dense int4 matrices need them; 0 where there are none. */
  readonly sums: number;
  readonly sumsCopy: number;
}

/** Room for each thread, one after the other. */
export interface Scratch {
  readonly address: number;
  /** Bytes of a thread's. */
  readonly bytes: number;
}

/** Words of a program; numbers that are no integers are written as float32. */
export class Program {
  readonly #words: number[] = [];
  #lastOp: number = OP.END;
  #runs = 0;
  /** The counter that the next run of products gets: barriers clear them. */
  #counter = 0;

  /** Which run of products, with no other step between, the next one belongs to. */
  get run(): number {
    return this.#lastOp === OP.LINEAR ? this.#runs : this.#runs + 1;
  }

  /** The program, with its end. */
  finish(): Int32Array {
    return Int32Array.from([...this.#words, OP.END, 2]);
  }

  barrier(when: keyof typeof BARRIER): void {
    this.#step(OP.BARRIER, [BARRIER[when]]);
    if (when === "always") this.#counter = 0;
  }

  embed(
    out: Vectors,
    width: number,
    table: PlacedMatrix,
    ofPositions: boolean,
    offset: number,
  ): void {
    this.#step(OP.EMBED, [
      ...[0, 0, 0, ...vectors(out), width],
      table.address,
      table.kind,
      table.segments,
      table.rowScales,
      ofPositions ? 1 : 0,
      offset,
      table.groupSegments,
    ]);
  }

  norm(
    input: Vectors,
    out: Vectors,
    width: number,
    options: { groups: number; weight: number; bias: number; epsilon: number; isLayer: boolean },
  ): void {
    const { groups, weight, bias, epsilon, isLayer } = options;
    this.#step(OP.NORM, [
      ...[...vectors(input), ...vectors(out), width],
      ...[groups, weight, bias, bits(epsilon), isLayer ? 1 : 0],
    ]);
  }

  /** @param ratio A segment whose largest input is more than this times the usual one has 14 bits. */
  quantise(input: Vectors, out: QuantisedVectors, width: number, ratio: number): void {
    this.#step(OP.QUANTISE, [
      ...[...vectors(input), ...vectors(out), width],
      ...[out.low, out.scales, out.scalesCopy, out.flags, out.flagsCopy, bits(ratio)],
      ...[out.sums, out.sumsCopy, out.steps],
    ]);
  }

  elementwise(
    input: Vectors,
    out: Vectors,
    width: number,
    kind: keyof typeof ELEMENTWISE,
    other: Vectors | undefined,
    activation: keyof typeof ACTIVATION,
    /** Of a part: of how many heads it is, and how many elements lie between the beginnings of two. */
    { factor = 1, cap = 1, heads = 1, apart = 0 } = {},
  ): void {
    this.#step(OP.ELEMENTWISE, [
      ...[...vectors(input), ...vectors(out), width],
      ...[ELEMENTWISE[kind], other?.address ?? 0, other?.stride ?? 0, ACTIVATION[activation]],
      ...[bits(factor), bits(cap), heads, 4 * apart],
    ]);
  }

  /** Moves the vectors of tokens whose logits are wanted to the beginning; of all that lie behind, nothing is left. */
  select(values: readonly Vectors[]): void {
    this.#step(OP.SELECT, values.flatMap(vectors));
  }

  /**
   * @param input Quantised inputs, or float32 ones.
   * @param floats Float32 inputs for lists beside slots.
   * @param scratch Room for each thread; `scratchBytes` in `layout.ts` says how much is needed.
   */
  linear(
    matrix: PlacedMatrix,
    input: Vectors | QuantisedVectors,
    floats: Vectors | undefined,
    out: Vectors,
    scratch: Scratch,
    options: { bias: number; activation: keyof typeof ACTIVATION; times: number; plus: number },
  ): void {
    if (this.#lastOp !== OP.LINEAR) {
      this.#makeRoomForCounter();
      this.#runs++;
      this.#counter++;
    }
    const [steps, ...sums] = "scales" in input
      ? [input.steps, input.sums, input.sumsCopy]
      : [0, 0, 0];
    this.#step(OP.LINEAR, [
      ...productWords(matrix, input, out),
      ...[options.bias, ACTIVATION[options.activation], options.times, options.plus],
      ...[matrix.lists, floats?.address ?? 0, floats?.stride ?? 0, floats?.copy ?? 0],
      ...[matrix.columns, matrix.groupSegments, ...sums],
      ...[scratch.address, scratch.bytes, steps, this.#counter - 1],
    ]);
  }

  /**
   * A sketch of a head, which is used in place of the product behind it where only the largest logits are
   * wanted.
   *
   * @param head The head; `sketch` is made of it.
   * @param input Quantised inputs.
   * @param room For each thread; `sketchRoom` in `weights/sketch.ts` says how much is needed.
   */
  sketch(
    head: PlacedMatrix,
    sketch: PlacedSketch & { readonly cap: number },
    input: QuantisedVectors,
    out: Vectors,
    room: Scratch,
  ): void {
    this.#makeRoomForCounter();
    // The product's counter: only one of the two is computed.
    this.#step(OP.SKETCH, [
      ...productWords({ ...head, kind: SKETCH_KIND, address: sketch.address }, input, out),
      ...[head.rows, sketch.mean, bits(sketch.cap), 0],
      ...[0, 0, 0, 0],
      ...[0, 0, 0, 0],
      ...[room.address, room.bytes, 0, this.#counter],
    ]);
  }

  /** A line of counters has room for so many; a barrier clears them. */
  #makeRoomForCounter(): void {
    if (this.#counter === TAKEN_BYTES / 4) this.barrier("always");
  }

  /**
   * Puts keys and values, if there are any, into the cache, then attends: three steps, with barriers between.
   */
  attention(
    parts: { queries: Vectors; keys?: Vectors; values?: Vectors; out: Vectors },
    options: {
      heads: number;
      keyValueHeads: number;
      headDim: number;
      /** Bytes from a page's beginning to the layer's part. */
      layerOffset: number;
      cosines: number;
      sines: number;
      /** Elements of a head that are turned. */
      turned: number;
      /** Whether neighbours are turned together. */
      interleaved?: boolean;
      window: number;
      scale: number;
      /** 0 for none; in the units of scaled scores. */
      cap: number;
      /** RMS norms of turned heads, by the address of their weights; 0 for none. */
      queryNorm: HeadNorm;
      keyNorm: HeadNorm;
      /** Address of a score of nothing for each head; 0 for none. */
      sinks: number;
      isInt8: boolean;
      /** Whether nothing that follows is needed where no logits are wanted. */
      isLast: boolean;
      scratch: Scratch;
      /** Address of room for what one token's heads make of each page. */
      partials: number;
    },
  ): void {
    const { queries, keys, values, out } = parts;
    const words = [
      ...[queries, keys, values, out]
        .flatMap((vectors) => [vectors?.address ?? 0, vectors?.stride ?? 0]),
      ...[options.heads, options.keyValueHeads, options.headDim, options.layerOffset],
      ...[options.cosines, options.sines, options.window, bits(options.scale)],
      ...[options.isInt8 ? 1 : 0, options.scratch.address, options.scratch.bytes],
      ...[options.turned, bits(options.cap), options.interleaved ? 1 : 0],
      ...[options.queryNorm, options.keyNorm].flatMap((
        { weight, epsilon },
      ) => [weight, bits(epsilon)]),
      ...[options.partials, options.sinks],
    ];
    this.#step(OP.APPEND, words);
    if (options.isLast) this.#step(OP.ENOUGH, []);
    this.barrier("always");
    this.#step(OP.ATTEND, words);
    this.barrier("forOne");
    this.#step(OP.COMBINE, words);
  }

  /**
   * A convolution over the tokens, of inputs that are multiplied by a gate; its sums are multiplied by `times`.
   *
   * @param options Addresses, of weights `[length, channels]`; 0 for no bias.
   */
  convolve(
    parts: { input: Vectors; gate?: Vectors; times?: Vectors; out: Vectors },
    options: {
      channels: number;
      length: number;
      weight: number;
      bias: number;
      /** Bytes from a page's beginning to the layer's part. */
      layerOffset: number;
      activation?: keyof typeof ACTIVATION;
    },
  ): void {
    const { input, gate, times, out } = parts;
    const { channels, length, weight, bias, layerOffset, activation = "none" } = options;
    this.#step(OP.CONVOLVE, [
      ...[input.address, input.stride, gate?.address ?? 0, gate?.stride ?? 0],
      ...[times?.address ?? 0, times?.stride ?? 0, out.address, out.stride],
      ...[channels, length, weight, bias, layerOffset, ACTIVATION[activation]],
    ]);
  }

  /** Linear attention by the gated delta rule, or, without strengths, a state space; see `delta` in `ir.ts`. */
  delta(
    parts:
      & Readonly<Record<"queries" | "keys" | "values" | "decays" | "out", Vectors>>
      & { readonly strengths?: Vectors },
    options: {
      keyHeads: number;
      valueHeads: number;
      keyDim: number;
      valueDim: number;
      /** Bytes from the beginning of a sequence's state to the layer's; `bytesOfState` in `layout.ts` says how many. */
      layerOffset: number;
      scale: number;
      /** With strengths. */
      epsilon?: number;
    },
  ): void {
    const { queries, keys, values, decays, strengths, out } = parts;
    const { keyHeads, valueHeads, keyDim, valueDim, layerOffset, scale, epsilon = 0 } = options;
    this.#step(OP.DELTA, [
      ...[queries, keys, values, decays, strengths, out]
        .flatMap((vectors) => [vectors?.address ?? 0, vectors?.stride ?? 0]),
      ...[keyHeads, valueHeads, keyDim, valueDim, layerOffset, bits(scale), bits(epsilon)],
    ]);
  }

  #step(op: number, args: readonly number[]): void {
    this.#words.push(op, args.length + 2, ...args);
    this.#lastOp = op;
  }
}

/** An RMS norm of heads. */
export interface HeadNorm {
  /** Where its weights lie; 0 for no norm. */
  readonly weight: number;
  readonly epsilon: number;
}

/** What a product begins with. */
function productWords(
  matrix: Omit<PlacedMatrix, "kind"> & { readonly kind: number },
  input: Vectors | QuantisedVectors,
  out: Vectors,
): number[] {
  const quantised = "scales" in input
    ? [input.scales, input.scalesCopy, input.low, input.flags, input.flagsCopy]
    : [0, 0, 0, 0, 0];
  return [
    ...[matrix.kind, matrix.address, matrix.paddedRows, matrix.segments],
    ...[input.address, input.stride, input.copy, ...quantised],
    ...[out.address, out.stride, matrix.rowScales, matrix.groupScales],
  ];
}

function vectors({ address, stride, copy }: Vectors): number[] {
  return [address, stride, copy];
}

const float = new Float32Array(1);
const word = new Int32Array(float.buffer);

/** The bits of a float32. */
function bits(value: number): number {
  float[0] = value;
  return word[0];
}
