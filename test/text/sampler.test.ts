import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { NotFiniteError, TokenRangeError } from "../../src/errors.ts";
import { Xoshiro128 } from "../../src/text/random.ts";
import { Sampler } from "../../src/text/sampler.ts";
import { type SamplingOptions, samplingSchema } from "../../src/text/sampling_options.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { SEED } from "../support/fuzz.ts";
import { doubles, floats } from "../support/numbers.ts";

function sampler(options: SamplingOptions, vocabulary: number, prompt: number[] = []): Sampler {
  return new Sampler(samplingSchema.parse(options), vocabulary, prompt);
}

/** Tokens of one sampler, all from the same logits. */
function draw(options: SamplingOptions, logits: Float32Array, count: number): number[] {
  const one = sampler(options, logits.length);
  return Array.from({ length: count }, () => one.next(logits).token);
}

/** Logits like a model's: bell-shaped, a few far above. */
function bellShaped(count: number, seed: number, width = 3): Float32Array {
  const next = uniformNumbers(seed);
  return Float32Array.from({ length: count }, () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += next();
    return sum * width;
  });
}

/** The distribution that is drawn from, by sorting everything: probability by token. */
function naive(logits: Float32Array, options: SamplingOptions): Map<number, number> {
  const { temperature, topK, topP, minP } = samplingSchema.parse(options);
  const highest = Math.max(...logits);
  let ranked = Array.from(logits, (logit, id) => ({
    id,
    logit,
    weight: Math.exp((logit - highest) / temperature),
  })).sort((a, b) => b.logit - a.logit || a.id - b.id);
  if (topK > 0) ranked = ranked.slice(0, topK);
  if (topP < 1) {
    const total = ranked.reduce((sum, { weight }) => sum + weight, 0);
    let sum = 0;
    let kept = 0;
    while (kept === 0 || (kept < ranked.length && sum < topP * total)) sum += ranked[kept++].weight;
    ranked = ranked.slice(0, kept);
  }
  ranked = ranked.filter(({ weight }) => weight >= minP);
  const total = ranked.reduce((sum, { weight }) => sum + weight, 0);
  return new Map(
    ranked.sort((a, b) => a.id - b.id).map(({ id, weight }) => [id, weight / total]),
  );
}

/** The token at a place of a distribution. */
function tokenAt(distribution: Map<number, number>, place: number): number {
  let sum = 0;
  let last = -1;
  for (const [id, probability] of distribution) {
    sum += probability;
    if (probability > 0) last = id;
    if (sum > place) return id;
  }
  return last;
}

/** Checks a run of draws against the naive distribution and the same random numbers. */
function checkDraws(logits: Float32Array, options: SamplingOptions, count: number): void {
  const distribution = naive(logits, options);
  const random = Xoshiro128.fromSeed(options.seed ?? 0);
  const wanted = Array.from({ length: count }, () => tokenAt(distribution, random.uniform()));
  expect(draw({ seed: 0, ...options }, logits, count)).toEqual(wanted);
}

