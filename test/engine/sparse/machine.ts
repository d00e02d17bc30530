/**
 * What the tests of kernels share: machines that run single steps.
 * @module
 */
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import {
  type Build,
  BUILDS,
  chooseBuild,
  configure,
  instantiate,
  type Kernels,
} from "../../../src/engine/sparse/kernels.ts";
import {
  CONTROL,
  hasListsBeside,
  PAGE,
  roundUp,
  scratchBytes,
  SEGMENT,
  segmentsOf,
} from "../../../src/engine/sparse/layout.ts";
import { EngineMemory } from "../../../src/engine/sparse/memory.ts";
import type { ModelReader } from "../../../src/engine/sparse/model_reader.ts";
import type {
  Program,
  QuantisedVectors,
  Scratch,
  Vectors,
} from "../../../src/engine/sparse/plan/encode.ts";
import { Team } from "../../../src/engine/sparse/team.ts";
import { WeightLoader } from "../../../src/engine/sparse/weights/loader.ts";
import type { PlacedMatrix } from "../../../src/engine/sparse/weights/placed.ts";
import { BackendError } from "../../../src/errors.ts";

/** Bytes of a fence, and what each is. */
const FENCE = 64;

/** Bytes of a machine's room for one program and its vectors. */
const ARENA = 64 << 20;

/** The float32 inputs that a product reads beside quantised ones, as a plan gives them. */
export function besideInputs(matrix: PlacedMatrix, x: Vectors): Vectors | undefined {
  return hasListsBeside(matrix) ? x : undefined;
}

/** A memory with kernels, and threads that run programs on it. */
export class Machine {
  readonly #team: Team;
  /** Room that is used again after {@linkcode Machine.reset}. */
  readonly #arena: number;
  #used = 0;
  /** Bytes that nothing may write to. */
  readonly #fences: number[] = [];

  private constructor(
    readonly name: string,
    readonly threads: number,
    readonly memory: EngineMemory,
    readonly kernels: Kernels,
    team: Team,
  ) {
    this.#team = team;
    this.#arena = memory.reserve(ARENA);
  }

  /** Nothing where this runtime does not run that build, or not right. */
  static async start(build: Build, threads: number): Promise<Machine | undefined> {
    const shared = threads > 1;
    const module = await moduleOf(build, shared);
    if (!module) return undefined;
    const memory = new EngineMemory(shared);
    const kernels = instantiate(module, memory);
    kernels.setUp();
    const patience = 20_000;
    configure(memory, { threads, spins: 200, patience, mainMaySleep: true });
    const team = await Team.start({ memory, module }, { threads, background: false, patience });
    team.begin();
    return new Machine(`${build}, ${threads} threads`, threads, memory, kernels, team);
  }

  /** Everything that can be placed from a file. */
  loader(reader: ModelReader, matrices: readonly MatrixRef[]): WeightLoader {
    return new WeightLoader(reader, this.memory, this.kernels, matrices);
  }

  /** Room until the next {@linkcode Machine.reset}. */
  reserve(bytes: number): number {
    const address = this.#arena + this.#used;
    this.#used += roundUp(bytes, 64);
    if (this.#used > ARENA) throw new Error("a test needs a larger arena");
    return address;
  }

  /** Takes all room back that {@linkcode Machine.reserve} gave. */
  reset(): void {
    this.#used = 0;
    this.#fences.length = 0;
  }

  /**
   * Room for vectors of floats, filled with NaN.
   *
   * @param copies Whether each thread has a vector of its own when there is one token.
   */
  room(count: number, width: number, copies = false): Vectors {
    const stride = roundUp(width, 32) * 4;
    const rows = roundUp(Math.max(count, this.threads), 8);
    const address = this.reserve(rows * stride);
    this.memory.floats(address, rows * stride / 4).fill(NaN);
    return { address, stride, copy: copies ? stride : 0 };
  }

  /** Places vectors, with NaN behind each. */
  place(vectors: readonly ArrayLike<number>[]): Vectors {
    const width = vectors[0].length;
    const room = this.room(vectors.length, width);
    vectors.forEach((vector, i) => {
      this.memory.floats(room.address + i * room.stride, width).set(vector);
    });
    return room;
  }

  /** Room for vectors that will be quantised; what lies in it no kernel may count on. */
  quantisedRoom(count: number, width: number): QuantisedVectors {
    const rows = roundUp(Math.max(count, this.threads), 8);
    const segments = segmentsOf(width);
    const stride = segments * SEGMENT + 16;
    const address = this.reserve(2 * rows * stride);
    this.memory.bytes(address, 2 * rows * stride).fill(0xff);
    const scales = this.reserve(rows * segments * 4);
    this.memory.floats(scales, rows * segments).fill(NaN);
    const steps = this.reserve(rows * (segments + 1) * 4);
    this.memory.bytes(steps, rows * (segments + 1) * 4).fill(0x55);
    const flags = this.reserve(Math.max(rows, 8 * this.threads) * segments);
    this.memory.bytes(flags, Math.max(rows, 8 * this.threads) * segments).fill(1);
    return {
      address,
      stride,
      copy: stride,
      low: rows * stride,
      scales,
      scalesCopy: segments * 4,
      steps,
      flags,
      flagsCopy: segments * 8,
      sums: this.#sums(rows, segments),
      sumsCopy: segments * 8,
    };
  }

  /** Room for each thread for a product with so many tokens, and a fence behind it. */
  scratchFor(matrix: PlacedMatrix, tokens: number): Scratch {
    const bytes = roundUp(scratchBytes(matrix, tokens), 64);
    const address = this.reserve(bytes * this.threads + FENCE);
    this.memory.bytes(address, bytes * this.threads + FENCE).fill(FENCE);
    this.#fences.push(address + bytes * this.threads);
    return { address, bytes };
  }

  #sums(rows: number, segments: number): number {
    const address = this.reserve(rows * segments * 8);
    this.memory.bytes(address, rows * segments * 8).fill(0x55);
    return address;
  }

