/**
 * Rotary tables on their way to their place: read, or computed.
 * @module
 */
import { fillTables } from "../../../checkpoint/architectures/rotary.ts";
import { throwIfAborted } from "../../../checks.ts";
import { letEventsIn } from "../../../platform/events.ts";
import type { RotaryTables } from "../ir.ts";
import { roundUp } from "../layout.ts";
import type { Stage } from "./stage.ts";

/** Elements that are computed at a time: some milliseconds, after which events come in. */
const PIECE = 1 << 17;

/** Addresses of cosines and sines. */
export interface PlacedTables {
  readonly cosines: number;
  readonly sines: number;
}

/**
 * Places cosines and sines.
 *
 * @param positions Rows from the first on that are needed: as many as there are, or fewer.
 * @throws {AbortError} When the signal says so.
 */
export async function placeTables(
  stage: Stage,
  tables: RotaryTables,
  positions: number,
  signal?: AbortSignal,
): Promise<PlacedTables> {
  const { pairs } = tables;
  const count = positions * pairs;
  if (tables.kind === "stored") {
    return {
      cosines: await stage.vector(tables.cosines, { most: count }),
      sines: await stage.vector(tables.sines, { most: count }),
    };
  }
  const { memory } = stage;
  const room = roundUp(4 * count, 64);
  const cosines = memory.reserve(room), sines = memory.reserve(room);
  const rows = Math.max(1, Math.floor(PIECE / pairs));
  for (let first = 0; first < positions; first += rows) {
    const length = Math.min(rows, positions - first) * pairs;
    const [ofCosines, ofSines] = [cosines, sines].map((address) =>
      memory.floats(address + 4 * first * pairs, length)
    );
    fillTables(ofCosines, ofSines, tables, first);
    await letEventsIn();
    throwIfAborted(signal);
  }
  return { cosines, sines };
}
