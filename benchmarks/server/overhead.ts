/**
 * What HTTP, validation and server-sent events cost a single stream: the same generation in a process
 * without a server, and through one, in turn.
 *
 * The client reads the stream when it has ended, and the server's log says how long it took: a client on
 * the same processors that reads each event takes 3 % of two processors (curl) to 10 % (Deno's `fetch`),
 * which is not what a server costs.
 * @module
 */
import { connect } from "node:net";
import process from "node:process";
import { load } from "../../src/generate/load.ts";
import { markdownTable, median } from "../support/print.ts";
import { ownRuntime, ProgramError, throwIfInterrupted } from "../support/process.ts";
import { type Child, startServer } from "./child.ts";

/** What is measured. */
export interface OverheadOptions {
  readonly model: string;
  readonly tokens: number;
  readonly repeat: number;
  readonly threads: number | undefined;
}

/** Tokens/s after the first token, one figure a round. */
export interface OverheadResult {
  readonly runtime: string;
  /** `model.generate` in a process of its own. */
  readonly direct: readonly number[];
  /** Through the server. */
  readonly served: readonly number[];
}

const PROMPT = "In the year 1807 the people of the town";

/** Measures both in turn, in the runtime that runs this. */
export async function measureOverhead(
  options: OverheadOptions,
  say: (line: string) => void,
): Promise<OverheadResult> {
  const { tokens, threads } = options;
  const server = await startServer(ownRuntime(), options.model, [
    ...["--context", "512", "--log", "json"],
    ...(threads === undefined ? [] : ["--threads", String(threads)]),
  ]);
  const direct: number[] = [];
  const served: number[] = [];
  try {
    await using model = await load(options.model, { context: 512, threads });
    const alone = async (seed: number) => {
      let last = 0;
      let first = 0;
      let count = 0;
      const asked = { maxTokens: tokens, temperature: 0.8, seed };
      for await (const piece of model.generate(PROMPT, asked)) {
        if (piece.type === "text") {
          last = performance.now();
          first ||= last;
        } else count = piece.completionTokens;
      }
      return 1000 * (count - 1) / (last - first);
    };
    const through = async (seed: number) => {
      const { count, seconds } = await streamUnread(server, seed, tokens);
      return (count - 1) / seconds;
    };
    await alone(0);
    await through(0);
    for (let round = 0; round < options.repeat; round++) {
      throwIfInterrupted();
      // The same seed: the same tokens in both.
      direct.push(await alone(round));
      served.push(await through(round));
      say(`${direct.at(-1)!.toFixed(1)} and ${served.at(-1)!.toFixed(1)} tokens/s`);
    }
  } finally {
    await server.stop();
  }
  return { runtime: `${ownRuntime()} ${process.versions[ownRuntime()]}`, direct, served };
}

/**
 * Asks for a stream, and reads it when it has ended.
 *
 * @returns Its tokens, and the time from the first to the last by the server's own log.
 * @throws {ProgramError} For an answer that is an error.
 */
async function streamUnread(
  server: Child,
  seed: number,
  tokens: number,
): Promise<{ count: number; seconds: number }> {
  const body = JSON.stringify({
    prompt: PROMPT,
    seed,
    max_tokens: tokens,
    temperature: 0.8,
    stream: true,
  });
  const { hostname, port } = new URL(server.url);
  const socket = connect({ host: hostname, port: Number(port) });
  const ended = server.nextRequest();
  const head = [
    "POST /v1/completions HTTP/1.1",
    `Host: ${hostname}`,
    "Content-Type: application/json",
    `Content-Length: ${body.length}`,
    "Connection: close",
  ];
  socket.pause();
  socket.write(`${head.join("\r\n")}\r\n\r\n${body}`);
  const { status, milliseconds, firstTokenMilliseconds, completionTokens } = await ended;
  let text = "";
  for await (const more of socket.setEncoding("utf8")) text += more;
  if (status !== 200 || !text.includes("data: [DONE]")) throw new ProgramError(text.slice(-1000));
  return { count: completionTokens, seconds: (milliseconds - firstTokenMilliseconds) / 1000 };
}

/** As a table. */
export function describeOverhead({ runtime, direct, served }: OverheadResult): string {
  const ratio = median(served.map((speed, i) => speed / direct[i]));
  const rows = [
    ["generate, in its own process", median(direct).toFixed(1), "1"],
    ["through the server", median(served).toFixed(1), ratio.toFixed(3)],
  ];
  return `${runtime}, medians of ${direct.length} rounds\n\n${
    markdownTable(["one stream", "tokens/s", "ratio"], rows)
  }`;
}
