/**
 * Numbers: as many digits as are exact, and bounds.
 *
 * Numbers have 15 digits at most, so that two that differ as text differ as floating point numbers too,
 * and exponents have two: none is infinite, and a model that writes digits for ever comes to an end.
 * Numbers with bounds have no exponent, whole numbers no fraction: `1.0` and `1e2` are never written
 * for them. Multiples have as many digits after the point as what they are multiples of, or fewer.
 *
 * @module
 */
import { ENDED, type Place, ScalarPlace } from "./place.ts";

/** Most digits of a number, before and after its point together where it has bounds. */
const MOST_DIGITS = 15;
/** Most digits of an exponent. */
const MOST_EXPONENT_DIGITS = 2;
/** Places that are kept of one range: there are as many as beginnings of numbers. */
const MOST_PLACES = 4096;

const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const isDigit = (byte: number) => byte >= ZERO && byte <= 0x39;

type Phase =
  | "start"
  | "minus"
  | "zero"
  | "whole"
  | "point"
  | "fraction"
  | "e"
  | "sign"
  | "exponent";

/** Numbers without bounds. */
class FreeNumbers {
  readonly #places = new Map<string, FreeNumber>();

  constructor(readonly integer: boolean) {}

  at(phase: Phase, digits: number): FreeNumber {
    const key = `${phase}${digits}`;
    let place = this.#places.get(key);
    if (!place) this.#places.set(key, place = new FreeNumber(this, phase, digits));
    return place;
  }
}

class FreeNumber extends ScalarPlace {
  readonly mayEnd: boolean;

  constructor(
    readonly numbers: FreeNumbers,
    readonly phase: Phase,
    readonly digits: number,
  ) {
    super();
    this.mayEnd = phase === "zero" || phase === "whole" || phase === "fraction" ||
      phase === "exponent";
  }

  protected override after(byte: number): Place | typeof ENDED | undefined {
    const { numbers, phase, digits } = this;
    const { integer } = numbers;
    const digit = isDigit(byte);
    const startsExponent = !integer && (byte === 0x65 || byte === 0x45);
    switch (phase) {
      case "start":
        if (byte === MINUS) return numbers.at("minus", 0);
        // falls through
      case "minus":
        // -0 is no whole number that one would write.
        if (byte === ZERO) {
          if (!integer) return numbers.at("zero", 0);
          return phase === "start" ? ENDED : undefined;
        }
        return digit ? numbers.at("whole", 1) : undefined;
      case "whole":
        if (digit) return this.#digit("whole", MOST_DIGITS);
        // falls through
      case "zero":
        if (byte === POINT && !integer) return numbers.at("point", 0);
        return startsExponent ? numbers.at("e", 0) : undefined;
      case "point":
        return digit ? numbers.at("fraction", 1) : undefined;
      case "fraction":
        if (startsExponent) return numbers.at("e", 0);
        return digit ? this.#digit("fraction", MOST_DIGITS) : undefined;
      case "e":
        if (byte === MINUS || byte === 0x2b) return numbers.at("sign", 0);
        // falls through
      case "sign":
        return digit ? numbers.at("exponent", 1) : undefined;
      case "exponent":
        return digit && digits < MOST_EXPONENT_DIGITS ? ENDED : undefined;
    }
  }

  #digit(phase: Phase, most: number): Place | typeof ENDED | undefined {
    const digits = this.digits + 1;
    if (digits > most) return undefined;
    return digits === most && this.numbers.integer ? ENDED : this.numbers.at(phase, digits);
  }
}

/** The place before a number without bounds. */
export function numberPlace(integer: boolean): Place {
  return new FreeNumbers(integer).at("start", 0);
}

/** A bound of numbers. */
export interface Bound {
  readonly value: number;
  /** Whether the value itself is out. */
  readonly exclusive: boolean;
}

/** Magnitudes from a low one to a high one, both as integers for each number of digits after the point. */
interface Magnitudes {
  /** By the digits after the point. */
  readonly low: readonly number[];
  readonly high: readonly number[];
}

/** Numbers between bounds. */
class BoundedNumbers {
  readonly #places = new Map<string, BoundedNumber>();

  /** Most digits before the point. */
  readonly wholeDigits: number;

