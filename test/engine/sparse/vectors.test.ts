/**
 * Norms, element-wise steps and embeddings against plain loops of float64; every build and every number
 * of threads gives the same bits.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Program, type Vectors } from "../../../src/engine/sparse/plan/encode.ts";
import type { ACTIVATION } from "../../../src/engine/sparse/layout.ts";
import type { PlacedMatrix } from "../../../src/engine/sparse/weights/placed.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { ACTIVATE, expectNear, inputs, Machines, normal } from "./kernel_support.ts";
import type { Machine } from "./machine.ts";
import { type Numbers, Tensors, toHalf, weightsOf } from "./tensors.ts";

const machines = new Machines();
beforeAll(() => machines.start());
afterAll(() => machines.stop());

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
        for (const machine of machines.all) {
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
            const rows = machines.everywhere((machine) => {
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
    for (const machine of machines.all) {
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

  function activate(activation: keyof typeof ACTIVATION, values: readonly number[]): Float32Array {
    return machines.everywhere((machine) => {
      const program = new Program();
      const out = machine.room(1, values.length);
      const x = machine.place([values]);
      program.elementwise(x, out, values.length, "copy", undefined, activation);
      machine.run(program, { tokens: 1 });
      return machine.read(out, 1, values.length);
    })[0];
  }

  for (
    const activation of [
      "none",
      "silu",
      "sigmoid",
      "gelu",
      "gelu_tanh",
      "relu",
      "relu_squared",
      "tanh",
      "softplus",
    ] as const
  ) {
    test(`${activation} is right from one end of float32 to the other`, () => {
      const found = activate(activation, SWEEP);
      SWEEP.forEach((x, i) => {
        const wanted = Math.fround(ACTIVATE[activation](x));
        // The error function that is used is right to 1.5e-7.
        const bound = activation === "gelu"
          ? 2e-7 * Math.abs(x) + 1e-6 * Math.abs(wanted)
          : activation === "gelu_tanh"
          // Its exponent is a sum of powers, whose rounding counts for more where it is large.
          ? 1e-6 * Math.abs(wanted) * Math.max(1, x * x) + 1.2e-38 * Math.max(1, Math.abs(x))
          : activation === "tanh" || activation === "softplus"
          // Of softplus, e^x below what e^-87 is are 0.
          ? 2.5e-7 * Math.abs(wanted) + (activation === "softplus" ? 1.7e-38 : 0)
          : activation === "silu" || activation === "sigmoid"
          // From 88 on, e^x is held back to stay finite.
          ? 1e-6 * Math.abs(wanted) + (x < -87 ? 5e-39 * Math.max(1, Math.abs(x)) : 0)
          // Rounded once more; what is too small for that is nothing, or nearly.
          : activation === "relu_squared"
          ? 1e-7 * Math.abs(wanted) + 1e-45
          : 0;
        expectNear(found[i], wanted, bound, `${activation} of ${x}`);
      });
    });
  }

  test("silu is nearly right where that will do, and the same in every build", () => {
    const found = activate("nearlySilu", SWEEP);
    SWEEP.forEach((x, i) => {
      const wanted = ACTIVATE.silu(x);
      // From 2^126 on, e^-x is held back: of -88 it leaves less than 10^-36.
      const bound = 1e-5 * Math.abs(wanted) + (x < -87 ? 1.2e-38 * Math.abs(x) : 0);
      expectNear(found[i], wanted, bound, `nearly silu of ${x}`);
    });
  });

  test("a factor comes before a sum, and rounds once more", () => {
    const [a, b] = [inputs(new Dice(SEED), 3, 37, 0), inputs(new Dice(SEED + 1), 3, 37, 0)];
    const rows = machines.everywhere((machine) => {
      const program = new Program();
      const out = machine.room(3, 37);
      program.elementwise(machine.place(a), out, 37, "add", machine.place(b), "none", {
        factor: 0.3,
      });
      machine.run(program, { tokens: 3 });
      return machine.read(out, 3, 37);
    });
    rows.forEach((row, t) => {
      a[t].forEach((x, i) => {
        const scaled = Math.fround(x * Math.fround(0.3));
        expect(row[i]).toBe(Math.fround(scaled + b[t][i]));
      });
    });
  });

  test("a cap is cap · tanh(x / cap), of one token by all threads, in place or not", () => {
    const cap = 30;
    for (const tokens of [1, 3]) {
      for (const isInPlace of [false, true]) {
        const x = inputs(new Dice(SEED), tokens, 141, 0).map((row) => row.map((v) => 50 * v));
        const rows = machines.everywhere((machine) => {
          const program = new Program();
          const from = machine.place(x);
          const out = isInPlace ? from : machine.room(tokens, 141);
          const how = { factor: 1 / cap, cap };
          program.elementwise(from, out, 141, "copy", undefined, "tanh", how);
          machine.run(program, { tokens });
          return machine.read(out, tokens, 141);
        });
        rows.forEach((row, t) =>
          x[t].forEach((value, i) => {
            const wanted = cap * Math.tanh(value / cap);
            expectNear(row[i], wanted, 5e-7 * Math.abs(wanted), `${value} capped`);
          })
        );
      }
    }
  });

  test("a part is what lies there, and not an element more", () => {
    for (const [offset, width] of [[0, 5], [3, 8], [7, 1], [30, 7]]) {
      for (const machine of machines.all) {
        machine.reset();
        const whole = inputs(new Dice(SEED), 3, 37, 0);
        const x = machine.place(whole);
        const out = machine.place(whole.map(() => new Array<number>(64).fill(-0.7)));
        const program = new Program();
        const from = { ...x, address: x.address + 4 * offset };
        program.elementwise(from, out, width, "part", undefined, "none");
        machine.run(program, { tokens: 3 });
        machine.read(out, 3, 64).forEach((row, t) =>
          expect([...row]).toEqual([
            ...whole[t].slice(offset, offset + width),
            ...new Array(64 - width).fill(Math.fround(-0.7)),
          ])
        );
      }
    }
  });

  test("a part of each head is what lies there, one after the other, and not an element more", () => {
    for (const [heads, apart, offset, some] of [[3, 12, 4, 4], [4, 9, 2, 5], [1, 37, 7, 11]]) {
      for (const machine of machines.all) {
        machine.reset();
        const whole = inputs(new Dice(SEED), 3, 37, 0);
        const x = machine.place(whole);
        const out = machine.place(whole.map(() => new Array<number>(64).fill(-0.7)));
        const program = new Program();
        const from = { ...x, address: x.address + 4 * offset };
        const how = { heads, apart };
        program.elementwise(from, out, heads * some, "part", undefined, "none", how);
        machine.run(program, { tokens: 3 });
        machine.read(out, 3, 64).forEach((row, t) =>
          expect([...row]).toEqual([
            ...Array.from({ length: heads }, (_, h) => {
              const first = h * apart + offset;
              return whole[t].slice(first, first + some);
            }).flat(),
            ...new Array(64 - heads * some).fill(Math.fround(-0.7)),
          ])
        );
      }
    }
  });

  test("a spread is each number so many times, and not an element more", () => {
    for (const [count, times] of [[3, 12], [4, 5], [1, 37], [5, 1], [2, 24]]) {
      for (const machine of machines.all) {
        for (const tokens of [1, 3]) {
          machine.reset();
          const numbers = inputs(new Dice(SEED), tokens, count, 0);
          const out = machine.place(numbers.map(() => new Array<number>(64).fill(-0.7)));
          const program = new Program();
          const how = { heads: count, apart: 1 };
          program.elementwise(
            machine.place(numbers),
            out,
            count * times,
            "spread",
            undefined,
            "none",
            how,
          );
          machine.run(program, { tokens });
          machine.read(out, tokens, 64).forEach((row, t) =>
            expect([...row]).toEqual([
              ...numbers[t].flatMap((number) => new Array<number>(times).fill(number)),
              ...new Array(64 - count * times).fill(Math.fround(-0.7)),
            ])
          );
        }
      }
    }
  });

  for (const kind of ["add", "mul"] as const) {
    test(`${kind} rounds once, and an activation follows`, () => {
      for (const width of [1, 5, 64, 100]) {
        for (const tokens of TOKEN_COUNTS) {
          const dice = new Dice(SEED + width);
          const [a, b] = [inputs(dice, tokens, width, 0), inputs(dice, tokens, width, 7)];
          const rows = machines.everywhere((machine) => {
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

  test("vectors of tokens whose logits are wanted move to the beginning, one token's to every thread", () => {
    for (const tokens of TOKEN_COUNTS) {
      const all = Array.from({ length: tokens }, (_, i) => i);
      for (const logits of [[tokens - 1], [0], all, all.filter((i) => i % 3 !== 1)]) {
        for (const machine of machines.all) {
          machine.reset();
          // Of two values, which may have other widths, one is each thread's own where there is one token.
          const vectors = inputs(new Dice(SEED), tokens, 37, 0);
          const others = inputs(new Dice(SEED + 1), tokens, 5, 0);
          const [shared, own] = [machine.place(others), machine.place(vectors)];
          const [first, second] = [machine.room(tokens, 5), machine.room(tokens, 37)];
          const program = new Program();
          program.select([shared, { ...own, copy: own.stride }]);
          program.barrier("always");
          program.elementwise(shared, first, 5, "copy", undefined, "none");
          program.elementwise(own, second, 37, "copy", undefined, "none");
          machine.run(program, { tokens, logits });
          const read = (from: Vectors, width: number) =>
            machine.read(from, logits.length, width).map((row) => [...row]);
          expect(read(first, 5)).toEqual(logits.map((i) => others[i]));
          expect(read(second, 37)).toEqual(logits.map((i) => vectors[i]));
          if (logits.length === 1 && tokens > 1) {
            const copies = machine.read(own, machine.threads, 37).map((row) => [...row]);
            expect(copies).toEqual(copies.map(() => vectors[logits[0]]));
          }
        }
      }
    }
  });

  test("without logits a program ends where they would begin", () => {
    for (const machine of machines.all) {
      machine.reset();
      const program = new Program();
      const x = machine.place(inputs(new Dice(SEED), 3, 8, 0));
      const out = machine.room(3, 8);
      program.select([x]);
      program.elementwise(x, out, 8, "copy", undefined, "none");
      machine.run(program, { tokens: 3, logits: [] });
      expect(machine.read(out, 3, 8).every((row) => row.every(Number.isNaN))).toBe(true);
    }
  });
});

describe("rows of tables", () => {
  const kinds = [["f32"], ["f16"], ["int8"], ["int4", 32], ["int4", 64], ["int4", 128]] as const;
  for (const [type, group] of kinds) {
    for (const columns of [1, 6, 32, 50, 144]) {
      test(`${type} ${group ?? ""}, ${columns} columns, come out as they were put in`, async () => {
        const dice = new Dice(SEED + columns);
        const rows = 37;
        const elements = Float64Array.from({ length: rows * columns }, () => {
          if (type === "int8") return dice.below(255) - 127;
          if (type === "int4") return dice.below(16) - 8;
          // The least float16 numbers are below its normal ones.
          return type === "f16" ? toHalf(normal(dice) * dice.pick([1, 2 ** -16])) : normal(dice);
        }).map(Math.fround);
        const scales = type === "int8"
          ? Float32Array.from({ length: rows }, () => dice.next() + 0.1)
          : type === "int4"
          ? Float32Array.from(
            { length: rows * Math.ceil(columns / group) },
            () => toHalf((dice.next() + 0.1) * dice.pick([1, -1, 2 ** -16])),
          )
          : undefined;
        const numbers: Numbers = { rows, columns, type, elements, scales, group };
        const weights = weightsOf(numbers);
        const file = new Tensors();
        const ref = file.matrix(numbers, false);
        const reader = await file.open();
        const tables = new Map<Machine, PlacedMatrix>();
        for (const machine of machines.all) {
          tables.set(machine, await machine.loader(reader, [ref]).matrix(ref));
        }
        reader.close();
        for (const tokens of TOKEN_COUNTS) {
          for (const offset of [undefined, 0, 2]) {
            const position = 5;
            const ids = Array.from({ length: tokens }, () => dice.below(rows));
            const found = machines.everywhere((machine) => {
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
              // A level of 0 with a negative scale is -0.
              expect([...vector].map((value) => value + 0)).toEqual(
                [...wanted].map((value) => Math.fround(value) + 0),
              );
            });
          }
        }
      });
    }
  }
});
