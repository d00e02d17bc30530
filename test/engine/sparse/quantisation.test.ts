/**
 * The quantisation of inputs, as near as its bits allow; every build and every number of threads gives the
 * same.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { SEGMENT } from "../../../src/engine/sparse/layout.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { HALF_ULP, inputs, Machines } from "./kernel_support.ts";
import { quantisedOf, RATIOS, WIDE_ZERO } from "./quantised.ts";

const machines = new Machines();
beforeAll(() => machines.start());
afterAll(() => machines.stop());

/** What the steps of a token's scales may add up to, so that sums of products fit 32 bits. */
const MOST_STEPS = 8000;

describe("quantisation", () => {
  const WIDTHS = [1, 3, 16, 17, 31, 33, 48, 80, 130, 300, 20_000];

  for (const [what, ratio] of Object.entries(RATIOS)) {
    test(`to ${what} is as near as a scale for each segment allows`, () => {
      for (const width of WIDTHS) {
        for (const tokens of [1, 9]) {
          const vectors = inputs(new Dice(SEED + width), tokens, width, width);
          const found = machines.all.map((machine) => {
            machine.reset();
            const program = new Program();
            const to = machine.quantisedRoom(tokens, width);
            program.quantise(machine.place(vectors), to, width, ratio);
            machine.run(program, { tokens });
            return quantisedOf(machine, to, tokens, width);
          });
          for (const each of found) expect(each).toEqual(found[0]);
          found[0].forEach((segments, t) => {
            const squares = vectors[t].reduce((sum, x) => sum + x * x, 0);
            const usual = Math.sqrt(squares / width);
            const least = segments.map(({ isWide }, s) => {
              const part = vectors[t].slice(s * SEGMENT, (s + 1) * SEGMENT);
              return Math.max(...part.map(Math.abs)) / (isWide ? 8127 / 128 : 63);
            });
            const all = least.reduce((sum, scale) => sum + scale, 0);
            // One more for each segment, whose steps are rounded up.
            const unit = all / (MOST_STEPS - segments.length);
            const total = segments.reduce((sum, { step }) => sum + step, 0);
            expect(total).toBeLessThanOrEqual(MOST_STEPS);
            segments.forEach(({ isWide, scale, step, unit: found, integers }, s) => {
              const part = vectors[t].slice(s * SEGMENT, (s + 1) * SEGMENT);
              const largest = Math.max(...part.map(Math.abs));
              const [zero, first, last] = isWide ? [WIDE_ZERO, 129, 16383] : [64, 1, 127];
              const fail = (why: string) => {
                throw new Error(`${part} became ${integers} · ${scale}: ${why}`);
              };
              // Near the border either will do; squares of tiny and of huge numbers are not exact.
              const isOrdinary = largest > 1e-15 && largest < 1e15;
              if (isOrdinary && largest > 1.001 * ratio * usual && !isWide) fail("7 bits");
              if (isOrdinary && largest < 0.999 * ratio * usual && isWide) fail("14 bits");
              const whole = isWide ? scale * 128 : scale;
              if (whole > (least[s] + unit) * (1 + 1e-6) + 1e-38) fail("a scale that is too large");
              if (whole !== Math.fround(step * found)) fail(`not ${step} times ${found}`);
              integers.forEach((integer, i) => {
                if (!(integer >= first && integer <= last)) fail("out of range");
                if (part[i] === 0 && integer !== zero) fail("zero is not zero");
                // Half a step, and what float32 rounds.
                const most = (0.5 + 5 * HALF_ULP * Math.abs(integer - zero)) * scale;
                if (Math.abs((integer - zero) * scale - part[i]) > most + 1e-30) fail("too far");
              });
            });
          });
        }
      }
    });
  }
});
