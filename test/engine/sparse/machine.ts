/**
 * What the tests of kernels share: matrices in files of their own, and machines that run single steps.
 * @module
 */
import { create } from "@bufbuild/protobuf";
import { indexScales } from "../../../compile/packed/int4.ts";
import { codeBits } from "../../../compile/packed/nm.ts";
import type { PackedSlots } from "../../../compile/packed/slots.ts";
import type { PackedBitmap, PackedCsr, PackedNm } from "../../../compile/packed/types.ts";
import { filesSource } from "../../../src/engine/source.ts";
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
  PAGE,
  roundUp,
  scratchBytes,
  SEGMENT,
  segmentsOf,
} from "../../../src/engine/sparse/layout.ts";
import { EngineMemory } from "../../../src/engine/sparse/memory.ts";
import { ModelReader } from "../../../src/engine/sparse/model_reader.ts";
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
import { modelOf } from "../../../src/onnx/builder.ts";
import {
  GraphProtoSchema,
  type TensorProto,
  TensorProto_DataType as DataType,
  TensorProtoSchema,
} from "../../../src/onnx/generated/onnx_pb.ts";
import { toHalves } from "../../../src/onnx/half.ts";
import { modelBytes } from "../../../src/onnx/model_file.ts";

/** A matrix in numbers. */
export interface Numbers {
  readonly rows: number;
  readonly columns: number;
  readonly type: "f32" | "f16" | "int8" | "int4";
  /** Row-major; of int8 and int4 without their scales, of f16 float16 numbers. */
  readonly elements: Float64Array;
  /** `[rows, ⌈columns / group⌉]`; of int4 float16 numbers. */
  readonly scales?: Float32Array;
  readonly group?: number;
}

/** The weights, row-major. */
export function weightsOf(matrix: Numbers): Float64Array {
  const { columns, elements, scales, group = columns } = matrix;
  if (!scales) return elements;
  const perRow = Math.ceil(columns / group);
  return elements.map((element, i) =>
    element * scales[Math.floor(i / columns) * perRow + Math.floor(i % columns / group)]
  );
}

/** Elements as a file holds them. */
function bytesOf(type: Numbers["type"], elements: ArrayLike<number>): Uint8Array {
  switch (type) {
    case "f32":
      return new Uint8Array(Float32Array.from(elements).buffer);
    case "f16":
      return new Uint8Array(Uint16Array.from(elements, halfBits).buffer);
    case "int8":
      return new Uint8Array(Int8Array.from(elements).buffer);
    case "int4": {
      const bytes = new Uint8Array(Math.ceil(elements.length / 2));
      for (let i = 0; i < elements.length; i++) {
        bytes[i >> 1] += (elements[i] < 0 ? elements[i] + 16 : elements[i]) * (i % 2 ? 16 : 1);
      }
      return bytes;
    }
  }
}

/** Elements of rows that begin at bytes of their own. */
function bytesOfRows(type: Numbers["type"], elements: Float64Array, columns: number): Uint8Array {
  if (type !== "int4" || columns % 2 === 0) return bytesOf(type, elements);
  const rows = Array.from(
    { length: elements.length / columns },
    (_, row) => [...elements.subarray(row * columns, (row + 1) * columns), 0],
  );
  return bytesOf(type, rows.flat());
}

/** The bits of a number that is a float16. */
function halfBits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (size < 2 ** -14) return sign | size * 2 ** 24;
  const exponent = Math.floor(Math.log2(size));
  return sign | (exponent + 15) << 10 | (size / 2 ** exponent - 1) * 1024;
}

/** The float16 number nearest to one, as long as it is neither large nor tiny. */
export function toHalf(value: number): number {
  if (value === 0) return 0;
  const unit = 2 ** Math.max(-24, Math.floor(Math.log2(Math.abs(value))) - 10);
  return Math.round(value / unit) * unit;
}

function bytesOfView({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength).slice();
}

/** A packed matrix in a file. */
export type SparseRef = MatrixRef & { readonly kind: "sparse" };

const TYPES = {
  f32: DataType.FLOAT,
  f16: DataType.FLOAT16,
  int8: DataType.INT8,
  int4: DataType.UINT8,
};

/** A file of tensors. */
export class Tensors {
  readonly #tensors: TensorProto[] = [];

