/**
 * Strings: UTF-8 that is well formed, escapes, and a length in characters.
 * @module
 */
import { ENDED, type Place, ScalarPlace } from "./place.ts";

/** `"` */
export const QUOTE = 0x22;
/** `\` */
export const BACKSLASH = 0x5c;

/** Between two characters. */
export const BETWEEN = 0;
/** No character goes on like this. */
export const NEVER = 255;

/**
 * The state of the characters of a string after a byte, `[state, byte]`. In state 0 a character may
 * begin; a quote is not one. Half a surrogate pair is refused: no UTF-8 could hold the string.
 */
export const CHARACTERS: Uint8Array = charactersTable();

function charactersTable(): Uint8Array {
  const STATES = 20;
  const [ONE, TWO, THREE, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4] = [1, 2, 3, 4, 5, 6, 7];
  const [ESCAPE, UNICODE, HEX3, HEX2, HEX1, AFTER_D] = [8, 9, 10, 11, 12, 13];
  const [HIGH2, HIGH1, LOW_ESCAPE, LOW_U, LOW_D, LOW_C] = [14, 15, 16, 17, 18, 19];
  const table = new Uint8Array(STATES * 256).fill(NEVER);
  const range = (from: number, low: number, high: number, to: number) =>
    table.fill(to, from * 256 + low, from * 256 + high + 1);
  const letters = (from: number, bytes: string, to: number) => {
    for (const byte of bytes) table[from * 256 + byte.charCodeAt(0)] = to;
  };
  range(BETWEEN, 0x20, 0x7f, BETWEEN);
  range(BETWEEN, QUOTE, QUOTE, NEVER);
  range(BETWEEN, BACKSLASH, BACKSLASH, ESCAPE);
  range(BETWEEN, 0xc2, 0xdf, ONE);
  range(BETWEEN, 0xe0, 0xe0, AFTER_E0);
  range(BETWEEN, 0xe1, 0xef, TWO);
  range(BETWEEN, 0xed, 0xed, AFTER_ED);
  range(BETWEEN, 0xf0, 0xf0, AFTER_F0);
  range(BETWEEN, 0xf1, 0xf3, THREE);
  range(BETWEEN, 0xf4, 0xf4, AFTER_F4);
  range(ONE, 0x80, 0xbf, BETWEEN);
  range(TWO, 0x80, 0xbf, ONE);
  range(THREE, 0x80, 0xbf, TWO);
  range(AFTER_E0, 0xa0, 0xbf, ONE);
  range(AFTER_ED, 0x80, 0x9f, ONE);
  range(AFTER_F0, 0x90, 0xbf, TWO);
  range(AFTER_F4, 0x80, 0x8f, TWO);

  const hex = "0123456789abcdefABCDEF";
  letters(ESCAPE, '"\\/bfnrt', BETWEEN);
  letters(ESCAPE, "u", UNICODE);
  letters(UNICODE, hex, HEX3);
  letters(UNICODE, "dD", AFTER_D);
  letters(HEX3, hex, HEX2);
  letters(HEX2, hex, HEX1);
  letters(HEX1, hex, BETWEEN);
  letters(AFTER_D, "01234567", HEX2);
  letters(AFTER_D, "89abAB", HIGH2);
  letters(HIGH2, hex, HIGH1);
  letters(HIGH1, hex, LOW_ESCAPE);
  letters(LOW_ESCAPE, "\\", LOW_U);
  letters(LOW_U, "u", LOW_D);
  letters(LOW_D, "dD", LOW_C);
  letters(LOW_C, "cdefCDEF", HEX2);
  return table;
}

/** The strings of one length. */
class Strings {
  readonly #places = new Map<number, StringPlace>();

  constructor(readonly min: number, readonly max: number) {}

  /** @param state Of {@linkcode CHARACTERS}. @param count Characters that have begun. */
  at(state: number, count: number): StringPlace {
    // Without an upper bound, what is long enough is all the same.
    const counted = this.max === Infinity ? Math.min(count, this.min) : count;
    const key = counted * 32 + state;
    let place = this.#places.get(key);
    if (!place) this.#places.set(key, place = new StringPlace(this, state, counted));
    return place;
  }
}

class StringPlace extends ScalarPlace {
  readonly mayEnd = false;

  constructor(
    readonly strings: Strings,
    readonly state: number,
    readonly count: number,
  ) {
    super();
  }

  protected override after(byte: number): Place | typeof ENDED | undefined {
    const { strings, state, count } = this;
    if (state !== BETWEEN) {
      const next = CHARACTERS[state * 256 + byte];
      return next === NEVER ? undefined : strings.at(next, count);
    }
    if (byte === QUOTE) return count >= strings.min ? ENDED : undefined;
    if (count >= strings.max) return undefined;
    const next = CHARACTERS[byte];
    return next === NEVER ? undefined : strings.at(next, count + 1);
  }
}

class BeforeString extends ScalarPlace {
  readonly mayEnd = false;

  constructor(readonly strings: Strings) {
    super();
  }

  protected override after(byte: number): Place | undefined {
    return byte === QUOTE ? this.strings.at(BETWEEN, 0) : undefined;
  }
}

/**
 * The place before a string.
 *
 * @param min Fewest characters (code points). @param max Most characters; at least `min`.
 */
export function stringPlace(min: number, max: number): Place {
  return new BeforeString(new Strings(min, max));
}
