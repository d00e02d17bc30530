import { describe, expect, test } from "bun:test";
import {
  marginsOf,
  maskOf,
  type Pattern,
  type Share,
  shareOfLinear,
  slopeOf,
  type Weight,
} from "../../src/prune/mod.ts";
import { uniformNumbers } from "../../src/text/windows.ts";

const ROWS = 8;
const COLUMNS = 64;

/** Two matrices with statistics of their inputs. */
function linears(seed: number): Weight[] {
  const random = uniformNumbers(seed);
  const numbers = (length: number) => Float32Array.from({ length }, () => random() - 0.5);
  return ["one", "two"].map((name) => ({
    name,
    values: numbers(ROWS * COLUMNS),
    rows: ROWS,
    columns: COLUMNS,
    norms: numbers(COLUMNS).map(Math.abs),
  }));
}

/** What masks keep, of a matrix to which the loss is linear: Σ gradient · weight over what stays. */
function lossOf(weights: Weight[], gradients: Float32Array[], pattern: Pattern, share: Share) {
  let loss = 0;
  let kept = 0;
  weights.forEach((weight, i) => {
    const mask = maskOf(weight, "wanda", pattern, shareOfLinear(share, i));
    mask.forEach((stays, at) => {
      if (stays) loss += gradients[i][at] * weight.values[at];
      kept += stays;
    });
  });
  return { loss, density: kept / (weights.length * ROWS * COLUMNS) };
}

describe("margins", () => {
  test("tell exactly how a loss falls that is linear in the weights", () => {
    for (let seed = 0; seed < 5; seed++) {
      const weights = linears(seed);
      const gradients = linears(seed + 100).map(({ values }) => values);
      const unstructured: Pattern = { kind: "unstructured" };
      const share = { density: 0.4, linears: [0.3, 0.5] };
      const found = marginsOf(weights, "wanda", unstructured, share);
      found.forEach(({ margins, mask }, i) => {
        expect(mask).toEqual(maskOf(weights[i], "wanda", unstructured, shareOfLinear(share, i)));
        // In two parts, as batches come.
        margins.add(gradients[i].map((value) => 0.25 * value));
        margins.add(gradients[i].map((value) => 0.75 * value));
        const sides = [-0.05, 0.05].map((by) => {
          const density = share.linears[i] + by;
          return lossOf([weights[i]], [gradients[i]], unstructured, { density });
        });
        const now = lossOf([weights[i]], [gradients[i]], unstructured, {
          density: share.linears[i],
        });
        const slopes = sides.map(({ loss, density }) =>
          (loss - now.loss) / (now.density - density)
        );
        expect(slopeOf([margins])).toBeCloseTo((slopes[0] + slopes[1]) / 2, 3);
      });
    }
  });

  test("of a whole block count its linears together, a step of N:M on either side", () => {
    const pattern: Pattern = { kind: "mixed", m: 16 };
    for (const kept of [1, 7, 16]) {
      const weights = linears(kept);
      const gradients = linears(kept + 100).map(({ values }) => values);
      const found = marginsOf(weights, "wanda", pattern, { density: kept / 16, kept });
      found.forEach(({ margins }, i) => margins.add(gradients[i]));
      const at = (n: number) => lossOf(weights, gradients, pattern, { density: n / 16, kept: n });
      // Where all stay, or one of each sixteen, there is one side only.
      const slopes = [kept - 1, kept + 1].filter((n) => n >= 1 && n <= 16)
        .map((n) => (at(n).loss - at(kept).loss) / (at(kept).density - at(n).density));
      const mean = slopes.reduce((a, b) => a + b) / slopes.length;
      expect(slopeOf(found.map(({ margins }) => margins))).toBeCloseTo(mean, 3);
    }
  });

  test("of nothing have no slope", () => {
    expect(slopeOf([])).toBe(0);
  });
});
