/**
 * Convolutions over the tokens against plain loops of float64; every build and every number of threads gives the same
 * bits, however tokens are cut into runs.
 * @module
 */
import { afterAll, beforeAll, describe, test } from "bun:test";
import { bytesOfInputs } from "../../../src/engine/sparse/layout.ts";
import { Program, type Vectors } from "../../../src/engine/sparse/plan/encode.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { ACTIVATIONS } from "../../support/naive_decoder.ts";
import { expectNear, HALF_ULP, Machines, normal } from "./kernel_support.ts";
import { expectSameBits, type Machine } from "./machine.ts";

const machines = new Machines();
beforeAll(() => machines.start());
afterAll(() => machines.stop());

interface Shape {
  readonly channels: number;
  readonly length: number;
  readonly hasBias?: boolean;
  /** Whether inputs and sums are multiplied, all three parts of one vector as one product makes them. */
  readonly isGated?: boolean;
  /** Whether sums are activated before they are multiplied. */
  readonly isActivated?: boolean;
}

/** Beyond two pages. */
const TOKENS = 140;
/** Bytes of layers before this one in a page. */
const BEFORE = 192;

interface Given {
  readonly gates: number[][];
  readonly times: number[][];
  readonly inputs: number[][];
  /** `[length, channels]`. */
  readonly weights: number[][];
  readonly bias: number[];
}

function givenOf({ channels, length }: Shape, seed = 0): Given {
  const dice = new Dice(SEED + seed + channels);
  const some = (count: number) =>
    Array.from(
      { length: count },
      () => Array.from({ length: channels }, () => Math.fround(normal(dice))),
    );
  return {
    gates: some(TOKENS),
    times: some(TOKENS),
    inputs: some(TOKENS),
    weights: some(length),
    bias: some(1)[0],
  };
}

/** What each token must give, and how far off it may be: each product and sum rounds once. */
function expected(shape: Shape, { gates, times, inputs, weights, bias }: Given) {
  const { channels, length, hasBias, isGated, isActivated } = shape;
  const kept = inputs.map((row, t) =>
    row.map((x, channel) => isGated ? Math.fround(x * gates[t][channel]) : x)
  );
  return kept.map((_, t) =>
    Array.from({ length: channels }, (_, channel) => {
      let [sum, size] = hasBias ? [bias[channel], Math.abs(bias[channel])] : [0, 0];
      for (let i = 0; i < length; i++) {
        const product = weights[i][channel] * (kept[t - length + 1 + i]?.[channel] ?? 0);
        sum += product;
        size += Math.abs(product);
      }
      const factor = isGated ? times[t][channel] : 1;
      const bound = 2 * (length + 2) * HALF_ULP * size;
      if (!isActivated) return { wanted: sum * factor, bound: bound * Math.abs(factor) };
      // Its slope is 1.1 at most.
      const activated = ACTIVATIONS.silu(sum);
      const own = 1.1 * bound + 1e-6 * Math.abs(activated);
      return { wanted: activated * factor, bound: own * Math.abs(factor) };
    })
  );
}

/** Runs all tokens of some sequences, a piece of each at once, in pieces of these lengths (the last again and again). */
function run(
  machine: Machine,
  shape: Shape,
  sequences: readonly { readonly given: Given; readonly pieces: readonly number[] }[],
): Float32Array[][] {
  const { channels, length, hasBias, isGated, isActivated } = shape;
  const activation = isActivated ? "silu" : "none";
  machine.reset();
  const row = bytesOfInputs(channels);
  const { weights, bias } = sequences[0].given;
  const weight = machine.reserve(length * row);
  weights.forEach((row_, i) => {
    machine.memory.floats(weight + i * row, row / 4).fill(NaN);
    machine.memory.floats(weight + i * row, channels).set(row_);
  });
  const biasAt = hasBias ? machine.place([bias]).address : 0;
  const pageBytes = BEFORE + (length - 1) * row;
  // Nothing is read of what lies there before it is written.
  const states = sequences.map(({ given, pieces }) => ({
    ...{ given, pieces, pages: machine.pages(TOKENS, pageBytes, 0xff) },
    found: [] as Float32Array[],
  }));
  for (let round = 0; states.some(({ found }) => found.length < TOKENS); round++) {
    const each = states.flatMap((state) => {
      const done = state.found.length;
      const piece = state.pieces[Math.min(round, state.pieces.length - 1)];
      return Array.from({ length: Math.min(TOKENS - done, piece) }, (_, i) => ({
        ...state,
        position: done + i,
      }));
    });
    const rows = each.map(({ given: { gates, times, inputs }, position }) => [
      ...gates[position],
      ...times[position],
      ...inputs[position],
    ]);
    const three = machine.place(rows), out = machine.room(each.length, channels);
    const part = (which: number): Vectors => ({
      ...three,
      address: three.address + 4 * which * channels,
    });
    const program = new Program();
    program.convolve({
      input: part(2),
      gate: isGated ? part(0) : undefined,
      times: isGated ? part(1) : undefined,
      out,
    }, { channels, length, weight, bias: biasAt, layerOffset: BEFORE, activation });
    machine.run(program, {
      tokens: each.length,
      position: each.map(({ position }) => position),
      pages: each.map(({ pages }) => pages),
    });
    machine.read(out, each.length, channels).forEach((row, i) => each[i].found.push(row));
  }
  return states.map(({ found }) => found);
}

describe("a convolution", () => {
  const SHAPES: readonly Shape[] = [
    { channels: 64, length: 3, isGated: true },
    { channels: 1, length: 2 },
    { channels: 37, length: 3, isGated: true, hasBias: true },
    { channels: 130, length: 4, hasBias: true },
    { channels: 48, length: 7, isGated: true },
    { channels: 17, length: 65 },
    { channels: 64, length: 4, isActivated: true },
    { channels: 39, length: 4, hasBias: true, isGated: true, isActivated: true },
  ];
  for (const shape of SHAPES) {
    const { channels, length, isGated = false, hasBias = false, isActivated = false } = shape;
    const what = `${channels} channels, ${length} tokens` +
      `${isGated ? ", gated" : ""}${hasBias ? ", with a bias" : ""}${
        isActivated ? ", activated" : ""
      }`;
    test(`is each channel's sum over the token and those before it: ${what}`, () => {
      const given = givenOf(shape);
      const wanted = expected(shape, given);
      const found = machines.everywhere((machine) =>
        run(machine, shape, [{ given, pieces: [1] }])[0]
      );
      found.forEach((row, t) =>
        row.forEach((value, channel) => {
          const { wanted: sum, bound } = wanted[t][channel];
          expectNear(value, sum, bound, `channel ${channel} of token ${t}`);
        })
      );
      for (const machine of machines.all) {
        for (const pieces of [[TOKENS], [1, 5, 60], [64], [63, 2, 7]]) {
          const again = run(machine, shape, [{ given, pieces }])[0];
          expectSameBits(again, found, `${machine.name}, in pieces of ${pieces}`);
        }
      }
    });
  }

  test("of several sequences at once is that of each alone", () => {
    const shape: Shape = { channels: 40, length: 4, isGated: true };
    const { weights, bias } = givenOf(shape);
    const sequences = [[1], [3, 70, 2], [64, 1, 9]].map((pieces, i) => ({
      given: { ...givenOf(shape, 100 * i), weights, bias },
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
});
