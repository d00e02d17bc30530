/** What every server does with `POST /v1/chat/completions`. @module */
import { Ajv2020 } from "ajv/dist/2020.js";
import type { GenerationOptions } from "../../../src/generate/options.ts";
import { chatChunkSchema, chatCompletionSchema } from "../../../src/server/schemas/chat.ts";
import type { Message } from "../../../src/text/chat_template.ts";
import { chatChunk, chatCompletion } from "./shapes.ts";
import {
  ask,
  type Check,
  equal,
  type Expected,
  expected,
  ok,
  type Server,
  stream,
} from "./support.ts";

const PATH = "/v1/chat/completions";
const SAID = [{ role: "user", content: "Tell me of the river." }] as const;

// deno-lint-ignore no-explicit-any
type Json = any;

/** Answers as a whole, its form checked. */
async function chat(server: Server, body: object): Promise<Json> {
  const request = { model: server.chat.id, messages: SAID, ...body };
  const answer = await ask(server, PATH, request);
  chatCompletionSchema.parse(answer);
  return chatCompletion.parse(answer);
}

/** The events of an answer, their form checked. */
async function chunksOf(server: Server, body: object): Promise<Json[]> {
  const events = await stream(server, PATH, { model: server.chat.id, messages: SAID, ...body });
  for (const event of events) chatChunkSchema.parse(event);
  return events.map((event) => chatChunk.parse(event));
}

/** Events put together as a client does it: a message by choice. */
function joined(events: Json[]): Json[] {
  const choices: Json[] = [];
  for (const { choices: [part] } of events) {
    if (part === undefined) continue;
    if (part.delta.role !== undefined) {
      equal(choices[part.index], undefined, "a role comes once, and first");
      choices[part.index] = { role: part.delta.role, content: "", end: null, logprobs: null };
    }
    const choice = choices[part.index];
    equal(choice.end, null, "nothing follows the end");
    choice.content += part.delta.content ?? "";
    choice.end = part.finish_reason;
    if (part.logprobs) (choice.logprobs ??= []).push(...part.logprobs.content);
  }
  return choices;
}

/** Checks a whole answer against what the model itself gives for each choice. */
function matches(answer: Json, all: readonly Expected[]): void {
  equal(
    answer.choices.map((choice: Json) => [
      choice.index,
      choice.message.content,
      choice.finish_reason,
    ]),
    all.map(({ text, end }, index) => [index, text, end.finishReason]),
    "choices",
  );
  const { prompt_tokens: prompt, completion_tokens: completion } = answer.usage;
  equal(
    [prompt, completion],
    [all[0].end.promptTokens, all.reduce((sum, { end }) => sum + end.completionTokens, 0)],
    "tokens",
  );
}

/** Checks that a request is answered, whole and by events, as `generate` answers messages. */
async function same(
  server: Server,
  fields: object,
  messages: readonly Message[],
  options: GenerationOptions,
): Promise<Expected> {
  const oracle = await expected(server.chat, messages, options);
  matches(await chat(server, fields), [oracle]);
  const [message] = joined(await chunksOf(server, fields));
  equal([message.role, message.content, message.end], [
    "assistant",
    oracle.text,
    oracle.end.finishReason,
  ]);
  return oracle;
}

const SAME: readonly (readonly [fields: object, options: GenerationOptions])[] = [
  [{ temperature: 0, max_tokens: 12 }, { maxTokens: 12 }],
  [{ temperature: 0, max_completion_tokens: 7 }, { maxTokens: 7 }],
  [{ temperature: 0, max_tokens: 20, max_completion_tokens: 7 }, { maxTokens: 7 }],
  [{ seed: 11, max_tokens: 12 }, { temperature: 1, seed: 11, maxTokens: 12 }],
  [
    { seed: 12, temperature: 1.2, top_p: 0.9, presence_penalty: 1, max_tokens: 12 },
    { seed: 12, temperature: 1.2, topP: 0.9, presencePenalty: 1, maxTokens: 12 },
  ],
  [{ temperature: 0, logit_bias: { "0": 100 } }, { logitBias: { "0": 100 } }],
  // The context is the end where no number of tokens is.
  [{ temperature: 0, logit_bias: { "0": -100 } }, { logitBias: { "0": -100 } }],
];

const equalsGenerate: Check[] = SAME.map(([fields, options]) => ({
  name: `a conversation is answered as generate answers it: ${JSON.stringify(fields)}`,
  run: async (server) => {
    await same(server, fields, SAID, options);
  },
}));