  /** Runs a program. */
  run(
    program: Program,
    run: {
      tokens: number;
      /** Position of the first token, or of each. */
      position?: number | readonly number[];
      /** Whose logits are wanted (default: all). */
      logits?: readonly number[];
      ids?: readonly number[];
      /** Pages of the sequence, or of each token's. */
      pages?: readonly number[] | readonly (readonly number[])[];
      /** Where the state of each token's sequence lies. */
      states?: readonly number[];
      /** In how many places the weights of one token are read (default: 1). */
      places?: number;
    },
  ): void {
    const { memory } = this;
    const words = program.finish();
    const address = this.reserve(words.byteLength);
    memory.words(address, words.length).set(words);
    const list = (values: readonly number[] = [], before = 0) => {
      const at = this.reserve((values.length + 1) * 4);
      memory.words(at, values.length + 1).set([before, ...values]);
      return at + 4;
    };
    memory.set(CONTROL.PROGRAM, address);
    memory.set(CONTROL.IDS, list(run.ids));
    memory.set(CONTROL.TOKENS, run.tokens);
    const each = Array.from({ length: run.tokens }, (_, i) => i);
    const { position = 0, pages = [], logits = each } = run;
    memory.set(
      CONTROL.POSITIONS,
      list(typeof position === "number" ? each.map((i) => position + i) : position),
    );
    const own = run.states?.map((state) => list([], state)) ??
      (isOfEach(pages) ? pages.map((own) => list(own)) : []);
    const shared = isOfEach(pages) ? 0 : list(pages);
    memory.set(CONTROL.PAGES, list(each.map((i) => own[i] ?? shared)));
    memory.set(CONTROL.LOGITS, logits.length);
    memory.set(CONTROL.LOGITS_OF, list(logits));
    memory.set(CONTROL.PLACES, run.places ?? 1);
    if (this.kernels.run() !== 0) throw new Error(`${this.name}: a thread was lost`);
    for (const fence of this.#fences) {
      if (memory.bytes(fence, FENCE).some((byte) => byte !== FENCE)) {
        throw new Error(`${this.name}: a kernel has written beyond its room`);
      }
    }
  }

  /** Copies of vectors. */
  read({ address, stride }: Vectors, count: number, width: number): Float32Array[] {
    return Array.from(
      { length: count },
      (_, i) => Float32Array.from(this.memory.floats(address + i * stride, width)),
    );
  }

  /** Pages of a cache, filled with `byte`. */
  pages(positions: number, bytes: number, byte = 0): number[] {
    return Array.from({ length: Math.ceil(positions / PAGE) }, () => {
      const page = this.reserve(bytes);
      this.memory.bytes(page, bytes).fill(byte);
      return page;
    });
  }

  stop(): void {
    this.#team.stop();
  }
}

/** Whether there is a list of pages for each token. */
function isOfEach(
  pages: readonly number[] | readonly (readonly number[])[],
): pages is readonly (readonly number[])[] {
  return typeof pages[0] === "object";
}

async function moduleOf(build: Build, shared: boolean): Promise<WebAssembly.Module | undefined> {
  try {
    return (await chooseBuild(shared, build)).module;
  } catch (error) {
    if (error instanceof BackendError) return undefined;
    throw error;
  }
}

/** A machine of every build, and some of several threads; the first is plain SIMD with one thread. */
export async function everyMachine(): Promise<Machine[]> {
  const kinds: [Build, number][] = [
    ...BUILDS.toReversed().map((build): [Build, number] => [build, 1]),
    ["simd", 2],
    ["relaxed", 3],
  ];
  const machines: Machine[] = [];
  for (const [build, threads] of kinds) {
    const machine = await Machine.start(build, threads);
    if (machine) machines.push(machine);
  }
  return machines;
}

/** Fails unless both are the same bits. */
export function expectSameBits(
  found: readonly Float32Array[],
  expected: readonly Float32Array[],
  what: string,
): void {
  if (found.length !== expected.length) throw new Error(`${what}: ${found.length} vectors`);
  found.forEach((vector, v) => {
    const [one, other] = [vector, expected[v]].map((floats) =>
      Uint32Array.from(
        new Uint32Array(floats.buffer, floats.byteOffset, floats.length),
      )
    );
    const at = one.findIndex((bits, i) => bits !== other[i]);
    if (at >= 0 || one.length !== other.length) {
      throw new Error(
        `${what}: element ${at} of vector ${v} is ${vector[at]}, not ${expected[v][at]}`,
      );
    }
  });
}
