/**
 * Linear attention by the gated delta rule, and state spaces, against plain loops of float64; every build and every number of threads gives
 * the same bits, however tokens are cut into runs.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { bytesOfState } from "../../../src/engine/sparse/layout.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { remember } from "../../support/naive_decoder.ts";
import { expectNear, Machines, normal } from "./kernel_support.ts";
import { expectSameBits, type Machine } from "./machine.ts";

const machines = new Machines();
beforeAll(() => machines.start());
afterAll(() => machines.stop());

interface Shape {
  readonly keyHeads: number;
  readonly valueHeads: number;
  readonly keyDim: number;
  readonly valueDim: number;
  /** Whether nothing is corrected, and no length divided by. */
  readonly isStateSpace?: boolean;
}

const TOKENS = 40;
/** Bytes of layers before this one in a state. */
const BEFORE = 192;
const SCALE = 0.25, EPSILON = 1e-6;
const PARTS = ["queries", "keys", "values", "decays", "strengths"] as const;

type Given = Record<(typeof PARTS)[number], number[][]>;

/** @param fades The largest decay is so much below 0. */
function givenOf(
  { keyHeads, valueHeads, keyDim, valueDim }: Shape,
  fades: number,
  seed = 0,
): Given {
  const dice = new Dice(SEED + seed + keyDim);
  const rows = (width: number, draw: () => number) =>
    Array.from({ length: TOKENS }, () => Array.from({ length: width }, () => Math.fround(draw())));
  return {
    queries: rows(keyHeads * keyDim, () => normal(dice)),
    keys: rows(keyHeads * keyDim, () => normal(dice)),
    values: rows(valueHeads * valueDim, () => normal(dice)),
    decays: rows(valueHeads, () => -fades * dice.next()),
    strengths: rows(valueHeads, () => dice.next()),
  };
}

function expected(shape: Shape, given: Given): Float64Array[] {
  let state: Float64Array = new Float64Array(shape.valueHeads * shape.keyDim * shape.valueDim);
  return given.queries.map((_, t) => {
    const [queries, keys, values, decays, strengths] = PARTS.map((part) =>
      Float64Array.from(given[part][t])
    );
    const how = { op: "delta", output: 0, layer: 0, scale: SCALE, epsilon: EPSILON } as const;
    const made = remember(
      { ...shape, ...how },
      state,
      { queries, keys, values },
      decays,
      shape.isStateSpace ? undefined : strengths,
    );
    state = made.state;
    return made.found;
  });
}

/** Runs all tokens of some sequences, a piece of each at once, in pieces of these lengths (the last again and again). */
function run(
  machine: Machine,
  shape: Shape,
  sequences: readonly { readonly given: Given; readonly pieces: readonly number[] }[],
): Float32Array[][] {
  machine.reset();
  const width = shape.valueHeads * shape.valueDim;
  const running = sequences.map(({ given, pieces }) => {
    const bytes = BEFORE + bytesOfState(shape);
    const state = machine.reserve(bytes);
    machine.memory.bytes(state, bytes).fill(0);
    return { given, pieces, state, found: [] as Float32Array[] };
  });
  for (let round = 0; running.some(({ found }) => found.length < TOKENS); round++) {
    const each = running.flatMap((one) => {
      const done = one.found.length;
      const piece = one.pieces[Math.min(round, one.pieces.length - 1)];
      return Array.from({ length: Math.min(TOKENS - done, piece) }, (_, i) => ({
        ...one,
        position: done + i,
      }));
    });
    const [queries, keys, values, decays, strengths] = PARTS.map((part) =>
      machine.place(each.map(({ given, position }) => given[part][position]))
    );
    const out = machine.room(each.length, width);
    const program = new Program();
    const corrected = shape.isStateSpace ? {} : { strengths };
    program.delta({ queries, keys, values, decays, ...corrected, out }, {
      ...shape,
      layerOffset: BEFORE,
      scale: SCALE,
      epsilon: EPSILON,
    });
    machine.run(program, {
      tokens: each.length,
      position: each.map(({ position }) => position),
      states: each.map(({ state }) => state),
    });
    machine.read(out, each.length, width).forEach((row, i) => each[i].found.push(row));
  }
  return running.map(({ found }) => found);
}

describe("what remembers", () => {
  const SHAPES: readonly Shape[] = [
    { keyHeads: 2, valueHeads: 4, keyDim: 16, valueDim: 24 },
    { keyHeads: 1, valueHeads: 1, keyDim: 1, valueDim: 1 },
    { keyHeads: 3, valueHeads: 3, keyDim: 7, valueDim: 19 },
    { keyHeads: 1, valueHeads: 3, keyDim: 33, valueDim: 50 },
    { keyHeads: 2, valueHeads: 2, keyDim: 128, valueDim: 128 },
    { keyHeads: 1, valueHeads: 8, keyDim: 24, valueDim: 16, isStateSpace: true },
    { keyHeads: 2, valueHeads: 4, keyDim: 5, valueDim: 21, isStateSpace: true },
    { keyHeads: 1, valueHeads: 2, keyDim: 128, valueDim: 64, isStateSpace: true },
  ];
  for (const [i, shape] of SHAPES.entries()) {
    const { keyHeads, valueHeads, keyDim, valueDim, isStateSpace = false } = shape;
    const what = `${keyHeads} and ${valueHeads} heads of ${keyDim} and ${valueDim}` +
      (isStateSpace ? ", a state space" : "");
    test(`fades, takes in and is asked, token after token: ${what}`, () => {
      const given = givenOf(shape, [0.1, 3, 0.5, 100, 0.02, 0.1, 2, 0.05][i]);
      const wanted = expected(shape, given);
      const found = machines.everywhere((machine) =>
        run(machine, shape, [{ given, pieces: [1] }])[0]
      );
      const size = Math.max(...wanted.flatMap((row) => [...row].map(Math.abs)));
      expect(size).toBeGreaterThan(0.05);
      found.forEach((row, t) =>
        row.forEach((value, at) => {
          expectNear(value, wanted[t][at], 2e-5 * size, `element ${at} of token ${t}`);
        })
      );
      for (const machine of machines.all) {
        for (const pieces of [[TOKENS], [1, 5, 20], [3]]) {
          const again = run(machine, shape, [{ given, pieces }])[0];
          expectSameBits(again, found, `${machine.name}, in pieces of ${pieces}`);
        }
      }
    });
  }

  test("of several sequences at once is that of each alone", () => {
    const shape = SHAPES[0];
    const sequences = [[1], [3, 20, 2], [16, 1, 9]].map((pieces, i) => ({
      given: givenOf(shape, 0.3, 100 * i),
      pieces,
    }));
    for (const machine of machines.all) {
      const together = run(machine, shape, sequences);
      for (const [i, sequence] of sequences.entries()) {
        expectSameBits(
          together[i],
          run(machine, shape, [{ ...sequence, pieces: [1] }])[0],
          `${machine.name}, sequence ${i}`,
        );
      }
    }
  });

  test("of keys and queries of zeros remembers and finds nothing", () => {
    const shape = SHAPES[0], given = givenOf(shape, 1);
    const nothing = given.keys.map((row) => row.map(() => 0));
    for (const zeros of [{ keys: nothing }, { queries: nothing }]) {
      const [found] = run(machines.all[0], shape, [{ given: { ...given, ...zeros }, pieces: [7] }]);
      expect(found.flatMap((row) => [...row]).every((value) => value === 0)).toBe(true);
    }
  });
});
