/**
 * Pages of the cache: whatever sequences do, each finds what it has written, and nothing is lost.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { CachedTokens, type PageLayout } from "../../../src/engine/sparse/cache.ts";
import { FIRST_FREE, PAGE } from "../../../src/engine/sparse/layout.ts";
import type { EngineMemory } from "../../../src/engine/sparse/memory.ts";
import { MemoryBudgetError } from "../../../src/errors.ts";
import { caseCount, Dice, fuzz, must } from "../../support/fuzz.ts";
import { OpenSequences } from "./open_sequences.ts";

/** A layer of a page holds a number for each of its positions. */
const LAYER_BYTES = PAGE * 4;

/** Pages of one layer, one at a time; and pages of four layers, three at a time. */
const SINGLE: PageLayout = { bytes: LAYER_BYTES, layerBytes: LAYER_BYTES, together: 1 };
const TOGETHER: PageLayout = { bytes: 4 * LAYER_BYTES, layerBytes: LAYER_BYTES, together: 3 };

/** Runs tokens as the engine does: what is written at a position follows from all tokens before it. */
function run(
  memory: EngineMemory,
  cached: CachedTokens,
  tokens: readonly number[],
  layout = SINGLE,
): void {
  cached.grow(tokens.length);
  for (const token of tokens) {
    const at = cached.tokens.length;
    for (const [layer, address] of addressesOf(cached, at, layout).entries()) {
      const before = at === 0 ? layer : memory.get(addressesOf(cached, at - 1, layout)[layer]);
      memory.set(address, before * 31 + token >>> 0);
    }
    cached.tokens.push(token);
  }
}

/** Where each layer has a position. */
function addressesOf(cached: CachedTokens, position: number, layout: PageLayout): number[] {
  const { bytes, layerBytes, together } = layout;
  const page = cached.pages[Math.floor(position / PAGE)];
  return Array.from(
    { length: bytes / layerBytes },
    (_, layer) => page + layer * layerBytes * together + position % PAGE * 4,
  );
}

/** Fails unless a sequence's pages hold what its tokens have written. */
function check(memory: EngineMemory, cached: CachedTokens, layout = SINGLE): void {
  const wanted = Array.from({ length: layout.bytes / layout.layerBytes }, (_, layer) => layer);
  cached.tokens.forEach((token, at) => {
    for (const [layer, address] of addressesOf(cached, at, layout).entries()) {
      wanted[layer] = wanted[layer] * 31 + token >>> 0;
      must(
        memory.get(address) === wanted[layer],
        `layer ${layer} of position ${at} of ${cached.tokens.length}`,
      );
    }
  });
}

/** Sequences with pages of one layer, unless told otherwise. */
class Sequences extends OpenSequences {
  constructor(most?: number, layout = SINGLE, plenty = 0) {
    super(most, layout, plenty);
  }
}

test("of kept sequences, the beginning of another takes no place of its own, and makes that one recent", () => {
  const sequences = new Sequences(undefined, SINGLE, 100);
  const { memory, kept } = sequences;
  const end = (tokens: number[]) => {
    const cached = new CachedTokens(sequences.pool);
    sequences.open.push(cached);
    run(memory, cached, tokens);
    sequences.end(cached);
  };
  const long = [1, 2, 3, 4, 5];
  const others = [[6, 6], [7, 7], [8, 8]];
  for (const tokens of [long, ...others]) end(tokens);
  for (const length of [3, 5, 1]) end(long.slice(0, length));
  const lengthOf = (tokens: number[]) => kept.find(tokens, tokens.length)?.length ?? 0;
  expect([long, ...others].map(lengthOf)).toEqual([5, 2, 2, 2]);
  end([9, 9]);
  expect([long, ...others, [9, 9]].map(lengthOf)).toEqual([5, 0, 2, 2, 2]);
});

