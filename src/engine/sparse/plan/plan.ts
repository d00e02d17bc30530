/**
 * From fused steps to a program: every vector gets a place, and threads meet where one needs what
 * another has written.
 * @module
 */
import type { PageLayout } from "../cache.ts";
import type { Part, Value } from "../ir.ts";
import {
  bytesOfState,
  hasListsBeside,
  isQuantised,
  KIND,
  PAGE,
  roundUp,
  scratchBytes,
} from "../layout.ts";
import type { EngineMemory } from "../memory.ts";
import type { WeightLoader } from "../weights/loader.ts";
import type { PlacedMatrix } from "../weights/placed.ts";
import type { FileRows, TableRef } from "../weights/file_rows.ts";
import type { PlacedTables } from "../weights/rotary.ts";
import { sketchBytes, sketchRoom } from "../weights/sketch.ts";
import { type Buffer, Buffers } from "./buffers.ts";
import {
  type HeadNorm,
  Program,
  type QuantisedVectors,
  type Scratch,
  type Vectors,
} from "./encode.ts";
import {
  type AttentionStep,
  type ConvolutionStep,
  type DeltaStep,
  type ElementwiseStep,
  type FusedDecoder,
  type FusedStep,
  type LinearStep,
  readBy,
  readNotOnlyByProducts,
  type TurnedNorm,
  type VectorRef,
  vectorsOf,
} from "./fuse.ts";
import { type Sketch, sketchOf } from "./head.ts";
import { isInt8Cache, layerBytes, layoutOfPages } from "./pages.ts";
import { QuantisedForms } from "./quantised.ts";
import { Values } from "./values.ts";

/** What a plan is made for. */
export interface PlanOptions {
  readonly threads: number;
  /** Most tokens of a run, and of a run that gives all logits. */
  readonly tokens: number;
  readonly tokensWithLogits: number;
  readonly context: number;
  readonly kv: "f32" | "int8";
  /** Quantised activations: 14 bits where there are outliers and 7 elsewhere, or 14 everywhere. */
  readonly activations: "int8" | "int16";
  /** Whether the head has a sketch, where there are kernels for one; default: where it saves time. */
  readonly sketch?: boolean;
  /** Tables that stay in their file. */
  readonly inFile?: ReadonlyMap<TableRef, FileRows>;
  /** Most pages of the cache that are made at once; default: some. */
  readonly pagesTogether?: number;
}

/** Rows out of a file, which are to be written for a run's tokens before it begins. */
export interface RowsToWrite {
  readonly table: FileRows;
  readonly width: number;
  /** Where to, token by token. */
  readonly to: Vectors;
}

/** A program in memory, and what it needs to be run. */
export interface Plan {
  /** Address of the program. */
  readonly program: number;
  /** Where the values that it is given are to be written before a run, in their order. */
  readonly given: readonly Vectors[];
  /** Where its results are: the logits, or what the next shard is given. */
  readonly results: readonly Vectors[];
  /** Bytes of weights that are read for a token of which only the largest logit matters. */
  readonly tokenBytes: number;
  readonly pages: PageLayout;
  /** The threads' rooms for products with the head's sketch, where it has one. */
  readonly sketchRooms: Scratch | undefined;
  /** What the steps that would take rows of tables in a file find there. */
  readonly rows: readonly RowsToWrite[];
}

