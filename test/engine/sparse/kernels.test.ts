/**
 * Single kernels against plain loops of float64, on random and on extreme inputs and odd sizes; every
 * build and every number of threads gives the same bits.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import {
  isQuantised,
  KIND,
  type Kind,
  SEGMENT,
  segmentsOf,
} from "../../../src/engine/sparse/layout.ts";
import {
  Program,
  type QuantisedVectors,
  type Vectors,
} from "../../../src/engine/sparse/plan/encode.ts";
import type { Activation } from "../../../src/engine/sparse/plan/fuse.ts";
import type { PlacedMatrix } from "../../../src/engine/sparse/weights.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import {
  everyMachine,
  expectSameBits,
  type Machine,
  type Numbers,
  Tensors,
  toHalf,
  weightsOf,
} from "./machine.ts";

let machines: Machine[] = [];
beforeAll(async () => {
  machines = await everyMachine();
});
afterAll(() => {
  for (const machine of machines) machine.stop();
});

/** How many bits an input has: by the ratio to the usual size from which a segment has 14. */
const RATIOS = { "14 bits": 0, "14 bits where there are outliers": 1.5, "7 bits": 1e30 };

/** Half a unit in the last place of a float32, relatively. */
const HALF_ULP = 2 ** -24;

/** Normally distributed, nearly. */
function normal(dice: Dice): number {
  return (dice.next() + dice.next() + dice.next() + dice.next() - 2) * Math.sqrt(3);
}

/** Vectors that kernels meet, or might: by kind. */
const INPUTS: readonly ((dice: Dice, width: number) => number[])[] = [
  (dice, width) => Array.from({ length: width }, () => normal(dice)),
  // One that is far larger than the others.
  (dice, width) => {
    const vector = Array.from({ length: width }, () => normal(dice));
    vector[dice.below(width)] = 1e4;
    return vector;
  },
  (_, width) => new Array(width).fill(-0.7),
  (_, width) => new Array(width).fill(0),
  // Numbers below the normal ones.
  (dice, width) => Array.from({ length: width }, () => dice.pick([-1, 0, 1]) * 2 ** -140),
  (dice, width) => Array.from({ length: width }, () => normal(dice) * 1e-36),
  (dice, width) => Array.from({ length: width }, () => normal(dice) * 1e25),
  (dice, width) => Array.from({ length: width }, () => dice.pick([-1, 1])),
];

