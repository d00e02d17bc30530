import { describe, expect, test } from "bun:test";
import { parseOptions } from "../../src/api/options.ts";
import { UsageError } from "../../src/errors.ts";
import { samplingSchema } from "../../src/text/sampling_options.ts";
import { thrownBy } from "../checkpoint/support.ts";

describe("sampling options", () => {
  const parse = (options: unknown) => parseOptions(samplingSchema, options);

  test("are greedy, with all filters and penalties off, by default", () => {
    expect(parse({})).toEqual({
      temperature: 0,
      topK: 0,
      topP: 1,
      minP: 0,
      repetitionPenalty: 1,
      frequencyPenalty: 0,
      presencePenalty: 0,
    });
  });

  test("lie in the ranges of OpenAI's interface", () => {
    const bad: [string, unknown][] = [
      ["temperature", -0.1],
      ["temperature", 2.1],
      ["temperature", NaN],
      ["temperature", "1"],
      ["topK", -1],
      ["topK", 1.5],
      ["topP", 1.1],
      ["minP", -0.1],
      ["repetitionPenalty", 0],
      ["frequencyPenalty", 2.1],
      ["presencePenalty", -2.1],
      ["seed", -1],
      ["seed", 2 ** 53],
      ["logprobs", 21],
      ["logitBias", { 5: 101 }],
      ["logitBias", { five: 1 }],
      ["logitBias", "5"],
      ["logitBias", "5=200"],
      ["logitBias", "5=1,"],
    ];
    for (const [field, value] of bad) {
      const error = thrownBy(() => parse({ [field]: value }));
      expect(error).toBeInstanceOf(UsageError);
      expect(error.message).toContain(field);
    }
    expect(thrownBy(() => parse({ beams: 4 })).message).toContain("beams");
  });

  test("take a bias as a command writes it", () => {
    expect(parse({ logitBias: "50256=-100, 198=2.5" })).toMatchObject({
      logitBias: { 50256: -100, 198: 2.5 },
    });
    expect(parse({ logitBias: { 7: -1 } })).toMatchObject({ logitBias: { 7: -1 } });
  });

  test("that may have several forms are told what is wrong with the one that was meant", () => {
    const told = (logitBias: unknown) => thrownBy(() => parse({ logitBias })).message;
    expect(told("5=200")).toBe(
      'logitBias: "5=200" was given; write ID=BIAS,ID=BIAS with -100 to 100',
    );
    expect(told({ five: 1 })).toBe("logitBias: must be a token id");
    expect(told({ 5: "1" })).toContain("expected number");
    expect(told({ 5: 101 })).toContain("<=100");
    expect(told(5)).toBe("logitBias: Invalid input");
  });

  test("all say what they are", () => {
    for (const field of Object.values(samplingSchema.shape)) {
      expect((field.description ?? "").length).toBeGreaterThan(10);
    }
  });
});
