/** What every server does with `POST /v1/completions`. @module */
import type { GenerationOptions } from "../../../src/generate/options.ts";
import { completionSchema } from "../../../src/server/schemas/completions.ts";
import { completion, completionChunk } from "./shapes.ts";
import {
  ask,
  type Check,
  equal,
  type Expected,
  expected,
  ok,
  post,
  type Server,
  stream,
} from "./support.ts";

const PATH = "/v1/completions";
const PROMPT = "The population of";

// deno-lint-ignore no-explicit-any
type Json = any;

/** Answers as a whole, its form checked. */
async function complete(server: Server, body: object): Promise<Json> {
  const answer = await ask(server, PATH, { prompt: PROMPT, ...body });
  completionSchema.parse(answer);
  return completion.parse(answer);
}

/** The events of an answer, their form checked. */
async function chunksOf(server: Server, body: object): Promise<Json[]> {
  const events = await stream(server, PATH, { prompt: PROMPT, ...body });
  for (const event of events) completionSchema.parse(event);
  return events.map((event) => completionChunk.parse(event));
}

/** Events put together as a client does it, by choice. */
function joined(events: Json[]): { text: string; finish_reason: string; logprobs: Json }[] {
  const choices: Json[] = [];
  for (const { choices: [part] } of events) {
    if (part === undefined) continue;
    const choice = choices[part.index] ??= { text: "", finish_reason: null, logprobs: null };
    equal(choice.finish_reason, null, "nothing follows the end");
    choice.text += part.text;
    choice.finish_reason = part.finish_reason;
    if (part.logprobs === null) continue;
    choice.logprobs ??= { tokens: [], token_logprobs: [], top_logprobs: null, text_offset: [] };
    for (const [key, values] of Object.entries(part.logprobs as Record<string, Json[] | null>)) {
      if (values !== null) (choice.logprobs[key] ??= []).push(...values);
    }
  }
  return choices;
}

/** Checks a whole answer against what the model itself gives for each choice. */
function matches(answer: Json, all: readonly Expected[]): void {
  equal(
    answer.choices.map((choice: Json) => [choice.index, choice.text, choice.finish_reason]),
    all.map(({ text, end }, index) => [index, text, end.finishReason]),
    "choices",
  );
  equal(
    answer.usage.completion_tokens,
    all.reduce((sum, { end }) => sum + end.completionTokens, 0),
    "tokens",
  );
}

/** Requests, and the options of `generate` that must give the same. */
const SAME: readonly (readonly [fields: object, options: GenerationOptions])[] = [
  [{ temperature: 0, max_tokens: 12 }, { maxTokens: 12 }],
  [{ temperature: 0.8, seed: 5, max_tokens: 12 }, { temperature: 0.8, seed: 5, maxTokens: 12 }],
  [{ seed: 6, max_tokens: 12 }, { temperature: 1, seed: 6, maxTokens: 12 }],
  [
    { seed: 7, top_p: 0.5, top_k: 30, min_p: 0.01, max_tokens: 12 },
    { temperature: 1, seed: 7, topP: 0.5, topK: 30, minP: 0.01, maxTokens: 12 },
  ],
  [
    { temperature: 0, repetition_penalty: 1.5, max_tokens: 12 },
    { repetitionPenalty: 1.5, maxTokens: 12 },
  ],
  [
    { temperature: 0, frequency_penalty: 1.5, presence_penalty: -0.5, max_tokens: 20 },
    { frequencyPenalty: 1.5, presencePenalty: -0.5, maxTokens: 20 },
  ],
  [
    { temperature: 0, logit_bias: { "300": 100, "301": 99 }, max_tokens: 5 },
    { logitBias: { "300": 100, "301": 99 }, maxTokens: 5 },
  ],
  // The model ends its text at once.
  [{ temperature: 0, logit_bias: { "0": 100 } }, { logitBias: { "0": 100 } }],
];

const equalsGenerate: Check[] = SAME.map(([fields, options]) => ({
  name: `a text is continued as generate continues it: ${JSON.stringify(fields)}`,
  run: async (server) => {
    const oracle = await expected(server.plain, PROMPT, options);
    matches(await complete(server, fields), [oracle]);
    equal(joined(await chunksOf(server, fields)), [{
      text: oracle.text,
      finish_reason: oracle.end.finishReason,
      logprobs: null,
    }]);
  },
}));