  /**
   * @param places Most digits after the point; undefined for as many as there is room for.
   * @param multipleOf What all are multiples of, without its point, behind which it has so many digits.
   */
  constructor(
    readonly places: number | undefined,
    readonly positive: Magnitudes,
    readonly negative: Magnitudes,
    readonly multipleOf: number,
  ) {
    this.wholeDigits = MOST_DIGITS - (places ?? 0);
  }

  /**
   * The place after some digits.
   *
   * @param value The digits as an integer. @param whole Digits before the point.
   * @param fraction Digits after it; -1 before there is one.
   * @returns Undefined when no number between the bounds begins so.
   */
  at(
    negative: boolean,
    value: number,
    whole: number,
    fraction: number,
  ): BoundedNumber | undefined {
    const key = `${negative ? "-" : ""}${value}/${whole}/${fraction}`;
    const known = this.#places.get(key);
    if (known) return known;
    const magnitudes = negative ? this.negative : this.positive;
    if (!this.#canEnd(magnitudes, value, whole, fraction)) return undefined;
    const place = new BoundedNumber(this, negative, value, whole, fraction, magnitudes);
    if (this.#places.size >= MOST_PLACES) this.#places.clear();
    this.#places.set(key, place);
    return place;
  }

  /** Digits after the point that a number with so many before it has at most. */
  fractionDigits(value: number, whole: number): number {
    if (this.places !== undefined) return this.places;
    return MOST_DIGITS - (whole === 1 && value === 0 ? 0 : whole);
  }

  #canEnd({ low, high }: Magnitudes, value: number, whole: number, fraction: number): boolean {
    /** Whether a number from `first` to before `after` is in range, when it gets its missing digits. */
    const has = (first: number, after: number, missing: number, places = missing) => {
      const scale = 10 ** missing;
      const least = Math.max(first * scale, low[places]);
      const most = Math.min(after * scale - 1, high[places]);
      return least <= most && least <= most - most % this.multipleOf;
    };
    if (fraction >= 0) {
      // `value` holds the fraction's digits too.
      const places = this.fractionDigits(Math.floor(value / 10 ** fraction), whole);
      return places >= fraction && has(value, value + 1, places - fraction, places);
    }
    if (whole > 0 && value === 0) return has(0, 1, this.fractionDigits(0, 1));
    for (let digits = Math.max(1, whole); digits <= this.wholeDigits; digits++) {
      const scale = 10 ** (digits - whole);
      const first = whole > 0 ? value * scale : digits === 1 ? 1 : scale / 10;
      const after = (value + 1) * scale;
      if (has(first, after, this.fractionDigits(1, digits))) return true;
    }
    return whole === 0 && has(0, 1, this.fractionDigits(0, 1));
  }
}

class BoundedNumber extends ScalarPlace {
  readonly mayEnd: boolean;
  readonly #fractionDigits: number;

  constructor(
    readonly numbers: BoundedNumbers,
    readonly negative: boolean,
    readonly value: number,
    readonly whole: number,
    readonly fraction: number,
    { low, high }: Magnitudes,
  ) {
    super();
    const wholePart = fraction > 0 ? Math.floor(value / 10 ** fraction) : value;
    const places = this.#fractionDigits = numbers.fractionDigits(wholePart, whole);
    const magnitude = value * 10 ** (places - Math.max(0, fraction));
    this.mayEnd = whole > 0 && fraction !== 0 && magnitude >= low[places] &&
      magnitude <= high[places] && magnitude % numbers.multipleOf === 0;
  }

  protected override after(byte: number): Place | typeof ENDED | undefined {
    const { numbers, negative, value, whole, fraction } = this;
    let next: BoundedNumber | undefined;
    if (byte === MINUS) {
      next = whole === 0 && !negative ? numbers.at(true, 0, 0, -1) : undefined;
    } else if (byte === POINT) {
      next = whole > 0 && fraction < 0 && this.#fractionDigits > 0
        ? numbers.at(negative, value, whole, 0)
        : undefined;
    } else if (isDigit(byte)) {
      const more = value * 10 + byte - ZERO;
      if (fraction >= 0) {
        next = fraction < this.#fractionDigits
          ? numbers.at(negative, more, whole, fraction + 1)
          : undefined;
      } else if ((whole === 0 || value > 0) && whole < numbers.wholeDigits) {
        next = numbers.at(negative, more, whole + 1, -1);
      }
    }
    return next?.isLast() ? ENDED : next;
  }

