/**
 * Attention over the cache against plain loops of float64; every build and every number of threads gives
 * the same bits.
 * @module
 */
import { afterAll, beforeAll, describe, test } from "bun:test";
import { roundUp } from "../../../src/engine/sparse/layout.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { expectNear, Machines, normal } from "./kernel_support.ts";
import { expectSameBits, type Machine } from "./machine.ts";

const machines = new Machines();
beforeAll(() => machines.start());
afterAll(() => machines.stop());

describe("attention", () => {
  interface Shape {
    readonly heads: number;
    readonly keyValueHeads: number;
    readonly headDim: number;
    readonly window?: number;
    readonly isInt8?: boolean;
    readonly hasRotary?: boolean;
    /** Elements of a head that are turned; all if not given. */
    readonly turned?: number;
    /** Whether neighbours are turned together. */
    readonly interleaved?: boolean;
    /** What scores are capped by. */
    readonly cap?: number;
    /** Whether turned queries and keys are normed. */
    readonly hasNorms?: boolean;
    /** Scores of nothing, a head each. */
    readonly sinks?: readonly number[];
  }

  const LENGTH = 140;
  /** On both sides of the borders of pages, of groups of four positions, and of windows. */
  const CHECKED = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 62, 63, 64, 65, 100, 127, 128, 129, 139];
  const SCALE = 0.31;
  /** Large enough to be seen, and another for keys. */
  const QUERY_EPSILON = 0.25, KEY_EPSILON = 0.5;

  interface Inputs {
    readonly queries: number[][];
    readonly keys: number[][];
    readonly values: number[][];
    /** `[position, turned / 2]` */
    readonly cosines: number[][];
    readonly sines: number[][];
    /** Weights of the norms of turned heads. */
    readonly queryNorm: number[];
    readonly keyNorm: number[];
  }

  function inputsOf({ heads, keyValueHeads, headDim, turned = headDim }: Shape): Inputs {
    const dice = new Dice(SEED + headDim);
    const some = (width: number, size = 1) =>
      Array.from(
        { length: LENGTH },
        () => Array.from({ length: width }, () => Math.fround(normal(dice) * size)),
      );
    const angles = some(turned / 2, 3);
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
      queryNorm: some(headDim)[0],
      keyNorm: some(headDim)[0],
    };
  }

  /** Runs all positions, in pieces of these lengths (the last again and again). */
  function run(
    machine: Machine,
    shape: Shape,
    given: Inputs,
    pieces: readonly number[],
    garbage = 0,
  ): Float32Array[] {
    return runTogether(machine, shape, [{ given, pieces }], garbage)[0];
  }

  /** The same for several sequences, a piece of each at once; their tables are those of the first. */
  function runTogether(
    machine: Machine,
    shape: Shape,
    sequences: readonly { readonly given: Inputs; readonly pieces: readonly number[] }[],
    garbage = 0,
  ): Float32Array[][] {
    const { heads, keyValueHeads, headDim, window = 0, isInt8 = false, cap = 0 } = shape;
    const [{ given: { cosines, sines, queryNorm, keyNorm } }] = sequences;
    machine.reset();
    const flat = (rows: number[][]) => machine.place([rows.flat()]).address;
    const tables = shape.hasRotary
      ? { cosines: flat(cosines), sines: flat(sines) }
      : { cosines: 0, sines: 0 };
    const [queryWeight, keyWeight] = [queryNorm, keyNorm].map((weight) =>
      shape.hasNorms ? flat([weight]) : 0
    );
    const sinks = shape.sinks ? flat([[...shape.sinks]]) : 0;
    // As much as floats take, which is more than int8 does.
    const headBytes = headDim * 512 + 1024;
    // A layer before this one, so that the offset counts.
    const layerOffset = 3 * headDim * 128;
    const pageBytes = layerOffset + keyValueHeads * headBytes;
    const perPage = Math.ceil(LENGTH / 64) * (headDim * 4 + 16);
    const groups = heads / keyValueHeads;
    const bytes = roundUp(groups * (512 + perPage) + headDim * 4, 64);
    const scratch = { address: machine.reserve(bytes * machine.threads), bytes };
    const partials = machine.reserve(heads * perPage);
    const states = sequences.map(({ given, pieces }) => ({
      given,
      pieces,
      pages: machine.pages(LENGTH, pageBytes, garbage),
      found: [] as Float32Array[],
    }));
    for (let round = 0; states.some(({ found }) => found.length < LENGTH); round++) {
      const parts = states.map((state) => {
        const { pieces, found } = state;
        const done = found.length;
        const tokens = Math.min(LENGTH - done, pieces[Math.min(round, pieces.length - 1)]);
        return { ...state, done, tokens };
      });
      const rows = (of: "queries" | "keys" | "values") =>
        machine.place(
          parts.flatMap(({ given, done, tokens }) => given[of].slice(done, done + tokens)),
        );
      const each = <T>(of: (part: (typeof parts)[number], i: number) => T) =>
        parts.flatMap((part) => Array.from({ length: part.tokens }, (_, i) => of(part, i)));
      const program = new Program();
      const count = each(() => 1).length;
      const out = machine.room(count, heads * headDim);
      program.attention({
        queries: rows("queries"),
        keys: rows("keys"),
        values: rows("values"),
        out,
      }, {
        isLast: false,
        queryNorm: { weight: queryWeight, epsilon: QUERY_EPSILON },
        keyNorm: { weight: keyWeight, epsilon: KEY_EPSILON },
        heads,
        keyValueHeads,
        headDim,
        layerOffset,
        ...tables,
        turned: shape.hasRotary ? shape.turned ?? headDim : 0,
        interleaved: shape.interleaved,
        window,
        // Kernels take powers of 2.
        scale: SCALE * Math.LOG2E,
        cap: cap * Math.LOG2E,
        sinks,
        isInt8,
        scratch,
        partials,
      });
      machine.run(program, {
        tokens: count,
        position: each(({ done }, i) => done + i),
        pages: each(({ pages }) => pages),
      });
      const owners = each(({ found }) => found);
      machine.read(out, count, heads * headDim).forEach((row, i) => owners[i].push(row));
    }
    return states.map(({ found }) => found);
  }

  function turned(head: number[], cosines: number[], sines: number[]): number[] {
    const half = cosines.length;
    return head.map((x, i) =>
      i >= 2 * half
        ? x
        : i < half
        ? x * cosines[i] - head[i + half] * sines[i]
        : x * cosines[i - half] + head[i - half] * sines[i - half]
    );
  }

  function turnedInPairs(head: number[], cosines: number[], sines: number[]): number[] {
    return head.map((x, i) => {
      const cosine = cosines[i >> 1], sine = sines[i >> 1];
      if (cosine === undefined) return x;
      return i % 2 === 0 ? x * cosine - head[i + 1] * sine : x * cosine + head[i - 1] * sine;
    });
  }

  /** Times a Hadamard matrix of length 1, in blocks of the greatest power of 2 that divides the length. */
  function spread(head: number[]): number[] {
    const block = head.length & -head.length;
    const ones = (bits: number) => bits.toString(2).replaceAll("0", "").length;
    return head.map((_, i) => {
      const at = i % block, first = i - at;
      const sum = head.slice(first, first + block).reduce(
        (sum, x, j) => sum + (ones(at & j) % 2 ? -x : x),
        0,
      );
      return sum / Math.sqrt(block);
    });
  }

  function scaleOf(numbers: readonly number[], most: number): number {
    return Math.max(...numbers.map(Math.abs)) / most;
  }

  /** To integers up to `most`, and back. */
  function rounded(numbers: number[], most: number): number[] {
    const scale = scaleOf(numbers, most);
    return scale === 0 ? numbers : numbers.map((x) => Math.round(x / scale) * scale);
  }

  /** Weights of values from a position on, rounded in chunks of 16 positions; each value has a scale. */
  function roundedWeights(weights: number[], first: number, scales: number[]): number[] {
    const result = weights.slice();
    for (let begin = 0, end; begin < weights.length; begin = end) {
      end = Math.min(weights.length, (Math.floor((first + begin) / 16) + 1) * 16 - first);
      const part = weights.slice(begin, end).map((weight, i) => weight * scales[begin + i]);
      rounded(part, 127).forEach((x, i) => result[begin + i] = x && x / scales[begin + i]);
    }
    return result;
  }

  /** One head at one position. */
  function expected(shape: Shape, given: Inputs, position: number, head: number): number[] {
    const { heads, keyValueHeads, headDim, window, isInt8, hasRotary, cap, hasNorms } = shape;
    const shared = Math.floor(head / (heads / keyValueHeads));
    const headOf = (row: number[], h: number) => row.slice(h * headDim, (h + 1) * headDim);
    const turn = (row: number[], p: number) =>
      hasRotary
        ? (shape.interleaved ? turnedInPairs : turned)(row, given.cosines[p], given.sines[p])
        : row;
    const normed = (row: number[], weight: number[], epsilon: number) => {
      if (!hasNorms) return row;
      const root = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / headDim + epsilon);
      return row.map((x, i) => x / root * weight[i]);
    };
    const stored = (row: number[]) => isInt8 ? rounded(row, 127) : row;
    let query = normed(
      turn(headOf(given.queries[position], head), position),
      given.queryNorm,
      QUERY_EPSILON,
    );
    if (isInt8) query = rounded(spread(query), 63);
    const first = Math.max(0, position + 1 - (window ?? Infinity));
    const scores: number[] = [];
    for (let p = first; p <= position; p++) {
      const turnedKey = normed(
        turn(headOf(given.keys[p], shared), p),
        given.keyNorm,
        KEY_EPSILON,
      );
      const key = isInt8 ? rounded(spread(turnedKey), 127) : turnedKey;
      const score = SCALE * query.reduce((sum, q, i) => sum + q * key[i], 0);
      scores.push(cap ? cap * Math.tanh(score / cap) : score);
    }
    const sink = shape.sinks?.[head] ?? -Infinity;
    const most = Math.max(sink, ...scores);
    let weights = scores.map((score) => Math.exp(score - most));
    const total = Math.exp(sink - most) + weights.reduce((a, b) => a + b);
    const seen = given.values.slice(first, position + 1).map((row) => headOf(row, shared));
    if (isInt8) {
      weights = roundedWeights(weights, first, seen.map((value) => scaleOf(value, 127)));
    }
    const result = new Array<number>(headDim).fill(0);
    weights.forEach((weight, i) => {
      const value = stored(seen[i]);
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
    // Gemma's heads, and those of Phi, a part of which is turned.
    ...[false, true].flatMap((isInt8) => [
      { heads: 2, keyValueHeads: 1, headDim: 256, isInt8 },
      { heads: 2, keyValueHeads: 1, headDim: 16, turned: 12, isInt8 },
      { heads: 2, keyValueHeads: 2, headDim: 20, turned: 6, isInt8 },
    ]),
    // Neighbours are turned together: of whole heads, and of parts, a single pair behind the fours among them.
    ...[false, true].flatMap((isInt8) => [
      { heads: 3, keyValueHeads: 1, headDim: 32, turned: 32, interleaved: true, isInt8 },
      { heads: 2, keyValueHeads: 2, headDim: 20, turned: 10, interleaved: true, isInt8 },
    ]),
    // Scores are some units apart: of these caps, one is far below them and one far above.
    ...[false, true].flatMap((isInt8) =>
      [0.7, 20].flatMap((cap) => [
        { heads: 3, keyValueHeads: 1, headDim: 32, cap, isInt8 },
        { heads: 4, keyValueHeads: 2, headDim: 8, window: 40, cap, isInt8 },
      ])
    ),
    // Hunyuan's heads are normed once they are turned.
    ...[false, true].flatMap((isInt8) => [
      { heads: 4, keyValueHeads: 2, headDim: 32, hasNorms: true, isInt8 },
      { heads: 2, keyValueHeads: 1, headDim: 12, turned: 6, hasNorms: true, isInt8 },
    ]),
    { heads: 3, keyValueHeads: 1, headDim: 6, hasNorms: true },
    // Sinks far below the scores, among them and above; far above, where next to nothing is left of what heads give.
    ...[false, true].flatMap((isInt8) => [
      { heads: 4, keyValueHeads: 2, headDim: 8, sinks: [-30, 0, 2.5, 5], isInt8 },
      {
        heads: 4,
        keyValueHeads: 2,
        headDim: 32,
        window: 40,
        cap: 3,
        sinks: [1, -1, 8, 60],
        isInt8,
      },
    ]),
    // Heads that share a page's keys go through it in pairs, and one is left.
    ...[3, 5].flatMap((heads) =>
      [undefined, 40].map((window) => (
        { heads: 2 * heads, keyValueHeads: 2, headDim: 8, window, isInt8: true }
      ))
    ),
    ...[1, 2, 5, 8, 63, 64, 65, 100, 1000].flatMap((window) =>
      [false, true].map((isInt8) => ({ heads: 2, keyValueHeads: 2, headDim: 8, window, isInt8 }))
    ),
  ];

  for (const [i, shape] of SHAPES.entries()) {
    const { heads, keyValueHeads, headDim, window, isInt8, turned: part, cap, hasNorms } = shape;
    const { sinks } = shape;
    const withRotary = { ...shape, hasRotary: part !== undefined || i % 4 !== 1 };
    const what =
      `${heads} heads of ${headDim} elements for ${keyValueHeads}, ${isInt8 ? "int8" : "float"}` +
      (part ? `, ${part} of them turned${shape.interleaved ? " in pairs" : ""}` : "") +
      (window ? `, a window of ${window}` : "") +
      (cap ? `, scores up to ${cap}` : "") +
      (hasNorms ? ", normed once they are turned" : "") +
      (sinks ? `, sinks of ${sinks}` : "");
    test(`is right with ${what}`, () => {
      const given = inputsOf(withRotary);
      const pieces = [1, 3, 17, 2, 60, 1, 8];
      const found = machines.everywhere((machine) => run(machine, withRotary, given, pieces));
      for (const position of CHECKED) {
        for (let head = 0; head < heads; head++) {
          const wanted = expected(withRotary, given, position, head);
          const first = Math.max(0, position + 1 - (window ?? Infinity));
          const group = Math.floor(head / (heads / keyValueHeads));
          const seen = given.values.slice(first, position + 1).flatMap((row) =>
            row.slice(group * headDim, (group + 1) * headDim)
          );
          const most = Math.max(...seen.map(Math.abs));
          // A number on the border of two integers may have gone to the other, which moves a
          // probability or a value by a part in 127.
          const bound = most * (isInt8 ? 4e-3 : 1e-5);
          wanted.forEach((value, d) => {
            const what = `element ${d} of head ${head} at ${position}`;
            expectNear(found[position][head * headDim + d], value, bound, what);
          });
        }
      }
      // To the bit the same for one token after the other, and whatever was in the pages before.
      const [machine] = machines.all;
      expectSameBits(run(machine, withRotary, given, [1]), found, "one by one");
      // Also NaN, and the largest numbers that there are.
      for (const garbage of [0x40, 0x7f, 0xff]) {
        expectSameBits(
          run(machine, withRotary, given, [128], garbage),
          found,
          `in pages of ${garbage}`,
        );
      }
    });

    test(`is for tokens of several sequences what each gets alone, with ${what}`, () => {
      const given = inputsOf(withRotary);
      const other = {
        ...given,
        queries: given.queries.toReversed(),
        keys: given.keys.toReversed(),
        values: given.values.toReversed(),
      };
      const together = machines.everywhere((machine) =>
        runTogether(machine, withRotary, [
          { given, pieces: [1, 1, 30, 1, 5] },
          { given: other, pieces: [7, 1, 1, 2, 64, 1] },
          { given, pieces: [70, 1, 1] },
        ]).flat()
      );
      const [machine] = machines.all;
      const alone = [given, other, given].flatMap((one) => run(machine, withRotary, one, [1]));
      expectSameBits(together, alone, "several sequences");
    });
  }
});
