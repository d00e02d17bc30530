import { describe, expect, test } from "bun:test";
import { exp, expOfNegative } from "../../src/text/exp.ts";
import { randomSeed, splitmix64, Xoshiro128 } from "../../src/text/random.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

const bits = new BigInt64Array(1);
const double = new Float64Array(bits.buffer);

/** Doubles between two positive ones, and the one after. */
function unitsBetween(a: number, b: number): number {
  double[0] = a;
  const first = bits[0];
  double[0] = b;
  return Math.abs(Number(first - bits[0]));
}

/** e^x to 30 digits, by the series of |x| / 2^20, squared 20 times, in whole numbers. */
function exact(x: number): bigint {
  const ONE = 10n ** 60n;
  // A double is a whole number of 2^-1074ths; what is used here is of 2^-60ths.
  const numerator = BigInt(Math.round(x * 2 ** 40)) * ONE / (1n << 40n);
  const small = numerator >> 20n;
  let sum = ONE;
  let term = ONE;
  for (let i = 1n; term !== 0n && term !== -1n && i < 60n; i++) {
    term = term * small / (ONE * i);
    sum += term;
  }
  for (let i = 0; i < 20; i++) sum = sum * sum / ONE;
  return sum;
}

describe("exp of what is not above 0", () => {
  test("has a relative error below 1e-10", () => {
    const next = uniformNumbers(12);
    let worst = 0;
    for (let i = 0; i < 200_000; i++) {
      const x = -next() * [1e-8, 1, 50, 699][i % 4];
      worst = Math.max(worst, Math.abs(expOfNegative(x) / Math.exp(x) - 1));
    }
    expect(worst).toBeLessThan(1e-10);
    expect(expOfNegative(0)).toBe(1);
    expect(expOfNegative(-0)).toBe(1);
  });

  test("is 0 for what is far below, and for what is no number", () => {
    expect([-701, -1e300, -Infinity, NaN].map(expOfNegative)).toEqual([0, 0, 0, 0]);
    expect(expOfNegative(-699)).toBeGreaterThan(0);
  });
});

describe("exp", () => {
  test("is within 2 units in the last place of Math.exp, which is itself within 1", () => {
    const next = uniformNumbers(11);
    let worst = 0;
    for (let i = 0; i < 200_000; i++) {
      const range = [1e-8, 1, 50, 700][i % 4];
      const x = (2 * next() - 1) * range;
      worst = Math.max(worst, unitsBetween(exp(x), Math.exp(x)));
    }
    expect(worst).toBeLessThanOrEqual(2);
  });

  test("is within one unit in the last place of the true value", () => {
    const next = uniformNumbers(12);
    for (let i = 0; i < 300; i++) {
      // A multiple of 2^-40, so that the reference has exactly this x.
      const x = Math.round((2 * next() - 1) * 30 * 2 ** 40) / 2 ** 40;
      const value = exp(x);
      double[0] = value;
      bits[0]++;
      const unit = double[0] - value;
      // The reference has 60 decimals, of which e^-30 leaves 46.
      const error = Number(exact(x) - BigInt(Math.round(value / unit)) * decimal(unit)) / 1e60;
      expect(Math.abs(error) / unit).toBeLessThan(1);
    }
  });

  test("has the values that IEEE 754 has at its ends", () => {
    expect(exp(0)).toBe(1);
    expect(exp(-0)).toBe(1);
    expect(exp(-Infinity)).toBe(0);
    expect(exp(Infinity)).toBe(Infinity);
    expect(exp(NaN)).toBeNaN();
    expect(exp(709.8)).toBe(Infinity);
    expect(exp(-745.2)).toBe(0);
    for (const x of [709.78, 709.4, -708.3, -708.5, -720, -740, -745.1, 1e-300, -5e-324]) {
      expect(unitsBetween(exp(x), Math.exp(x))).toBeLessThanOrEqual(1);
    }
  });

  test("does not fall where its argument rises", () => {
    let falls = 0;
    for (let x = -5; x < 5; x += 1 / 8192) if (exp(x + 1 / 8192) < exp(x)) falls++;
    expect(falls).toBe(0);
  });

  test("is the same to the last bit in every runtime", () => {
    const next = uniformNumbers(13);
    let hash = 0xcbf29ce484222325n;
    for (let i = 0; i < 50_000; i++) {
      double[0] = exp(-40 * next());
      hash = ((hash ^ BigInt.asUintN(64, bits[0])) * 0x100000001b3n) & 0xffffffffffffffffn;
    }
    expect(hash.toString(16)).toBe("42adfaac4c843d84");
  });
});

/** A power of two as 60 decimals. */
function decimal(unit: number): bigint {
  const exponent = Math.round(Math.log2(unit));
  return exponent >= 0 ? 10n ** 60n << BigInt(exponent) : 10n ** 60n >> BigInt(-exponent);
}

describe("splitmix64", () => {
  test("gives the published numbers", () => {
    let state = 1234567n;
    const values: bigint[] = [];
    for (let i = 0; i < 3; i++) {
      const next = splitmix64(state);
      state = next.state;
      values.push(next.value);
    }
    expect(values).toEqual([6457827717110365317n, 3203168211198807973n, 9817491932198370423n]);
  });
});

describe("xoshiro128**", () => {
  test("gives the numbers of its reference code", () => {
    const random = new Xoshiro128([1, 2, 3, 4]);
    expect(Array.from({ length: 10 }, () => random.bits())).toEqual([
      11520,
      0,
      5927040,
      70819200,
      2031721883,
      1637235492,
      1287239034,
      3734860849,
      3729100597,
      4258142804,
    ]);
  });

  test("gives uniform numbers in [0, 1) from any seed", () => {
    for (const seed of [0, 1, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
      const random = Xoshiro128.fromSeed(seed);
      const tenths = new Array(10).fill(0);
      for (let i = 0; i < 100_000; i++) tenths[Math.floor(random.uniform() * 10)]++;
      expect(tenths.length).toBe(10);
      // Chi-square with 9 degrees of freedom; above 27.9 once in a thousand times.
      const chi = tenths.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0);
      expect(chi).toBeLessThan(27.9);
    }
  });

  test("gives other numbers for another seed", () => {
    const first = (seed: number) => Xoshiro128.fromSeed(seed).uniform();
    const all = new Set(Array.from({ length: 1000 }, (_, seed) => first(seed)));
    expect(all.size).toBe(1000);
    expect(first(2 ** 32)).not.toBe(first(0));
  });

  test("has seeds that nobody chose", () => {
    const seeds = Array.from({ length: 100 }, randomSeed);
    expect(new Set(seeds).size).toBe(100);
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
    expect(Math.max(...seeds)).toBeGreaterThan(2 ** 40);
  });
});