  /** Adds a matrix, as it is or as a bitmap of what is not 0. */
  matrix(numbers: Numbers, packed: boolean): MatrixRef {
    const name = `matrix${this.#tensors.length}`;
    const { rows, columns, type, elements, scales, group } = numbers;
    const dims = [rows, columns];
    const isInt4 = type === "int4";
    const scaleDims = group && (packed || isInt4) ? [rows, Math.ceil(columns / group)] : [rows];
    const add = (part: string, type: DataType, dims: number[], bytes: Uint8Array) =>
      this.#add(`${name}.${part}`, type, dims, bytes);
    let scaleTensor: string | undefined;
    let table: string | undefined;
    if (scales && isInt4) {
      const bits = new Uint16Array(scales.length);
      toHalves(scales, bits);
      const indexed = indexScales(bits);
      scaleTensor = add("scales", DataType.UINT8, scaleDims, indexed.indices);
      table = add("scale_table", DataType.FLOAT16, [256], bytesOfView(indexed.table));
    } else if (scales) {
      scaleTensor = add("scales", DataType.FLOAT, scaleDims, bytesOf("f32", scales));
    }
    if (!packed) {
      const bytes = bytesOfRows(type, elements, columns);
      const shape = isInt4 ? [rows, Math.ceil(columns / 2)] : dims;
      const values = this.#add(`${name}.weight`, TYPES[type], shape, bytes);
      const common = { kind: "dense", name, rows, columns, type, values } as const;
      return { ...common, scales: scaleTensor, ...isInt4 ? { table, group } : {} };
    }
    const kept = [0, ...elements.filter((element) => element !== 0)];
    const perRow = Math.ceil(columns / 8);
    const bits = new Uint8Array(rows * perRow);
    elements.forEach((element, i) => {
      const column = i % columns;
      if (element !== 0) {
        bits[Math.floor(i / columns) * perRow + (column >> 3)] |= 1 << (column & 7);
      }
    });
    return {
      kind: "sparse",
      name,
      rows,
      columns,
      type,
      format: "bitmap",
      scaling: isInt4 ? "int4" : scales ? (group ? "group" : "row") : "none",
      attributes: { rows, columns, ...group ? { group } : {} },
      tensors: {
        bits: this.#add(`${name}.bits`, DataType.UINT8, [rows, perRow], bits),
        values: this.#add(
          `${name}.values`,
          TYPES[type],
          [isInt4 ? Math.ceil(kept.length / 2) : kept.length],
          bytesOf(type, kept),
        ),
        ...scaleTensor ? { scales: scaleTensor } : {},
        ...table ? { scale_table: table } : {},
      },
    };
  }

  /** Adds a matrix that is packed already. */
  packed(packed: PackedNm | PackedCsr | PackedBitmap | PackedSlots): SparseRef {
    const name = `packed${this.#tensors.length}`;
    const { rows, columns, values } = packed;
    const add = (part: string, type: DataType, data: ArrayBufferView & { length: number }) =>
      this.#add(`${name}.${part}`, type, [data.length], bytesOfView(data));
    const isGrouped = values.type === "int8" && values.group < columns;
    const tensors: Record<string, string> = {
      values: add(
        "values",
        TYPES[values.type],
        values.type === "int4" ? bytesOf("int4", values.data) : values.data,
      ),
    };
    const attributes: Record<string, number> = { rows, columns };
    if (values.type === "int8") {
      tensors.scales = add("scales", DataType.FLOAT, values.scales);
      if (isGrouped) attributes.group = values.group;
    }
    if (values.type === "int4") {
      const { indices, table } = indexScales(values.scales);
      tensors.scales = add("scales", DataType.UINT8, indices);
      tensors.scale_table = add("scale_table", DataType.FLOAT16, table);
      attributes.group = values.group;
    }
    if ("codes" in packed) {
      tensors.codes = add("codes", DataType.UINT8, packed.codes);
      Object.assign(attributes, { n: packed.n, m: packed.m, bits: codeBits(packed.m) });
    } else if ("gaps" in packed) {
      tensors.gaps = add("gaps", DataType.UINT8, packed.gaps);
      tensors.row_pointers = add("row_pointers", DataType.INT32, packed.rowPointers);
    } else if ("masks" in packed) {
      tensors.counts = add("counts", DataType.UINT8, packed.counts);
      tensors.masks = add("masks", DataType.UINT8, packed.masks);
    } else tensors.bits = add("bits", DataType.UINT8, packed.bits);
    return {
      kind: "sparse",
      name,
      rows,
      columns,
      type: values.type,
      format: "codes" in packed
        ? "nm"
        : "gaps" in packed
        ? "csr"
        : "masks" in packed
        ? "slots"
        : "bitmap",
      scaling: values.type === "int4"
        ? "int4"
        : values.type !== "int8"
        ? "none"
        : isGrouped
        ? "group"
        : "row",
      attributes,
      tensors,
    };
  }

  /** Changes a tensor's bytes. */
  change(name: string, change: (bytes: Uint8Array) => void): void {
    change(this.#tensors.find((tensor) => tensor.name === name)!.rawData);
  }

  /** Adds a vector of float32; returns its name. */
  vector(values: ArrayLike<number>): string {
    const name = `vector${this.#tensors.length}`;
    return this.#add(name, DataType.FLOAT, [values.length], bytesOf("f32", values));
  }

  /** The file, open. */
  open(): Promise<ModelReader> {
    const graph = create(GraphProtoSchema, { name: "tensors", initializer: this.#tensors });
    return ModelReader.open(filesSource({ "onnx/model.onnx": modelBytes(modelOf(graph)) }));
  }

  #add(name: string, dataType: DataType, dims: readonly number[], rawData: Uint8Array): string {
    this.#tensors.push(create(TensorProtoSchema, {
      name,
      dataType,
      dims: dims.map(BigInt),
      rawData,
    }));
    return name;
  }
}

/** Bytes of a fence, and what each is. */
const FENCE = 64;

/** Bytes of a machine's room for one program and its vectors. */
const ARENA = 64 << 20;

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
    const team = await Team.start(memory, module, { threads, background: false, patience });
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
  scratchFor({ kind, segments }: PlacedMatrix, tokens: number): Scratch {
    const bytes = roundUp(scratchBytes(kind, segments, tokens), 64);
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
    },
  ): void {
    const { memory } = this;
    const words = program.finish();
    const address = this.reserve(words.byteLength);
    memory.words(address, words.length).set(words);
    const list = (values: readonly number[] = []) => {
      const at = this.reserve(values.length * 4);
      memory.words(at, values.length).set(values);
      return at;
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
    const [shared, own] = isOfEach(pages) ? [0, pages.map(list)] : [list(pages), []];
    memory.set(CONTROL.PAGES, list(each.map((i) => own[i] ?? shared)));
    memory.set(CONTROL.LOGITS, logits.length);
    memory.set(CONTROL.LOGITS_OF, list(logits));
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
