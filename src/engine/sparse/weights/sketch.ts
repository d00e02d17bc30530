/**
 * A sketch of a head, by which the largest logits are found without reading all of it:
 * `assembly/sketch.ts` says how.
 * @module
 */
import { letEventsIn } from "../../../platform/events.ts";
import { throwIfAborted } from "../../../checks.ts";
import { DESCRIPTOR_BYTES, KIND, SEGMENT } from "../layout.ts";
import type { EngineMemory } from "../memory.ts";
import type { PlacedMatrix } from "./placed.ts";
import type { Stage } from "./stage.ts";

/** Columns that are transformed together; as in `assembly/pack_sketch.ts`, like what follows. */
const BLOCK = 64;
/** Columns that stay as they are. */
const OUTLIERS = 16;
/** Bytes of four rows beside their segments: before them, and weights of outliers. */
const BYTES_OF_FOUR = 48 + 4 * OUTLIERS;
/** Rows that are made at a time. */
const ROWS = 4096;
/** A head that fits a processor's caches is read faster than a sketch is evaluated. */
const LEAST_BYTES = 4 << 20;
/** Part of the memory that is left which a sketch may take: the cache needs it more. */
const PART = 1 / 16;

/** Whether there are kernels for a sketch of a head. */
export function canBeSketched({ kind, columns, rowScales }: PlacedMatrix): boolean {
  return kind === KIND.DENSE_INT8 && columns % BLOCK === 0 && rowScales !== 0;
}

/** Whether a sketch of a head saves time, and has room. */
export function isWorthSketching(head: PlacedMatrix, memory: EngineMemory): boolean {
  return head.bytes >= LEAST_BYTES &&
    sketchBytes(head) <= memory.left * PART;
}

/** Bytes of a sketch of so many rows, a multiple of 4. */
function bytesOfRows(rows: number, columns: number): number {
  return rows / 4 * (BYTES_OF_FOUR + 2 * columns);
}

/** Bytes of a sketch, without what is of all rows. */
export function sketchBytes({ paddedRows, columns }: PlacedMatrix): number {
  return bytesOfRows(paddedRows, columns);
}

/** Bytes of a thread's own room for products with a sketch: words, inputs as int8 and as float32. */
export function sketchRoom({ segments }: PlacedMatrix): number {
  return 80 + 5 * segments * SEGMENT;
}

/** Where in its room a thread leaves the largest logit that it has computed, float32, and behind it its number. */
const FOUND = 64;

/**
 * The number of the largest logit after a product with a sketch, of equal ones the lowest.
 *
 * @param rooms Of all threads.
 * @returns Nothing where no logit is a number.
 */
export function foundBySketch(
  memory: EngineMemory,
  rooms: { readonly address: number; readonly bytes: number },
  threads: number,
): number | undefined {
  let largest = -Infinity, found: number | undefined;
  for (let thread = 0; thread < threads; thread++) {
    const at = rooms.address + thread * rooms.bytes + FOUND;
    const [logit] = memory.floats(at, 1), [row] = memory.words(at + 4, 1);
    if (row < 0 || logit < largest) continue;
    found = logit > largest || found === undefined ? row : Math.min(row, found);
    largest = logit;
  }
  return found;
}

/** Where a sketch lies. */
export interface PlacedSketch {
  readonly address: number;
  /** What was taken out of all rows, and which columns stay as they are. */
  readonly mean: number;
}

/**
 * Makes the sketch of a head that has been placed.
 *
 * @param stage Room of at least a descriptor, 4 bytes for each column, and 256.
 * @throws {AbortError} When the signal says so.
 */
export async function placeSketch(
  stage: Stage,
  head: PlacedMatrix,
  signal?: AbortSignal,
): Promise<PlacedSketch> {
  const { paddedRows, columns } = head;
  const mean = stage.memory.reserve(2 * (columns + OUTLIERS));
  const address = stage.memory.reserve(sketchBytes(head));
  const bytesOfRow = head.bytes / paddedRows;
  await stage.settle();
  for (let first = 0; first < paddedRows; first += ROWS) {
    if (signal) await letEventsIn();
    throwIfAborted(signal);
    const room = await stage.take();
    const describe = (first: number, rows: number) =>
      room.describe({
        ROWS: rows,
        COLUMNS: columns,
        VALUES: head.address + first * bytesOfRow,
        SCALES: head.rowScales + first * 4,
        SCRATCH: room.address + DESCRIPTOR_BYTES,
        LISTS_OUT: mean,
        OUT: address + bytesOfRows(first, columns),
      });
    if (first === 0) {
      describe(0, paddedRows);
      stage.kernels.sketchMean(room.address);
    }
    describe(first, Math.min(ROWS, paddedRows - first));
    stage.post("packSketch", room, () => {});
  }
  await stage.settle();
  return { address, mean };
}
