// @ts-check
/**
 * One answer of a model: its text as it comes, and how fast it came.
 * @module
 */
import { ApiError, LostError } from "./api.js";

/** @typedef {import("./shell.js").Asked} Asked */
/** @typedef {import("./api.js").Usage} Usage */

/**
 * @typedef {object} Answer
 * @property {string} text
 * @property {string} [finish] `stop`, `length` …; `stopped` when the user stopped it.
 * @property {Usage} [usage]
 * @property {number} pieces Chunks with text: about as many as tokens.
 * @property {number} [firstSeconds] From the question to the first text.
 * @property {number} [seconds] From the first text to the last.
 * @property {Error} [error] Why it ended early. What had come until then is in `text`.
 */

/**
 * Asks for an answer.
 *
 * @param {Asked} client
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} signal
 * @param {(text: string) => void} onText Gets each piece.
 * @returns {Promise<Answer>} It never rejects: an answer may end early with half of its text.
 */
export async function ask(client, path, body, signal, onText) {
  /** @type {Answer} */
  const answer = { text: "", pieces: 0 };
  const asked = performance.now();
  let first = 0;
  let last = 0;
  const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
  try {
    for await (const chunk of client.stream(path, streamed, signal)) {
      const choice = chunk.choices?.[0];
      const text = choice?.delta?.content ?? choice?.text;
      if (text) {
        last = performance.now();
        first ||= last;
        answer.pieces++;
        answer.text += text;
        onText(text);
      }
      if (choice?.finish_reason) answer.finish = choice.finish_reason;
      if (chunk.usage) answer.usage = chunk.usage;
    }
  } catch (error) {
    if (signal.aborted) answer.finish = "stopped";
    else answer.error = readable(error);
  }
  if (first > 0) {
    answer.firstSeconds = (first - asked) / 1000;
    answer.seconds = (last - first) / 1000;
  }
  return answer;
}

/**
 * @param {unknown} error
 * @returns {Error}
 */
function readable(error) {
  if (error instanceof ApiError || error instanceof LostError) return error;
  // fetch and its streams report every failure of the network as a TypeError of unclear words.
  if (error instanceof TypeError) return new LostError("The connection to the server was lost.");
  return error instanceof Error ? error : new Error(String(error));
}

/**
 * What to do about a failure, in a sentence.
 *
 * @param {Error} error
 */
export function explain(error) {
  if (!(error instanceof ApiError)) return asSentence(error.message);
  if (error.status === 429 || error.status === 503) {
    const { retryAfter } = error;
    const wait = retryAfter
      ? `It asks to wait ${retryAfter} ${retryAfter === 1 ? "second" : "seconds"}.`
      : "Wait a moment.";
    const what = error.status === 429 ? "The server is busy." : asSentence(error.message);
    return `${what} ${wait}`;
  }
  return asSentence(error.message);
}

/** @param {string} message As servers write them: small, and without an end. */
function asSentence(message) {
  const end = /[.!?…]$/.test(message) ? "" : ".";
  // A path or an address is written as it is.
  const isName = /^\S*[/:]\S/.test(message);
  return (isName ? message : message.charAt(0).toUpperCase() + message.slice(1)) + end;
}

/**
 * How fast an answer came, and how long it is, in short parts.
 *
 * @param {Answer} answer
 * @returns {string[]}
 */
export function measures({ usage, pieces, firstSeconds, seconds, finish }) {
  const parts = [];
  const tokens = usage?.completion_tokens ?? pieces;
  // The first text needed the prompt; the rest tells the pace.
  if (seconds && tokens > 1) parts.push(`${rate((tokens - 1) / seconds)} tokens/s`);
  if (firstSeconds !== undefined) parts.push(`first after ${duration(firstSeconds)}`);
  if (tokens > 0 || usage) {
    const asked = usage ? ` for ${count(usage.prompt_tokens)} of prompt` : "";
    parts.push(
      `${usage ? "" : "about "}${count(tokens)} ${tokens === 1 ? "token" : "tokens"}${asked}`,
    );
  }
  if (finish === "length") parts.push("ended at the token limit");
  if (finish === "stopped") parts.push("stopped");
  return parts;
}

/** @param {number} value */
const rate = (value) => value < 10 ? value.toFixed(1) : value.toFixed(0);

/** @param {number} value */
const count = (value) => value.toLocaleString("en");

/** @param {number} seconds */
const duration = (seconds) =>
  seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
