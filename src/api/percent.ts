/**
 * Fractions as reports say them.
 * @module
 */

/** A fraction as percent, to a tenth. */
export function percent(fraction: number): string {
  return `${(fraction * 100).toFixed(1)} %`;
}
