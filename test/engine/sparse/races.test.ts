/**
 * No two threads touch the same memory between two barriers, unless both only read it: by the words of programs, for
 * every architecture, whoever takes which rows.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import {
  BARRIER,
  ELEMENTWISE,
  OP,
  SEGMENT,
  segmentsOf,
} from "../../../src/engine/sparse/layout.ts";
import type { FusedStep } from "../../../src/engine/sparse/plan/fuse.ts";
import { makePlan } from "../../../src/engine/sparse/plan/plan.ts";
import { type How, LONG, ROOT } from "../../compile/support.ts";
import { Dice } from "../../support/fuzz.ts";
import { fromRoot } from "../../support/paths.ts";
import { SparseWorkshop } from "./engines.ts";
import { Machine } from "./machine.ts";
import { nameOf, type ProgramStep, sourceOf, stepsPlannedBy } from "./planned.ts";
import { filesOf } from "./support.ts";
import { Tensors } from "./tensors.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

const THREADS = 3;
/** One of those that go through a step together, but nobody knows which. */
const SOME = -1;

/** What is touched by a thread in a step. */
interface Access {
  readonly step: number;
  readonly name: string;
  readonly thread: number;
  readonly begin: number;
  readonly end: number;
  readonly isWrite: boolean;
}

/** The program of a model, as it is planned for several threads. */
async function programOf(model: string, how: How): Promise<ProgramStep[]> {
  const source = sourceOf(filesOf(await workshop.compiled(model, how, "8:16")));
  // Of models that turn nothing, the graph does not say how long sequences may be.
  const sizes = { threads: THREADS, context: 64, sketch: false };
  const options = { ...sizes, activations: "int8", kv: "int8" } as const;
  return await stepsPlannedBy(async () => await (await loadSparse(source, options)).close());
}

const WIDTH = 64;

/** The program of steps that no model has, with one matrix for all products; the first gives value 1. */
async function planOf(stepsWith: (matrix: MatrixRef) => FusedStep[]): Promise<ProgramStep[]> {
  const machine = (await Machine.start("simd", 1))!;
  const file = new Tensors();
  const elements = Float64Array.from({ length: WIDTH * WIDTH }, (_, i) => i % 23 - 11);
  const matrix = file.matrix({ rows: WIDTH, columns: WIDTH, type: "f32", elements }, false);
  const table = matrix as MatrixRef & { kind: "dense" };
  const steps: FusedStep[] = [
    { op: "embed", table, of: "tokens", offset: 0, output: 0 },
    ...stepsWith(matrix),
  ];
  const widths = new Array(steps.length).fill(WIDTH);
  const logits = steps.length - 1;
  const decoder = { widths, steps, logits, given: [], results: [logits] };
  const loader = machine.loader(await file.open(), [matrix]);
  const sizes = { threads: THREADS, tokens: 32, tokensWithLogits: 32, context: 64 };
  const options = { ...sizes, kv: "f32", activations: "int8" } as const;
  const found = await stepsPlannedBy(() => makePlan(decoder, loader, machine.memory, options));
  machine.stop();
  return found;
}

const share = (count: number, part: number, parts: number) => Math.floor(count * part / parts);

/** Goes through a program as threads do, and says what two touch at once. */
class Walk {
  readonly #steps: readonly ProgramStep[];
  readonly #dice: Dice;
  #tokens: number;
  #phase: Access[] = [];
  #at = 0;
  /** Chunks of the run of products that is gone through, and who has taken them. */
  #takers: number[] = [];
  readonly races: string[] = [];

  constructor(steps: readonly ProgramStep[], tokens: number, dice: Dice) {
    this.#steps = steps;
    this.#tokens = tokens;
    this.#dice = dice;
  }

  /** @param logits Tokens whose logits are wanted. */
  run(logits: number): void {
    for (this.#at = 0; this.#at < this.#steps.length; this.#at++) {
      const { op, words } = this.#steps[this.#at];
      if (op === OP.BARRIER) {
        const isOne = this.#tokens === 1;
        const [when] = words;
        if (when === BARRIER.always || (when === BARRIER.forMany) !== isOne) this.#meet();
      } else if (op === OP.SELECT) {
        if (this.#tokens > logits) {
          // Threads meet before and behind.
          this.#meet();
          this.#tokens = logits;
        }
      } else if (op === OP.LINEAR) this.#linear(words);
      else if (op === OP.APPEND || op === OP.ATTEND || op === OP.COMBINE) {
        this.#attention(op, words);
      } else if (op === OP.CONVOLVE) this.#convolution(words);
      else if (op === OP.DELTA) this.#delta(words);
      else if (op !== OP.ENOUGH) this.#vectors(op, words);
    }
    this.#meet();
  }

