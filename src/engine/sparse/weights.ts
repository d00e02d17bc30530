/**
 * Weights on their way from a file to their place: read a piece at a time, checked, and packed by the
 * kernels into the layouts that they read. Nothing is ever dense that was not dense in the file.
 * @module
 */
import {
  OnnxError,
  PackedFormatError,
  quote,
  throwIfAborted,
  UnsupportedOperatorError,
} from "../../errors.ts";
import { letEventsIn } from "../../platform/events.ts";
import type { MatrixRef } from "./ir.ts";
import type { Kernels } from "./kernels.ts";
import {
  DESCRIPTOR,
  DESCRIPTOR_BYTES,
  FORMAT,
  isQuantised,
  KIND,
  type Kind,
  roundUp,
  SEGMENT,
  segmentBytes,
  segmentsOf,
  TYPE,
} from "./layout.ts";
import { int4Bytes, int4KindOf, isInt4 } from "./layout_int4.ts";
import type { EngineMemory } from "./memory.ts";
import type { ModelReader } from "./model_reader.ts";

/** Bytes of a dense matrix that are packed at a time, and of a file that are read at a time. */
const PIECE = 4 << 20;
/** Columns are indexed by 16 bits. */
const MOST_COLUMNS = 1 << 16;
/** Greatest scale of int8 values; see docs/format.md. */
const GREATEST_SCALE = 2 ** 121;

/** What the kernels' decoders report, by number. */
const FAULTS: readonly string[] = [
  "",
  "has fewer values than its indices say",
  "has more values than its indices say",
  "has a weight outside of its row",
  "has places that do not ascend",
  "holds NaN or infinity",
  "has row pointers that do not fit its entries",
  "has bits behind its last row or column",
  "has a gap of 0",
  "has a first value that is not 0",
  "holds -128, which int8 weights are not",
  "has a window with more than 4 slots",
  "has a window whose bits are not as many as its slots hold",
  "has bits before those of its windows that are not none and all",
  "has a scale that is 0 or not finite",
];

/** Bytes of an element in files. */
const ELEMENT_BYTES = { f32: 4, f16: 2, int8: 1, int4: 0.5 };

/** A matrix in memory. */
export interface PlacedMatrix {
  readonly kind: Kind;
  /** Of the weights; of slots that are as many as needed, of the table of their chunks. */
  readonly address: number;
  readonly rows: number;
  readonly columns: number;
  /** Rows with those that fill the last sixteen. */
  readonly paddedRows: number;
  /** Segments of its input. */
  readonly segments: number;
  /** Address of a scale for each row; 0 for none. */
  readonly rowScales: number;
  /** Address of scales `[rows / 4, segment, 4]`; 0 for none. */
  readonly groupScales: number;
  /** Segments that share a scale of int4 weights; 0 for others. */
  readonly groupSegments: number;
  /** Address of the places of lists, four rows each: of all weights, or of those beside slots; 0 for none. */
  readonly lists: number;
  /** Bytes that a multiplication reads. */
  readonly bytes: number;
}

/** Places the weights of one model. */
export class WeightLoader {
  readonly #reader: ModelReader;
  readonly #memory: EngineMemory;
  readonly #kernels: Kernels;
  readonly #matrices = new Map<string, PlacedMatrix>();
  readonly #vectors = new Map<string, number>();
  readonly #piece = new Uint8Array(PIECE);
  /** Room for what is being packed. */
  readonly #stage: number;
  readonly #stageBytes: number;
  readonly #signal: AbortSignal | undefined;

  /**
   * @param matrices All that will be asked for: they decide how much room packing takes.
   * @param signal Stops between two matrices.
   */
  constructor(
    reader: ModelReader,
    memory: EngineMemory,
    kernels: Kernels,
    matrices: readonly MatrixRef[],
    signal?: AbortSignal,
  ) {
    this.#signal = signal;
    this.#reader = reader;
    this.#memory = memory;
    this.#kernels = kernels;
    this.#stageBytes = Math.max(0, ...matrices.map((matrix) => this.#bytesToStage(matrix)));
    this.#stage = memory.reserve(this.#stageBytes);
  }

