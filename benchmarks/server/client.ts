/**
 * A client that streams a completion and looks at the clock with each piece of text.
 * @module
 */

/** What is asked for. */
export interface Ask {
  readonly prompt: string;
  readonly seed: number;
  readonly maxTokens: number;
  /** Also tells how many tokens each piece has, which costs the server some time. */
  readonly counted?: boolean;
}

/** What came. */
export interface Streamed {
  readonly text: string;
  readonly tokens: number;
  /** Milliseconds from the request to each piece of text. */
  readonly times: readonly number[];
  /** Tokens of each piece, where they were asked for: a character may take several. */
  readonly counts: readonly number[];
}

/** An event, as much of it as is read. */
interface Event {
  readonly choices?: readonly {
    readonly text: string;
    readonly logprobs?: { readonly tokens: readonly string[] } | null;
  }[];
  readonly usage?: { readonly completion_tokens: number } | null;
  readonly error?: { readonly message: string };
}

/**
 * Streams one completion.
 *
 * @throws {Error} For an answer that is an error.
 */
export async function stream(
  url: string,
  { prompt, seed, maxTokens, counted }: Ask,
): Promise<Streamed> {
  const started = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      prompt,
      seed,
      max_tokens: maxTokens,
      temperature: 0.8,
      stream: true,
      ...(counted ? { logprobs: 0 } : {}),
      stream_options: { include_usage: true },
    }),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  let text = "";
  let tokens = 0;
  let isDone = false;
  const times: number[] = [];
  const counts: number[] = [];
  for await (const data of events(response.body!)) {
    if (data === "[DONE]") {
      isDone = true;
      continue;
    }
    const { choices, usage, error } = JSON.parse(data) as Event;
    if (error) throw new Error(error.message);
    const piece = choices?.[0]?.text ?? "";
    if (piece !== "") {
      times.push(performance.now() - started);
      counts.push(choices?.[0]?.logprobs?.tokens.length ?? 1);
    }
    text += piece;
    tokens = usage?.completion_tokens ?? tokens;
  }
  if (!isDone) throw new Error("the stream ended before its end");
  return { text, tokens, times, counts };
}

/** The data of server-sent events. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const utf8 = new TextDecoder();
  let pending = "";
  for await (const bytes of body) {
    pending += utf8.decode(bytes, { stream: true });
    const lines = pending.split("\n\n");
    pending = lines.pop()!;
    for (const line of lines) yield line.replace(/^data: /, "");
  }
}