function inputs(dice: Dice, count: number, width: number, firstKind: number): number[][] {
  return Array.from({ length: count }, (_, t) => {
    const vector = INPUTS[(firstKind + t) % INPUTS.length](dice, width);
    return vector.map((value) => Math.fround(value));
  });
}

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
      return type === "f16" ? toHalf(normal(dice)) : Math.fround(normal(dice));
    });
    if (type !== "int8") return { rows, columns, type, elements };
    const count = rows * Math.ceil(columns / (group ?? columns));
    const scales = Float32Array.from({ length: count }, () => (0.5 + dice.next()) / 127);
    return { rows, columns, type, elements, scales, group };
  }

  /** N of every 16 columns, by row. */
  function nOf16(dice: Dice, n: number): (row: number, column: number) => boolean {
    const kept = new Map<string, Set<number>>();
    return (row, column) => {
      const key = `${row} ${column >> 4}`;
      const set = kept.get(key) ?? new Set<number>();
      while (set.size < n) set.add(dice.below(16));
      kept.set(key, set);
      return set.has(column & 15);
    };
  }

  /** Odd sizes among round ones: rows that fill no sixteen, columns that fill no pair of windows. */
  const SHAPES: readonly (readonly [number, number])[] = [
    [16, 32],
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
    // All weights of some windows and none of others; the greatest weights everywhere.
    add("lumps", numbersOf(dice, shape, "int8", (row, c) => (row + (c >> 4)) % 3 === 0));
    for (const packed of [true, false]) {
      for (const extreme of [127, -127]) {
        const full = numbersOf(dice, shape, "int8", always);
        add(`${extreme} everywhere`, { ...full, elements: full.elements.fill(extreme) }, packed);
      }
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
    for (const machine of machines) {
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
    const kinds = new Set(placed.get(machines[0])!.map(({ matrix }) => matrix.kind));
    expect([...kinds].sort((a, b) => a - b)).toEqual(Object.values(KIND));
  });

  const ACTIVATIONS: readonly Activation[] = ["none", "silu", "gelu", "relu", "sigmoid"];

  /** What is done to the sums of a case: something else in each run. */
  function finishOf(c: number, run: number) {
    const n = c + run * 7;
    return {
      activation: ACTIVATIONS[n % 3 === 0 ? Math.floor(n / 3) % 5 : 0],
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
      program.linear(matrix, input, x, out, {
        activation,
        bias: hasBias ? bias : 0,
        times: hasTimes ? machine.place(othersOf(c, tokens)).address : 0,
        plus: hasPlus ? machine.place(othersOf(c, tokens)).address : 0,
      });
      return out;
    });
    machine.run(program, { tokens });
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
          ({ isWide, scale }, integer) => (integer - (isWide ? 8192 : 64)) * scale,
        ),
        lower: eachInput(segments, ({ isWide, scale }) => isWide ? 128 * scale : 0),
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
  const ROOM: Partial<Record<Kind, number>> = { [KIND.SLOTS_ONE]: 4, [KIND.SLOTS_TWO]: 8 };

  /** Which weights are in lists, where slots are full. */
  function beyond(numbers: Numbers, kind: Kind): boolean[] {
    const { columns, elements } = numbers;
    let taken = 0;
    return Array.from(elements, (element, i) => {
      if (i % columns % 16 === 0) taken = 0;
      return element !== 0 && ++taken > (ROOM[kind] ?? Infinity);
    });
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
    const roundings = (isExact ? 4 * segmentsOf(columns) : 2 * columns) + 8;
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
          sum = ACTIVATE[activation](sum);
          // No activation is steeper than 1.13; ours are good to a millionth.
          error = 1.13 * error + 1e-6 * Math.max(Math.abs(sum), Math.min(1, size));
        }
        const factor = hasTimes ? others[t][r] : 1;
        const wanted = sum * factor + (hasPlus ? others[t][r] : 0);
        error = error * Math.abs(factor) + 4 * HALF_ULP * (Math.abs(sum * factor) + 1);
        const difference = Math.abs(row[r] - wanted);
        if (!(difference <= error)) {
          throw new Error(
            `${what}, kind ${kind}, ${outcome.out.length} tokens, run ${run}: row ${r} of token ` +
              `${t} is ${row[r]}, not ${wanted} ± ${error}`,
          );
        }
      }
    });
  }

  const RUNS = [...INPUTS.map(() => 1), 2, 3, 4, 5, 8, 9, 17];
  for (const [what, ratio] of Object.entries(RATIOS)) {
    test(`are right to float32's rounding with inputs of ${what}`, () => {
      RUNS.forEach((tokens, run) => {
        const [first, ...others] = machines;
        const given = inputsOf(tokens, run);
        const expected = runAll(first, tokens, given, ratio, (c) => finishOf(c, run));
        expected.forEach((outcome, c) => {
          checkCase(c, run, placed.get(first)![c].matrix.kind, outcome);
        });
        for (const machine of others) {
          const found = runAll(machine, tokens, given, ratio, (c) => finishOf(c, run));
          found.forEach(({ out }, c) => {
            expectSameBits(out, expected[c].out, `${CASES[c].what}, ${tokens} on ${machine.name}`);
          });
        }
      });
    });

    test(`are the same for a token alone and among others, with inputs of ${what}`, () => {
      const [machine] = machines;
      const tokens = 21;
      const given = inputsOf(tokens, 0);
      const plain = {
        activation: "none",
        hasBias: false,
        hasTimes: false,
        hasPlus: false,
      } as const;
      const all = runAll(machine, tokens, given, ratio, () => plain);
      for (let t = 0; t < tokens; t++) {
        const alone = runAll(machine, 1, (columns) => [given(columns)[t]], ratio, () => plain);
        alone.forEach(({ out }, c) => {
          expectSameBits(out, [all[c].out[t]], `${CASES[c].what}, token ${t}`);
        });
      }
    });
  }

  function inputsOf(tokens: number, run: number): (columns: number) => number[][] {
    return (columns) => inputs(new Dice(SEED + run + columns), tokens, columns, run);
  }
});