describe("a greedy choice", () => {
  test("is the largest logit, of equal ones the lowest id", () => {
    expect(draw({}, Float32Array.of(1, 5, 3, 5), 3)).toEqual([1, 1, 1]);
    expect(draw({}, Float32Array.of(-3, -1, -2), 1)).toEqual([1]);
    expect(draw({}, Float32Array.of(-0, 0), 1)).toEqual([0]);
    const logits = bellShaped(49_152, 1);
    expect(draw({}, logits, 1)).toEqual([logits.indexOf(logits.reduce((a, b) => Math.max(a, b)))]);
  });

  test("does not look at filters or the seed", () => {
    const options = { topK: 2, topP: 0.1, minP: 0.9, seed: 7 };
    expect(draw(options, Float32Array.of(1, 2, 3), 2)).toEqual([2, 2]);
  });

  test("passes over what is not a number", () => {
    expect(draw({}, Float32Array.of(NaN, 1, NaN, 2, -Infinity), 1)).toEqual([3]);
    const drawn = new Set(
      draw({ temperature: 2, seed: 1 }, Float32Array.of(NaN, 1, NaN, 2, -Infinity), 200),
    );
    expect([...drawn].sort()).toEqual([1, 3]);
    for (const topK of [1, 2, 3]) {
      const options = { temperature: 2, seed: 1, topK };
      expect(draw(options, Float32Array.of(NaN, 1, NaN), 2)).toEqual([1, 1]);
    }
  });

  test("is the one that the caller knows, unless scores are others or it is no number", () => {
    const next = (options: SamplingOptions, logits: number[], known: number) =>
      sampler(options, logits.length).next(Float32Array.from(logits), known).token;
    // To see that nobody looks, it is told a wrong one.
    expect(next({}, [1, 5, 3], 2)).toBe(2);
    expect(next({ logitBias: { 0: 10 } }, [1, 5, 3], 1)).toBe(0);
    expect(next({}, [1, NaN, 3], 1)).toBe(2);
    expect(next({ temperature: 1, topK: 1 }, [1, 5, 3], 1)).toBe(1);
    expect(thrownBy(() => next({}, [1, Infinity, 3], 1))).toBeInstanceOf(NotFiniteError);
  });

  test("is refused where no logit is finite, or one is infinite", () => {
    for (const bad of [[NaN, NaN], [-Infinity, -Infinity], [1, Infinity]]) {
      for (const temperature of [0, 1]) {
        const error = thrownBy(() => draw({ temperature }, Float32Array.from(bad), 1));
        expect(error).toBeInstanceOf(NotFiniteError);
      }
    }
  });
});

