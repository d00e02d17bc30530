/**
 * How many bytes matrices take in memory, before they are read: to share them out among memories.
 * @module
 */
import type { MatrixRef } from "../ir.ts";
import { isQuantised, KIND } from "../layout.ts";
import type { ModelReader } from "../model_reader.ts";
import { bytesOfDense } from "./dense.ts";
import { ELEMENT_BYTES } from "./placed.ts";
import { bytesOfKind, kindOf, type SparseRef } from "./sparse.ts";

/** Columns of a window, which has one slot, or two, or as many as it needs; and inputs of a slot. */
const WINDOW = 16, SLOT = 4;
/** Bytes of a weight in lists, with what makes rows even, and in slots that are as many as needed (at 70 % zeros). */
const LISTED = 14, NEEDED = 2.2;
/** Bytes of bits that are looked at. */
const SAMPLE = 1 << 16;

/** Bytes that a matrix takes at most, nearly. */
export function mostBytes(reader: ModelReader, ref: MatrixRef): number {
  if (ref.kind === "dense") return bytesOfDense(ref);
  const { rows, columns, name, type, scaling, attributes } = ref;
  if (type === "f32" || type === "f16") return LISTED * storedIn(reader, ref);
  const group = type === "int4" ? { scales: "", table: "", group: attributes.group } : {};
  const dense = bytesOfDense({ kind: "dense", name, rows, columns, type, values: "", ...group });
  // Two slots may take a little more than dense int4, and scales of groups lie beside slots.
  return scaling === "row" ? dense : 1.25 * dense;
}

/** About how many bytes a matrix takes: by a part of its indices, where these say it. */
export async function aboutBytes(reader: ModelReader, ref: MatrixRef): Promise<number> {
  const most = mostBytes(reader, ref);
  if (ref.kind === "dense") return most;
  const counts = await countsOf(reader, ref);
  if (!counts) return most;
  const { rows, columns, scaling, attributes } = ref;
  const group = scaling === "row" || scaling === "none" ? columns : attributes.group;
  const windows = rows * Math.ceil(columns / WINDOW);
  const beyondSlots = (slots: number) =>
    counts.reduce((sum, count) => sum + Math.max(0, count - SLOT * slots), 0) / counts.length *
    windows;
  const beyond = { one: beyondSlots(1), two: beyondSlots(2), any: 0 };
  const anyBytes = NEEDED * storedIn(reader, ref);
  const kind = kindOf(ref, group, beyond, anyBytes);
  if (!isQuantised(kind)) return most;
  const isOne = kind === KIND.SLOTS_ONE || kind === KIND.SLOTS_ONE_INT4;
  const isTwo = kind === KIND.SLOTS_TWO || kind === KIND.SLOTS_TWO_INT4;
  const listed = isOne ? beyond.one : isTwo ? beyond.two : 0;
  return Math.min(most, bytesOfKind(kind, { rows, columns, group }, anyBytes) + LISTED * listed);
}

/** Weights that the file has of a matrix. */
function storedIn(reader: ModelReader, { tensors, type }: SparseRef): number {
  return reader.tensor(tensors.values).byteLength / ELEMENT_BYTES[type];
}

/** How many weights are left in windows, of some of them; nothing where that cannot be told. */
async function countsOf(
  reader: ModelReader,
  { format, attributes, columns, rows, tensors }: SparseRef,
): Promise<readonly number[] | undefined> {
  if (format === "nm") return [WINDOW * attributes.n / attributes.m];
  if (format !== "bitmap") return undefined;
  const rowBytes = Math.ceil(columns / 8);
  const sampled = Math.max(1, Math.min(rows, Math.floor(SAMPLE / rowBytes)));
  if (reader.tensor(tensors.bits).byteLength < sampled * rowBytes) return undefined;
  const bits = new Uint8Array(sampled * rowBytes);
  await reader.readRange(tensors.bits, 0, bits);
  const counts: number[] = [];
  for (let row = 0; row < sampled; row++) {
    for (let at = 0; at < rowBytes; at += 2) {
      const first = row * rowBytes + at, hasSecond = at + 1 < rowBytes;
      counts.push(onesOf(bits[first]) + (hasSecond ? onesOf(bits[first + 1]) : 0));
    }
  }
  return counts;
}

function onesOf(byte: number): number {
  let ones = 0;
  for (let rest = byte; rest > 0; rest &= rest - 1) ones++;
  return ones;
}