  /** Whether nothing can follow. */
  isLast(): boolean {
    if (!this.mayEnd) return false;
    for (let byte = POINT; byte <= 0x39; byte++) {
      if (byte !== 0x2f && this.#hasNext(byte)) return false;
    }
    return true;
  }

  #hasNext(byte: number): boolean {
    const { numbers, negative, value, whole, fraction } = this;
    if (byte === POINT) {
      return fraction < 0 && this.#fractionDigits > 0 &&
        numbers.at(negative, value, whole, 0) !== undefined;
    }
    const more = value * 10 + byte - ZERO;
    if (fraction >= 0) {
      return fraction < this.#fractionDigits &&
        numbers.at(negative, more, whole, fraction + 1) !== undefined;
    }
    return value > 0 && whole < numbers.wholeDigits &&
      numbers.at(negative, more, whole + 1, -1) !== undefined;
  }
}

/**
 * The place before a number between bounds.
 *
 * @param low Undefined for none. @param high Undefined for none.
 * @param multipleOf What all are multiples of: a whole number, or one of eighths; undefined for nothing.
 * @returns Undefined when no such number of at most 15 digits lies between them.
 */
export function boundedNumberPlace(
  integer: boolean,
  low: Bound | undefined,
  high: Bound | undefined,
  multipleOf?: number,
): Place | undefined {
  const { step, places } = stepOf(multipleOf, integer);
  const lows = scaled(low, false);
  const highs = scaled(high, true);
  const numbers = new BoundedNumbers(
    integer ? 0 : places,
    { low: lows.map((value) => Math.max(0, value)), high: highs },
    // -0 is left to the positive ones.
    { low: highs.map((value) => Math.max(1, -value)), high: lows.map((value) => -value) },
    step,
  );
  const negative = numbers.at(true, 0, 0, -1);
  const positive = numbers.at(false, 0, 0, -1);
  if (positive) return positive;
  return negative ? new BeforeNegative(negative) : undefined;
}

/** What numbers are multiples of, without its point, and its digits behind that. */
function stepOf(
  multipleOf: number | undefined,
  integer: boolean,
): { step: number; places?: number } {
  if (multipleOf === undefined) return { step: 1 };
  let [step, places] = [multipleOf, 0];
  if (integer) {
    // Of the multiples of five halves, those of five are whole.
    while (!Number.isInteger(step)) step *= 2;
    return { step };
  }
  while (!Number.isInteger(step)) step = multipleOf * 10 ** ++places;
  return { step, places };
}

/** Before a number that must be negative. */
class BeforeNegative extends ScalarPlace {
  readonly mayEnd = false;

  constructor(readonly next: Place) {
    super();
  }

  protected override after(byte: number): Place | undefined {
    return byte === MINUS ? this.next : undefined;
  }
}

/** A bound as an integer for each number of digits after the point, rounded into the range. */
function scaled(bound: Bound | undefined, isHigh: boolean): number[] {
  return Array.from({ length: MOST_DIGITS + 1 }, (_, places) => {
    const most = 10 ** MOST_DIGITS - 1;
    if (!bound) return isHigh ? most : -most;
    const { integer, isExact } = decimal(bound.value, places);
    // `integer` is rounded down.
    let value = integer;
    if (!isHigh && !isExact) value += 1n;
    if (isExact && bound.exclusive) value += isHigh ? -1n : 1n;
    const limit = BigInt(most) + 1n;
    return Number(value > limit ? limit : value < -limit ? -limit : value);
  });
}

/** A number times a power of ten, rounded down. */
function decimal(value: number, places: number): { integer: bigint; isExact: boolean } {
  const [, sign, whole, fraction = "", exponent = "0"] = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/
    .exec(String(value))!;
  const digits = BigInt(sign + whole + fraction);
  const shift = places + Number(exponent) - fraction.length;
  if (shift >= 0) return { integer: digits * 10n ** BigInt(shift), isExact: true };
  const divisor = 10n ** BigInt(-shift);
  const rest = digits % divisor;
  const integer = digits / divisor - (rest < 0n ? 1n : 0n);
  return { integer, isExact: rest === 0n };
}