test("sequences that begin, share, go back and end at random keep what is theirs", () => {
  fuzz(caseCount(300, 60), (dice) => {
    const layout = dice.pick([SINGLE, TOGETHER]);
    const sequences = new Sequences(undefined, layout);
    const { memory, open } = sequences;
    const some = (most: number) =>
      Array.from({ length: 1 + dice.below(most) }, () => dice.below(3));
    const prompts = Array.from({ length: 3 }, () => some(300));
    for (let step = 0; step < 80; step++) {
      const cached = open.length > 0 ? dice.pick(open) : undefined;
      const what = dice.below(6);
      if (!cached || (what < 2 && open.length < 5)) {
        // A beginning of a prompt, and something else.
        const prompt = dice.pick(prompts);
        const all = [...prompt.slice(0, dice.below(prompt.length)), ...some(90)];
        const begun = sequences.begin(all);
        must(begun.tokens.length < all.length, "nothing is left to be run");
        must(begun.tokens.every((token, i) => token === all[i]), "another beginning");
        check(memory, begun, layout);
        run(memory, begun, all.slice(begun.tokens.length), layout);
      } else if (what === 2) sequences.end(cached);
      else if (what === 3) cached.truncate(dice.below(cached.tokens.length + 2));
      else run(memory, cached, some(80), layout);
      for (const each of open) check(memory, each, layout);
    }
    for (const each of [...open]) {
      each.truncate(0);
      sequences.end(each);
    }
    while (sequences.kept.drop());
    must(sequences.pool.held === 0, `${sequences.pool.held} pages are held by nobody`);
  });
});

test("the tokens that two prompts begin with are found, though there is no free page", () => {
  const sequences = new Sequences();
  const { memory } = sequences;
  const prompt = Array.from({ length: 100 }, (_, i) => i);
  for (const common of [1, 7, 8, 63, 64, 65, 71, 72, 99]) {
    const first = sequences.begin(prompt);
    run(memory, first, prompt.slice(first.tokens.length));
    sequences.end(first);
    const second = [...prompt.slice(0, common), ...new Array(100 - common).fill(500)];
    const begun = sequences.begin(second);
    // Few tokens of a page are not worth a copy of it.
    const wanted = common % PAGE < 8 ? common - common % PAGE : common;
    expect([common, begun.tokens.length]).toEqual([common, wanted]);
    run(memory, begun, second.slice(wanted));
    check(memory, begun);
    sequences.end(begun);
    while (sequences.kept.drop());
  }
});

test("a page is copied without giving up what is kept, up to as many pages as are plenty", () => {
  for (const [plenty, kept] of [[0, 1], [4, 3], [Infinity, 4]]) {
    const sequences = new Sequences(undefined, SINGLE, plenty);
    const { memory } = sequences;
    // Conversations that begin alike: a page of all of them, and another that is each one's own.
    const instructions = Array.from({ length: 100 }, (_, i) => i);
    for (let i = 0; i < 4; i++) {
      const prompt = [...instructions, 1000 + i];
      const cached = sequences.begin(prompt);
      expect(cached.tokens.length).toBe(i === 0 ? 0 : instructions.length);
      run(memory, cached, prompt.slice(cached.tokens.length));
      check(memory, cached);
      sequences.end(cached);
    }
    let dropped = 0;
    while (sequences.kept.drop()) dropped++;
    expect({ plenty, dropped }).toEqual({ plenty, dropped: kept });
    expect(sequences.pool.held).toBe(0);
  }
});

test("pages that are made together lie side by side, and are all there before others are made", () => {
  const { memory, pool } = new Sequences(undefined, TOGETHER);
  const cached = new CachedTokens(pool);
  const pages = Array.from({ length: 7 }, () => pool.take(cached));
  expect(pool.made).toBe(9);
  const apart = pages.slice(1).map((page, i) => page - pages[i]);
  expect([apart[0], apart[1], apart[3], apart[4]]).toEqual(new Array(4).fill(LAYER_BYTES));
  const { used } = memory;
  expect([pool.take(cached), pool.take(cached)]).toEqual(
    [1, 2].map((i) => pages[6] + i * LAYER_BYTES),
  );
  expect(memory.used).toBe(used);
  expect(pool.most).toBe(9 + 3 * Math.floor(memory.left / (3 * TOGETHER.bytes)));
});

