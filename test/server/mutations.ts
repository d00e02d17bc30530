/** Requests that nearly are right: bodies of every route, with something changed. @module */
import type { Dice } from "../support/fuzz.ts";

/** A request with a body. */
export interface Candidate {
  readonly path: string;
  readonly body: string;
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const SCHEMA: Json = {
  type: "object",
  properties: {
    size: { enum: ["small", "large", 3] },
    old: { type: "boolean" },
    tags: { type: "array", items: { type: "string", maxLength: 4 }, maxItems: 2 },
    age: { type: "integer", minimum: 0, maximum: 120 },
    more: { anyOf: [{ type: "null" }, { $ref: "#/$defs/leaf" }] },
  },
  required: ["size", "old"],
  additionalProperties: false,
  $defs: {
    leaf: { type: "object", properties: { name: { type: "string", pattern: "^[a-z]+$" } } },
  },
};
const SAMPLING: Json = {
  max_tokens: 3,
  temperature: 0.8,
  top_p: 0.9,
  top_k: 40,
  min_p: 0.01,
  repetition_penalty: 1.1,
  frequency_penalty: 0.1,
  presence_penalty: -0.1,
  logit_bias: { "17": -100, "20": 5 },
  seed: 7,
  stop: ["\n\n", "town"],
  n: 2,
  user: "someone",
};
const MESSAGES: Json = [
  { role: "system", content: "Answer briefly." },
  { role: "user", content: [{ type: "text", text: "Where is it?" }], name: "ada" },
  { role: "assistant", content: "There." },
  { role: "user", content: "And why? 🙂" },
];

/** Bodies that are right. */
const RIGHT: readonly (readonly [path: string, body: Json])[] = [
  ["/v1/completions", { prompt: "The population of", ...SAMPLING, logprobs: 2 }],
  ["/v1/completions", { prompt: ["The river", "A town"], max_tokens: 2, stream: true }],
  ["/v1/completions", {
    prompt: [464, 3265],
    max_tokens: 2,
    echo: false,
    suffix: null,
    best_of: 1,
    response_format: { type: "text" },
  }],
  ["/v1/completions", { prompt: [[5, 6], [7]], max_tokens: 1, temperature: 0 }],
  ["/v1/chat/completions", { messages: MESSAGES, ...SAMPLING, logprobs: true, top_logprobs: 3 }],
  ["/v1/chat/completions", {
    model: "chat",
    messages: MESSAGES,
    max_completion_tokens: 2,
    stream: true,
    stream_options: { include_usage: true },
    chat_template_kwargs: { who: "bot" },
    tools: [],
    tool_choice: "none",
    modalities: ["text"],
  }],
  ["/v1/chat/completions", {
    messages: MESSAGES,
    max_tokens: 3,
    response_format: { type: "json_schema", json_schema: { name: "town", schema: SCHEMA } },
  }],
  ["/v1/chat/completions", {
    messages: MESSAGES,
    max_tokens: 3,
    stream: true,
    response_format: { type: "json_object" },
  }],
  ["/tokenize", { prompt: "The population of\u0000 Ørsted", add_special_tokens: false }],
  ["/detokenize", { tokens: [464, 0, 4095, 17] }],
];

/** Values that are seldom right. */
const NASTY: readonly Json[] = [
  null,
  true,
  false,
  0,
  -1,
  1,
  0.5,
  -0.0001,
  4095,
  4096,
  2 ** 31,
  2 ** 53,
  1e308,
  -1e308,
  5e-324,
  "",
  " ",
  "\ud800",
  "\udfff\ud800",
  "\u0000",
  "\u202e\ufeff",
  "__proto__",
  "constructor",
  "text",
  "json_schema",
  "tool",
  "🙂".repeat(50),
  "a".repeat(3000),
  [],
  {},
  [[]],
  [null],
  [0, "a"],
  { type: "text" },
  { "": "" },
  { $ref: "#" },
  { type: ["string", "null"], pattern: "(a+)+$" },
  { not: {} },
];
/** Names for keys that are not there. */
const KEYS = [
  "__proto__",
  "constructor",
  "toString",
  "",
  "model",
  "n",
  "stop",
  "stream",
  "$ref",
  "x",
];
/** What is put into the text of a body. */
const SCRAPS = [
  "\\u",
  "\\ud83d",
  '"',
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  "null",
  "1e999",
  "-",
  "NaN",
  "\u0000",
  "//",
  "\\",
];

/** A request made from one that is right. */
export function candidate(dice: Dice): Candidate {
  const [path, right] = dice.pick(RIGHT);
  let value = structuredClone(right) as Json;
  const changes = dice.below(4);
  for (let i = 0; i < changes; i++) value = changed(dice, value);
  let body = JSON.stringify(value);
  // Keys that no object of ours can have twice, or at all.
  if (dice.below(10) === 0) body = body.replace("{", `{"__proto__":${nasty(dice)},"n":1,"n":2,`);
  if (dice.below(3) === 0) body = scratched(dice, body);
  return { path, body };
}

function nasty(dice: Dice): string {
  return dice.below(12) === 0
    ? "[".repeat(200) + "]".repeat(200)
    : JSON.stringify(dice.pick(NASTY));
}

/** The value with one thing changed, somewhere. */
function changed(dice: Dice, value: Json): Json {
  const places = placesIn(value);
  if (places.length === 0) return JSON.parse(nasty(dice));
  const { holder, key } = dice.pick(places);
  const other = dice.pick(places);
  const set = (to: Json) => void Reflect.set(holder, key, to);
  switch (dice.below(6)) {
    case 0:
    case 1:
      set(JSON.parse(nasty(dice)));
      break;
    case 2:
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else delete holder[key];
      break;
    case 3:
      if (Array.isArray(holder)) {
        for (let i = dice.below(40); i >= 0; i--) holder.push(structuredClone(holder[Number(key)]));
      } else {
        Object.defineProperty(holder, dice.pick(KEYS), {
          value: JSON.parse(nasty(dice)),
          enumerable: true,
          configurable: true,
          writable: true,
        });
      }
      break;
    case 4:
      // A copy, so that nothing holds itself.
      set(structuredClone(Reflect.get(other.holder, other.key)));
      break;
    default: {
      const now = Reflect.get(holder, key) as Json;
      set(dice.below(2) === 0 ? [now] : JSON.stringify(now));
    }
  }
  return value;
}

/** Every place in a value that holds another. */
function placesIn(value: Json): { holder: Json[] | { [key: string]: Json }; key: string }[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.keys(value).flatMap((key) => [
    { holder: value, key },
    ...placesIn((value as { [key: string]: Json })[key]),
  ]);
}

/** Text with some characters changed, taken out or put in. */
function scratched(dice: Dice, text: string): string {
  const at = dice.below(text.length);
  const length = 1 + dice.below(dice.pick([1, 3, 30]));
  switch (dice.below(5)) {
    case 0:
      return text.slice(0, at);
    case 1:
      return text.slice(0, at) + text.slice(at + length);
    case 2:
      return text.slice(0, at) + dice.pick(SCRAPS) + text.slice(at);
    case 3:
      return text.slice(0, at) + String.fromCharCode(dice.below(0x110)) + text.slice(at + 1);
    default: {
      const from = dice.below(text.length);
      return text.slice(0, at) + text.slice(from, from + length) + text.slice(at);
    }
  }
}