/** Places all weights of a program and writes it. */
export async function makePlan(
  decoder: FusedDecoder,
  weights: WeightLoader,
  memory: EngineMemory,
  options: PlanOptions,
): Promise<Plan> {
  const matrices = new Map<FusedStep, PlacedMatrix>();
  for (const step of decoder.steps) {
    if (step.op === "linear") matrices.set(step, await weights.matrix(step.matrix));
    if (step.op === "embed" && !options.inFile?.has(step.table)) {
      matrices.set(step, await weights.matrix(step.table));
    }
  }
  const vectors = new Map<string, number>();
  for (const vector of decoder.steps.flatMap(vectorsOf)) {
    vectors.set(keyOf(vector), await weights.vector(vector.name, vector));
  }
  const kernels = new Map<FusedStep, number>();
  for (const step of decoder.steps) {
    if (step.op !== "convolve") continue;
    const { weight, output, length } = step;
    kernels.set(step, await weights.kernels(weight, decoder.widths[output], length));
  }
  const tables = new Map<FusedStep, PlacedTables>();
  for (const step of decoder.steps) {
    if (step.op !== "attention" || !step.rotary) continue;
    tables.set(step, await weights.tables(step.rotary.tables, options.context));
  }
  await weights.settle();
  const sketch = await sketchOf(decoder, matrices, weights, memory, options.sketch);
  const placed = { matrices, vectors, kernels, tables, sketch };
  return new Planner(decoder, placed, memory, weights.stage, options).run();
}

function keyOf({ name, above, isNegatedExponential = false, each = 1 }: VectorRef): string {
  return `${above} ${isNegatedExponential} ${each} ${name}`;
}

/** Where weights lie. */
interface PlacedWeights {
  readonly matrices: ReadonlyMap<FusedStep, PlacedMatrix>;
  /** By {@linkcode keyOf}. */
  readonly vectors: ReadonlyMap<string, number>;
  /** Of convolutions. */
  readonly kernels: ReadonlyMap<FusedStep, number>;
  readonly tables: ReadonlyMap<FusedStep, PlacedTables>;
  readonly sketch: Sketch | undefined;
}

class Planner {
  readonly #decoder: FusedDecoder;
  readonly #options: PlanOptions;
  readonly #program = new Program();
  readonly #memory: EngineMemory;
  readonly #matrices: ReadonlyMap<FusedStep, PlacedMatrix>;
  readonly #vectors: ReadonlyMap<string, number>;
  readonly #kernels: ReadonlyMap<FusedStep, number>;
  readonly #tables: ReadonlyMap<FusedStep, PlacedTables>;
  readonly #sketch: Sketch | undefined;
  #sketchRooms: Scratch | undefined;
  readonly #values: Values;
  /** Values that not only products multiply. */
  readonly #readOtherwise: ReadonlySet<Value>;
  readonly #pages: PageLayout;
  /** Bytes from a page's beginning to the next layer's part, and to those of the layers before. */
  #layerOffset = 0;
  readonly #offsetOf = new Map<number, number>();
  /** Bytes from a state's beginning to the next layer's part. */
  #stateOffset = 0;
  readonly #scratch: Scratch;
  readonly #partials: number;

