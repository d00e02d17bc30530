/**
 * Talks to a running server through OpenAI's own package, unmodified.
 *
 *     openai_client.mjs --config JSON
 *
 * The JSON is what server.ts calls `ClientConfig`. Prints {version, checks: [{what, found, expected}],
 * skipped}. Plain JavaScript for Node; it must lie beside a node_modules with openai and zod.
 */
import process from "node:process";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { config: { type: "string" } } });
const { main, tight, hurried, nobody, model, prompt, text } = JSON.parse(values.config);

// Names in variables, so that who only checks this file need not have the packages.
const [openaiName, versionName, helperName, zodName] = [
  "openai",
  "openai/version",
  "openai/helpers/zod",
  "zod",
];
const openai = await import(openaiName);
const { VERSION } = await import(versionName);
const { zodResponseFormat } = await import(helperName);
const { z } = await import(zodName);
const { OpenAI } = openai;

const checks = [];
const skipped = [];
const same = (what, found, expected) => checks.push({ what, found, expected });
const holds = (what, found) => same(what, found, true);

/** Waits for an error of one of the package's classes; notes which fields it has. */
async function raises(what, promise, name, fields = {}) {
  try {
    await promise;
    same(what, "no error", name);
  } catch (error) {
    const found = error instanceof openai[name]
      ? name
      : `${error.constructor.name}: ${error.message}`;
    const about = Object.fromEntries(Object.keys(fields).map((key) => [key, error[key]]));
    same(what, { error: found, ...about }, { error: name, ...fields });
  }
}

const clientOf = ({ url, key = "any" }, options = {}) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, ...options });
const client = clientOf(main);
const greedy = { model, prompt, max_tokens: 16, temperature: 0 };
const messages = [{ role: "user", content: prompt }];
const chat = { model, messages, max_tokens: 16, temperature: 0 };
/** Asks for far more text than is waited for. */
const long = { model, prompt, max_tokens: 480, temperature: 1, n: 8, seed: 1 };

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}
const joined = (events, index = 0) =>
  events.flatMap(({ choices }) => choices).filter((choice) => choice.index === index)
    .map((choice) => choice.delta?.content ?? choice.text ?? "").join("");
const reasons = (events) =>
  events.flatMap(({ choices }) => choices).map((choice) => choice.finish_reason)
    .filter((reason) => reason !== null);

async function models() {
  const ids = [];
  for await (const { id } of client.models.list()) ids.push(id);
  same("models.list", ids, [model]);
  same("models.retrieve", (await client.models.retrieve(model)).id, model);
}

async function completions() {
  const whole = await client.completions.create(greedy);
  same("completions: text", whole.choices[0].text, text);
  same("completions: finish_reason", whole.choices[0].finish_reason, "length");
  same("completions: completion_tokens", whole.usage.completion_tokens, 16);
  const list = await client.completions.create({ ...greedy, prompt: [prompt, "In the year"] });
  same("completions: a list", list.choices.map(({ index }) => index), [0, 1]);
  same("completions: first of a list", list.choices[0].text, text);
  const events = await all(await client.completions.create({ ...greedy, stream: true }));
  same("completions: streamed", joined(events), text);
  same("completions: streamed, finish_reason", reasons(events), ["length"]);
  const told = await client.completions.create({ ...greedy, logprobs: 2 });
  same("completions: logprobs", told.choices[0].logprobs.tokens.join(""), text);
  const sized = told.choices[0].logprobs.top_logprobs.every((top) => Object.keys(top).length === 2);
  holds("completions: two alternatives each", sized);
}

