/**
 * Sparse matrices on their way to their place.
 * @module
 */
import { quote } from "../../../checks.ts";
import { PackedFormatError } from "../../../errors.ts";
import type { MatrixRef } from "../ir.ts";
import {
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
} from "../layout.ts";
import { int4Bytes, int4KindOf, isInt4 } from "../layout_int4.ts";
import type { EngineMemory } from "../memory.ts";
import type { ModelReader } from "../model_reader.ts";
import { ELEMENT_BYTES, type PlacedMatrix } from "./placed.ts";
import type { Room, Stage, Words } from "./stage.ts";

/** A matrix that is packed in the file. */
export type SparseRef = MatrixRef & { kind: "sparse" };

/** Bytes of the room that a sparse matrix takes while it is packed. */
export function bytesToStageSparse(reader: ModelReader, ref: SparseRef): number {
  const { rows, columns, tensors, scaling } = ref;
  let bytes = DESCRIPTOR_BYTES + scratchBytes(columns) + roundUp(roundUp(rows, 16) + 4, 64) + 256;
  for (const [part, tensor] of Object.entries(tensors)) {
    if (part === "scale_table" || (part === "scales" && scaling !== "int4")) continue;
    const { byteLength } = reader.tensor(tensor);
    // Scales of int4 are float16 there, and a byte each in the file.
    bytes += roundUp(part === "scales" ? 2 * byteLength : byteLength, 64);
  }
  return bytes;
}

/**
 * Reads a sparse matrix and has it packed to its place, in the layout that reads least: it is there when the
 * stage has settled.
 *
 * @param ref The matrix.
 * @param stage Rooms of {@linkcode bytesToStageSparse}.
 * @throws {PackedFormatError} When it is damaged.
 */
export async function placeSparse(stage: Stage, ref: SparseRef): Promise<PlacedMatrix> {
  const { rows, columns, name, tensors, format } = ref;
  const memory = stage.memory;
  const room = await stage.take();
  room.describe(await readParts(stage, room, ref));
  stage.check(name, stage.kernels.survey(room.address));
  const segments = segmentsOf(columns);
  const paddedRows = roundUp(rows, 16);
  const isGroup = ref.scaling === "group" || ref.scaling === "int4";
  const group = isGroup ? ref.attributes.group : columns;
  const beyond = {
    one: room.get("BEYOND_ONE"),
    two: room.get("BEYOND_TWO"),
    any: room.get("BEYOND_ANY"),
  };
  const anyBytes = room.get("ANY_BYTES");
  const kind = kindOf(ref, group, beyond, anyBytes);
  // Those of int4 are read with the weights, and lie among them.
  const stagedScales = room.get("SCALES");
  const scales = ref.scaling === "none" || ref.scaling === "int4"
    ? 0
    : await stage.scales(tensors.scales, rows * Math.ceil(columns / group));
  const isAny = kind === KIND.SLOTS_ANY;
  const isSlots = kind === KIND.SLOTS_ONE || kind === KIND.SLOTS_TWO || isAny;
  const isGrouped = isSlots && ref.scaling === "group";
  const hasRowScales = isQuantised(kind) && !isGrouped && !isInt4(kind);

  room.set("KIND", kind);
  room.set("SCALES", isInt4(kind) ? stagedScales : hasRowScales ? 0 : scales);
  room.set("GROUP", group);
  const isOne = kind === KIND.SLOTS_ONE || kind === KIND.SLOTS_ONE_INT4;
  const isTwo = kind === KIND.SLOTS_TWO || kind === KIND.SLOTS_TWO_INT4;
  const fits = kind === KIND.DENSE_INT8 || kind === KIND.DENSE_INT4 ||
    (isOne && beyond.one === 0) || (isTwo && beyond.two === 0) || (isAny && beyond.any === 0);
  const listBytes = fits ? 0 : stage.kernels.measure(room.address) >>> 0;
  const bytes = bytesOfKind(kind, { rows, columns, group }, anyBytes);
  const hasLists = !isQuantised(kind) || listBytes > 0;
  const table = memory.reserve(isQuantised(kind) && !hasLists ? 0 : paddedRows + 4);
  const chunks = memory.reserve(isAny ? paddedRows : 0);
  // In the order in which they are read: what fetches memory ahead goes on from one to the other.
  const lists = memory.reserve(listBytes);
  const address = memory.reserve(bytes);
  room.set("CHUNKS", chunks);
  room.set("OUT", address);
  room.set("LISTS_OUT", lists);
  // Where there are no lists their table is written all the same, into the room for what is packed.
  room.set("TABLE", hasLists ? table : room.address + room.bytes - roundUp(paddedRows + 4, 64));
  stage.post("pack", room, (written) => {
    if (written === listBytes) return;
    throw new PackedFormatError(`${quote(name)}: ${format} changed while it was read`);
  });
  return {
    kind,
    address: isAny ? chunks : address,
    rows,
    columns,
    paddedRows,
    segments,
    rowScales: hasRowScales ? scales : 0,
    groupScales: isGrouped ? spreadScales(stage.memory, scales, rows, columns, group, segments) : 0,
    groupSegments: isInt4(kind) ? group / SEGMENT : 0,
    lists: hasLists ? table : 0,
    bytes: bytes + listBytes,
  };
}