  #touch(thread: number, begin: number, bytes: number, isWrite: boolean): void {
    const name = nameOf(this.#steps[this.#at]);
    this.#phase.push({ step: this.#at, name, thread, begin, end: begin + bytes, isWrite });
  }

  /** Everything since threads last met has happened in any order. */
  #meet(): void {
    const sorted = this.#phase.sort((a, b) => a.begin - b.begin);
    for (const [i, a] of sorted.entries()) {
      for (let j = i + 1; j < sorted.length && sorted[j].begin < a.end; j++) {
        const b = sorted[j];
        const isApart = a.thread === b.thread && (a.thread !== SOME || a.step === b.step);
        const ofOneStep = a.step === b.step && (a.thread === SOME || b.thread === SOME);
        if (isApart || ofOneStep || !(a.isWrite || b.isWrite)) continue;
        this.races.push(`${a.step} ${a.name} and ${b.step} ${b.name}, ${this.#tokens} tokens`);
      }
    }
    this.#phase = [];
  }

  /** Embeddings, norms, quantisation and sums. */
  #vectors(op: number, words: Int32Array): void {
    const [input, inStride, inCopy, output, outStride, outCopy, width] = words;
    const isOne = this.#tokens === 1;
    const inputs = op === OP.EMBED ? [] : [{ at: input, stride: inStride, copy: inCopy }];
    const isElementwise = op === OP.ELEMENTWISE;
    // Only a part of a wider vector is copied as a whole, head by head, or spread.
    const isPart = isElementwise &&
      (words[7] === ELEMENTWISE.part || words[7] === ELEMENTWISE.spread);
    const reach = isPart ? words[14] * words[13] : 4 * width;
    if (isElementwise && words[8] !== 0 && words[9] !== 0) {
      inputs.push({ at: words[8], stride: words[9], copy: 0 });
    }
    for (let thread = 0; thread < THREADS; thread++) {
      if (isOne && isElementwise && !isPart) {
        // Lines of 64 bytes are shared out.
        const lines = Math.ceil(4 * width / 64);
        const begin = 64 * share(lines, thread, THREADS),
          end = 64 * share(lines, thread + 1, THREADS);
        for (const { at } of inputs) this.#touch(thread, at + begin, end - begin, false);
        this.#touch(thread, output + begin, end - begin, true);
        continue;
      }
      const first = isOne
        ? (outCopy !== 0 || thread === 0 ? 0 : 1)
        : share(this.#tokens, thread, THREADS);
      const last = isOne ? 1 : share(this.#tokens, thread + 1, THREADS);
      for (let token = first; token < last; token++) {
        for (const { at, stride, copy } of inputs) {
          this.#touch(thread, at + (isOne ? thread * copy : token * stride), reach, false);
        }
        if (op === OP.QUANTISE) continue;
        this.#touch(
          thread,
          output + (isOne ? thread * outCopy : token * outStride),
          4 * width,
          true,
        );
      }
      if (op === OP.QUANTISE && isOne) {
        for (const form of formsOf(words, thread)) this.#touch(thread, ...form, true);
      }
    }
    // Of several tokens they lie among each other, in tiles.
    if (op !== OP.QUANTISE || isOne) return;
    const tokens = Math.ceil(this.#tokens / 8) * 8, segments = segmentsOf(width);
    const [low, scales, , flags, , , sums, , steps] = words.slice(7);
    for (const at of [output, output + low]) {
      this.#touch(SOME, at, tokens * segments * SEGMENT, true);
    }
    this.#touch(SOME, scales, tokens * segments * 4, true);
    this.#touch(SOME, steps, tokens * (segments + 1) * 4, true);
    this.#touch(SOME, flags, tokens * segments, true);
    if (sums !== 0) this.#touch(SOME, sums, tokens * segments * 8, true);
  }

  #linear(words: Int32Array): void {
    const isFirst = this.#steps[this.#at - 1]?.op !== OP.LINEAR;
    if (isFirst) {
      this.#takers = Array.from({ length: 2 * THREADS }, () => this.#dice.below(THREADS));
    }
    const [, , rows, segments, x, stride, copy, scales, scalesCopy, low, flags, flagsCopy] = words;
    const [out, outStride] = words.slice(12), [times, plus] = words.slice(18);
    const [, floats, floatStride, floatCopy, columns, , sums, sumsCopy] = words.slice(20);
    const steps = words[30], isOne = this.#tokens === 1;
    const isQuantised = scales !== 0;
    const pairs = Math.ceil(rows / 32);
    const chunks = this.#takers.length;
    for (let chunk = 0; chunk < chunks; chunk++) {
      const thread = this.#takers[chunk];
      const first = 32 * share(pairs, chunk, chunks),
        last = Math.min(rows, 32 * share(pairs, chunk + 1, chunks));
      if (first >= last) continue;
      for (let token = 0; token < this.#tokens; token++) {
        const at = token * outStride + 4 * first, bytes = 4 * (last - first);
        for (const read of [times, plus]) {
          if (read !== 0) this.#touch(thread, read + at, bytes, false);
        }
        this.#touch(thread, out + at, bytes, true);
      }
    }
    for (const thread of new Set(this.#takers)) {
      if (floats !== 0) {
        for (let token = 0; token < this.#tokens; token++) {
          const at = floats + (isOne ? thread * floatCopy : token * floatStride);
          this.#touch(thread, at, 4 * columns, false);
        }
      }
      if (!isQuantised) {
        for (let token = 0; token < this.#tokens; token++) {
          this.#touch(thread, x + (isOne ? thread * copy : token * stride), 4 * columns, false);
        }
      } else if (isOne) {
        const wide = [low, scales, scalesCopy, flags, flagsCopy, 0, sums, sumsCopy, steps];
        const form = Int32Array.from([0, 0, 0, x, stride, copy, segments * SEGMENT, ...wide]);
        for (const part of formsOf(form, thread)) this.#touch(thread, ...part, false);
      } else {
        const tokens = Math.ceil(this.#tokens / 8) * 8;
        for (const at of [x, x + low]) this.#touch(thread, at, tokens * segments * SEGMENT, false);
        this.#touch(thread, scales, tokens * segments * 4, false);
        this.#touch(thread, steps, tokens * (segments + 1) * 4, false);
        this.#touch(thread, flags, tokens * segments, false);
      }
    }
  }

  /** What lies in pages is each thread's own: the same channels of all tokens. */
  #convolution(words: Int32Array): void {
    const vectors = [0, 2, 4, 6].map((at) => ({ at: words[at], stride: words[at + 1] }));
    const bytes = 4 * words[8], lines = Math.ceil(bytes / 64);
    for (let thread = 0; thread < THREADS; thread++) {
      const begin = 64 * share(lines, thread, THREADS);
      const end = Math.min(bytes, 64 * share(lines, thread + 1, THREADS));
      if (begin >= end) continue;
      for (const [i, { at, stride }] of vectors.entries()) {
        if (at === 0) continue;
        for (let token = 0; token < this.#tokens; token++) {
          this.#touch(thread, at + token * stride + begin, end - begin, i === 3);
        }
      }
    }
  }

  /** States are each thread's own: the same columns of all tokens. */
  #delta(words: Int32Array): void {
    const [keyHeads, valueHeads, keyDim, valueDim] = words.slice(12);
    const [keys, values] = [keyHeads * keyDim, valueHeads * valueDim];
    const widths = [keys, keys, values, valueHeads, valueHeads];
    const blocks = Math.ceil(valueDim / 16), units = valueHeads * blocks;
    for (let thread = 0; thread < THREADS; thread++) {
      const first = share(units, thread, THREADS), last = share(units, thread + 1, THREADS);
      for (let token = 0; token < this.#tokens; token++) {
        for (const [i, width] of widths.entries()) {
          if (words[2 * i] === 0) continue;
          this.#touch(thread, words[2 * i] + token * words[2 * i + 1], 4 * width, false);
        }
        for (let unit = first; unit < last; unit++) {
          const begin = unit % blocks * 16, count = Math.min(16, valueDim - begin);
          const at = Math.floor(unit / blocks) * valueDim + begin;
          this.#touch(thread, words[10] + token * words[11] + 4 * at, 4 * count, true);
        }
      }
    }
  }

  #attention(op: number, words: Int32Array): void {
    const [queries, qStride, keys, kStride, values, vStride, out, outStride, heads, kvHeads, dim] =
      words;
    const partials = words[26];
    const each = (at: number, stride: number, width: number, isWrite: boolean) => {
      for (let token = 0; token < this.#tokens; token++) {
        this.#touch(SOME, at + token * stride, 4 * width, isWrite);
      }
    };
    if (op === OP.APPEND) {
      each(keys, kStride, kvHeads * dim, false);
      each(values, vStride, kvHeads * dim, false);
      // Turned where they lie.
      return each(queries, qStride, heads * dim, true);
    }
    const isOne = this.#tokens === 1;
    if (op === OP.ATTEND) each(queries, qStride, heads * dim, false);
    if (isOne) this.#touch(SOME, partials, heads * (4 * dim + 16), true);
    if (isOne === (op === OP.COMBINE)) each(out, outStride, heads * dim, true);
  }
}