  constructor(
    decoder: FusedDecoder,
    { matrices, vectors, kernels, tables, sketch }: PlacedWeights,
    memory: EngineMemory,
    spare: Buffer,
    options: PlanOptions,
  ) {
    this.#decoder = decoder;
    this.#matrices = matrices;
    this.#vectors = vectors;
    this.#kernels = kernels;
    this.#tables = tables;
    this.#sketch = sketch;
    this.#memory = memory;
    this.#options = options;
    const buffers = new Buffers(memory, {
      address: roundUp(spare.address, 64),
      bytes: spare.bytes,
    });
    memory.bytes(spare.address, spare.bytes).fill(0);
    const quantised = new QuantisedForms(this.#program, buffers, {
      ...options,
      needsSums: [...matrices.values()].some(({ kind }) => kind === KIND.DENSE_INT4),
    });
    this.#values = new Values(decoder, this.#program, buffers, quantised, options);
    this.#readOtherwise = readNotOnlyByProducts(decoder.steps);
    this.#scratch = this.#reserveScratch();
    this.#partials = this.#reservePartials();
    this.#pages = layoutOfPages(decoder, options, memory);
  }

  run(): Plan {
    const { steps, given, results } = this.#decoder;
    // They are there before the first step.
    const rows = this.#placeRows();
    for (const value of given) this.#values.place(value, "clean");
    const places = given.map((value) => this.#values.get(value));
    steps.forEach((step, i) => {
      this.#encode(step, i);
      for (const value of readBy(step)) this.#values.done(value, i);
    });
    const words = this.#program.finish();
    const program = this.#memory.reserve(words.byteLength);
    this.#memory.words(program, words.length).set(words);
    return {
      program,
      given: places,
      results: results.map((value) => this.#values.get(value)),
      tokenBytes: this.#tokenBytes(),
      pages: this.#pages,
      sketchRooms: this.#sketchRooms,
      rows,
    };
  }

  /** Places for what comes out of files. */
  #placeRows(): RowsToWrite[] {
    return this.#decoder.steps.flatMap((step) => {
      const table = step.op === "embed" && this.#options.inFile?.get(step.table);
      if (!table) return [];
      const to = this.#values.place(step.output, "clean");
      return [{ table, width: this.#decoder.widths[step.output], to }];
    });
  }

  /** What products read for a token of which only the largest logit matters. */
  #tokenBytes(): number {
    const { steps } = this.#decoder;
    const read = new Set(
      steps.flatMap((step) => step.op === "linear" ? [this.#matrices.get(step)!] : []),
    );
    const bytes = [...read].reduce((sum, { bytes }) => sum + bytes, 0);
    return this.#sketch ? bytes - this.#sketch.of.bytes + sketchBytes(this.#sketch.of) : bytes;
  }

  #encode(step: FusedStep, at: number): void {
    switch (step.op) {
      case "embed": {
        if (this.#options.inFile?.has(step.table)) return;
        const out = this.#values.place(step.output, "scattered");
        const width = this.#decoder.widths[step.output];
        const table = this.#matrices.get(step)!;
        this.#program.embed(out, width, table, step.of === "positions", step.offset);
        return;
      }
      case "rmsNorm":
      case "layerNorm": {
        const input = this.#values.toRead(step.input, "tokens", at);
        // With one token every thread norms for itself, where only products read the result.
        const isPrivate = !this.#readOtherwise.has(step.output);
        const out = this.#values.place(step.output, isPrivate ? "tokens" : "scattered", isPrivate);
        this.#program.norm(input, out, this.#decoder.widths[step.input], {
          groups: step.groups,
          weight: this.#vector(step.weight, step.above),
          bias: this.#vector(step.op === "layerNorm" ? step.bias : undefined),
          epsilon: step.epsilon,
          isLayer: step.op === "layerNorm",
        });
        return;
      }
      case "elementwise": {
        const readBefore = this.#values.lastRead(step.a);
        const whole = this.#values.toRead(step.a, "tokens", at);
        const a = step.offset ? { ...whole, address: whole.address + 4 * step.offset } : whole;
        const b = step.b === undefined
          ? this.#sameForAll(step)
          : this.#values.toRead(step.b, "tokens", at);
        if (b && b.copy !== 0) throw new Error("a private vector has an element-wise reader");
        // What nobody else reads any more is changed where it lies: logits are large.
        const inPlace = step.kind === "copy" && this.#values.mayBeReplaced(step.a, readBefore);
        const out = inPlace
          ? this.#values.move(step.a, step.output, "scattered")
          : this.#values.place(step.output, "scattered");
        const width = this.#decoder.widths[step.output];
        const { heads = 1 } = step;
        const apart = this.#decoder.widths[step.a] / heads;
        const how = { ...step, heads, apart };
        this.#program.elementwise(a, out, width, step.kind, b, step.activation, how);
        return;
      }
      case "select":
        return this.#encodeSelect(step.values);
      case "linear":
        return this.#encodeLinear(step, at);
      case "attention":
        return this.#encodeAttention(step, at);
      case "convolve":
        return this.#encodeConvolution(step, at);
      case "delta":
        return this.#encodeDelta(step, at);
    }
  }

  /** Threads meet inside, but where all tokens stay where they are: so who reads the values has to wait as before. */
  #encodeSelect(values: readonly Value[]): void {
    this.#program.select(values.map((value) => this.#values.get(value)));
    this.#values.select(values);
  }

  #encodeLinear(step: LinearStep, at: number): void {
    const matrix = this.#matrices.get(step)!;
    const input = isQuantised(matrix.kind)
      ? this.#values.toMultiply(step.input, at)
      : this.#values.toRead(step.input, "all", at);
    const floats = hasListsBeside(matrix) ? this.#values.toRead(step.input, "all", at) : undefined;
    const times = step.times === undefined
      ? undefined
      : this.#values.toRead(step.times, "rows", at);
    const readBefore = step.plus === undefined ? at : this.#values.lastRead(step.plus);
    const plus = step.plus === undefined ? undefined : this.#values.toRead(step.plus, "rows", at);
    // A thread has the same rows of all products of a run, and of none of another.
    const added = [step.times, step.plus].filter((value) => value !== undefined);
    if (added.some((value) => this.#values.isOfOtherRows(value))) this.#values.barrier(at);
    // A sum takes the place of what it is added to, unless another thread may still be reading that.
    const inPlace = step.plus !== undefined && step.plus !== step.input &&
      step.plus !== step.times && this.#values.mayBeReplaced(step.plus, readBefore);
    const out = inPlace
      ? this.#values.move(step.plus!, step.output, "rows")
      : this.#values.place(step.output, "rows");
    if (this.#sketch?.step === step) {
      const bytes = roundUp(sketchRoom(matrix), 64);
      const rooms = { address: this.#memory.reserve(bytes * this.#options.threads), bytes };
      this.#program.sketch(matrix, this.#sketch, input as QuantisedVectors, out, rooms);
      this.#sketchRooms = rooms;
    }
    this.#values.writtenByRun(step.output);
    this.#program.linear(matrix, input, floats, out, this.#scratch, {
      bias: this.#vector(step.bias),
      activation: this.#isNear(matrix) && step.activation === "silu"
        ? "nearlySilu"
        : step.activation,
      times: times?.address ?? 0,
      plus: plus?.address ?? 0,
    });
  }

  /** Where a vector lies; 0 for none. */
  #vector(name: string | undefined, above = 0): number {
    return name === undefined ? 0 : this.#vectors.get(keyOf({ name, above }))!;
  }

  #headNorm(norm: TurnedNorm | undefined): HeadNorm {
    return { weight: this.#vector(norm?.weight, norm?.above), epsilon: norm?.epsilon ?? 0 };
  }

  /** A vector of the file as one that all tokens read. */
  #sameForAll({ weight: name, ...how }: ElementwiseStep): Vectors | undefined {
    if (name === undefined) return undefined;
    const { isNegatedExponential, each } = how;
    const address = this.#vectors.get(keyOf({ name, above: 0, isNegatedExponential, each }))!;
    return { address, stride: 0, copy: 0 };
  }

  /** Whether inputs of 7 bits have made products less exact than some activation functions need be. */
  #isNear({ kind }: PlacedMatrix): boolean {
    return isQuantised(kind) && this.#options.activations === "int8";
  }

  #encodeAttention(step: AttentionStep, at: number): void {
    const queries = this.#values.toRead(step.queries, "all", at);
    const [keys, values] = [step.keys, step.values].map((value) =>
      value === undefined ? undefined : this.#values.toRead(value, "all", at)
    );
    if (keys) this.#offsetOf.set(step.layer, this.#layerOffset);
    const out = this.#values.place(step.output, "scattered");
    const { kv } = this.#options;
    const tables = this.#tables.get(step);
    this.#program.attention({ queries, keys, values, out }, {
      heads: step.heads,
      keyValueHeads: step.keyValueHeads,
      headDim: step.headDim,
      layerOffset: this.#offsetOf.get(step.layer)!,
      cosines: tables?.cosines ?? 0,
      sines: tables?.sines ?? 0,
      turned: step.rotary?.turned ?? 0,
      interleaved: step.rotary?.interleaved,
      window: step.window ?? 0,
      scale: step.scale * Math.LOG2E,
      cap: (step.cap ?? 0) * Math.LOG2E,
      queryNorm: this.#headNorm(step.queryNorm),
      keyNorm: this.#headNorm(step.keyNorm),
      sinks: this.#vector(step.sinks),
      isInt8: isInt8Cache(step, kv),
      isLast: step.isLast,
      scratch: this.#scratch,
      partials: this.#partials,
    });
    // There is a barrier inside.
    this.#values.meet(at);
    this.#values.writtenByAll(step.output);
    if (keys) this.#nextLayer(step);
  }

  /** Threads divide the channels, and read what others have written of all that goes into them. */
  #encodeConvolution(step: ConvolutionStep, at: number): void {
    const { input, offset = 0, gate, times, output, length, bias, activation } = step;
    const read = (part: Part) => this.#readPart(part, at);
    const parts = {
      input: read({ value: input, offset }),
      gate: gate && read(gate),
      times: times && read(times),
    };
    const out = this.#values.place(output, "scattered");
    this.#program.convolve({ ...parts, out }, {
      channels: this.#decoder.widths[output],
      length,
      weight: this.#kernels.get(step)!,
      bias: this.#vector(bias),
      layerOffset: this.#layerOffset,
      activation,
    });
    this.#nextLayer(step);
  }

  /** Threads divide heads and columns of their states, and read what others have written of all that goes into them. */
  #encodeDelta(step: DeltaStep, at: number): void {
    const read = (part: Part) => this.#readPart(part, at);
    const { queries, keys, values, decays, strengths } = step;
    const parts = {
      queries: read(queries),
      keys: read(keys),
      values: read(values),
      decays: read({ value: decays, offset: 0 }),
      strengths: strengths === undefined ? undefined : read({ value: strengths, offset: 0 }),
    };
    const out = this.#values.place(step.output, "scattered");
    this.#program.delta({ ...parts, out }, { ...step, layerOffset: this.#stateOffset });
    this.#stateOffset += bytesOfState(step);
  }

  /** Vectors that some of a value's elements are. */
  #readPart({ value, offset }: Part, at: number): Vectors {
    const whole = this.#values.toRead(value, "all", at);
    return { ...whole, address: whole.address + 4 * offset };
  }

  #nextLayer(step: AttentionStep | ConvolutionStep): void {
    const bytes = layerBytes(step, this.#options.kv, this.#decoder.widths);
    this.#layerOffset += bytes * this.#pages.together;
  }

  /** Bytes of what a head makes of the pages that a token sees. */
  #partialBytes({ headDim, window = 0 }: AttentionStep): number {
    const seen = Math.min(this.#options.context, window || Infinity);
    return (Math.ceil(seen / PAGE) + 1) * (headDim * 4 + 16);
  }

  /** Room for what one token's heads make of pages: one for all threads, and all layers. */
  #reservePartials(): number {
    const most = this.#decoder.steps.reduce(
      (most, step) =>
        Math.max(most, step.op === "attention" ? step.heads * this.#partialBytes(step) : 0),
      0,
    );
    return this.#memory.reserve(roundUp(most, 64));
  }

  /**
   * Room for each thread: scores of a page, and what the heads of a group make of all pages that one of several tokens
   * sees; or what products unpack.
   */
  #reserveScratch(): Scratch {
    const { threads, tokens } = this.#options;
    let bytes = 0;
    for (const step of this.#decoder.steps) {
      if (step.op === "attention") {
        const heads = step.heads / step.keyValueHeads;
        const work = heads * 512 + step.headDim * 4;
        bytes = Math.max(bytes, work + heads * this.#partialBytes(step));
      } else if (step.op === "linear") {
        bytes = Math.max(bytes, scratchBytes(this.#matrices.get(step)!, tokens));
      }
    }
    bytes = roundUp(bytes, 64);
    return { address: this.#memory.reserve(bytes * threads), bytes };
  }
}