describe("quantisation", () => {
  const WIDTHS = [1, 3, 16, 17, 31, 33, 48, 80, 130, 300];

  for (const [what, ratio] of Object.entries(RATIOS)) {
    test(`to ${what} is as near as a scale for each segment allows`, () => {
      for (const width of WIDTHS) {
        for (const tokens of [1, 9]) {
          const vectors = inputs(new Dice(SEED + width), tokens, width, width);
          const found = machines.map((machine) => {
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
            segments.forEach(({ isWide, scale, integers }, s) => {
              const part = vectors[t].slice(s * SEGMENT, (s + 1) * SEGMENT);
              const largest = Math.max(...part.map(Math.abs));
              const [zero, most] = isWide ? [8192, 8191] : [64, 63];
              const fail = (why: string) => {
                throw new Error(`${part} became ${integers} · ${scale}: ${why}`);
              };
              // Near the border either will do; squares of tiny and of huge numbers are not exact.
              const isOrdinary = largest > 1e-15 && largest < 1e15;
              if (isOrdinary && largest > 1.001 * ratio * usual && !isWide) fail("7 bits");
              if (isOrdinary && largest < 0.999 * ratio * usual && isWide) fail("14 bits");
              // Below 1e-30 numbers count as 0.
              if (scale * most > largest * (1 + 1e-6) + 1e-38) fail("a scale that is too large");
              integers.forEach((integer, i) => {
                if (!(integer >= 1 && integer <= 2 * zero - 1)) fail("out of range");
                if (part[i] === 0 && integer !== zero) fail("zero is not zero");
                const error = Math.abs((integer - zero) * scale - part[i]);
                if (error > 0.5001 * scale + 1e-30) fail("too far");
              });
            });
          });
        }
      }
    });
  }
});

interface Segment {
  readonly isWide: boolean;
  /** Of the whole integers. */
  readonly scale: number;
  /** With their zero in them. */
  readonly integers: number[];
}

/** Quantised numbers, by token and segment; with one token those of the first thread. */
function quantisedOf(
  { memory }: Machine,
  { address, stride, low, scales, flags }: QuantisedVectors,
  tokens: number,
  width: number,
): Segment[][] {
  const count = segmentsOf(width);
  return Array.from({ length: tokens }, (_, t) =>
    Array.from({ length: count }, (_, s) => {
      const from = address + t * stride + s * SEGMENT;
      const inputs = Math.min(SEGMENT, width - s * SEGMENT);
      const [upper, lower] = [memory.bytes(from, inputs), memory.bytes(from + low, inputs)];
      const isWide = memory.bytes(flags + (t >> 3) * count * 8 + s * 8 + (t & 7), 1)[0] !== 0;
      const [scale] = memory.floats(scales + (t * count + s) * 4, 1);
      return {
        isWide,
        scale: isWide ? scale / 128 : scale,
        integers: Array.from(upper, (u, i) => isWide ? u * 128 + lower[i] : u),
      };
    }));
}

/** A number for each input of quantised vectors. */
function eachInput(
  vectors: readonly Segment[][],
  number: (segment: Segment, integer: number) => number,
): Float64Array[] {
  return vectors.map((segments) =>
    Float64Array.from(
      segments.flatMap((segment) => segment.integers.map((integer) => number(segment, integer))),
    )
  );
}

/** Runs a program that a test makes on every machine; all must give the same bits. */
function everywhere(
  make: (machine: Machine) => Float32Array[],
): Float32Array[] {
  const found = machines.map((machine) => {
    machine.reset();
    return make(machine);
  });
  found.forEach((vectors, i) => expectSameBits(vectors, found[0], machines[i].name));
  return found[0];
}

/** Fails where a number is further than `bound` from what it should be. */
function expectNear(found: number, wanted: number, bound: number, what: string): void {
  if (Math.abs(found - wanted) <= bound || found === wanted) return;
  throw new Error(`${what}: ${found}, not ${wanted} ± ${bound}`);
}

const TOKEN_COUNTS = [1, 2, 5, 17];