const stopStrings: Check = {
  name: "a text ends before a stop string, be it one or a list",
  run: async (server) => {
    const { text } = await expected(server.plain, PROMPT, { maxTokens: 16 });
    const words = text.split(" ").filter((word) => word.length > 1);
    for (const stop of [words[1], [words[2], words[1]], ["never in a text", words[3]]]) {
      const oracle = await expected(server.plain, PROMPT, { maxTokens: 16, stop });
      equal([oracle.end.finishReason, oracle.text.length < text.length], ["stop", true]);
      const fields = { temperature: 0, stop };
      const answer = await complete(server, fields);
      matches(answer, [oracle]);
      for (const word of [stop].flat()) {
        ok(!answer.choices[0].text.includes(word), "no stop string");
      }
      equal(joined(await chunksOf(server, fields))[0].text, oracle.text);
    }
  },
};

const defaults: Check = {
  name: "a text gets 16 tokens, drawn at temperature 1, where nothing is said",
  run: async (server) => {
    const answer = await complete(server, { seed: 3 });
    matches(answer, [
      await expected(server.plain, PROMPT, { maxTokens: 16, temperature: 1, seed: 3 }),
    ]);
    equal(answer.usage.completion_tokens, 16);
    equal(answer.usage.prompt_tokens, server.plain.model.tokens(PROMPT).length);
    equal(answer.model, server.plain.id);
  },
};

const seeds: Check = {
  name: "a seed is any whole number of 64 bits, and draws the same again",
  run: async (server) => {
    const texts = new Set<string>();
    // As text: they are larger than numbers are exact.
    for (const seed of ["9223372036854775807", "-9223372036854775808", "-1", "36893488147"]) {
      const ask = async () => {
        const body = `{"prompt": ${
          JSON.stringify(PROMPT)
        }, "max_tokens": 8, "n": 2, "seed": ${seed}}`;
        const { json } = await post(server, PATH, body);
        return completion.parse(json).choices.map(({ text }: Json) => text);
      };
      const drawn = await ask();
      equal(await ask(), drawn, seed);
      for (const text of drawn) texts.add(text);
    }
    ok(texts.size > 4, "other seeds draw other texts");
  },
};

const severalChoices: Check = {
  name: "each of n choices is what seed + i alone gives; the prompt counts once",
  run: async (server) => {
    const fields = { seed: 40, max_tokens: 8, n: 3 };
    const oracles = await inTurn(
      [40, 41, 42],
      (seed) => expected(server.plain, PROMPT, { temperature: 1, seed, maxTokens: 8 }),
    );
    const answer = await complete(server, fields);
    matches(answer, oracles);
    equal(answer.usage.prompt_tokens, server.plain.model.tokens(PROMPT).length);
    equal(
      joined(await chunksOf(server, fields)).map(({ text }) => text),
      oracles.map(({ text }) => text),
    );
    const [alone] = (await complete(server, { seed: 42, max_tokens: 8 })).choices;
    equal(alone.text, oracles[2].text);
  },
};

const prompts: Check = {
  name: "a prompt is a text, its token ids, or a list of either; choices come by prompt",
  run: async (server) => {
    const { model } = server.plain;
    const texts = [PROMPT, "In the year"];
    const ids = texts.map((text) => [...model.tokens(text, { addSpecialTokens: true })]);
    const options = { maxTokens: 6 };
    const oracles = await inTurn(texts, (text) => expected(server.plain, text, options));
    for (
      const [prompt, all] of [
        [texts[0], oracles.slice(0, 1)],
        [ids[0], oracles.slice(0, 1)],
        [texts, oracles],
        [ids, oracles],
        [[texts[1]], oracles.slice(1)],
      ] as const
    ) {
      const fields = { prompt, temperature: 0, max_tokens: 6 };
      const answer = await complete(server, fields);
      matches(answer, all);
      const tokens = all.reduce((sum, { end }) => sum + end.promptTokens, 0);
      equal(answer.usage.prompt_tokens, tokens, "tokens of prompts");
      const events = await chunksOf(server, { ...fields, stream_options: { include_usage: true } });
      equal(joined(events).map(({ text }) => text), all.map(({ text }) => text));
      equal(events.at(-1).usage.prompt_tokens, tokens);
    }
    const fields = { prompt: texts, n: 2, seed: 9, max_tokens: 6 };
    const drawn = await inTurn(
      texts.flatMap((text) => [[text, 9], [text, 10]] as const),
      ([text, seed]) => expected(server.plain, text, { temperature: 1, seed, maxTokens: 6 }),
    );
    const answer = await complete(server, fields);
    matches(answer, drawn);
    const events = await chunksOf(server, { ...fields, stream_options: { include_usage: true } });
    const tokens = oracles.reduce((sum, { end }) => sum + end.promptTokens, 0);
    for (const { usage } of [answer, events.at(-1)]) {
      equal(usage.prompt_tokens, tokens, "each prompt counts once, whatever n is");
      ok(usage.prompt_tokens_details.cached_tokens <= tokens, "so does what was in the cache");
      equal(usage.completion_tokens, drawn.reduce((sum, { end }) => sum + end.completionTokens, 0));
    }
  },
};

