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
  if (ref.type === "int4") return int4Piece(ref).bytes;
  const element = ELEMENT_BYTES[ref.type];
  return DESCRIPTOR_BYTES + Math.max(PIECE, 16 * ref.columns * element) + 64;
}

/**
 * Places a dense matrix, a piece of its rows at a time.
 *
 * @param ref The matrix.
 * @param stage Room of {@linkcode bytesToStageDense}.
 * @throws {PackedFormatError} When it is damaged.
 */
export async function placeDense(stage: Stage, ref: DenseRef): Promise<PlacedMatrix> {
  const { rows, columns, type, name } = ref;
  if (type === "int4") return await placeDenseInt4(stage, ref);
  const kind = { f32: KIND.DENSE_F32, f16: KIND.DENSE_F16, int8: KIND.DENSE_INT8 }[type];
  const element = ELEMENT_BYTES[type];
  const segments = segmentsOf(columns);
  const paddedRows = roundUp(rows, 16);
  const perFour = segments * segmentBytes(kind);
  const bytes = paddedRows / 4 * perFour;
  const address = stage.memory.reserve(bytes);
  const perPiece = Math.max(16, Math.floor(PIECE / (columns * element) / 16) * 16);
  for (let first = 0; first < rows; first += perPiece) {
    const count = Math.min(perPiece, rows - first);
    const values = stage.address + DESCRIPTOR_BYTES;
    await stage.read(ref.values, first * columns * element, values, count * columns * element);
    stage.describe({
      TYPE: TYPE[type],
      ROWS: count,
      COLUMNS: columns,
      VALUES: values,
      OUT: address + first / 4 * perFour,
    });
    stage.check(name, stage.kernels.packDense(stage.address));
  }
  return {
    kind,
    address,
    rows,
    columns,
    paddedRows,
    segments,
    rowScales: ref.scales ? await stage.scales(ref.scales, rows) : 0,
    groupScales: 0,
    groupSegments: 0,
    lists: 0,
    bytes,
  };
}

/** Rows of levels, two a byte, with the scales of their groups. */
async function placeDenseInt4(stage: Stage, ref: DenseRef): Promise<PlacedMatrix> {
  const { rows, columns, name, group = 0, scales = "", table = "" } = ref;
  const kind = KIND.DENSE_INT4;
  const piece = int4Piece(ref);
  const bytes = int4Bytes(kind, rows, columns, group);
  const address = stage.memory.reserve(bytes);
  const perSixteen = int4Bytes(kind, 16, columns, group);
  for (let first = 0; first < rows; first += piece.rows) {
    const count = Math.min(piece.rows, rows - first);
    const values = stage.address + DESCRIPTOR_BYTES;
    const stagedScales = roundUp(values + count * piece.valueBytes, 64);
    const { valueBytes, groups } = piece;
    await stage.read(ref.values, first * valueBytes, values, count * valueBytes);
    const ofPiece = { first: first * groups, count: count * groups, address: stagedScales };
    await stage.int4Scales(scales, table, ofPiece);
    stage.describe({
      TYPE: TYPE.int4,
      ROWS: count,
      COLUMNS: columns,
      VALUES: values,
      SCALES: stagedScales,
      GROUP: group,
      OUT: address + first / 16 * perSixteen,
    });
    stage.check(name, stage.kernels.packDense(stage.address));
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

/** How many rows of a dense int4 matrix are packed at a time, and what that takes. */
function int4Piece({ columns, group = 0 }: DenseRef) {
  const valueBytes = Math.ceil(columns / 2);
  const groups = Math.ceil(columns / group);
  const rows = Math.max(16, Math.floor(PIECE / (valueBytes + 2 * groups) / 16) * 16);
  const bytes = DESCRIPTOR_BYTES + rows * (valueBytes + 2 * groups) + 192;
  return { rows, valueBytes, groups, bytes };
}
