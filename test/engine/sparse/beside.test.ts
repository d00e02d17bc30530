/**
 * Products with lists beside their slots, and several tokens: the inputs that are turned for one product serve the
 * next, in the same room, where it has lists too; others may take that room.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import { isQuantised } from "../../../src/engine/sparse/layout.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import type { PlacedMatrix } from "../../../src/engine/sparse/weights/placed.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { inputs, Machines } from "./kernel_support.ts";
import { besideInputs, expectSameBits, type Machine } from "./machine.ts";
import { Tensors } from "./tensors.ts";
import { place } from "./weights_support.ts";

const machines = new Machines();
beforeAll(() => machines.start());
afterAll(() => machines.stop());

const COLUMNS = 301, MORE_COLUMNS = 1333, ROWS = 208;

/** Products, by the share of weights that they keep; dense ones have other inputs, which are more. */
const SHARES = [0.3, 0.32, 1, 0.3, 0.17, 0.5, 0.3];
const columnsOf = (share: number) => share < 1 ? COLUMNS : MORE_COLUMNS;

const PLAIN = { bias: 0, activation: "none", times: 0, plus: 0 } as const;

describe("products with lists beside their slots", () => {
  const placed = new Map<Machine, PlacedMatrix[]>();
  beforeAll(async () => {
    const dice = new Dice(SEED);
    const file = new Tensors();
    const refs = SHARES.map((share): MatrixRef => {
      const elements = Float64Array.from(
        { length: ROWS * columnsOf(share) },
        () => dice.next() < share ? dice.pick([-1, 1]) * (1 + dice.below(100)) : 0,
      );
      const shape = { rows: ROWS, columns: columnsOf(share), elements };
      // It unpacks more than others take in all.
      if (share === 1) return file.matrix({ ...shape, type: "f16" }, false);
      const scales = Float32Array.from({ length: ROWS }, () => 2 ** -6 + dice.next() / 100);
      return file.matrix({ ...shape, type: "int8", scales }, true);
    });
    for (const machine of machines.all) placed.set(machine, await place(machine, file, refs));
  });

  test("are some of these, and some are not", () => {
    const [matrices] = placed.values();
    const listed = matrices.map(({ lists }) => lists !== 0);
    // Two that follow one another have lists, and there are others between and behind such.
    expect(listed.slice(0, 2)).toEqual([true, true]);
    expect(listed[2]).toBe(false);
    expect(listed[3]).toBe(true);
  });

  for (const tokens of [2, 3, 7, 21, 128]) {
    test(`give ${tokens} tokens the same in one room as each in its own`, () => {
      for (const machine of machines.all) {
        const matrices = placed.get(machine)!;
        // Other inputs, in the same places before.
        run(machine, matrices, tokens, SEED + 1, false);
        const together = run(machine, matrices, tokens, SEED, false);
        const apart = run(machine, matrices, tokens, SEED, true);
        together.forEach((out, i) => {
          expectSameBits(out, apart[i], `${machine.name}, product ${i}`);
        });
      }
    });
  }

  /** What all products give, with one room for all or each with its own, behind a barrier. */
  function run(
    machine: Machine,
    matrices: readonly PlacedMatrix[],
    tokens: number,
    seed: number,
    isApart: boolean,
  ): Float32Array[][] {
    machine.reset();
    const program = new Program();
    const given = [COLUMNS, MORE_COLUMNS].map((columns) => {
      const x = machine.place(inputs(new Dice(seed), tokens, columns, 3));
      const quantised = machine.quantisedRoom(tokens, columns);
      program.quantise(x, quantised, columns, 16);
      return { x, quantised };
    });
    program.barrier("always");
    const rooms = matrices.map((matrix) => machine.scratchFor(matrix, tokens));
    const largest = rooms.reduce((a, b) => a.bytes > b.bytes ? a : b);
    const outs = matrices.map((matrix, i) => {
      const out = machine.room(tokens, ROWS);
      const room = isApart ? rooms[i] : largest;
      const { x, quantised } = given[matrix.columns === COLUMNS ? 0 : 1];
      const input = isQuantised(matrix.kind) ? quantised : x;
      program.linear(matrix, input, besideInputs(matrix, x), out, room, PLAIN);
      if (isApart) program.barrier("always");
      return out;
    });
    machine.run(program, { tokens });
    return outs.map((out) => machine.read(out, tokens, ROWS));
  }
});
