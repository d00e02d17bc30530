/**
 * Rows of products are taken by whichever thread comes to them: each once, and all, whatever the others do.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { chooseBuild, configure, instantiate } from "../../../src/engine/sparse/kernels.ts";
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import { BARRIER, CONTROL, OP } from "../../../src/engine/sparse/layout.ts";
import { EngineMemory } from "../../../src/engine/sparse/memory.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import type { FusedStep } from "../../../src/engine/sparse/plan/fuse.ts";
import { makePlan } from "../../../src/engine/sparse/plan/plan.ts";
import { WeightLoader } from "../../../src/engine/sparse/weights/loader.ts";
import { Machine } from "./machine.ts";
import { Tensors } from "./tensors.ts";

const PLAIN = { bias: 0, activation: "none", times: 0, plus: 0 } as const;
const COLUMNS = 40;
/** Of the matrices, one of which has too few rows for each thread to have some. */
const ROWS = [16, 48, 752, 752];
/** What a row gives follows from its number. */
const elementsOf = (rows: number) =>
  Float64Array.from({ length: rows * COLUMNS }, (_, i) => (i * 7 + i % 11) % 23 - 11);
const INPUT = Array.from({ length: COLUMNS }, (_, i) => i % 5 - 2);

/** What plain loops give. */
function productOf(rows: number): number[] {
  const elements = elementsOf(rows);
  return Array.from(
    { length: rows },
    (_, r) => INPUT.reduce((sum, x, c) => sum + x * elements[r * COLUMNS + c], 0),
  );
}

/** A file with the matrices. */
async function matrices() {
  const file = new Tensors();
  const refs = ROWS.map((rows) =>
    file.matrix({ rows, columns: COLUMNS, type: "f32", elements: elementsOf(rows) }, false)
  );
  return { reader: await file.open(), refs };
}

describe("the rows of products", () => {
  for (const threads of [2, 3, 5]) {
    test(`are each taken once by ${threads} threads, in runs of several and of one`, async () => {
      const machine = (await Machine.start("simd", threads))!;
      const { reader, refs } = await matrices();
      const loader = machine.loader(reader, refs);
      const placed = [];
      for (const ref of refs) placed.push(await loader.matrix(ref));
      for (let round = 0; round < 20; round++) {
        machine.reset();
        const program = new Program();
        const x = machine.place([INPUT]);
        const outs = placed.flatMap((matrix, i) => {
          const scratch = machine.scratchFor(matrix, 1);
          const [first, second] = [machine.room(1, ROWS[i]), machine.room(1, ROWS[i])];
          program.linear(matrix, x, undefined, first, scratch, PLAIN);
          // The rows of the product before it, if they come from the same thread.
          program.linear(matrix, x, undefined, second, scratch, { ...PLAIN, plus: first.address });
          if (i === 1) program.barrier("always");
          return [first, second];
        });
        // Whole shares, which nobody takes from another, and chunks of them.
        machine.memory.set(CONTROL.CHUNKS_OF_ONE, round % 2 === 0 ? 1 : 4);
        machine.run(program, { tokens: 1 });
        placed.forEach((_, i) => {
          const expected = productOf(ROWS[i]);
          expect([...machine.read(outs[2 * i], 1, ROWS[i])[0]]).toEqual(expected);
          expect([...machine.read(outs[2 * i + 1], 1, ROWS[i])[0]])
            .toEqual(expected.map((value) => 2 * value));
        });
      }
      machine.stop();
    });
  }

  test("are all there though another thread never came to its own", async () => {
    const { module } = await chooseBuild(true, "simd");
    const memory = new EngineMemory(true);
    const kernels = instantiate(module, memory);
    kernels.setUp();
    configure(memory, { threads: 2, spins: 100, patience: 100, mainMaySleep: true });
    const { reader, refs } = await matrices();
    const rows = ROWS[2];
    const matrix = await new WeightLoader(reader, memory, kernels, refs).matrix(refs[2]);
    const vector = (values: ArrayLike<number>) => {
      const address = memory.reserve(values.length * 4);
      memory.floats(address, values.length).set(values);
      return { address, stride: values.length * 4, copy: 0 };
    };
    const out = vector(new Array(rows).fill(NaN));
    const program = new Program();
    const scratch = { address: memory.reserve(4096), bytes: 2048 };
    program.linear(
      matrix,
      vector([...INPUT, ...new Array(24).fill(0)]),
      undefined,
      out,
      scratch,
      PLAIN,
    );
    const words = program.finish();
    const at = memory.reserve(words.byteLength);
    memory.words(at, words.length).set(words);
    memory.set(CONTROL.PROGRAM, at);
    memory.set(CONTROL.TOKENS, 1);
    memory.set(CONTROL.CHUNKS_OF_ONE, 4);
    // The other is missed only when all is done.
    expect(kernels.run()).toBe(1);
    expect([...memory.floats(out.address, rows)]).toEqual(productOf(rows));
  });
});

