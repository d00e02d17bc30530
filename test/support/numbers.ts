/**
 * Numbers for properties that hang on how large they are.
 *
 * What fast-check draws by itself takes each exponent alike: of doubles between 0 and 1, every other is below 1e-160.
 * A fraction drawn so keeps nothing or all, and of a row of such weights one or two are more than 0.
 * @module
 */
import fc from "fast-check";

/** Steps from the least to the greatest. */
const STEPS = 1 << 24;

/** Numbers from `min` to `max`, spread evenly, both ends among them; now and then one of another exponent. */
export function doubles(min: number, max: number): fc.Arbitrary<number> {
  return fc.oneof(
    { weight: 7, arbitrary: evenly(min, max) },
    fc.double({ min, max, noNaN: true }),
  );
}

/** The same of float32; both ends must be one. */
export function floats(min: number, max: number): fc.Arbitrary<number> {
  return fc.oneof(
    { weight: 7, arbitrary: evenly(min, max).map(Math.fround) },
    fc.float({ min, max, noNaN: true }),
  );
}

function evenly(min: number, max: number): fc.Arbitrary<number> {
  return fc.integer({ min: 0, max: STEPS }).map((step) => min + step / STEPS * (max - min));
}