describe("norms", () => {
  const SHAPES: readonly { width: number; groups: number }[] = [
    { width: 1, groups: 1 },
    { width: 6, groups: 1 },
    { width: 64, groups: 1 },
    { width: 63, groups: 1 },
    { width: 64, groups: 4 },
    { width: 60, groups: 10 },
    { width: 576, groups: 1 },
  ];
  // Squares of larger numbers are infinite in float32, here as in any other runtime.
  const kinds = [0, 1, 2, 3, 4, 5, 7];

  for (const isLayer of [false, true]) {
    for (const { width, groups } of SHAPES) {
      if (isLayer && groups > 1) continue;
      test(`${isLayer ? "of layers" : "of squares"}, ${width} in ${groups}`, async () => {
        const dice = new Dice(SEED + width);
        const part = width / groups;
        const weight = Float32Array.from({ length: part }, () => normal(dice));
        const bias = Float32Array.from({ length: part }, () => normal(dice));
        const file = new Tensors();
        const names = [file.vector(weight), file.vector(bias)];
        const reader = await file.open();
        const placed = new Map<Machine, number[]>();
        for (const machine of machines) {
          const loader = machine.loader(reader, []);
          placed.set(machine, [await loader.vector(names[0]), await loader.vector(names[1])]);
        }
        const epsilon = 1e-5;
        for (const tokens of TOKEN_COUNTS) {
          for (const hasBias of isLayer ? [true, false] : [false]) {
            const vectors = Array.from(
              { length: tokens },
              (_, t) => inputs(dice, 1, width, kinds[(t + tokens) % kinds.length])[0],
            );
            const rows = everywhere((machine) => {
              const [weightAt, biasAt] = placed.get(machine)!;
              const program = new Program();
              const out = machine.room(tokens, width);
              const options = { groups, weight: weightAt, bias: hasBias ? biasAt : 0, epsilon };
              program.norm(machine.place(vectors), out, width, { ...options, isLayer });
              machine.run(program, { tokens });
              return machine.read(out, tokens, width);
            });
            rows.forEach((row, t) => {
              for (let g = 0; g < groups; g++) {
                const x = vectors[t].slice(g * part, (g + 1) * part);
                const mean = isLayer ? x.reduce((a, b) => a + b, 0) / part : 0;
                const squares = x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / part;
                const factor = 1 / Math.sqrt(squares + epsilon);
                // A mean is good to the rounding of what it is the mean of.
                const slack = 4e-6 * (1 + Math.max(...x.map(Math.abs)) * factor);
                x.forEach((v, i) => {
                  const wanted = (v - mean) * factor * weight[i] + (hasBias ? bias[i] : 0);
                  const bound = slack * Math.abs(weight[i]) + 1e-6;
                  expectNear(row[g * part + i], wanted, bound, `element ${i} of token ${t}`);
                });
              }
            });
          }
        }
        reader.close();
      });
    }
  }

  test("of one token give every thread a copy where they are told to", () => {
    for (const machine of machines) {
      machine.reset();
      const out = machine.room(1, 8, true);
      const ones = machine.place([new Array(8).fill(1)]);
      const program = new Program();
      const x = machine.place([[3, 3, 3, 3, 3, 3, 3, 3]]);
      const options = { groups: 1, weight: ones.address, bias: 0, epsilon: 0, isLayer: false };
      program.norm(x, out, 8, options);
      machine.run(program, { tokens: 1 });
      for (const copy of machine.read(out, machine.threads, 8)) {
        expect([...copy]).toEqual(new Array(8).fill(1));
      }
    }
  });
});