describe("a program", () => {
  test("counts its runs of products, and has a barrier before counters are used up", async () => {
    const machine = (await Machine.start("simd", 1))!;
    const { reader, refs } = await matrices();
    const matrix = await machine.loader(reader, refs).matrix(refs[0]);
    const x = machine.place([INPUT]);
    const program = new Program();
    const linear = () =>
      program.linear(
        matrix,
        x,
        undefined,
        machine.room(1, 16),
        machine.scratchFor(matrix, 1),
        PLAIN,
      );
    const first = program.run;
    linear();
    linear();
    expect(program.run).toBe(first);
    for (let run = 1; run < 40; run++) {
      program.elementwise(x, machine.room(1, COLUMNS), COLUMNS, "copy", undefined, "none");
      expect(program.run).toBe(first + run);
      linear();
    }
    const words = program.finish();
    const counters: number[] = [];
    for (let at = 0; words[at] !== OP.END; at += words[at + 1]) {
      if (words[at] === OP.LINEAR) counters.push(words[at + 33]);
      if (words[at] === OP.BARRIER) counters.push(-1);
    }
    // Both of the first run have the first counter; a line of 64 bytes has sixteen.
    const line = Array.from({ length: 16 }, (_, i) => i);
    expect(counters).toEqual([0, ...line, -1, ...line, -1, ...line.slice(0, 8)]);
    machine.stop();
  });
});

describe("a plan", () => {
  test("has threads meet before a product reads another run's rows", async () => {
    const machine = (await Machine.start("simd", 3))!;
    const file = new Tensors();
    const width = 32;
    const numbers = (rows: number) => ({
      rows,
      columns: width,
      type: "f32" as const,
      elements: Float64Array.from({ length: rows * width }, (_, i) => (i * 7 + i % 11) % 23 - 11),
    });
    const table = file.matrix(numbers(16), false) as MatrixRef & { kind: "dense" };
    const matrix = file.matrix(numbers(width), false);
    const weight = file.vector(new Array(width).fill(1));
    const loader = machine.loader(await file.open(), [table, matrix]);
    const norm = (output: number) =>
      ({ op: "rmsNorm", input: 0, output, groups: 1, epsilon: 1e-5, weight }) as const;
    const linear = (input: number, output: number, times?: number) =>
      ({ op: "linear", input, output, matrix, activation: "none", times }) as const;
    const steps: FusedStep[] = [
      { op: "embed", table, of: "tokens", offset: 0, output: 0 },
      norm(1),
      linear(1, 2),
      // In one run with the product before it.
      linear(1, 3, 2),
      // Each thread makes this for itself, without a barrier; the product after it begins a run.
      norm(4),
      linear(4, 5, 3),
      linear(5, 6),
    ];
    const widths = new Array(7).fill(width);
    const decoder = { widths, steps, logits: 6, given: [], results: [6] };
    const { program } = await makePlan(decoder, loader, machine.memory, {
      threads: 3,
      tokens: 4,
      tokensWithLogits: 1,
      context: 64,
      kv: "f32",
      activations: "int8",
    });
    const ops: string[] = [];
    for (let at = program; machine.memory.get(at) !== OP.END;) {
      const op = machine.memory.get(at);
      if (op === OP.LINEAR) ops.push("product");
      if (op === OP.NORM) ops.push("norm");
      if (op === OP.BARRIER && machine.memory.get(at + 8) === BARRIER.always) ops.push("meet");
      at += machine.memory.get(at + 4) * 4;
    }
    // Of the last two, the second needs all rows of the first.
    const [one, other] = [["norm", "product", "product"], ["norm", "meet", "product"]];
    expect(ops).toEqual(["meet", ...one, ...other, "meet", "product"]);
    machine.stop();
  });
});