describe("a drawn token", () => {
  const cases: SamplingOptions[] = [
    { temperature: 1 },
    { temperature: 0.3 },
    { temperature: 2 },
    { temperature: 1, topK: 1 },
    { temperature: 1, topK: 5 },
    { temperature: 1, topK: 1000 },
    { temperature: 1, topK: 100_000 },
    { temperature: 1, topP: 0.9 },
    { temperature: 1, topP: 0.05 },
    { temperature: 1, topP: 0 },
    { temperature: 2, topP: 0.99 },
    { temperature: 1, minP: 0.1 },
    { temperature: 1, minP: 1 },
    { temperature: 0.8, topK: 40, topP: 0.95 },
    { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05 },
    { temperature: 1.5, topK: 500, topP: 0.8, minP: 0.01 },
  ];
  for (const options of cases) {
    test(`is that of a full sort, with ${JSON.stringify(options)}`, () => {
      for (const width of [0.1, 1, 4]) {
        for (let seed = 0; seed < 3; seed++) {
          checkDraws(bellShaped(3000, seed, width), { ...options, seed }, 20);
        }
      }
      checkDraws(bellShaped(49_152, 9), { ...options, seed: 5 }, 3);
    });
  }

  test("is that of a full sort for any logits, also with many ties", () => {
    const logit = fc.oneof(
      fc.integer({ min: -3, max: 3 }),
      floats(-30, 30),
      fc.constantFrom(-0, 0, -1e30, 1e-30),
    );
    fc.assert(
      fc.property(
        fc.array(logit, { minLength: 1, maxLength: 60 }),
        fc.constantFrom(0.2, 1, 2),
        fc.nat(10),
        fc.constantFrom(0, 0.31, 0.77, 0.983, 1),
        fc.constantFrom(0, 0.137, 1),
        fc.nat(1000),
        (logits, temperature, topK, topP, minP, seed) =>
          checkDraws(Float32Array.from(logits), { temperature, topK, topP, minP, seed }, 3),
      ),
      { seed: SEED, numRuns: 2000 },
    );
  });

  test("is any of a vocabulary of equal logits, and top-k takes the lowest ids of it", () => {
    const flat = new Float32Array(5000).fill(1.5);
    checkDraws(flat, { temperature: 1, seed: 1 }, 50);
    for (const token of draw({ temperature: 1, topK: 7, seed: 1 }, flat, 200)) {
      expect(token).toBeLessThan(7);
    }
    const half = draw({ temperature: 1, topP: 0.5001, seed: 2 }, flat, 2000);
    expect(Math.max(...half)).toBeLessThanOrEqual(2500);
  });

  test("is as likely as it should be", () => {
    const logits = bellShaped(40, 3, 1);
    const cases: SamplingOptions[] = [
      { temperature: 1 },
      { temperature: 0.7, topK: 20 },
      { temperature: 1.3, topP: 0.9 },
      { temperature: 1, minP: 0.1 },
      { temperature: 0.9, topK: 30, topP: 0.95, minP: 0.05 },
    ];
    const count = 50_000;
    for (const options of cases) {
      const distribution = naive(logits, options);
      const counts = new Map<number, number>();
      for (const token of draw({ ...options, seed: 17 }, logits, count)) {
        counts.set(token, (counts.get(token) ?? 0) + 1);
      }
      for (const token of counts.keys()) expect(distribution.has(token)).toBe(true);
      // Rare tokens are taken together, as the test wants at least some of each kind.
      let chi = 0;
      let kinds = 0;
      let rare = { seen: 0, expected: 0 };
      const add = (seen: number, expected: number) => {
        chi += (seen - expected) ** 2 / expected;
        kinds++;
      };
      for (const [token, probability] of distribution) {
        const [seen, expected] = [counts.get(token) ?? 0, probability * count];
        if (expected >= 20) add(seen, expected);
        else rare = { seen: rare.seen + seen, expected: rare.expected + expected };
      }
      if (rare.expected > 5) add(rare.seen, rare.expected);
      // 3.1 standard deviations above the mean (Wilson and Hilferty): once in a thousand times.
      const degrees = kinds - 1;
      const limit = degrees * (1 - 2 / (9 * degrees) + 3.1 * Math.sqrt(2 / (9 * degrees))) ** 3;
      expect(chi).toBeLessThan(limit);
    }
  });

  test("is the same for the same seed in every runtime, and another for another", () => {
    const logits = bellShaped(1000, 4);
    const options = { temperature: 0.9, topP: 0.95 };
    const tokens = draw({ ...options, seed: 42 }, logits, 12);
    expect(tokens).toEqual([361, 1, 650, 681, 769, 682, 713, 42, 422, 612, 173, 332]);
    expect(draw({ ...options, seed: 42 }, logits, 12)).toEqual(tokens);
    expect(draw({ ...options, seed: 43 }, logits, 12)).not.toEqual(tokens);
  });

  test("has a seed also where none was given", () => {
    const one = sampler({ temperature: 1 }, 10);
    const other = sampler({ temperature: 1 }, 10);
    expect(one.seed).not.toBe(other.seed);
    const logits = bellShaped(10, 1);
    const tokens = Array.from({ length: 20 }, () => one.next(logits).token);
    expect(draw({ temperature: 1, seed: one.seed }, logits, 20)).toEqual(tokens);
  });

  test("leaves the logits as they were", () => {
    const logits = bellShaped(100, 5);
    const copy = logits.slice();
    const everything = { temperature: 1, topK: 50, topP: 0.9, minP: 0.01, logprobs: 5, seed: 1 };
    draw(everything, logits, 5);
    draw({ ...everything, repetitionPenalty: 1.2, logitBias: { 3: 5 } }, logits, 5);
    expect(logits).toEqual(copy);
  });
});