describe("element by element", () => {
  /** From where activations are 0 to where they are 1, finely where they turn. */
  const SWEEP = [
    ...Array.from({ length: 4000 }, (_, i) => (i - 2000) / 20),
    ...Array.from({ length: 4000 }, (_, i) => (i - 2000) / 400),
    ...[0, -0, 1e-30, -1e-30, 1e-42, 87.2, 87.4, 88.5, -87.2, -87.4, -88.5, 1e4, -1e4, 1e38, -1e38],
  ].map(Math.fround);

  function activate(activation: Activation, values: readonly number[]): Float32Array {
    return everywhere((machine) => {
      const program = new Program();
      const out = machine.room(1, values.length);
      const x = machine.place([values]);
      program.elementwise(x, out, values.length, "copy", undefined, activation);
      machine.run(program, { tokens: 1 });
      return machine.read(out, 1, values.length);
    })[0];
  }

  for (const activation of ["none", "silu", "sigmoid", "gelu", "relu"] as const) {
    test(`${activation} is right from one end of float32 to the other`, () => {
      const found = activate(activation, SWEEP);
      SWEEP.forEach((x, i) => {
        const wanted = ACTIVATE[activation](x);
        // The error function that is used is right to 1.5e-7.
        const bound = activation === "gelu"
          ? 2e-7 * Math.abs(x) + 1e-6 * Math.abs(wanted)
          : activation === "silu" || activation === "sigmoid"
          // From 88 on, e^x is held back to stay finite.
          ? 1e-6 * Math.abs(wanted) + (x < -87 ? 5e-39 * Math.max(1, Math.abs(x)) : 0)
          : 0;
        expectNear(found[i], wanted, bound, `${activation} of ${x}`);
      });
    });
  }

  for (const kind of ["add", "mul"] as const) {
    test(`${kind} rounds once, and an activation follows`, () => {
      for (const width of [1, 5, 64, 100]) {
        for (const tokens of TOKEN_COUNTS) {
          const dice = new Dice(SEED + width);
          const [a, b] = [inputs(dice, tokens, width, 0), inputs(dice, tokens, width, 7)];
          const rows = everywhere((machine) => {
            const program = new Program();
            const out = machine.room(tokens, width);
            program.elementwise(
              machine.place(a),
              out,
              width,
              kind,
              machine.place(b),
              "relu",
            );
            machine.run(program, { tokens });
            return machine.read(out, tokens, width);
          });
          rows.forEach((row, t) => {
            a[t].forEach((x, i) => {
              const both = kind === "add" ? x + b[t][i] : x * b[t][i];
              expect(row[i] + 0).toBe(Math.max(0, Math.fround(both)));
            });
          });
        }
      }
    });
  }

  test("the last token's vector is chosen for every thread, or all tokens' are", () => {
    for (const tokens of TOKEN_COUNTS) {
      for (const logits of ["last", "all"] as const) {
        for (const machine of machines) {
          machine.reset();
          const vectors = inputs(new Dice(SEED), tokens, 37, 0);
          const program = new Program();
          const [chosen, doubled] = [machine.room(tokens, 37, true), machine.room(tokens, 37)];
          program.selectLast(machine.place(vectors), chosen, 37);
          program.barrier("forMany");
          program.elementwise(chosen, doubled, 37, "copy", undefined, "none");
          machine.run(program, { tokens, logits });
          const wanted = logits === "all" ? vectors : vectors.slice(-1);
          const rows = machine.read(doubled, wanted.length, 37).map((row) => [...row]);
          expect(rows).toEqual(wanted);
          if (wanted.length === 1) {
            const copies = machine.read(chosen, machine.threads, 37).map((row) => [...row]);
            expect(copies).toEqual(copies.map(() => wanted[0]));
          }
        }
      }
    }
  });

  test("without logits a program ends where they would begin", () => {
    for (const machine of machines) {
      machine.reset();
      const program = new Program();
      const x = machine.place(inputs(new Dice(SEED), 3, 8, 0));
      const out = machine.room(3, 8);
      program.selectLast(x, out, 8);
      machine.run(program, { tokens: 3, logits: "none" });
      expect(machine.read(out, 3, 8).every((row) => row.every(Number.isNaN))).toBe(true);
    }
  });
});

describe("rows of tables", () => {
  for (const type of ["f32", "f16", "int8"] as const) {
    for (const columns of [1, 6, 32, 50, 144]) {
      test(`${type}, ${columns} columns, come out as they were put in`, async () => {
        const dice = new Dice(SEED + columns);
        const rows = 37;
        const elements = Float64Array.from({ length: rows * columns }, () => {
          if (type === "int8") return dice.below(255) - 127;
          // The least float16 numbers are below its normal ones.
          return type === "f16" ? toHalf(normal(dice) * dice.pick([1, 2 ** -16])) : normal(dice);
        }).map(Math.fround);
        const scales = type === "int8"
          ? Float32Array.from({ length: rows }, () => dice.next() + 0.1)
          : undefined;
        const numbers: Numbers = { rows, columns, type, elements, scales };
        const weights = weightsOf(numbers);
        const file = new Tensors();
        const ref = file.matrix(numbers, false);
        const reader = await file.open();
        const tables = new Map<Machine, PlacedMatrix>();
        for (const machine of machines) {
          tables.set(machine, await machine.loader(reader, [ref]).matrix(ref));
        }
        reader.close();
        for (const tokens of TOKEN_COUNTS) {
          for (const offset of [undefined, 0, 2]) {
            const position = 5;
            const ids = Array.from({ length: tokens }, () => dice.below(rows));
            const found = everywhere((machine) => {
              const program = new Program();
              const out = machine.room(tokens, columns);
              const table = tables.get(machine)!;
              program.embed(out, columns, table, offset !== undefined, offset ?? 0);
              machine.run(program, { tokens, ids, position });
              return machine.read(out, tokens, columns);
            });
            found.forEach((vector, t) => {
              const row = offset === undefined ? ids[t] : position + t + offset;
              const wanted = weights.slice(row * columns, (row + 1) * columns);
              expect([...vector]).toEqual([...wanted].map(Math.fround));
            });
          }
        }
      });
    }
  }
});

