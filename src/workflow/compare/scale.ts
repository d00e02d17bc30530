/**
 * From values to places along an axis, and the values that an axis names.
 * @module
 */

/** An axis. */
export interface Scale {
  readonly log: boolean;
  /** Values at both ends. */
  readonly from: number;
  readonly to: number;
  /** Values that are named, ascending, all between the ends. */
  readonly ticks: readonly number[];
  /** 0 at `from`, 1 at `to`. */
  place(value: number): number;
}

/** From this ratio of the largest to the smallest value on, an axis is logarithmic. */
const WIDE = 4;
/** Part of the span that is left free at each end. */
const MARGIN = 0.06;

/**
 * An axis for some values.
 *
 * @param values At least one; finite, and above 0 for `auto`.
 * @param options `log`: `auto` takes a logarithmic axis where the values span much. `ticks`: about how
 *   many are named.
 */
export function scaleFor(
  values: readonly number[],
  { log = false, ticks = 8 }: { readonly log?: "auto" | boolean; readonly ticks?: number } = {},
): Scale {
  const least = Math.min(...values);
  const most = Math.max(...values);
  if (log === true || (log === "auto" && least > 0 && most / least > WIDE)) {
    const [from, to] = widened(Math.log10(least), Math.log10(most), 0.1).map((x) => 10 ** x);
    const span = Math.log(to / from);
    return {
      log: true,
      from,
      to,
      ticks: logTicks(from, to),
      place: (value) => Math.log(value / from) / span,
    };
  }
  const [from, to] = widened(least, most, Math.abs(least) * 0.1 || 1);
  const step = niceStep((to - from) / ticks);
  const first = Math.ceil(from / step);
  const count = Math.floor(to / step) - first + 1;
  return {
    log: false,
    from,
    to,
    // Rounded: 3 · 0.1 is not 0.3.
    ticks: Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12))),
    place: (value) => (value - from) / (to - from),
  };
}

function widened(least: number, most: number, alone: number): [number, number] {
  const margin = most > least ? (most - least) * MARGIN : alone;
  return [least - margin, most + margin];
}

/** 1, 2 or 5 times a power of ten, the first that is not below. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= least * (1 - 1e-9))!;
}

/** 1, 2 and 5 times powers of ten; where these are fewer than three, all digits. */
function logTicks(from: number, to: number): number[] {
  for (const digits of [[1], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]]) {
    const ticks: number[] = [];
    for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++) {
      for (const digit of digits) {
        const tick = Number((digit * 10 ** power).toPrecision(12));
        if (tick >= from && tick <= to) ticks.push(tick);
      }
    }
    if (ticks.length >= 3) return ticks;
  }
  return scaleFor([from, to]).ticks.filter((tick) => tick >= from && tick <= to);
}

/** A value as an axis writes it. */
export function tickText(value: number): string {
  return value >= 1000 ? value.toLocaleString("en-US") : String(value);
}
