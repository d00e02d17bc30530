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
