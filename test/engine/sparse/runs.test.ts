/**
 * One token's products of the same inputs are read as one, in several places: each row gives the same bits as where
 * products are computed one after the other, those too that wait for another product's rows.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { CONTROL, isQuantised, KIND, type Kind } from "../../../src/engine/sparse/layout.ts";
import {
  Program,
  type QuantisedVectors,
  type Vectors,
} from "../../../src/engine/sparse/plan/encode.ts";
import type { PlacedMatrix } from "../../../src/engine/sparse/weights/placed.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { inputs, Machines } from "./kernel_support.ts";
import { besideInputs, expectSameBits, type Machine } from "./machine.ts";
import { type Numbers, Tensors } from "./tensors.ts";

const machines = new Machines();
beforeAll(() => machines.start());
afterAll(() => machines.stop());

const COLUMNS = 160;

/** Layouts, by how many of sixteen weights are kept where all are not. */
const LAYOUTS: readonly {
  kind: Kind;
  type: "int8" | "int4" | "f32";
  kept: number;
  packed: boolean;
}[] = [
  { kind: KIND.SLOTS_ONE, type: "int8", kept: 4, packed: true },
  { kind: KIND.SLOTS_TWO, type: "int8", kept: 8, packed: true },
  { kind: KIND.SLOTS_ONE_INT4, type: "int4", kept: 4, packed: true },
  { kind: KIND.SLOTS_TWO_INT4, type: "int4", kept: 8, packed: true },
  { kind: KIND.DENSE_INT8, type: "int8", kept: 16, packed: false },
  { kind: KIND.DENSE_INT4, type: "int4", kept: 16, packed: false },
  // And one whose products are not read as one.
  { kind: KIND.DENSE_F32, type: "f32", kept: 16, packed: false },
];

/** A product of a run: its rows, and the product before it of whose result it is made. */
interface Part {
  readonly rows: number;
  readonly times?: number;
  readonly plus?: number;
}

/** Rows that fill no sixteen or no 32 are among them, and runs in which nothing goes side by side. */
const RUNS: Readonly<Record<string, readonly Part[]>> = {
  "queries, keys and values": [{ rows: 192 }, { rows: 64 }, { rows: 64 }],
  "keys that are few": [{ rows: 139 }, { rows: 16 }, { rows: 50 }],
  "a gate": [{ rows: 256 }, { rows: 256, times: 0 }],
  "a gate of an odd size": [{ rows: 139 }, { rows: 139, times: 0 }],
  "a gate of three sixteens": [{ rows: 48 }, { rows: 48, times: 0 }],
  "a gate behind others": [{ rows: 160 }, { rows: 32 }, { rows: 192 }, { rows: 192, times: 2 }],
  "a gate before others": [{ rows: 96 }, { rows: 96, times: 0 }, { rows: 300 }, { rows: 20 }],
  "two gates": [{ rows: 64 }, { rows: 64, times: 0 }, { rows: 64 }, { rows: 64, times: 2 }],
  "a sum of three": [{ rows: 96 }, { rows: 96, plus: 0 }, { rows: 96, plus: 1, times: 0 }],
  "a sum of the first and the last": [{ rows: 64 }, { rows: 64 }, { rows: 64, plus: 0 }],
  "one": [{ rows: 320 }],
};
const SIZES = [...new Set(Object.values(RUNS).flatMap((parts) => parts.map(({ rows }) => rows)))];

function numbersOf(dice: Dice, rows: number, { type, kept }: (typeof LAYOUTS)[number]): Numbers {
  const most = type === "int4" ? 7 : 100;
  const elements = new Float64Array(rows * COLUMNS);
  for (let window = 0; window < elements.length; window += 16) {
    const order = Array.from({ length: 16 }, (_, i) => i);
    for (let i = 0; i < kept; i++) {
      const other = i + dice.below(16 - i);
      [order[i], order[other]] = [order[other], order[i]];
      elements[window + order[i]] = dice.pick([-1, 1]) * (1 + dice.below(most));
    }
  }
  if (type === "f32") return { rows, columns: COLUMNS, type, elements };
  const group = type === "int4" ? 32 : COLUMNS;
  const scales = Float32Array.from({ length: rows * Math.ceil(COLUMNS / group) }, () => 2 ** -6);
  return {
    rows,
    columns: COLUMNS,
    type,
    elements,
    scales,
    group: type === "int4" ? 32 : undefined,
  };
}

