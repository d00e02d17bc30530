import { expect, test } from "bun:test";
import fc from "fast-check";
import { levelled } from "../../src/api/allocate.ts";
import { wandaMask } from "../../src/prune/mask.ts";
import { doubles } from "../support/numbers.ts";

const shapes = [{ rows: 3, columns: 48 }, { rows: 2, columns: 100 }];

/** Weights that masks of these densities keep, counted in the masks. */
function kept(densities: Float64Array): number {
  let sum = 0;
  for (const density of densities) {
    for (const { rows, columns } of shapes) {
      const values = Float32Array.from({ length: rows * columns }, (_, i) => i + 1);
      const norms = new Float32Array(columns).fill(1);
      const mask = wandaMask({ name: "x", values, rows, columns, norms }, 1 - density);
      sum += mask.reduce((a, b) => a + b, 0);
    }
  }
  return sum;
}

test("levelled densities keep no more weights than the reference, and few less", () => {
  const density = doubles(0.1, 0.9);
  const both = fc.array(fc.tuple(density, density), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(both, (pairs) => {
      const reference = Float64Array.from(pairs, ([a]) => a);
      // The same mean, as a search gives it.
      const by = pairs.reduce((sum, [a, b]) => sum + a - b, 0) / pairs.length;
      const densities = Float64Array.from(pairs, ([, b]) => Math.min(1, Math.max(0.02, b + by)));
      const linears = pairs.map(() => shapes);
      const found = levelled(densities, reference, linears);
      expect(kept(found)).toBeLessThanOrEqual(kept(reference));
      const lowered = densities.map((value, b) => value - found[b]);
      if (kept(densities) <= kept(reference)) {
        expect(found).toEqual(densities);
      } else if (found.every((value) => value > 1e-3)) {
        lowered.forEach((shift) => expect(shift).toBeCloseTo(lowered[0], 9));
        // A little denser, and they would keep more than the reference.
        expect(kept(found.map((value) => value + 1e-6))).toBeGreaterThan(kept(reference));
      }
    }),
    { numRuns: 60 },
  );
});