describe("penalties and bias", () => {
  /** Greedy choices, one after the other, all from the same logits. */
  function choices(
    options: SamplingOptions,
    logits: Float32Array,
    prompt: number[],
    count: number,
  ) {
    const one = sampler(options, logits.length, prompt);
    return Array.from({ length: count }, () => one.next(logits).token);
  }

  /** The same by the definitions of Hugging Face and OpenAI, written out. */
  function reference(
    options: SamplingOptions,
    logits: Float32Array,
    prompt: number[],
    count: number,
  ): number[] {
    const settings = samplingSchema.parse(options);
    const generated: number[] = [];
    for (let i = 0; i < count; i++) {
      const scores = Array.from(logits);
      for (const id of new Set([...prompt, ...generated])) {
        // RepetitionPenaltyLogitsProcessor
        scores[id] = scores[id] < 0
          ? scores[id] * settings.repetitionPenalty
          : scores[id] / settings.repetitionPenalty;
      }
      for (const id of new Set(generated)) {
        // mu[j] − c[j] · alpha_frequency − (c[j] > 0) · alpha_presence
        const times = generated.filter((token) => token === id).length;
        scores[id] -= times * settings.frequencyPenalty + settings.presencePenalty;
      }
      for (const [id, bias] of Object.entries(settings.logitBias ?? {})) scores[Number(id)] += bias;
      generated.push(scores.indexOf(Math.max(...scores)));
    }
    return generated;
  }

  const cases: [SamplingOptions, number[]][] = [
    [{ repetitionPenalty: 1.3 }, [0, 1, 2]],
    [{ repetitionPenalty: 0.7 }, [5]],
    [{ frequencyPenalty: 0.6 }, [0, 0, 0, 1]],
    [{ presencePenalty: 1.1 }, [0, 1]],
    [{ presencePenalty: -1, frequencyPenalty: 0.25 }, []],
    [{ repetitionPenalty: 1.1, frequencyPenalty: 0.3, presencePenalty: 0.4 }, [3, 3, 4]],
    [{ logitBias: { 0: 2.5, 7: -100 }, frequencyPenalty: 0.5 }, []],
  ];
  for (const [options, prompt] of cases) {
    test(`are those of the definitions, with ${JSON.stringify(options)}`, () => {
      for (let seed = 0; seed < 20; seed++) {
        const logits = bellShaped(12, seed, 1);
        expect(choices(options, logits, prompt, 40)).toEqual(
          reference(options, logits, prompt, 40),
        );
      }
    });
  }

  test("divide positive logits and multiply negative ones, to the value", () => {
    // Token 0 at 3 falls below 1.6 if divided by 2, but not below 1.4.
    expect(choices({ repetitionPenalty: 2 }, Float32Array.of(3, 1.6), [0], 1)).toEqual([1]);
    expect(choices({ repetitionPenalty: 2 }, Float32Array.of(3, 1.4), [0], 1)).toEqual([0]);
    expect(choices({ repetitionPenalty: 2 }, Float32Array.of(-3, -5.9), [0], 1)).toEqual([1]);
    expect(choices({ repetitionPenalty: 2 }, Float32Array.of(-3, -6.1), [0], 1)).toEqual([0]);
  });

  test("of frequency and presence do not count the prompt", () => {
    const logits = Float32Array.of(1, 0.5);
    expect(choices({ presencePenalty: 2, frequencyPenalty: 2 }, logits, [0, 0, 0], 2)).toEqual([
      0,
      1,
    ]);
  });

  test("act before the filters and the draw", () => {
    const logits = Float32Array.of(10, 1, 1);
    const drawn = draw(
      { temperature: 1, topK: 1, logitBias: { 0: -100, 2: 1 }, seed: 3 },
      logits,
      20,
    );
    expect(new Set(drawn)).toEqual(new Set([2]));
  });

  test("must name tokens of the vocabulary", () => {
    const logits = new Float32Array(4);
    expect(thrownBy(() => draw({ logitBias: { 4: 1 } }, logits, 1))).toBeInstanceOf(
      TokenRangeError,
    );
    for (const id of [4, -1, 0.5, NaN]) {
      expect(thrownBy(() => sampler({}, 4, [0, id]))).toBeInstanceOf(TokenRangeError);
    }
    expect(thrownBy(() => sampler({}, 5).next(logits))).toBeInstanceOf(TokenRangeError);
  });
});

