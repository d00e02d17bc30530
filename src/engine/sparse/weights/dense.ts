/**
 * Dense matrices on their way to their place.
 * @module
 */
import type { MatrixRef } from "../ir.ts";
import {
  DESCRIPTOR_BYTES,
  KIND,
  roundUp,
  SEGMENT,
  segmentBytes,
  segmentsOf,
  TYPE,
} from "../layout.ts";
import { int4Bytes } from "../layout_int4.ts";
import { ELEMENT_BYTES, type PlacedMatrix } from "./placed.ts";
import { PIECE, type Stage } from "./stage.ts";

type DenseRef = MatrixRef & { kind: "dense" };

/** Bytes of the room that a dense matrix takes while it is packed. */
export function bytesToStageDense(ref: DenseRef): number {
  const { rows, rowBytes } = pieceOf(ref);
  return DESCRIPTOR_BYTES + rows * rowBytes + 192;
}

/**
 * Reads a dense matrix, a piece of its rows at a time, and has each packed to its place: all is there when the
 * stage has settled.
 *
 * @param ref The matrix.
 * @param stage Rooms of {@linkcode bytesToStageDense}.
 * @throws {PackedFormatError} When it is damaged.
 */
export async function placeDense(stage: Stage, ref: DenseRef): Promise<PlacedMatrix> {
  const { rows, columns, type, name, scales = "", table = "", group = 0 } = ref;
  const isInt4 = type === "int4";
  const { kind, bytesOf } = layoutOf(ref);
  const { valueBytes, groups, rows: perPiece } = pieceOf(ref);
  const bytes = bytesOf(roundUp(rows, 16));
  const address = stage.memory.reserve(bytes);
  for (let first = 0; first < rows; first += perPiece) {
    const room = await stage.take();
    const values = room.address + DESCRIPTOR_BYTES;
    const count = Math.min(perPiece, rows - first);
    await stage.read(ref.values, first * valueBytes, values, count * valueBytes);
    const ofPiece = {
      first: first * groups,
      count: count * groups,
      address: roundUp(values + count * valueBytes, 64),
    };
    if (isInt4) await stage.int4Scales(scales, table, ofPiece);
    room.describe({
      TYPE: TYPE[type],
      ROWS: count,
      COLUMNS: columns,
      VALUES: values,
      ...isInt4 ? { SCALES: ofPiece.address, GROUP: group } : {},
      OUT: address + bytesOf(first),
    });
    stage.post("packDense", room, (fault) => stage.check(name, fault));
  }
  return {
    kind,
    address,
    rows,
    columns,
    paddedRows: roundUp(rows, 16),
    segments: segmentsOf(columns),
    rowScales: !isInt4 && ref.scales ? await stage.scales(ref.scales, rows) : 0,
    groupScales: 0,
    groupSegments: isInt4 ? group / SEGMENT : 0,
    lists: 0,
    bytes,
  };
}

/** Bytes of a dense matrix where kernels read it. */
export function bytesOfDense(ref: DenseRef): number {
  return layoutOf(ref).bytesOf(roundUp(ref.rows, 16));
}

/** The layout of a matrix, and the bytes of some of its rows, a multiple of sixteen. */
function layoutOf({ columns, type, group = 0 }: DenseRef) {
  if (type === "int4") {
    const kind = KIND.DENSE_INT4;
    return { kind, bytesOf: (rows: number) => int4Bytes(kind, rows, columns, group) };
  }
  const kind = { f32: KIND.DENSE_F32, f16: KIND.DENSE_F16, int8: KIND.DENSE_INT8 }[type];
  const perFour = segmentsOf(columns) * segmentBytes(kind);
  return { kind, bytesOf: (rows: number) => rows / 4 * perFour };
}

/** How many rows are packed at a time, and the bytes of one: its values and, of int4, its scales. */
function pieceOf({ columns, type, group = 0 }: DenseRef) {
  const valueBytes = Math.ceil(columns * ELEMENT_BYTES[type]);
  const groups = type === "int4" ? Math.ceil(columns / group) : 0;
  const rowBytes = valueBytes + 2 * groups;
  const rows = Math.max(16, Math.floor(PIECE / rowBytes / 16) * 16);
  return { rows, rowBytes, valueBytes, groups };
}