  /** The room that packing took, free once all weights are placed. */
  get stage(): { readonly address: number; readonly bytes: number } {
    return { address: this.#stage, bytes: this.#stageBytes };
  }

  /** Bytes of all weights that were placed. */
  get bytes(): number {
    return [...this.#matrices.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /**
   * Places a matrix; one that is asked for again is placed once.
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
      placed = ref.kind === "dense" ? await this.#dense(ref) : await this.#sparse(ref);
      this.#matrices.set(key, placed);
    }
    return placed;
  }

  /**
   * Places a float32 tensor, with zeros behind it up to a multiple of 16 elements.
   *
   * @returns Its address.
   */
  async vector(name: string): Promise<number> {
    let address = this.#vectors.get(name);
    if (address === undefined) {
      const { byteLength } = this.#reader.tensor(name);
      address = this.#memory.reserve(roundUp(byteLength, 64));
      await this.#read(name, 0, address, byteLength);
      this.#checkFinite(name, address, byteLength / 4);
      this.#vectors.set(name, address);
    }
    return address;
  }

  async #dense(ref: MatrixRef & { kind: "dense" }): Promise<PlacedMatrix> {
    const { rows, columns, type, name } = ref;
    if (type === "int4") return await this.#denseInt4(ref);
    const kind = { f32: KIND.DENSE_F32, f16: KIND.DENSE_F16, int8: KIND.DENSE_INT8 }[type];
    const element = ELEMENT_BYTES[type];
    const segments = segmentsOf(columns);
    const paddedRows = roundUp(rows, 16);
    const perFour = segments * segmentBytes(kind);
    const bytes = paddedRows / 4 * perFour;
    const address = this.#memory.reserve(bytes);
    const perPiece = Math.max(16, Math.floor(PIECE / (columns * element) / 16) * 16);
    for (let first = 0; first < rows; first += perPiece) {
      const count = Math.min(perPiece, rows - first);
      const values = this.#stage + DESCRIPTOR_BYTES;
      await this.#read(ref.values, first * columns * element, values, count * columns * element);
      this.#describe({
        TYPE: TYPE[type],
        ROWS: count,
        COLUMNS: columns,
        VALUES: values,
        OUT: address + first / 4 * perFour,
      });
      this.#check(name, this.#kernels.packDense(this.#stage));
    }
    return {
      kind,
      address,
      rows,
      columns,
      paddedRows,
      segments,
      rowScales: ref.scales ? await this.#scales(ref.scales, rows) : 0,
      groupScales: 0,
      groupSegments: 0,
      lists: 0,
      bytes,
    };
  }

  /** Rows of levels, two a byte, with the scales of their groups. */
  async #denseInt4(ref: MatrixRef & { kind: "dense" }): Promise<PlacedMatrix> {
    const { rows, columns, name, group = 0, scales = "" } = ref;
    const kind = KIND.DENSE_INT4;
    const piece = int4Piece(ref);
    const bytes = int4Bytes(kind, rows, columns, group);
    const address = this.#memory.reserve(bytes);
    const perSixteen = int4Bytes(kind, 16, columns, group);
    for (let first = 0; first < rows; first += piece.rows) {
      const count = Math.min(piece.rows, rows - first);
      const values = this.#stage + DESCRIPTOR_BYTES;
      const stagedScales = roundUp(values + count * piece.valueBytes, 64);
      const { valueBytes, scaleBytes } = piece;
      await this.#read(ref.values, first * valueBytes, values, count * valueBytes);
      await this.#read(scales, first * scaleBytes, stagedScales, count * scaleBytes);
      this.#describe({
        TYPE: TYPE.int4,
        ROWS: count,
        COLUMNS: columns,
        VALUES: values,
        SCALES: stagedScales,
        GROUP: group,
        OUT: address + first / 16 * perSixteen,
      });
      this.#check(name, this.#kernels.packDense(this.#stage));
    }
    return {
      kind,
      address,
      rows,
      columns,
      paddedRows: roundUp(rows, 16),
      segments: segmentsOf(columns),
      rowScales: 0,
      groupScales: 0,
      groupSegments: group / SEGMENT,
      lists: 0,
      bytes,
    };
  }

  async #sparse(ref: MatrixRef & { kind: "sparse" }): Promise<PlacedMatrix> {
    const { rows, columns, name, tensors, format } = ref;
    const memory = this.#memory;
    const parts = await this.#stageSparse(ref);
    this.#describe(parts.descriptor);
    this.#check(name, this.#kernels.survey(this.#stage));
    const found = (word: "BEYOND_ONE" | "BEYOND_TWO" | "BEYOND_ANY" | "ANY_BYTES") =>
      memory.get(this.#stage + DESCRIPTOR[word]);
    const segments = segmentsOf(columns);
    const paddedRows = roundUp(rows, 16);
    const isGroup = ref.scaling === "group" || ref.scaling === "int4";
    const group = isGroup ? ref.attributes.group : columns;
    const beyond = {
      one: found("BEYOND_ONE"),
      two: found("BEYOND_TWO"),
      any: found("BEYOND_ANY"),
    };
    const anyBytes = found("ANY_BYTES");
    const kind = kindOf(ref, group, beyond, anyBytes);
    // Those of int4 are read with the weights, and lie among them.
    const stagedScales = memory.get(this.#stage + DESCRIPTOR.SCALES);
    const scales = ref.scaling === "none" || ref.scaling === "int4"
      ? 0
      : await this.#scales(tensors.scales, rows * Math.ceil(columns / group));
    const isAny = kind === KIND.SLOTS_ANY;
    const isSlots = kind === KIND.SLOTS_ONE || kind === KIND.SLOTS_TWO || isAny;
    const isGrouped = isSlots && ref.scaling === "group";
    const hasRowScales = isQuantised(kind) && !isGrouped && !isInt4(kind);

    const set = (word: keyof typeof DESCRIPTOR, value: number) =>
      memory.set(this.#stage + DESCRIPTOR[word], value);
    set("KIND", kind);
    set("SCALES", isInt4(kind) ? stagedScales : hasRowScales ? 0 : scales);
    set("GROUP", group);
    const isOne = kind === KIND.SLOTS_ONE || kind === KIND.SLOTS_ONE_INT4;
    const isTwo = kind === KIND.SLOTS_TWO || kind === KIND.SLOTS_TWO_INT4;
    const fits = kind === KIND.DENSE_INT8 || kind === KIND.DENSE_INT4 ||
      (isOne && beyond.one === 0) || (isTwo && beyond.two === 0) || (isAny && beyond.any === 0);
    const listBytes = fits ? 0 : this.#kernels.measure(this.#stage) >>> 0;
    const bytes = isInt4(kind)
      ? int4Bytes(kind, rows, columns, group)
      : isAny
      ? anyBytes
      : paddedRows / 4 * segments * segmentBytes(kind);
    const hasLists = !isQuantised(kind) || listBytes > 0;
    const table = memory.reserve(isQuantised(kind) && !hasLists ? 0 : paddedRows + 4);
    const chunks = memory.reserve(isAny ? paddedRows : 0);
    const address = memory.reserve(bytes);
    const lists = memory.reserve(listBytes);
    set("CHUNKS", chunks);
    set("OUT", address);
    set("LISTS_OUT", lists);
    // Where there are no lists their table is written all the same, into the room for what is packed.
    set("TABLE", hasLists ? table : this.#stage + this.#stageBytes - roundUp(paddedRows + 4, 64));
    if (this.#kernels.pack(this.#stage) >>> 0 !== listBytes) {
      throw new PackedFormatError(`${quote(name)}: ${format} changed while it was read`);
    }
    return {
      kind,
      address: isAny ? chunks : address,
      rows,
      columns,
      paddedRows,
      segments,
      rowScales: hasRowScales ? scales : 0,
      groupScales: isGrouped ? this.#spreadScales(scales, rows, columns, group, segments) : 0,
      groupSegments: isInt4(kind) ? group / SEGMENT : 0,
      lists: hasLists ? table : 0,
      bytes: bytes + listBytes,
    };
  }

  /** Reads a sparse matrix's tensors into the stage. */
  async #stageSparse(
    { name, rows, columns, type, format, tensors, attributes }: MatrixRef & { kind: "sparse" },
  ): Promise<{ descriptor: Partial<Record<keyof typeof DESCRIPTOR, number>> }> {
    const index = tensors[{ nm: "codes", csr: "gaps", bitmap: "bits", slots: "counts" }[format]];
    const isInt4 = type === "int4";
    const scratch = this.#stage + DESCRIPTOR_BYTES;
    let top = roundUp(scratch + scratchBytes(columns), 64);
    const put = async (tensor: string): Promise<{ at: number; length: number }> => {
      const { byteLength: length } = this.#reader.tensor(tensor);
      const at = top;
      top = roundUp(at + length, 64);
      await this.#read(tensor, 0, at, length);
      return { at, length };
    };
    const values = await put(tensors.values);
    const indices = await put(index);
    const pointers = format === "csr"
      ? await put(tensors.row_pointers)
      : format === "slots"
      ? await put(tensors.masks)
      : undefined;
    const scales = isInt4 ? await put(tensors.scales) : undefined;
    const { n, m, bits, group } = attributes;
    // Two of int4 share a byte: how many there are, indices say.
    const count = !isInt4 || format === "slots" || format === "bitmap"
      ? values.length / ELEMENT_BYTES[type]
      : { csr: indices.length, nm: columns / m * n * rows }[format];
    const expected = {
      bitmap: rows * Math.ceil(columns / 8),
      csr: count,
      nm: columns / m * n * Math.ceil(rows * bits / 8),
      slots: rows / 4 * Math.ceil(columns / 32),
    }[format];
    if (
      indices.length !== expected || count < 1 ||
      (isInt4 && values.length !== Math.ceil(count / 2)) ||
      (scales && scales.length !== 2 * rows * Math.ceil(columns / group)) ||
      (format === "nm" && count !== columns / m * n * rows) ||
      (format === "csr" && pointers?.length !== 4 * (rows + 1)) ||
      (format === "slots" &&
        (count % 16 !== 0 || pointers!.length % 8 !== 0 || pointers!.length < 16))
    ) {
      throw new PackedFormatError(
        `${
          quote(name)
        }: its tensors have not the lengths of ${rows} × ${columns} weights as ${format}`,
      );
    }
    return {
      descriptor: {
        FORMAT: FORMAT[format],
        TYPE: TYPE[type],
        ROWS: rows,
        COLUMNS: columns,
        VALUES: values.at,
        COUNT: count,
        INDICES: indices.at,
        ROW_POINTERS: pointers?.at ?? 0,
        MASKS: format === "slots" ? pointers!.length / 8 : 0,
        N: n ?? 0,
        M: m ?? 0,
        BITS: bits ?? 0,
        SCRATCH: scratch,
        SCALES: scales?.at ?? 0,
        GROUP: isInt4 ? group : 0,
      },
    };
  }

  #bytesToStage(ref: MatrixRef): number {
    if (ref.kind === "dense" && ref.type === "int4") return int4Piece(ref).bytes;
    if (ref.kind === "dense") {
      const element = ELEMENT_BYTES[ref.type];
      return DESCRIPTOR_BYTES + Math.max(PIECE, 16 * ref.columns * element) + 64;
    }
    const tensors = Object.entries(ref.tensors)
      .filter(([part]) => part !== "scales" || ref.scaling === "int4");
    return tensors.reduce(
      (sum, [, tensor]) => sum + roundUp(this.#reader.tensor(tensor).byteLength, 64),
      DESCRIPTOR_BYTES + scratchBytes(ref.columns) + roundUp(roundUp(ref.rows, 16) + 4, 64) + 256,
    );
  }

  #describe(words: Partial<Record<keyof typeof DESCRIPTOR, number>>): void {
    this.#memory.bytes(this.#stage, DESCRIPTOR_BYTES).fill(0);
    for (const [word, value] of Object.entries(words)) {
      this.#memory.set(this.#stage + DESCRIPTOR[word as keyof typeof DESCRIPTOR], value);
    }
  }

  #check(name: string, fault: number): void {
    if (fault !== 0) throw new PackedFormatError(`${quote(name)} ${FAULTS[fault]}`);
  }

  /** Places scales, one of which each row or group has; those of rows that do not exist are 0. */
  async #scales(name: string, count: number): Promise<number> {
    const { byteLength } = this.#reader.tensor(name);
    if (byteLength !== 4 * count) {
      throw new OnnxError(`${quote(name)} has ${byteLength / 4} scales, not ${count}`);
    }
    const address = await this.vector(name);
    for (const scale of this.#memory.floats(address, count)) {
      if (!(scale > 0 && scale <= GREATEST_SCALE)) {
        throw new PackedFormatError(`${quote(name)} has the scale ${scale}`);
      }
    }
    return address;
  }

  /** Scales of groups, as kernels read them: for each four rows and each segment, four. */
  #spreadScales(
    from: number,
    rows: number,
    columns: number,
    group: number,
    segments: number,
  ): number {
    const perRow = Math.ceil(columns / group);
    const address = this.#memory.reserve(roundUp(rows, 16) * segments * 4);
    const source = this.#memory.floats(from, rows * perRow);
    const target = this.#memory.floats(address, roundUp(rows, 16) * segments);
    for (let row = 0; row < rows; row++) {
      for (let s = 0; s < segments; s++) {
        const place = ((row >> 2) * segments + s) * 4 + (row & 3);
        const at = Math.min(perRow - 1, Math.floor(s * SEGMENT / group));
        target[place] = source[row * perRow + at];
      }
    }
    return address;
  }

  #checkFinite(name: string, address: number, count: number): void {
    const bits = this.#memory.words(address, count);
    for (let i = 0; i < count; i++) {
      if ((bits[i] & 0x7f800000) === 0x7f800000) {
        throw new PackedFormatError(`${quote(name)} holds NaN or infinity at element ${i}`);
      }
    }
  }

  /** Reads a part of a tensor to an address. */
  async #read(name: string, offset: number, address: number, length: number): Promise<void> {
    // By way of memory that is not shared: runtimes do not read files into shared memory.
    for (let done = 0; done < length; done += PIECE) {
      const piece = this.#piece.subarray(0, Math.min(PIECE, length - done));
      await this.#reader.readRange(name, offset + done, piece);
      this.#memory.bytes(address + done, piece.length).set(piece);
    }
  }
}