async function chats() {
  const whole = await client.chat.completions.create(chat);
  const said = whole.choices[0].message.content;
  same("chat: message", whole.choices[0].message.role, "assistant");
  holds("chat: says something", said.length > 0);
  const { usage } = whole;
  same("chat: usage adds up", usage.prompt_tokens + usage.completion_tokens, usage.total_tokens);

  const events = await all(await client.chat.completions.create({ ...chat, stream: true }));
  same("chat: streamed", joined(events), said);
  same("chat: streamed, finish_reason", reasons(events), ["length"]);
  same("chat: streamed without usage", events.some((event) => event.usage), false);
  const told = await all(
    await client.chat.completions.create({
      ...chat,
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  same("chat: usage comes last", told.at(-1).choices.length, 0);
  same("chat: usage as without stream", told.at(-1).usage.completion_tokens, 16);

  const several = await client.chat.completions.create({ ...chat, n: 3, temperature: 1, seed: 7 });
  same("chat: n", several.choices.map(({ index }) => index), [0, 1, 2]);
  const again = await client.chat.completions.create({ ...chat, n: 3, temperature: 1, seed: 7 });
  const contents = ({ choices }) => choices.map(({ message }) => message.content);
  same("chat: the same seed", contents(again), contents(several));
  holds("chat: choices differ", new Set(contents(several)).size > 1);

  const stop = said.slice(5, 9);
  const stopped = await client.chat.completions.create({ ...chat, stop });
  same("chat: stop", stopped.choices[0].message.content, said.slice(0, said.indexOf(stop)));
  same("chat: stop, finish_reason", stopped.choices[0].finish_reason, "stop");

  const logged = await client.chat.completions.create({ ...chat, logprobs: true, top_logprobs: 3 });
  const { content } = logged.choices[0].logprobs;
  const bytes = new Uint8Array(content.flatMap((entry) => entry.bytes));
  same("chat: logprobs' bytes are the text", new TextDecoder().decode(bytes), said);
  same("chat: top_logprobs", content.map((entry) => entry.top_logprobs.length), Array(16).fill(3));
  same("chat: the likeliest is taken", content[0].top_logprobs[0].token, content[0].token);

  const runner = client.chat.completions.stream(chat);
  same("chat: the stream helper", await runner.finalContent(), said);
}

async function aborts() {
  const stream = await client.completions.create({ ...long, stream: true });
  let count = 0;
  for await (const _ of stream) if (++count === 3) break;
  same("abort: left in mid-stream", count, 3);

  const second = await client.completions.create({ ...long, stream: true });
  let events = 0;
  let stoppedBy = "nothing";
  try {
    for await (const _ of second) if (++events === 3) second.controller.abort();
    stoppedBy = "the end of the iteration";
  } catch (error) {
    stoppedBy = error.constructor.name;
  }
  same("abort: by the stream's controller", stoppedBy, "the end of the iteration");
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 100);
  await raises(
    "abort: by a signal, without stream",
    client.completions.create(long, { signal: controller.signal }),
    "APIUserAbortError",
  );
}

async function structured() {
  const ask = (response_format) =>
    client.chat.completions.create({ ...chat, max_tokens: 300, response_format });
  try {
    const { choices: [{ message, finish_reason }] } = await ask({ type: "json_object" });
    if (finish_reason === "stop") {
      same("json_object: an object", typeof JSON.parse(message.content), "object");
    } else holds("json_object: the beginning of an object", /^\s*\{/.test(message.content));
  } catch (error) {
    if (!/not supported yet/.test(error.message)) throw error;
    return skipped.push("response_format: the server has none yet");
  }
  const shape = z.object({ size: z.enum(["small", "large"]), isOld: z.boolean() });
  const parsed = await client.chat.completions.parse({
    ...chat,
    max_tokens: 300,
    response_format: zodResponseFormat(shape, "town"),
  });
  const found = parsed.choices[0].message.parsed;
  holds(`zodResponseFormat: ${JSON.stringify(found)}`, shape.safeParse(found).success);
  await raises(
    "json_schema: wrong",
    ask({
      type: "json_schema",
      json_schema: { name: "x", schema: { type: "nothing" } },
    }),
    "BadRequestError",
    { status: 400, param: "response_format" },
  );
}

async function errors() {
  await raises(
    "a wrong key",
    clientOf({ ...main, key: "wrong" }).models.list(),
    "AuthenticationError",
    { status: 401, code: "invalid_api_key" },
  );
  await raises(
    "an unknown model",
    client.completions.create({ ...greedy, model: "other" }),
    "NotFoundError",
    { status: 404, code: "model_not_found", param: "model" },
  );
  await raises("models.retrieve: unknown", client.models.retrieve("other"), "NotFoundError", {
    status: 404,
  });
  await raises(
    "a wrong field",
    client.chat.completions.create({ ...chat, temperature: 7 }),
    "BadRequestError",
    { status: 400, param: "temperature", type: "invalid_request_error" },
  );
  await raises(
    "tools",
    client.chat.completions.create({
      ...chat,
      tools: [{ type: "function", function: { name: "f", parameters: {} } }],
    }),
    "BadRequestError",
    { status: 400, param: "tools", code: "unsupported_parameter" },
  );
  await raises(
    "a prompt that is too long",
    client.completions.create({ ...greedy, prompt: "town ".repeat(2000) }),
    "BadRequestError",
    { status: 400, param: "prompt", code: "context_length_exceeded" },
  );
  await raises(
    "nobody listens",
    clientOf({ url: nobody }).models.list(),
    "APIConnectionError",
  );
  await raises(
    "the client's own timeout",
    clientOf(main, { timeout: 150 }).completions.create(long),
    "APIConnectionTimeoutError",
  );
}

/** One place and one in line: of six at once, four are sent away. */
async function full() {
  const six = (options) => {
    const one = clientOf(tight, options);
    const ask = () => one.completions.create({ ...long, n: 1, max_tokens: 200 });
    return Promise.allSettled(Array.from({ length: 6 }, ask));
  };
  const once = await six({ maxRetries: 0 });
  const refused = once.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
  holds("a full queue sends some away", refused.length > 0 && refused.length < 6);
  holds(
    "with RateLimitError, queue_full and Retry-After",
    refused.every((error) =>
      error instanceof openai.RateLimitError && error.code === "queue_full" &&
      Number(error.headers.get("retry-after")) >= 1
    ),
  );
  const retried = await six({ maxRetries: 10 });
  const ends = retried.map(({ status }) => status);
  same("with retries all are answered", ends, Array(6).fill("fulfilled"));
}

/** There is one place, for which one waits 50 ms, and a request may take 0.3 s. */
async function late() {
  const one = clientOf(hurried);
  // The first request takes longer; that it may fail is nothing to us.
  await one.completions.create({ ...greedy, max_tokens: 1 }).catch(() => {});
  const both = await Promise.allSettled(
    [1, 2].map(() => one.completions.create({ ...long, n: 1 })),
  );
  const failed = both.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
  // The other one has its place, and then not the time.
  same(
    "a turn that does not come, and an answer that takes too long",
    failed.map((error) => `${error.constructor.name} ${error.status} ${error.code}`).sort(),
    ["InternalServerError 503 queue_timeout", "InternalServerError 504 timeout"],
  );
}

/** The server's time is up in the middle of an answer. */
async function broken() {
  let events = 0;
  const read = async () => {
    const stream = await clientOf(hurried).completions.create({ ...long, n: 1, stream: true });
    for await (const _ of stream) events++;
  };
  await raises(
    "an error in mid-stream",
    read(),
    "APIError",
    { code: "timeout" },
  );
  holds(`after ${events > 0 ? "some" : "no"} events`, events > 0);
}

for (const part of [models, completions, chats, structured, errors, aborts, full, late, broken]) {
  try {
    await part();
  } catch (error) {
    same(part.name, error.stack, "no error");
  }
}
process.stdout.write(JSON.stringify({ version: VERSION, checks, skipped }));