const everyForm: Check = {
  name: "messages may have names, parts of text, and the role developer for system",
  run: async (server) => {
    const messages = [
      { role: "developer", content: "Be brief." },
      { role: "user", name: "ada", content: "Hello." },
      { role: "assistant", content: "Yes?" },
      { role: "user", content: [{ type: "text", text: "One." }, { type: "text", text: "Two." }] },
    ];
    const plain = [
      { role: "system", content: "Be brief." },
      { role: "user", name: "ada", content: "Hello." },
      { role: "assistant", content: "Yes?" },
      { role: "user", content: "One.\nTwo." },
    ];
    await same(server, { messages, temperature: 0, max_tokens: 6 }, plain, { maxTokens: 6 });
  },
};

const variables: Check = {
  name: "chat_template_kwargs are given to the chat template",
  run: async (server) => {
    const fields = { temperature: 0, max_tokens: 6 };
    const oracle = await same(
      server,
      { ...fields, chat_template_kwargs: { who: "a long name for one who answers" } },
      SAID,
      { maxTokens: 6, templateVariables: { who: "a long name for one who answers" } },
    );
    const other = await expected(server.chat, SAID, { maxTokens: 6 });
    ok(oracle.end.promptTokens > other.end.promptTokens, "the variable is in the prompt");
  },
};

const withoutTemplate: Check = {
  name: "a model without a chat template continues the text of all messages",
  run: async (server) => {
    const messages = [...SAID, { role: "assistant", content: "The river" }];
    const oracle = await expected(server.plain, "Tell me of the river.\nThe river", {
      maxTokens: 6,
    });
    const fields = { model: server.plain.id, messages, temperature: 0, max_tokens: 6 };
    matches(await chat(server, fields), [oracle]);
  },
};

const ownAnswer: Check = {
  name: "a model without a chat template goes on behind its own answer as it wrote it",
  run: async (server) => {
    const fields = { model: server.plain.id, temperature: 0, max_tokens: 6 };
    const begun = { role: "user", content: "The population of the" };
    const { choices: [{ message }] } = await chat(server, { ...fields, messages: [begun] });
    ok(message.content.startsWith(" "), "the answer begins with a space");
    const messages = [begun, message, { role: "user", content: "And then?" }];
    const text = `${begun.content}${message.content}\nAnd then?`;
    const oracle = await expected(server.plain, text, { maxTokens: 6 });
    matches(await chat(server, { ...fields, messages }), [oracle]);
  },
};

const neutral: Check = {
  name: "fields that are null, unknown, or ask for nothing change nothing",
  run: async (server) => {
    const nothing = Object.fromEntries(
      [
        "stream",
        "stream_options",
        "n",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "seed",
        "stop",
        "user",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "response_format",
        "chat_template_kwargs",
        "tools",
        "functions",
        "audio",
        "prediction",
      ].map((field) => [field, null]),
    );
    const oracle = await expected(server.chat, SAID, { maxTokens: 6 });
    for (
      const fields of [
        nothing,
        { tools: [], tool_choice: "none", function_call: "auto", modalities: ["text"] },
        { store: true, metadata: { a: "b" }, service_tier: "auto", what_is_this: [1, { x: 2 }] },
        { response_format: { type: "text" }, user: "someone", n: 1, stop: [] },
      ]
    ) {
      matches(await chat(server, { ...fields, temperature: 0, max_tokens: 6 }), [oracle]);
    }
  },
};

const severalChoices: Check = {
  name: "each of n choices of a conversation is what seed + i alone gives",
  run: async (server) => {
    const fields = { seed: 20, max_tokens: 6, n: 3 };
    const oracles: Expected[] = [];
    for (const seed of [20, 21, 22]) {
      oracles.push(await expected(server.chat, SAID, { temperature: 1, seed, maxTokens: 6 }));
    }
    matches(await chat(server, fields), oracles);
    const events = await chunksOf(server, fields);
    equal(
      events.slice(0, 3).map(({ choices: [{ index, delta }] }) => [index, delta]),
      [0, 1, 2].map((index) => [index, { role: "assistant", content: "" }]),
    );
    equal(joined(events).map(({ content }) => content), oracles.map(({ text }) => text));
  },
};

