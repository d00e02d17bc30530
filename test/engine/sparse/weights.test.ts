/**
 * Weights on their way into memory: the same product from every format of the file.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { decodeBitmap, encodeBitmap } from "../../../compile/packed/bitmap.ts";
import { encodeCsr } from "../../../compile/packed/csr.ts";
import { encodeNm } from "../../../compile/packed/nm.ts";
import { fitsSlots } from "../../../compile/packed/slots.ts";
import type { PackedBitmap, ValueOptions } from "../../../compile/packed/types.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { expectSameBits, Machine } from "./machine.ts";
import { type SparseRef, Tensors } from "./tensors.ts";
import { ENCODERS, multiply, place } from "./weights_support.ts";

let machine: Machine;
beforeAll(async () => {
  machine = (await Machine.start("simd", 1))!;
});
afterAll(() => machine.stop());

describe("a matrix gives the same products from every format", () => {
  const options: ValueOptions[] = [
    { type: "f32" },
    { type: "f16" },
    { type: "int8" },
    ...[16, 24, 48, 160].map((group): ValueOptions => ({ type: "int8", group })),
    ...[32, 64, 128].map((group): ValueOptions => ({ type: "int4", group })),
  ];
  for (const option of options) {
    for (const [rows, columns] of [[16, 64], [35, 112], [36, 112], [3, 16], [64, 320]]) {
      const group = option.type === "int4"
        ? option.group
        : option.group && Math.min(option.group, columns);
      test(`${JSON.stringify(option)}, ${rows} × ${columns}`, async () => {
        const dice = new Dice(SEED + rows);
        // As much as 8:16 holds, with empty and with full groups among them.
        const values = new Float32Array(rows * columns);
        for (let start = 0; start < values.length; start += 16) {
          const kept = dice.pick([0, 1, 4, 8, 8]);
          for (let k = 0; k < kept; k++) values[start + dice.below(16)] = dice.next() - 0.5;
        }
        // Far apart, so that CSR needs entries between.
        values.fill(0, columns, Math.min(values.length, columns + 600));
        values[values.length - 1] = 1;
        const file = new Tensors();
        const packed = Object.entries(ENCODERS)
          .filter(([format]) => format !== "slots" || fitsSlots({ rows, columns }))
          .map(([, encode]) => encode(rows, columns, values, { ...option, group }));
        const refs = packed.map((matrix) => file.packed(matrix));
        const vectors = Array.from(
          { length: 2 },
          () => Array.from({ length: columns }, () => Math.fround(dice.next() - 0.5)),
        );
        const products = (await place(machine, file, refs)).map((matrix) =>
          multiply(machine, matrix, vectors)
        );
        for (const found of products) expectSameBits(found, products[0], "products");
        // And they are right.
        const dense = decodeBitmap(packed.at(-1) as PackedBitmap);
        vectors.forEach((x, t) => {
          for (let r = 0; r < rows; r++) {
            const wanted = x.reduce((sum, value, c) => sum + value * dense[r * columns + c], 0);
            expect(Math.abs(products[0][t][r] - wanted)).toBeLessThan(2e-3);
          }
        });
      });
    }
  }
});

describe("int8 of N:M gives the products of other formats", () => {
  const patterns = [[1, 2], [1, 4], [2, 4], [3, 4], [4, 8], [1, 16], [4, 16], [5, 16], [8, 16], [
    10,
    16,
  ]];
  for (const [n, m] of [...patterns, [3, 5], [16, 32]]) {
    for (const [rows, columns] of [[16, 160], [35, 480], [3, 160]]) {
      test(`${n}:${m}, ${rows} × ${columns}, with weights that are 0 as int8`, async () => {
        const dice = new Dice(SEED + n * m);
        const values = new Float32Array(rows * columns);
        for (let start = 0; start < values.length; start += m) {
          for (let k = 0; k < n; k++) {
            values[start + dice.below(m)] = dice.below(8) === 0 ? 1e-6 : dice.next() - 0.5;
          }
        }
        const matrix = { name: "w", rows, columns, values };
        const file = new Tensors();
        const refs = [
          encodeNm(matrix, { n, m }, { type: "int8" }),
          encodeCsr(matrix, { type: "int8" }),
          encodeBitmap(matrix, { type: "int8" }),
        ].map((packed) => file.packed(packed));
        const vectors = Array.from(
          { length: 3 },
          () => Array.from({ length: columns }, () => Math.fround(dice.next() - 0.5)),
        );
        const placed = await place(machine, file, refs);
        const [fromNm, ...others] = placed.map((matrix) => multiply(machine, matrix, vectors));
        for (const found of others) expectSameBits(found, fromNm, "products");
        vectors.forEach((x, t) => {
          for (let r = 0; r < rows; r++) {
            const wanted = x.reduce((sum, value, c) => sum + value * values[r * columns + c], 0);
            expect(Math.abs(fromNm[t][r] - wanted)).toBeLessThan(0.05);
          }
        });
        expect(new Set(placed.map(({ kind }) => kind)).size).toBe(1);
      });
    }
  }
});

test("a dense matrix that is read in pieces lies in its rows", async () => {
  // Four megabytes are read at a time.
  const [rows, columns] = [4400, 1000];
  const elements = Float64Array.from({ length: rows * columns }, (_, i) => (i * 7919) % 255 - 127);
  const scales = new Float32Array(rows).fill(1);
  const file = new Tensors();
  const ref = file.matrix({ rows, columns, type: "int8", elements, scales }, false);
  const [table] = await place(machine, file, [ref]);
  machine.reset();
  const ids = [0, 15, 16, 4191, 4192, 4193, 4207, 4208, 4399];
  const program = new Program();
  const out = machine.room(ids.length, columns);
  program.embed(out, columns, table, false, 0);
  machine.run(program, { tokens: ids.length, ids });
  machine.read(out, ids.length, columns).forEach((row, i) => {
    const wanted = elements.slice(ids[i] * columns, (ids[i] + 1) * columns);
    expect([...row]).toEqual([...wanted]);
  });
});

test("a dense int4 matrix that is read in pieces lies in its rows, with their scales", async () => {
  for (const columns of [1000, 999]) {
    const [rows, group] = [9000, 64];
    const elements = Float64Array.from(
      { length: rows * columns },
      (_, i) => (i * 7919 + Math.floor(i / columns)) % 16 - 8,
    );
    const perRow = Math.ceil(columns / group);
    const scales = Float32Array.from({ length: rows * perRow }, (_, i) => 1 + i % 251 / 256);
    const file = new Tensors();
    const numbers = { rows, columns, type: "int4", elements, scales, group } as const;
    const [table] = await place(machine, file, [file.matrix(numbers, false)]);
    machine.reset();
    const ids = [0, 15, 16, 7898, 7903, 7904, 7905, 8111, 8112, 8128, 8191, 8192, 8999];
    const program = new Program();
    const out = machine.room(ids.length, columns);
    program.embed(out, columns, table, false, 0);
    machine.run(program, { tokens: ids.length, ids });
    machine.read(out, ids.length, columns).forEach((row, i) => {
      const wanted = Array.from(
        { length: columns },
        (_, c) => elements[ids[i] * columns + c] * scales[ids[i] * perRow + Math.floor(c / group)],
      );
      expect([...row]).toEqual(wanted);
    });
  }
});

test("a matrix that two steps name is placed once, and others with its values are not it", async () => {
  const values = Float32Array.from({ length: 16 * 16 }, (_, i) => i % 3 === 0 ? i + 1 : 0);
  const moved = Float32Array.from(values, (_, i) => values[(i + 1) % values.length]);
  const file = new Tensors();
  const first = file.packed(encodeBitmap({ name: "w", rows: 16, columns: 16, values }, {
    type: "f32",
  }));
  const second = file.packed(
    encodeBitmap({ name: "w", rows: 16, columns: 16, values: moved }, { type: "f32" }),
  );
  const mixed: SparseRef = {
    ...first,
    tensors: { values: first.tensors.values, bits: second.tensors.bits },
  };
  const [one, again, other] = await place(machine, file, [first, { ...first }, mixed]);
  expect(again).toBe(one);
  const unit = Array.from({ length: 16 }, (_, i) => i === 0 ? 1 : 0);
  expect(multiply(machine, one, [unit])[0][0]).toBe(1);
  // Its first weight is in another column.
  expect(multiply(machine, other, [unit])[0][0]).toBe(0);
});