/** A thread's own parts of a vector's quantised form, of one token: where, and how many bytes. */
function formsOf(words: Int32Array, thread: number): [number, number][] {
  const [output, , copy, width, low, scales, scalesCopy, flags, flagsCopy, , ...more] = words.slice(
    3,
  );
  const [sums, sumsCopy, steps] = more;
  const segments = segmentsOf(width);
  const own: [number, number][] = [
    [output + thread * copy, segments * SEGMENT],
    [output + low + thread * copy, segments * SEGMENT],
    [scales + thread * scalesCopy, segments * 4],
    // A unit behind them.
    [steps + thread * (segments + 1) * 4, (segments + 1) * 4],
    // A byte of each tile's eight.
    [flags + thread * flagsCopy, segments * 8],
  ];
  if (sums !== 0) own.push([sums + thread * sumsCopy, segments * 8]);
  return own;
}

/** Races in a program, for runs of one token and of several, of which all logits are wanted, or one token's. */
function racesOf(steps: readonly ProgramStep[]): string[] {
  const found = new Set<string>();
  for (const [tokens, logits] of [[1, 1], [2, 2], [5, 5], [5, 1], [5, 2], [20, 4]]) {
    for (let seed = 0; seed < 6; seed++) {
      const walk = new Walk(steps, tokens, new Dice(seed));
      walk.run(logits);
      for (const race of walk.races) found.add(`${race}, ${logits} logits`);
    }
  }
  return [...found];
}

