/** Generation under a schema: a model without sense, whose text is right all the same. @module */
import { describe, expect, test } from "bun:test";
import { generate } from "../../src/generate/generate.ts";
import { constraintFor, type TextForm } from "../../src/text/structured/mod.ts";
import { validator } from "../text/structured_support.ts";
import { babbler, END, PROMPT, take, text, tokenizer, VOCABULARY } from "./support.ts";
import { certainly, ToyModel } from "./toy_model.ts";

const constraint = (form: TextForm) => constraintFor(tokenizer, VOCABULARY, form);

const ORDER = {
  type: "object",
  properties: {
    id: { type: "string", maxLength: 8 },
    date: { type: "string", format: "date" },
    paid: { type: "boolean" },
    customer: {
      anyOf: [
        {
          type: "object",
          properties: { kind: { const: "person" }, age: { type: "integer", maximum: 150 } },
          required: ["kind", "age"],
        },
        { type: "null" },
      ],
    },
    lines: {
      type: "array",
      minItems: 1,
      maxItems: 3,
      items: {
        type: "object",
        properties: { price: { type: "number", minimum: 0, maximum: 10 } },
        required: ["price"],
      },
    },
  },
  required: ["id", "date", "paid", "customer", "lines"],
  additionalProperties: false,
};

describe("text of a model that babbles, under a schema", () => {
  test("validates and ends, however tokens are chosen", async () => {
    const validate = validator(ORDER);
    for (
      const options of [
        {},
        { temperature: 2, seed: 1 },
        { temperature: 1, seed: 2, topP: 0.5 },
        { temperature: 1, seed: 3, topK: 3 },
        { temperature: 1, seed: 4, minP: 0.9, repetitionPenalty: 1.3 },
        { seed: 5, ignoreEos: true, frequencyPenalty: 2, logitBias: { 5: 100 } },
      ]
    ) {
      const { text: written, end } = await take(
        generate(babbler(), text, PROMPT, {
          ...options,
          maxTokens: 400,
          constraint: constraint({ schema: ORDER }),
        }),
      );
      expect(end.finishReason).toBe("stop");
      expect([written, validate(JSON.parse(written))]).toEqual([written, true]);
    }
  });

  test("is a beginning of JSON where tokens ran out", async () => {
    const { text: written, end } = await take(
      generate(babbler(), text, PROMPT, {
        maxTokens: 12,
        constraint: constraint({ schema: ORDER }),
      }),
    );
    expect(end.finishReason).toBe("length");
    expect(written.trimStart().startsWith('{"id":')).toBe(true);
  });

  test("does not end before it may, though the model wants nothing else", async () => {
    const model = new ToyModel({
      vocabulary: VOCABULARY,
      logits: () => certainly(END, VOCABULARY),
    });
    const schema = { type: "array", items: { enum: [true] }, minItems: 2, maxItems: 2 };
    const { text: written, end } = await take(
      generate(model, text, PROMPT, { constraint: constraint({ schema }), maxTokens: 50 }),
    );
    expect([JSON.parse(written), end.finishReason]).toEqual([[true, true], "stop"]);

    const number = await take(
      generate(model, text, PROMPT, { constraint: constraint({ schema: { type: "integer" } }) }),
    );
    expect(number.tokens.at(-1)).toBe(END);
    expect(Number.isInteger(JSON.parse(number.text))).toBe(true);
  });

  test("comes to an end by itself where a value goes on and ends are ignored", async () => {
    const nine = tokenizer.encode("9")[0];
    const model = new ToyModel({
      vocabulary: VOCABULARY,
      logits: () => certainly(nine, VOCABULARY),
    });
    const { text: written, end } = await take(
      generate(model, text, PROMPT, {
        constraint: constraint({ schema: { type: "integer" } }),
        ignoreEos: true,
      }),
    );
    expect([written, end.finishReason]).toEqual(["999999999999999", "stop"]);
  });

  test("is the same for the same seed", async () => {
    const once = () =>
      take(generate(babbler(), text, PROMPT, {
        temperature: 1.5,
        seed: 9,
        maxTokens: 100,
        constraint: constraint({ schema: ORDER }),
      }));
    expect((await once()).tokens).toEqual((await once()).tokens);
  });
});
