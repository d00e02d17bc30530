import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { forbid, type TokenConstraint } from "../../src/text/constraint.ts";
import { Sampler } from "../../src/text/sampler.ts";
import { samplingSchema } from "../../src/text/sampling_options.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { SEED } from "../support/fuzz.ts";

/** Allows the same tokens each time. */
class Always implements TokenConstraint {
  readonly complete = false;
  readonly taken: number[] = [];
  constructor(private readonly ids: readonly number[], private readonly words: number) {}
  get begun() {
    return this.taken.length > 0;
  }
  allowed() {
    const mask = new Uint32Array(this.words);
    for (const id of this.ids) mask[id >>> 5] |= 1 << (id & 31);
    return mask;
  }
  take(token: number) {
    this.taken.push(token);
  }
}

describe("a constraint", () => {
  test("makes the scores of exactly the tokens that it forbids −∞", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 200 }),
        fc.array(fc.nat(199)),
        fc.nat(8),
        (count, ids, words) => {
          const allowed = new Always(ids.filter((id) => id < words * 32), words).allowed();
          const scores = Float32Array.from({ length: count }, (_, id) => id + 1);
          forbid(scores, allowed);
          for (let id = 0; id < count; id++) {
            const is = id < words * 32 && ids.includes(id);
            expect(scores[id]).toBe(is ? id + 1 : -Infinity);
          }
        },
      ),
      { seed: SEED },
    );
  });

  test("is never broken, greedily or by chance, with any filter, and hears of every token", () => {
    const vocabulary = 300;
    const next = uniformNumbers(SEED);
    for (
      const options of [
        {},
        { temperature: 1.5 },
        { temperature: 1, topK: 5 },
        { temperature: 1, topP: 0.2 },
        { temperature: 1, minP: 0.5, repetitionPenalty: 1.3 },
        { logitBias: { 3: 100 }, frequencyPenalty: 1 },
      ]
    ) {
      const ids = [7, 64, 65, 127, 299];
      const constraint = new Always(ids, 10);
      const sampler = new Sampler(
        samplingSchema.parse({ seed: 1, ...options }),
        vocabulary,
        [3],
        constraint,
      );
      const chosen = Array.from({ length: 50 }, () => {
        const logits = Float32Array.from({ length: vocabulary }, () => 10 * next());
        const before = logits.slice();
        const { token } = sampler.next(logits);
        expect(logits).toEqual(before);
        return token;
      });
      for (const token of chosen) expect(ids).toContain(token);
      expect(constraint.taken).toEqual(chosen);
    }
  });

  test("leaves the log probabilities those of the model", () => {
    const logits = Float32Array.of(5, 1, 3, 2);
    const settings = samplingSchema.parse({ logprobs: 2 });
    const free = new Sampler(settings, 4).next(logits).logprobs!;
    const { token, logprobs } = new Sampler(settings, 4, [], new Always([1, 3], 1)).next(logits);
    expect(token).toBe(3);
    expect(logprobs!.top).toEqual(free.top);
    expect(logprobs!.logprob).toBeCloseTo(free.logprob - 3, 6);
  });
});