describe("no two threads touch the same between two barriers:", () => {
  const hows: How[] = [
    { values: "int8", format: "nm" },
    { values: "f32", format: "csr" },
    { values: "int4", format: "nm", head: "int4" },
  ];
  for (const model of readdirSync(fromRoot(ROOT))) {
    test(model, async () => {
      for (const how of hows) {
        const steps = await programOf(model, how);
        expect(steps.filter(({ op }) => op === OP.LINEAR).length).toBeGreaterThan(6);
        expect(racesOf(steps).slice(0, 5)).toEqual([]);
      }
    }, LONG);
  }

  test("steps that change a value where it lies, though others read it just before", async () => {
    const copy = { op: "elementwise", kind: "copy", a: 0, factor: 2, activation: "none" } as const;
    const linear = (
      matrix: MatrixRef,
      input: number,
      output: number,
      plus?: number,
    ): FusedStep => ({ op: "linear", input, output, matrix, activation: "none", plus });
    const plans = [
      await planOf((matrix) => [
        linear(matrix, 0, 1),
        { ...copy, output: 2 },
        linear(matrix, 2, 3, 1),
      ]),
      // What it is added to is what it multiplies.
      await planOf((matrix) => [linear(matrix, 0, 1), linear(matrix, 1, 2, 1)]),
      // Another product of the same run reads all of what this one is added to.
      await planOf((matrix) => [
        linear(matrix, 0, 1),
        linear(matrix, 1, 2),
        linear(matrix, 0, 3, 1),
        linear(matrix, 3, 4, 2),
      ]),
    ];
    for (const steps of plans) expect(racesOf(steps)).toEqual([]);
  }, LONG);

  test("and where a barrier is left out, two do", async () => {
    for (const how of hows) {
      const steps = await programOf("llama", how);
      const barriers = steps.flatMap(({ op }, at) => op === OP.BARRIER ? [at] : []);
      expect(barriers.length).toBeGreaterThan(6);
      const needless = barriers.filter((at) => racesOf(steps.toSpliced(at, 1)).length === 0);
      expect(needless).toEqual([]);
    }
  }, LONG);
});
