/**
 * Values that are given: of `const` and `enum`, `true`, `false` and `null`.
 * @module
 */
import { ENDED, type Place, ScalarPlace } from "./place.ts";

const utf8 = new TextEncoder();

/** Bytes of values, beginning by beginning. */
class LiteralPlace extends ScalarPlace {
  mayEnd = false;
  readonly next = new Map<number, LiteralPlace>();

  protected override after(byte: number): Place | typeof ENDED | undefined {
    const next = this.next.get(byte);
    return next?.next.size === 0 ? ENDED : next;
  }
}

/** A whole number in a value that may have been another one before it was read: past 2^53 not all of them are held. */
export function inexactIn(value: unknown): number | undefined {
  if (typeof value === "number") {
    return Number.isInteger(value) && !Number.isSafeInteger(value) ? value : undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  for (const inner of Object.values(value)) {
    const found = inexactIn(inner);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The place before one of several values, written as `JSON.stringify` writes them; one at least. */
export function literalPlace(values: readonly unknown[]): Place {
  const start = new LiteralPlace();
  for (const value of values) {
    let place = start;
    for (const byte of utf8.encode(JSON.stringify(value))) {
      let next = place.next.get(byte);
      if (!next) place.next.set(byte, next = new LiteralPlace());
      place = next;
    }
    place.mayEnd = true;
  }
  return start;
}