/** Room for four rows while they are packed: their columns and values, and what their windows have. */
function scratchBytes(columns: number): number {
  return 4 * columns * 6 + roundUp(columns, 16) + 64;
}

/** How many rows of a dense int4 matrix are packed at a time, and what that takes. */
function int4Piece({ columns, group = 0 }: MatrixRef & { kind: "dense" }) {
  const valueBytes = Math.ceil(columns / 2);
  const scaleBytes = 2 * Math.ceil(columns / group);
  const rows = Math.max(16, Math.floor(PIECE / (valueBytes + scaleBytes) / 16) * 16);
  const bytes = DESCRIPTOR_BYTES + rows * (valueBytes + scaleBytes) + 192;
  return { rows, valueBytes, scaleBytes, bytes };
}

/** What an entry of lists costs. Of the four rows the longest decides: 24 bytes serve 2.5 entries on average. */
const LIST_BYTES = 24 / 2.5;

/** What a byte of slots that are as many as needed costs, beside one of the other layouts. */
const ANY_FACTOR = 1.02;

/** The layout that reads least. */
function kindOf(
  { type, rows, columns, scaling }: MatrixRef & { kind: "sparse" },
  group: number,
  beyond: { readonly one: number; readonly two: number; readonly any: number },
  anyBytes: number,
): Kind {
  if (type === "f16") return KIND.LISTS_F16;
  if (type === "int4") return int4KindOf({ rows, columns, group }, beyond.one, beyond.two);
  // A segment has one scale of its weights.
  if (type === "f32" || (scaling === "group" && group % SEGMENT !== 0)) return KIND.LISTS_F32;
  const segments = rows / 4 * segmentsOf(columns);
  const costs: [Kind, number][] = [
    [KIND.SLOTS_TWO, segments * segmentBytes(KIND.SLOTS_TWO) + beyond.two * LIST_BYTES],
    [KIND.SLOTS_ONE, segments * segmentBytes(KIND.SLOTS_ONE) + beyond.one * LIST_BYTES],
    [KIND.SLOTS_ANY, anyBytes * ANY_FACTOR + beyond.any * LIST_BYTES],
  ];
  if (scaling === "row") costs.push([KIND.DENSE_INT8, segments * segmentBytes(KIND.DENSE_INT8)]);
  return costs.reduce((best, next) => next[1] < best[1] ? next : best)[0];
}