/** Matrices of each layout, by their rows. */
type Placed = ReadonlyMap<Kind, readonly ReadonlyMap<number, PlacedMatrix>[]>;

async function placeAll(machine: Machine): Promise<Placed> {
  const dice = new Dice(SEED);
  const file = new Tensors();
  // Four of each size, so that no product of a run is another's.
  const refs = LAYOUTS.map((layout) =>
    Array.from(
      { length: 4 },
      () => SIZES.map((rows) => file.matrix(numbersOf(dice, rows, layout), layout.packed)),
    )
  );
  const reader = await file.open();
  const loader = machine.loader(reader, refs.flat(2));
  const placed = new Map<Kind, ReadonlyMap<number, PlacedMatrix>[]>();
  for (const [i, { kind }] of LAYOUTS.entries()) {
    const copies = [];
    for (const ofSizes of refs[i]) {
      const bySize = new Map<number, PlacedMatrix>();
      for (const [s, ref] of ofSizes.entries()) bySize.set(SIZES[s], await loader.matrix(ref));
      copies.push(bySize);
    }
    placed.set(kind, copies);
  }
  reader.close();
  return placed;
}

/** What the products of a run give, with a barrier behind each or as one. */
function run(
  machine: Machine,
  matrices: readonly ReadonlyMap<number, PlacedMatrix>[],
  parts: readonly Part[],
  how: { apart: boolean; places: number; chunks: number },
): Float32Array[] {
  machine.reset();
  const program = new Program();
  const all = parts.map(({ rows }, i) => matrices[i].get(rows)!);
  const x = machine.place(inputs(new Dice(SEED), 1, COLUMNS, 3));
  let input: Vectors | QuantisedVectors = x;
  if (isQuantised(all[0].kind)) {
    const to = machine.quantisedRoom(1, COLUMNS);
    program.quantise(x, to, COLUMNS, 16);
    input = to;
  }
  program.barrier("always");
  // As in a plan, all have the same room.
  const largest = all.reduce((a, b) => a.paddedRows > b.paddedRows ? a : b);
  const scratch = machine.scratchFor(largest, 1);
  const outs: Vectors[] = [];
  parts.forEach(({ rows, times, plus }, i) => {
    const out = machine.room(1, rows);
    program.linear(all[i], input, besideInputs(all[i], x), out, scratch, {
      bias: 0,
      activation: parts[i + 1]?.times === i ? "silu" : "none",
      times: times === undefined ? 0 : outs[times].address,
      plus: plus === undefined ? 0 : outs[plus].address,
    });
    if (how.apart) program.barrier("always");
    outs.push(out);
  });
  machine.memory.set(CONTROL.CHUNKS_OF_ONE, how.chunks);
  machine.run(program, { tokens: 1, places: how.places });
  return outs.map((out, i) => machine.read(out, 1, parts[i].rows)[0]);
}

describe("products of the same inputs", () => {
  const placed = new Map<Machine, Placed>();
  beforeAll(async () => {
    for (const machine of machines.all) placed.set(machine, await placeAll(machine));
  });

  test("have the layouts that they are meant to have", () => {
    for (const [kind, copies] of placed.get(machines.all[0])!) {
      for (const matrix of copies.flatMap((bySize) => [...bySize.values()])) {
        expect([matrix.rows, matrix.kind]).toEqual([matrix.rows, kind]);
      }
    }
  });

  for (const [what, parts] of Object.entries(RUNS)) {
    test(`give the same read as one as one after the other: ${what}`, () => {
      for (const { kind } of LAYOUTS) {
        const [first] = machines.all;
        const alone = { apart: true, places: 1, chunks: 1 };
        const expected = run(first, placed.get(first)!.get(kind)!, parts, alone);
        expect(expected.every((out) => out.every(Number.isFinite))).toBe(true);
        for (const machine of machines.all) {
          for (const places of [1, 2, 4]) {
            for (const chunks of machine.threads > 1 ? [1, 4] : [1]) {
              const how = { apart: false, places, chunks };
              const found = run(machine, placed.get(machine)!.get(kind)!, parts, how);
              expectSameBits(found, expected, `kind ${kind}, ${machine.name}, in ${places}`);
            }
          }
        }
      }
    });
  }
});