describe("attention", () => {
  interface Shape {
    readonly heads: number;
    readonly keyValueHeads: number;
    readonly headDim: number;
    readonly window?: number;
    readonly isInt8?: boolean;
    readonly hasRotary?: boolean;
  }

  const LENGTH = 140;
  /** On both sides of the borders of pages, of groups of four positions, and of windows. */
  const CHECKED = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 62, 63, 64, 65, 100, 127, 128, 129, 139];
  const SCALE = 0.31;

  interface Inputs {
    readonly queries: number[][];
    readonly keys: number[][];
    readonly values: number[][];
    /** `[position, headDim / 2]` */
    readonly cosines: number[][];
    readonly sines: number[][];
  }

  function inputsOf({ heads, keyValueHeads, headDim }: Shape): Inputs {
    const dice = new Dice(SEED + headDim);
    const some = (width: number, size = 1) =>
      Array.from(
        { length: LENGTH },
        () => Array.from({ length: width }, () => Math.fround(normal(dice) * size)),
      );
    const angles = some(headDim / 2, 3);
    const values = some(keyValueHeads * headDim);
    // Heads of nothing and of numbers that are far apart.
    values[6].fill(0);
    values[70][0] = 500;
    const keys = some(keyValueHeads * headDim);
    keys[9].fill(0);
    return {
      queries: some(heads * headDim),
      keys,
      values,
      cosines: angles.map((row) => row.map((angle) => Math.fround(Math.cos(angle)))),
      sines: angles.map((row) => row.map((angle) => Math.fround(Math.sin(angle)))),
    };
  }

  /** Runs all positions, in pieces of these lengths (the last again and again). */
  function run(
    machine: Machine,
    shape: Shape,
    { queries, keys, values, cosines, sines }: Inputs,
    pieces: readonly number[],
    garbage = 0,
  ): Float32Array[] {
    const { heads, keyValueHeads, headDim, window = 0, isInt8 = false } = shape;
    machine.reset();
    const flat = (rows: number[][]) => machine.place([rows.flat()]).address;
    const tables = shape.hasRotary
      ? { cosines: flat(cosines), sines: flat(sines) }
      : { cosines: 0, sines: 0 };
    // As much as floats take, which is more than int8 does.
    const headBytes = headDim * 512 + 1024;
    // A layer before this one, so that the offset counts.
    const layerOffset = 3 * headDim * 128;
    const pages = machine.pages(LENGTH, layerOffset + keyValueHeads * headBytes, garbage);
    const scratchBytes = 1024 + heads * 1024 * 4;
    const scratch = machine.reserve(scratchBytes * machine.threads);
    const found: Float32Array[] = [];
    for (let done = 0, piece = 0; done < LENGTH; piece++) {
      const tokens = Math.min(LENGTH - done, pieces[Math.min(piece, pieces.length - 1)]);
      const part = (rows: number[][]) => machine.place(rows.slice(done, done + tokens));
      const program = new Program();
      const out = machine.room(tokens, heads * headDim);
      program.attention({ queries: part(queries), keys: part(keys), values: part(values), out }, {
        heads,
        keyValueHeads,
        headDim,
        layerOffset,
        ...tables,
        window,
        // Kernels take powers of 2.
        scale: SCALE * Math.LOG2E,
        isInt8,
        scratch,
        scratchBytes,
      });
      machine.run(program, { tokens, position: done, pages });
      found.push(...machine.read(out, tokens, heads * headDim));
      done += tokens;
    }
    return found;
  }

  function turned(head: number[], cosines: number[], sines: number[]): number[] {
    const half = head.length / 2;
    return head.map((x, i) =>
      i < half
        ? x * cosines[i] - head[i + half] * sines[i]
        : x * cosines[i - half] + head[i - half] * sines[i - half]
    );
  }

  /** To integers up to `most`, and back. */
  function rounded(head: number[], most: number): number[] {
    const scale = Math.max(...head.map(Math.abs)) / most;
    return scale === 0 ? head : head.map((x) => Math.round(x / scale) * scale);
  }

  /** One head at one position. */
  function expected(shape: Shape, given: Inputs, position: number, head: number): number[] {
    const { heads, keyValueHeads, headDim, window, isInt8, hasRotary } = shape;
    const shared = Math.floor(head / (heads / keyValueHeads));
    const headOf = (row: number[], h: number) => row.slice(h * headDim, (h + 1) * headDim);
    const turn = (row: number[], p: number) =>
      hasRotary ? turned(row, given.cosines[p], given.sines[p]) : row;
    const stored = (row: number[]) => isInt8 ? rounded(row, 127) : row;
    let query = turn(headOf(given.queries[position], head), position);
    if (isInt8) query = rounded(query, 16383);
    const first = Math.max(0, position + 1 - (window ?? Infinity));
    const scores: number[] = [];
    for (let p = first; p <= position; p++) {
      const key = stored(turn(headOf(given.keys[p], shared), p));
      scores.push(SCALE * query.reduce((sum, q, i) => sum + q * key[i], 0));
    }
    const most = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - most));
    const total = weights.reduce((a, b) => a + b);
    const result = new Array<number>(headDim).fill(0);
    weights.forEach((weight, i) => {
      const value = stored(headOf(given.values[first + i], shared));
      for (let d = 0; d < headDim; d++) result[d] += weight / total * value[d];
    });
    return result;
  }

  const SHAPES: readonly Shape[] = [
    ...[2, 4, 6, 10, 12, 32, 64, 80].map((headDim) => ({ heads: 3, keyValueHeads: 1, headDim })),
    ...[4, 8, 12, 20, 32, 64, 128].map((headDim) => ({
      heads: 4,
      keyValueHeads: 2,
      headDim,
      isInt8: true,
    })),
    ...[1, 2, 5, 8, 63, 64, 65, 100, 1000].flatMap((window) =>
      [false, true].map((isInt8) => ({ heads: 2, keyValueHeads: 2, headDim: 8, window, isInt8 }))
    ),
  ];

  for (const [i, shape] of SHAPES.entries()) {
    const { heads, keyValueHeads, headDim, window, isInt8 } = shape;
    const withRotary = { ...shape, hasRotary: i % 4 !== 1 };
    const what = `${headDim} elements a head, ${isInt8 ? "int8" : "float"}` +
      (window ? `, a window of ${window}` : "");
    test(`is right with ${what}`, () => {
      const given = inputsOf(withRotary);
      const pieces = [1, 3, 17, 2, 60, 1, 8];
      const found = everywhere((machine) => run(machine, withRotary, given, pieces));
      for (const position of CHECKED) {
        for (let head = 0; head < heads; head++) {
          const wanted = expected(withRotary, given, position, head);
          const first = Math.max(0, position + 1 - (window ?? Infinity));
          const group = Math.floor(head / (heads / keyValueHeads));
          const seen = given.values.slice(first, position + 1).flatMap((row) =>
            row.slice(group * headDim, (group + 1) * headDim)
          );
          const most = Math.max(...seen.map(Math.abs));
          // Probabilities are rounded to 14 bits; a key or value on the border of two integers may
          // have gone to the other, which moves it by a part in 127.
          const bound = most * (isInt8 ? 4e-3 : 1e-5);
          wanted.forEach((value, d) => {
            const what = `element ${d} of head ${head} at ${position}`;
            expectNear(found[position][head * headDim + d], value, bound, what);
          });
        }
      }
      // To the bit the same for one token after the other, and whatever was in the pages before.
      const [machine] = machines;
      expectSameBits(run(machine, withRotary, given, [1]), found, "one by one");
      expectSameBits(run(machine, withRotary, given, [128], 0x40), found, "at once");
    });
  }
});

/** Activations in float64. */
const ACTIVATE: Readonly<Record<Activation, (x: number) => number>> = {
  none: (x) => x,
  relu: (x) => Math.max(0, x),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => x * (1 + erf(x / Math.SQRT2)) / 2,
};

/** A series of positive terms: nothing cancels. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let total = 0;
  for (let n = 0, term = x; Math.abs(term) > 1e-18; n++, term *= 2 * x * x / (2 * n + 1)) {
    total += term;
  }
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * total;
}