describe("where memory is short", () => {
  /** Room for 255 pages. */
  const MOST = 65536 + 1024;

  test("caches that are kept give way, and only then is it an error", () => {
    const sequences = new Sequences(MOST);
    const { memory, pool } = sequences;
    for (let round = 0; round < 50; round++) {
      const cached = sequences.begin([round]);
      run(memory, cached, Array.from({ length: 60 * PAGE }, (_, i) => round + i));
      check(memory, cached);
      sequences.end(cached);
    }
    const before = memory.used;
    const cached = sequences.begin([7]);
    expect(() => run(memory, cached, new Array(300 * PAGE).fill(7))).toThrow(MemoryBudgetError);
    expect(memory.used).toBeGreaterThanOrEqual(before);
    expect(memory.used).toBeLessThanOrEqual(MOST);
    // What was there is still there, and all of it comes back.
    expect(cached.tokens.length).toBe(0);
    cached.truncate(0);
    expect(pool.held).toBe(0);
    run(memory, cached, new Array(200 * PAGE).fill(1));
    check(memory, cached);
  });

  test("kept caches that share all their pages with others are given up as far as it takes", () => {
    const sequences = new Sequences(MOST);
    const { memory } = sequences;
    const dice = new Dice(1);
    const first = sequences.begin([1]);
    run(memory, first, Array.from({ length: 100 * PAGE }, () => dice.below(9)));
    const prompt = [...first.tokens];
    sequences.end(first);
    // Three more, each with the pages of the first and one of its own.
    for (let i = 0; i < 3; i++) {
      const next = sequences.begin([...prompt.slice(0, -1), 10 + i, 1]);
      run(memory, next, [10 + i, 1, 2]);
      sequences.end(next);
    }
    const last = sequences.begin([77]);
    run(memory, last, new Array(240 * PAGE).fill(77));
    check(memory, last);
  });

  for (const plenty of [0, Infinity]) {
    test(`a page that is shared with what is given up needs no copy: of ${plenty} pages`, () => {
      // Two pages are all there is.
      const sequences = new Sequences(FIRST_FREE + 2 * LAYER_BYTES, SINGLE, plenty);
      const { memory } = sequences;
      const first = sequences.begin([1]);
      run(memory, first, Array.from({ length: 2 * PAGE }, (_, i) => i));
      const prompt = [...first.tokens];
      sequences.end(first);
      const second = sequences.begin([...prompt.slice(0, PAGE + 20), 500]);
      expect(second.tokens.length).toBe(PAGE + 20);
      run(memory, second, [500, 501]);
      check(memory, second);
      expect(sequences.pool.held).toBe(2);
    });
  }

  test("who is shared goes on in its page, and who shares needs one of its own", () => {
    const sequences = new Sequences(FIRST_FREE + 2 * LAYER_BYTES, SINGLE, Infinity);
    const { memory } = sequences;
    const first = sequences.begin([1]);
    run(memory, first, Array.from({ length: 20 }, (_, i) => i));
    const [second, third] = [12, 20].map((length) => {
      const cached = new CachedTokens(sequences.pool);
      cached.share(first, length);
      return cached;
    });
    run(memory, first, [500, 501]);
    expect(sequences.pool.held).toBe(1);
    run(memory, second, [600]);
    for (const each of [first, second, third]) check(memory, each);
    // There is none left for the third, until who was there first has gone back behind what it shares.
    expect(() => run(memory, third, [700])).toThrow(MemoryBudgetError);
    run(memory, first, [502]);
    first.truncate(18);
    expect(() => run(memory, first, [503])).toThrow(MemoryBudgetError);
    first.truncate(0);
    run(memory, third, [700]);
    for (const each of [second, third]) check(memory, each);
  });

  test("a page of two open sequences is copied, or it is an error and both have what they had", () => {
    const sequences = new Sequences(FIRST_FREE + 2 * LAYER_BYTES, SINGLE, Infinity);
    const { memory } = sequences;
    const first = sequences.begin([1]);
    run(memory, first, Array.from({ length: PAGE + 20 }, (_, i) => i));
    const second = new CachedTokens(sequences.pool);
    second.share(first, PAGE + 20);
    expect(() => run(memory, second, [500])).toThrow(MemoryBudgetError);
    check(memory, first);
    check(memory, second);
    first.truncate(PAGE);
    run(memory, second, [500]);
    check(memory, second);
  });
});