/** Bytes of a matrix in a layout, without lists. @param anyBytes See {@linkcode kindOf}. */
export function bytesOfKind(
  kind: Kind,
  { rows, columns, group }: { rows: number; columns: number; group: number },
  anyBytes: number,
): number {
  if (isInt4(kind)) return int4Bytes(kind, rows, columns, group);
  if (kind === KIND.SLOTS_ANY) return anyBytes;
  return roundUp(rows, 16) / 4 * segmentsOf(columns) * segmentBytes(kind);
}

/** Reads a sparse matrix's tensors into a room. */
async function readParts(
  stage: Stage,
  room: Room,
  { name, rows, columns, type, format, tensors, attributes }: SparseRef,
): Promise<Words> {
  const index = tensors[{ nm: "codes", csr: "gaps", bitmap: "bits", slots: "counts" }[format]];
  const isInt4 = type === "int4";
  const scratch = room.address + DESCRIPTOR_BYTES;
  let top = roundUp(scratch + scratchBytes(columns), 64);
  const put = async (tensor: string): Promise<{ at: number; length: number }> => {
    const { byteLength: length } = stage.reader.tensor(tensor);
    const at = top;
    top = roundUp(at + length, 64);
    await stage.read(tensor, 0, at, length);
    return { at, length };
  };
  const values = await put(tensors.values);
  const indices = await put(index);
  const pointers = format === "csr"
    ? await put(tensors.row_pointers)
    : format === "slots"
    ? await put(tensors.masks)
    : undefined;
  const { n, m, bits, group } = attributes;
  // Two of int4 share a byte: how many there are, indices say.
  const count = !isInt4 || format === "slots" || format === "bitmap"
    ? values.length / ELEMENT_BYTES[type]
    : { csr: indices.length, nm: columns / m * n * rows }[format];
  const scaleCount = rows * Math.ceil(columns / group);
  const expected = {
    bitmap: rows * Math.ceil(columns / 8),
    csr: count,
    nm: columns / m * n * Math.ceil(rows * bits / 8),
    slots: rows / 4 * Math.ceil(columns / 32),
  }[format];
  if (
    indices.length !== expected || count < 1 ||
    (isInt4 &&
      (values.length !== Math.ceil(count / 2) ||
        stage.reader.tensor(tensors.scales).byteLength !== scaleCount)) ||
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
  if (isInt4) {
    const all = { first: 0, count: scaleCount, address: top };
    await stage.int4Scales(tensors.scales, tensors.scale_table, all);
  }
  return {
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
    SCALES: isInt4 ? top : 0,
    GROUP: isInt4 ? group : 0,
  };
}

/** Scales of groups, as kernels read them: for each four rows and each segment, four. */
function spreadScales(
  memory: EngineMemory,
  from: number,
  rows: number,
  columns: number,
  group: number,
  segments: number,
): number {
  const perRow = Math.ceil(columns / group);
  const address = memory.reserve(roundUp(rows, 16) * segments * 4);
  const source = memory.floats(from, rows * perRow);
  const target = memory.floats(address, roundUp(rows, 16) * segments);
  for (let row = 0; row < rows; row++) {
    for (let s = 0; s < segments; s++) {
      const place = ((row >> 2) * segments + s) * 4 + (row & 3);
      const at = Math.min(perRow - 1, Math.floor(s * SEGMENT / group));
      target[place] = source[row * perRow + at];
    }
  }
  return address;
}

/** Room for four rows while they are packed: their columns and values, and what their windows have. */
function scratchBytes(columns: number): number {
  return 4 * columns * 6 + roundUp(columns, 16) + 64;
}

/**
 * What a weight beside slots costs, in bytes of slots. It has 8, but takes longer than those: with 16, unstructured
 * SmolLM2-135M decoded at 0.85 to 1.0 of the speed, at 65 to 85 % zeros.
 */
const LIST_COST = 24;

/**
 * What a byte of slots that are as many as needed costs, beside one of the other layouts: one token takes longer to
 * compute with them than memory takes to give them. At 80 % zeros SmolLM2-135M decoded 1.3 to 1.6 times as fast with
 * a quarter more bytes, in `slots` 1.0 to 1.2 times with up to 6 % more (Zen 5).
 */
const ANY_FACTOR = 1.4;

/**
 * The layout that costs least.
 *
 * @param beyond Weights that have no slot where each window has one, or two, or as many as are needed.
 * @param anyBytes Of slots that are as many as needed.
 */
export function kindOf(
  { type, rows, columns, scaling }: SparseRef,
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
    [KIND.SLOTS_TWO, segments * segmentBytes(KIND.SLOTS_TWO) + beyond.two * LIST_COST],
    [KIND.SLOTS_ONE, segments * segmentBytes(KIND.SLOTS_ONE) + beyond.one * LIST_COST],
    [KIND.SLOTS_ANY, anyBytes * ANY_FACTOR + beyond.any * LIST_COST],
  ];
  if (scaling === "row") costs.push([KIND.DENSE_INT8, segments * segmentBytes(KIND.DENSE_INT8)]);
  return costs.reduce((best, next) => next[1] < best[1] ? next : best)[0];
}