const logprobs: Check = {
  name: "log probabilities of a conversation are generate's, with the bytes of each token",
  run: async (server) => {
    const { model } = server.chat;
    for (const count of [undefined, 0, 3, 20]) {
      const oracle = await expected(server.chat, SAID, { maxTokens: 6, logprobs: count ?? 0 });
      const entry = ({ token, logprob }: { token: number; logprob: number }) => ({
        token: new TextDecoder().decode(model.bytes(token)),
        logprob,
        bytes: [...model.bytes(token)],
      });
      const told = oracle.pieces.flatMap((piece) => piece.logprobs!)
        .map((one) => ({ ...entry(one), top_logprobs: one.top.map(entry) }));
      const fields = { temperature: 0, max_tokens: 6, logprobs: true, top_logprobs: count };
      const { choices: [choice] } = await chat(server, fields);
      equal(choice.logprobs.content, told);
      const bytes = choice.logprobs.content.flatMap((one: Json) => one.bytes);
      equal(new TextDecoder().decode(Uint8Array.from(bytes)), choice.message.content);
      equal(joined(await chunksOf(server, fields))[0].logprobs, told);
    }
  },
};

const usageInStream: Check = {
  name: "include_usage adds an event with the numbers of tokens to a conversation's",
  run: async (server) => {
    const fields = { temperature: 0, max_tokens: 5, n: 2 };
    const { usage } = await chat(server, fields);
    const events = await chunksOf(server, { ...fields, stream_options: { include_usage: true } });
    const last = events.pop();
    equal(last.choices, []);
    equal({ ...last.usage, prompt_tokens_details: 0 }, { ...usage, prompt_tokens_details: 0 });
    for (const event of events) equal(event.usage, null);
    for (const event of await chunksOf(server, fields)) ok(!("usage" in event), "no usage unasked");
  },
};

const cached: Check = {
  name: "a conversation that goes on is told to be in the cache",
  run: async (server) => {
    const first = await chat(server, { temperature: 0, max_tokens: 5 });
    const messages = [
      ...SAID,
      { role: "assistant", content: first.choices[0].message.content },
      { role: "user", content: "And then?" },
    ];
    const { usage } = await chat(server, { messages, temperature: 0, max_tokens: 5 });
    const { cached_tokens: kept } = usage.prompt_tokens_details;
    ok(kept > 0 && kept < usage.prompt_tokens, `${kept} of ${usage.prompt_tokens} are kept`);
  },
};

/** A schema whose texts are short, whatever the model likes to write. */
const SCHEMA = {
  type: "object",
  properties: {
    kind: { enum: ["river", "town"] },
    length: { type: "integer", minimum: 0, maximum: 9999 },
    mouths: { type: "array", items: { type: "boolean" }, minItems: 1, maxItems: 3 },
  },
  required: ["kind", "length", "mouths"],
  additionalProperties: false,
};

const structured: Check = {
  name:
    "an answer has the form that response_format asks for, and is generate's under the constraint",
  run: async (server) => {
    const check = new Ajv2020().compile(SCHEMA);
    const forms = [
      [{ type: "json_schema", json_schema: { name: "place", schema: SCHEMA } }, { schema: SCHEMA }],
      [
        { type: "json_schema", json_schema: { name: "place", strict: true, schema: SCHEMA } },
        { schema: SCHEMA },
      ],
      [{ type: "json_object" }, "json"],
    ] as const;
    for (const [response_format, form] of forms) {
      for (const seed of [1, 2]) {
        const constraint = await server.chat.model.constrain(form);
        const fields = { response_format, seed, max_tokens: 60 };
        const options = { seed, temperature: 1, maxTokens: 60, constraint };
        const oracle = await expected(server.chat, SAID, options);
        matches(await chat(server, fields), [oracle]);
        equal(joined(await chunksOf(server, fields))[0].content, oracle.text);
        if (form !== "json") {
          equal(oracle.end.finishReason, "stop");
          ok(check(JSON.parse(oracle.text)), oracle.text);
        } else if (oracle.end.finishReason === "stop") {
          ok(typeof JSON.parse(oracle.text) === "object", oracle.text);
        }
      }
    }
    // Each choice has a constraint of its own.
    const [{ 0: response_format }] = forms;
    const { choices } = await chat(server, { response_format, seed: 1, n: 3, max_tokens: 60 });
    for (const { message } of choices) ok(check(JSON.parse(message.content)), message.content);
  },
};

/** The checks. */
export const chatChecks: readonly Check[] = [
  ...equalsGenerate,
  everyForm,
  variables,
  withoutTemplate,
  ownAnswer,
  neutral,
  severalChoices,
  logprobs,
  usageInStream,
  cached,
  structured,
];
