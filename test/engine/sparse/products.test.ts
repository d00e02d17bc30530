/**
 * Products of matrices against plain loops of float64, on random and on extreme inputs and odd sizes; every
 * build and every number of threads gives the same bits.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import { isQuantised, KIND, type Kind, segmentsOf } from "../../../src/engine/sparse/layout.ts";
import {
  Program,
  type QuantisedVectors,
  type Vectors,
} from "../../../src/engine/sparse/plan/encode.ts";
import type { Activation } from "../../../src/engine/sparse/plan/fuse.ts";
import type { PlacedMatrix } from "../../../src/engine/sparse/weights/placed.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { ACTIVATE, HALF_ULP, INPUTS, inputs, Machines, normal } from "./kernel_support.ts";
import { besideInputs, expectSameBits, type Machine } from "./machine.ts";
import { type Numbers, Tensors, toHalf, weightsOf } from "./tensors.ts";
import { eachInput, quantisedOf, RATIOS, WIDE_ZERO } from "./quantised.ts";

const machines = new Machines();
beforeAll(() => machines.start());
afterAll(() => machines.stop());

describe("products", () => {
  interface Case {
    readonly what: string;
    readonly numbers: Numbers;
    readonly weights: Float64Array;
    readonly packed: boolean;
    readonly bias: readonly number[];
  }

  /** Random elements, of which a place is kept where `isKept` says so. */
  function numbersOf(
    dice: Dice,
    [rows, columns]: readonly [number, number],
    type: Numbers["type"],
    isKept: (row: number, column: number) => boolean,
    group?: number,
  ): Numbers {
    const elements = Float64Array.from({ length: rows * columns }, (_, i) => {
      if (!isKept(Math.floor(i / columns), i % columns)) return 0;
      if (type === "int8") {
        const some = Math.max(-127, Math.min(127, Math.round(normal(dice) * 40)));
        return dice.below(4) === 0 ? dice.pick([-127, 127]) : some;
      }
      if (type === "int4") {
        const some = Math.max(-8, Math.min(7, Math.round(normal(dice) * 3)));
        return dice.below(4) === 0 ? dice.pick([-8, 7]) : some;
      }
      return type === "f16" ? toHalf(normal(dice)) : Math.fround(normal(dice));
    });
    if (type !== "int8" && type !== "int4") return { rows, columns, type, elements };
    const count = rows * Math.ceil(columns / (group ?? columns));
    if (type === "int4") {
      const scale = () => toHalf((0.5 + dice.next()) / 8 * dice.pick([-1, 1, 2 ** -13]));
      return {
        rows,
        columns,
        type,
        elements,
        scales: Float32Array.from({ length: count }, scale),
        group,
      };
    }
    const scales = Float32Array.from({ length: count }, () => (0.5 + dice.next()) / 127);
    return { rows, columns, type, elements, scales, group };
  }

  /** N of every 16 columns, by row. */
  function nOf16(dice: Dice, n: number): (row: number, column: number) => boolean {
    return nOfWindow(dice, () => n);
  }

  /** As many of every 16 columns as a function says, by row. */
  function nOfWindow(
    dice: Dice,
    n: (row: number, column: number) => number,
  ): (row: number, column: number) => boolean {
    const kept = new Map<string, Set<number>>();
    return (row, column) => {
      const key = `${row} ${column >> 4}`;
      const set = kept.get(key) ?? new Set<number>();
      while (set.size < n(row, column)) set.add(dice.below(16));
      kept.set(key, set);
      return set.has(column & 15);
    };
  }

  /** So many rows that their lists are taken more than once. */
  const LONG = [8301, 32] as const;
  /**
   * Odd sizes among round ones: rows that fill no sixteen, columns that fill no pair of windows; rows that fill
   * two or four places more than once, and leave some for one.
   */
  const SHAPES: readonly (readonly [number, number])[] = [
    [16, 32],
    [139, 32],
    LONG,
    [33, 80],
    [50, 144],
    [16, 300],
    [7, 17],
    [1, 1],
  ];

  const dice = new Dice(SEED);
  const CASES = SHAPES.flatMap((shape): Case[] => {
    const cases: Case[] = [];
    const add = (what: string, numbers: Numbers, packed = true) => {
      // A packed matrix has a weight.
      if (numbers.elements.every((element) => element === 0)) numbers.elements[0] = 1;
      cases.push({
        what: `${what}, ${shape.join(" × ")}`,
        numbers,
        weights: weightsOf(numbers),
        packed,
        bias: Array.from({ length: shape[0] }, () => Math.fround(normal(dice))),
      });
    };
    const random = (density: number) => () => dice.next() < density;
    const always = () => true;
    if (shape === LONG) {
      for (const density of [0.15, 0.25, 0.35, 0.45]) {
        add(`${density} random`, numbersOf(dice, shape, "int8", random(density)));
      }
      return cases;
    }
    for (const group of [undefined, 16, 32, 48, 80, 128, 160, 256]) {
      if (group && group > shape[1]) continue;
      const what = group ? `groups of ${group}` : "scales of rows";
      for (const n of [4, 8]) {
        add(`${n}:16, ${what}`, numbersOf(dice, shape, "int8", nOf16(dice, n), group));
      }
      for (const density of [0.02, 0.1, 0.3, 0.6, 1]) {
        const numbers = numbersOf(dice, shape, "int8", random(density), group);
        add(`${density} random, ${what}`, numbers);
      }
    }
    for (const group of [32, 64, 128]) {
      const what = `int4, groups of ${group}`;
      for (const n of [4, 8]) {
        add(`${n}:16, ${what}`, numbersOf(dice, shape, "int4", nOf16(dice, n), group));
      }
      for (const density of [0.02, 0.1, 0.3, 0.6, 1]) {
        add(`${density} random, ${what}`, numbersOf(dice, shape, "int4", random(density), group));
      }
      for (const packed of [true, false]) {
        for (const extreme of [7, -8]) {
          const full = numbersOf(dice, shape, "int4", always, group);
          add(
            `${extreme} everywhere, ${what}`,
            { ...full, elements: full.elements.fill(extreme) },
            packed,
          );
        }
      }
      // The greatest sums that a slot's segment has.
      const half = numbersOf(dice, shape, "int4", nOf16(dice, 8), group);
      const least = half.elements.map((element) => element === 0 ? 0 : -8);
      add(`-8 in 8:16, ${what}`, { ...half, elements: least });
      add(`dense ${what}`, numbersOf(dice, shape, "int4", random(0.9), group), false);
    }
    // The greatest sums that slots have.
    for (const extreme of [127, -127]) {
      for (
        const [n, group] of [[8, undefined], [4, undefined], [16, undefined], [8, 32]] as const
      ) {
        if (group && group > shape[1]) continue;
        const numbers = numbersOf(dice, shape, "int8", nOf16(dice, n), group);
        const elements = numbers.elements.map((element) => element === 0 ? 0 : extreme);
        // As few windows with more slots as make streams the layout.
        if (n === 16) elements.fill(0, elements.length / 4);
        add(`${extreme} in ${n}:16, ${group ? "groups" : "rows"}`, { ...numbers, elements });
      }
    }
    // The greatest weights whose products of a segment fit 16 bits, and the least that may not.
    for (const size of [63, -63, 66, -66]) {
      const numbers = numbersOf(dice, shape, "int8", nOf16(dice, 8));
      const elements = numbers.elements.map((element) => element === 0 ? 0 : size);
      add(`${size} in 8:16`, { ...numbers, elements });
    }
    // All weights of some windows and none of others; the greatest weights everywhere.
    add("lumps", numbersOf(dice, shape, "int8", (row, c) => (row + (c >> 4)) % 3 === 0));
    for (const packed of [true, false]) {
      for (const extreme of [127, -127]) {
        const full = numbersOf(dice, shape, "int8", always);
        add(`${extreme} everywhere`, { ...full, elements: full.elements.fill(extreme) }, packed);
      }
    }
    // From no slot to four, by window of four rows.
    for (const group of [undefined, 32, 160]) {
      if (group && group > shape[1]) continue;
      const slots = Array.from({ length: 20 * 20 }, () => dice.below(5));
      const kept = nOfWindow(dice, (row, column) => 4 * slots[(row >> 2) * 20 + (column >> 4)]);
      add(`slots, ${group ?? "row"}`, numbersOf(dice, shape, "int8", kept, group));
    }
    add("int8, groups of 24", numbersOf(dice, shape, "int8", random(0.4), 24));
    add("floats", numbersOf(dice, shape, "f32", random(0.4)));
    add("halves", numbersOf(dice, shape, "f16", random(0.4)));
    add("dense int8", numbersOf(dice, shape, "int8", random(0.9)), false);
    add("dense floats", numbersOf(dice, shape, "f32", random(0.9)), false);
    add("dense halves", numbersOf(dice, shape, "f16", random(0.9)), false);
    return cases;
  });

  interface Placed {
    readonly matrix: PlacedMatrix;
    readonly bias: number;
  }
  /** By machine. */
  const placed = new Map<Machine, Placed[]>();

  beforeAll(async () => {
    const file = new Tensors();
    const refs = CASES.map(({ numbers, packed }): MatrixRef => file.matrix(numbers, packed));
    const biases = CASES.map(({ bias }) => file.vector(bias));
    const reader = await file.open();
    for (const machine of machines.all) {
      const loader = machine.loader(reader, refs);
      const all: Placed[] = [];
      for (const [i, ref] of refs.entries()) {
        all.push({ matrix: await loader.matrix(ref), bias: await loader.vector(biases[i]) });
      }
      placed.set(machine, all);
    }
    reader.close();
  });

  test("of every layout are among the cases", () => {
    const kinds = new Set(placed.get(machines.all[0])!.map(({ matrix }) => matrix.kind));
    expect([...kinds].sort((a, b) => a - b)).toEqual(Object.values(KIND));
  });

  const ACTIVATIONS: readonly Activation[] = [
    "none",
    "silu",
    "gelu",
    "relu",
    "sigmoid",
    "gelu_tanh",
    "tanh",
    "relu_squared",
  ];

  /** What is done to the sums of a case: something else in each run. */
  function finishOf(c: number, run: number) {
    const n = c + run * 7;
    return {
      activation: ACTIVATIONS[n % 3 === 0 ? Math.floor(n / 3) % ACTIVATIONS.length : 0],
      hasBias: n % 2 === 0,
      hasTimes: n % 5 === 1,
      hasPlus: n % 4 === 3,
    };
  }

  interface Outcome {
    readonly out: Float32Array[];
    /** The input that the kernel had, by token: what quantised numbers stand for, and exact ones. */
    readonly x: Float64Array[];
    readonly exact: Float64Array[];
    /** By token and input, what is added to its upper seven bits at most, if anything is. */
    readonly lower: Float64Array[];
  }

  /** Runs all cases in one program, on inputs that follow from the number of their columns. */
  function runAll(
    machine: Machine,
    tokens: number,
    inputsOf: (columns: number) => number[][],
    ratio: number,
    finish: (c: number) => ReturnType<typeof finishOf>,
    places?: number,
  ): Outcome[] {
    machine.reset();
    const program = new Program();
    const xs = new Map<number, Vectors>();
    const quantised = new Map<number, QuantisedVectors>();
    for (const { matrix } of placed.get(machine)!) {
      const { columns, kind } = matrix;
      let x = xs.get(columns);
      if (!x) xs.set(columns, x = machine.place(inputsOf(columns)));
      if (!isQuantised(kind) || quantised.has(columns)) continue;
      const to = machine.quantisedRoom(tokens, columns);
      quantised.set(columns, to);
      program.quantise(x, to, columns, ratio);
    }
    program.barrier("always");
    const outs = CASES.map(({ numbers: { rows } }, c) => {
      const { matrix, bias } = placed.get(machine)![c];
      const { activation, hasBias, hasTimes, hasPlus } = finish(c);
      const x = xs.get(matrix.columns)!;
      const input = isQuantised(matrix.kind) ? quantised.get(matrix.columns)! : x;
      const out = machine.room(tokens, rows);
      const scratch = machine.scratchFor(matrix, tokens);
      program.linear(matrix, input, besideInputs(matrix, x), out, scratch, {
        activation,
        bias: hasBias ? bias : 0,
        times: hasTimes ? machine.place(othersOf(c, tokens)).address : 0,
        plus: hasPlus ? machine.place(othersOf(c, tokens)).address : 0,
      });
      return out;
    });
    machine.run(program, { tokens, places });
    return CASES.map(({ numbers: { rows } }, c) => {
      const { kind, columns } = placed.get(machine)![c].matrix;
      const exact = machine.read(xs.get(columns)!, tokens, columns).map((x) =>
        Float64Array.from(x)
      );
      const out = machine.read(outs[c], tokens, rows);
      if (!isQuantised(kind)) {
        return {
          out,
          exact,
          x: exact,
          lower: exact.map((x) => x.map(() => 0)),
        };
      }
      const segments = quantisedOf(machine, quantised.get(columns)!, tokens, columns);
      return {
        out,
        exact,
        x: eachInput(
          segments,
          ({ isWide, scale }, integer) => (integer - (isWide ? WIDE_ZERO : 64)) * scale,
        ),
        lower: eachInput(segments, ({ isWide, scale }) => isWide ? 64 * scale : 0),
      };
    });
  }

  /** What results are multiplied with, or what is added to them. */
  function othersOf(c: number, tokens: number): number[][] {
    const others = new Dice(SEED + c);
    return Array.from(
      { length: tokens },
      () => CASES[c].bias.map(() => Math.fround(normal(others))),
    );
  }

  /** Slots that a window has, in weights of a row; what is beyond has exact inputs. */
  const ROOM: Partial<Record<Kind, number>> = {
    [KIND.SLOTS_ONE]: 4,
    [KIND.SLOTS_TWO]: 8,
    [KIND.SLOTS_ONE_INT4]: 4,
    [KIND.SLOTS_TWO_INT4]: 8,
  };

  /** What {@linkcode beyond} found: the same matrix is checked in many runs. */
  const listedOf = new Map<Numbers, boolean[]>();

  /** Which weights are in lists, where slots are full. */
  function beyond(numbers: Numbers, kind: Kind): boolean[] {
    const known = listedOf.get(numbers) ?? findBeyond(numbers, kind);
    listedOf.set(numbers, known);
    return known;
  }

  function findBeyond(numbers: Numbers, kind: Kind): boolean[] {
    const { columns, elements } = numbers;
    let taken = 0;
    return Array.from(elements, (element, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns];
      if (column % 16 === 0) taken = 0;
      const room = kind === KIND.SLOTS_ANY ? 4 * slotsOf(numbers, row, column) : ROOM[kind];
      return element !== 0 && ++taken > (room ?? Infinity);
    });
  }

  /** Slots of a weight's window where it has as many as are worth it: 25 bytes each, 10 for a weight in lists. */
  function slotsOf({ rows, columns, elements }: Numbers, row: number, column: number): number {
    const counts = [0, 1, 2, 3].map((i) => {
      const at = (row & ~3) + i;
      const start = at * columns + (column & ~15);
      const end = Math.min(start + 16, (at + 1) * columns);
      return at < rows ? elements.subarray(start, end).filter((e) => e !== 0).length : 0;
    });
    const costs = [0, 1, 2, 3, 4].map((slots) =>
      counts.reduce((sum, count) => sum + 10 * Math.max(0, count - 4 * slots), 25 * slots)
    );
    return costs.indexOf(Math.min(...costs));
  }

  /** Fails where a result is further from the exact one than rounding to float32 can lead. */
  function checkCase(c: number, run: number, kind: Kind, outcome: Outcome): void {
    const { what, weights, bias, numbers } = CASES[c];
    const { rows, columns } = numbers;
    const { activation, hasBias, hasTimes, hasPlus } = finishOf(c, run);
    const others = othersOf(c, outcome.out.length);
    const listed = beyond(numbers, kind);
    // Sums of integers are exact; those of floats round each product and each sum.
    const isExact = isQuantised(kind) && !listed.includes(true);
    // And a segment is one sum, or up to four; that of int4 is multiplied once more.
    const sums = (kind === KIND.SLOTS_ANY ? 4 : 1.5) * segmentsOf(columns);
    const roundings = (isExact ? 4 * sums : 2 * columns) + 8;
    outcome.out.forEach((row, t) => {
      for (let r = 0; r < rows; r++) {
        let [sum, size] = hasBias ? [bias[r], Math.abs(bias[r])] : [0, 0];
        for (let i = 0; i < columns; i++) {
          const at = r * columns + i;
          const product = weights[at] * (listed[at] ? outcome.exact : outcome.x)[t][i];
          sum += product;
          // Upper and lower bits are summed apart.
          size += Math.abs(product) + Math.abs(weights[at]) * outcome.lower[t][i];
        }
        let error = roundings * HALF_ULP * size;
        if (activation !== "none") {
          // No other activation is steeper than 1.13; ours are good to a millionth.
          const steepness = activation === "relu_squared" ? 2 * Math.abs(sum) + error : 1.13;
          sum = ACTIVATE[activation](sum);
          error = steepness * error + 1e-6 * Math.max(Math.abs(sum), Math.min(1, size));
        }
        const factor = hasTimes ? others[t][r] : 1;
        const wanted = sum * factor + (hasPlus ? others[t][r] : 0);
        error = error * Math.abs(factor) + 4 * HALF_ULP * (Math.abs(sum * factor) + 1);
        const difference = Math.abs(row[r] - wanted);
        // Squares may be larger than float32 can hold.
        const overflows = !Number.isFinite(Math.fround(sum));
        if (overflows ? Number.isFinite(row[r]) : !(difference <= error)) {
          throw new Error(
            `${what}, kind ${kind}, ${outcome.out.length} tokens, run ${run}: row ${r} of token ` +
              `${t} is ${row[r]}, not ${wanted} ± ${error}`,
          );
        }
      }
    });
  }

  // The number of a run says what its inputs are: of two that are zeros, or as good as that, others are not there.
  const RUNS = [...INPUTS.map(() => 1), 2, 3, 4, 5, 8, 9, 17, 2, 3, 6, 7, 11, 12, 13, 4];
  for (const [what, ratio] of Object.entries(RATIOS)) {
    test(`are right to float32's rounding with inputs of ${what}`, () => {
      RUNS.forEach((tokens, run) => {
        const [first] = machines.all;
        const given = inputsOf(tokens, run);
        const finish = (c: number) => finishOf(c, run);
        const expected = runAll(first, tokens, given, ratio, finish);
        expected.forEach((outcome, c) => {
          checkCase(c, run, placed.get(first)![c].matrix.kind, outcome);
        });
        for (const machine of machines.all) {
          for (const places of tokens === 1 ? [1, 2, 4] : [1]) {
            const found = runAll(machine, tokens, given, ratio, finish, places);
            const where = `${machine.name}, in ${places}`;
            found.forEach(({ out }, c) => {
              expectSameBits(out, expected[c].out, `${CASES[c].what}, ${tokens} on ${where}`);
            });
          }
        }
      });
    });

    test(`are the same for a token alone and among others, with inputs of ${what}`, () => {
      const [machine] = machines.all;
      // Few, and many.
      const counts = [2, 7, 21];
      const given = inputsOf(Math.max(...counts), 0);
      const plain = {
        activation: "none",
        hasBias: false,
        hasTimes: false,
        hasPlus: false,
      } as const;
      const together = counts.map((tokens) =>
        runAll(machine, tokens, (columns) => given(columns).slice(0, tokens), ratio, () => plain)
      );
      for (let t = 0; t < Math.max(...counts); t++) {
        const alone = runAll(machine, 1, (columns) => [given(columns)[t]], ratio, () => plain);
        alone.forEach(({ out }, c) => {
          for (const [i, tokens] of counts.entries()) {
            if (t >= tokens) continue;
            expectSameBits(
              out,
              [together[i][c].out[t]],
              `${CASES[c].what}, token ${t} of ${tokens}`,
            );
          }
        });
      }
    });
  }

  function inputsOf(tokens: number, run: number): (columns: number) => number[][] {
    return (columns) => inputs(new Dice(SEED + run + columns), tokens, columns, run);
  }
});