describe("log probabilities", () => {
  test("are those of log softmax in double precision, of the model's own logits", () => {
    const options: SamplingOptions[] = [
      { logprobs: 5 },
      { logprobs: 0 },
      { logprobs: 20, temperature: 1.5, topK: 3, seed: 1 },
      { logprobs: 5, repetitionPenalty: 1.5, logitBias: { 1: 50 } },
    ];
    for (const given of options) {
      for (let seed = 0; seed < 10; seed++) {
        const logits = bellShaped(500, seed);
        const { token, logprobs } = sampler(given, 500, [1, 2]).next(logits);
        const highest = Math.max(...logits);
        const sum = logits.reduce((total, logit) => total + Math.exp(logit - highest), 0);
        const all = Array.from(logits, (logit, id) => ({
          token: id,
          logprob: logit - highest - Math.log(sum),
        }));
        expect(logprobs?.token).toBe(token);
        expect(logprobs?.logprob).toBeCloseTo(all[token].logprob, 12);
        const ranked = all.sort((a, b) => b.logprob - a.logprob || a.token - b.token);
        const top = ranked.slice(0, given.logprobs);
        expect(logprobs?.top.map(({ token }) => token)).toEqual(top.map(({ token }) => token));
        logprobs?.top.forEach(({ logprob }, i) => expect(logprob).toBeCloseTo(top[i].logprob, 12));
      }
    }
  });

  test("name the lower of equal tokens first, and no more than there are", () => {
    const { logprobs } = sampler({ logprobs: 20 }, 4).next(Float32Array.of(1, 2, 1, 2));
    expect(logprobs?.top.map(({ token }) => token)).toEqual([1, 3, 0, 2]);
    const some = sampler({ logprobs: 3 }, 4).next(Float32Array.of(1, NaN, 1, -Infinity));
    expect(some.logprobs?.top.map(({ token }) => token)).toEqual([0, 2]);
    expect(some.logprobs?.logprob).toBeCloseTo(Math.log(0.5), 12);
  });

  test("are told only where they are asked for", () => {
    expect(sampler({}, 2).next(Float32Array.of(0, 1))).toEqual({ token: 1 });
  });
});

describe("how far below the largest logit others may be", () => {
  test("is known where the likeliest is taken, and where min-p alone decides", () => {
    expect(sampler({}, 9).within).toBe(0);
    expect(sampler({ topK: 3, topP: 0.5, minP: 0.1, seed: 1 }, 9).within).toBe(0);
    const draws = sampler({ temperature: 2, topK: 40, minP: 0.25 }, 9);
    expect(draws.within).toBeCloseTo(2 * Math.log(4), 1);
    const all: SamplingOptions[] = [
      { temperature: 1 },
      { temperature: 1, topK: 5 },
      { temperature: 1, topP: 0.9, minP: 0.1 },
      { logprobs: 0 },
      { repetitionPenalty: 1.1 },
      { frequencyPenalty: 0.1 },
      { presencePenalty: -0.1 },
      { logitBias: { 3: 1 } },
    ];
    for (const options of all) expect(sampler(options, 9).within).toBeUndefined();
  });

  test("may be anything beyond that without another token being chosen", () => {
    fc.assert(
      fc.property(
        fc.record({
          temperature: fc.constantFrom(0, 0.3, 1, 2),
          topK: fc.constantFrom(0, 1, 5, 40),
          minP: fc.constantFrom(0.001, 0.05, 0.5, 1),
          seed: fc.nat(),
        }),
        fc.nat(),
        doubles(0, 1000),
        (options, seed, further) => {
          const logits = bellShaped(200, seed);
          const one = sampler(options, 200), other = sampler(options, 200);
          const floor = Math.max(...logits) - one.within!;
          const fewer = logits.map((logit) =>
            logit < floor ? Math.min(logit, floor - further) : logit
          );
          for (let i = 0; i < 20; i++) expect(other.next(fewer).token).toBe(one.next(logits).token);
        },
      ),
      { seed: SEED, numRuns: 200 },
    );
  });
});
