/**
 * States of sequences: whatever these do, each has what its own tokens have left, and nothing is lost.
 * @module
 */
import { describe, expect, test } from "bun:test";
import type { CachedTokens, PageLayout } from "../../../src/engine/sparse/cache.ts";
import { FIRST_FREE, PAGE } from "../../../src/engine/sparse/layout.ts";
import { MemoryBudgetError } from "../../../src/errors.ts";
import { caseCount, type Dice, fuzz, must } from "../../support/fuzz.ts";
import { OpenSequences } from "./open_sequences.ts";

const BYTES = 64;
const LAYOUT: PageLayout = {
  ...{ bytes: BYTES, layerBytes: BYTES, together: 1 },
  ...{ keepsLast: true, stateBytes: BYTES },
};

/** Sequences that have states. */
class Sequences extends OpenSequences {
  constructor(most?: number) {
    super(most, LAYOUT, Infinity);
  }

  /** A word follows from all tokens, as a state does; a point is kept where the engine keeps one. */
  run(cached: CachedTokens, tokens: readonly number[]): void {
    const all = [...cached.again, ...tokens];
    const point = cached.pointWithin(all.length) ?? 0;
    cached.grow(all.length);
    const at = cached.states!.at(0)!;
    for (const [i, token] of all.entries()) {
      this.memory.set(at, this.memory.get(at) * 31 + token + 1 >>> 0);
      cached.add([token]);
      if (i + 1 === point) cached.keepPoint();
    }
    const wanted = cached.tokens.reduce((word, token) => word * 31 + token + 1 >>> 0, 0);
    must(this.memory.get(at) >>> 0 === wanted, `the state behind ${cached.tokens.length} tokens`);
  }
}

const some = (dice: Dice, most: number) =>
  Array.from({ length: 1 + dice.below(most) }, () => dice.below(3));

describe("states", () => {
  test("of sequences that begin, share, go back and end at random are those of their tokens", () => {
    let shared = 0;
    fuzz(caseCount(300, 60), (dice) => {
      const sequences = new Sequences(dice.below(2) === 0 ? undefined : FIRST_FREE + 80 * BYTES);
      const { open } = sequences;
      const prompts = Array.from({ length: 3 }, () => some(dice, 300));
      const attempt = (cached: CachedTokens, tokens: readonly number[]) => {
        const { length } = cached;
        try {
          sequences.run(cached, tokens);
        } catch (error) {
          if (!(error instanceof MemoryBudgetError)) throw error;
          must(cached.length === length, "it has what it had");
        }
      };
      for (let step = 0; step < 80; step++) {
        const cached = open.length > 0 ? dice.pick(open) : undefined;
        const what = dice.below(6);
        if (!cached || (what < 2 && open.length < 5)) {
          const prompt = dice.pick(prompts);
          const all = [...prompt.slice(0, dice.below(prompt.length)), ...some(dice, 90)];
          const begun = sequences.begin(all);
          must(begun.tokens.every((token, i) => token === all[i]), "another beginning");
          if (begun.tokens.length > 0) shared++;
          attempt(begun, all.slice(begun.tokens.length));
        } else if (what === 2) sequences.end(cached);
        else if (what === 3) cached.truncate(dice.below(cached.length + 1));
        else attempt(cached, some(dice, 80));
      }
      for (const each of [...open]) {
        each.truncate(0);
        sequences.end(each);
      }
      while (sequences.kept.drop());
      must(sequences.pool.held === 0, `${sequences.pool.held} pages are held by nobody`);
      must(sequences.pool.states.held === 0, "states are held by nobody");
    });
    expect(shared).toBeGreaterThan(10);
  });

  test("are copied at the last page's end that lies eight tokens before the prompt's, the first and the newest", () => {
    const sequences = new Sequences();
    const cached = sequences.begin([0]);
    const points = [[71, undefined], [72, 64], [135, 64], [2 * PAGE + 8, 2 * PAGE], [
      20 * PAGE,
      19 * PAGE,
    ]];
    for (const [count, point] of points) expect(cached.pointWithin(count!)).toBe(point);
    for (const count of [80, 64, 64, 64]) sequences.run(cached, new Array(count).fill(1));
    expect(cached.tokens.length).toBe(272);
    // Of 64, 128, 192 and 256 tokens.
    expect([63, 64, 191, 255, 256, 272].map((length) => cached.backTo(length)))
      .toEqual([0, 64, 64, 64, 256, 256]);
    expect(cached.states!.held.length).toBe(3);
    expect(sequences.pool.states.held).toBe(3);
  });

  test("that are only kept for later are given up where there are six, and where memory is short", () => {
    const sequences = new Sequences();
    for (let i = 0; i < 4; i++) {
      const cached = sequences.begin([i]);
      sequences.run(cached, [i, ...new Array(80).fill(i)]);
      sequences.end(cached);
    }
    expect([sequences.pool.states.made, sequences.pool.states.held]).toEqual([6, 6]);
    // Room for a page and a state.
    const small = new Sequences(FIRST_FREE + 2 * BYTES);
    for (let i = 0; i < 3; i++) {
      const cached = small.begin([i]);
      small.run(cached, [i, 5]);
      small.end(cached);
    }
    expect(small.pool.states.made).toBe(1);
    const one = small.begin([7]), other = small.begin([8]);
    small.run(one, [7]);
    expect(() => small.run(other, [8])).toThrow(MemoryBudgetError);
    expect([other.tokens.length, other.states!.held.length]).toEqual([0, 0]);
  });
});