const logprobs: Check = {
  name: "log probabilities are generate's, and text_offset says where each token's text begins",
  run: async (server) => {
    const { model } = server.plain;
    const word = (token: number) => new TextDecoder().decode(model.bytes(token));
    for (const count of [0, 1, 5]) {
      const oracle = await expected(server.plain, PROMPT, { maxTokens: 8, logprobs: count });
      const told = oracle.pieces.flatMap((piece) => piece.logprobs!);
      const fields = { temperature: 0, max_tokens: 8, logprobs: count };
      const { choices: [choice] } = await complete(server, fields);
      equal(choice.logprobs.tokens, told.map(({ token }) => word(token)));
      equal(choice.logprobs.token_logprobs, told.map(({ logprob }) => logprob));
      equal(
        choice.logprobs.top_logprobs,
        count === 0
          ? null
          : told.map(({ top }) =>
            Object.fromEntries(top.map(({ token, logprob }) => [word(token), logprob]))
          ),
      );
      const { tokens, text_offset: offsets } = choice.logprobs;
      for (const [i, token] of (tokens as string[]).entries()) {
        equal(choice.text.slice(offsets[i], offsets[i] + token.length), token, "text_offset");
      }
      // What could begin a stop string comes with the text after it, but lies where it did.
      const stop = [1, 4, 9].map((end) => `${choice.text.slice(end - 1, end + 2)}\0`);
      const held = (await complete(server, { ...fields, stop })).choices[0];
      equal([held.text, held.logprobs.text_offset], [choice.text, offsets], "held back");
      equal(joined(await chunksOf(server, { ...fields, stop }))[0].logprobs, held.logprobs);
      equal(joined(await chunksOf(server, fields))[0].logprobs, choice.logprobs);
    }
  },
};

const usageInStream: Check = {
  name: "include_usage adds an event with the numbers of tokens, and null to all others",
  run: async (server) => {
    const fields = { temperature: 0, max_tokens: 6 };
    const { usage } = await complete(server, fields);
    const events = await chunksOf(server, { ...fields, stream_options: { include_usage: true } });
    const last = events.pop();
    equal(last.choices, []);
    equal({ ...last.usage, prompt_tokens_details: 0 }, { ...usage, prompt_tokens_details: 0 });
    for (const event of events) equal(event.usage, null);
    for (const event of await chunksOf(server, fields)) ok(!("usage" in event), "no usage unasked");
    equal(
      new Set([...events, last].map(({ id, created, model }) => `${id} ${created} ${model}`)).size,
      1,
    );
  },
};

const surrogates: Check = {
  name: "halves of characters in a prompt become U+FFFD",
  run: async (server) => {
    const oracle = await expected(server.plain, "a \ufffd b", { maxTokens: 4 });
    const body = `{"prompt": "a \\ud83d b", "temperature": 0, "max_tokens": 4}`;
    const answer = completion.parse(await ask(server, PATH, JSON.parse(body)));
    matches(answer, [oracle]);
  },
};

/** One after the other: an engine runs one sequence at a time. */
async function inTurn<A, B>(all: readonly A[], make: (one: A) => Promise<B>): Promise<B[]> {
  const made: B[] = [];
  for (const one of all) made.push(await make(one));
  return made;
}

/** The checks. */
export const completionChecks: readonly Check[] = [
  ...equalsGenerate,
  defaults,
  seeds,
  stopStrings,
  severalChoices,
  prompts,
  logprobs,
  usageInStream,
  surrogates,
];
