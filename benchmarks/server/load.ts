/**
 * Many streams at once: how many tokens a second, how long a stream waits between two of them, and
 * whether every text is the one that its seed gives alone.
 * @module
 */
import { counted, markdownTable, median } from "../support/print.ts";
import type { RuntimeName } from "../support/process.ts";
import { throwIfInterrupted } from "../support/process.ts";
import { startServer } from "./child.ts";
import { type Ask, stream, type Streamed } from "./client.ts";

/** Streams at once that are measured one after the other. */
export const LEVELS = [1, 2, 4, 8, 16, 64] as const;
/** Requests that differ: each is also made alone, and its text kept. */
const ASKS = 16;
/** Milliseconds between two questions whether the server lives. */
const HEALTH_EVERY = 100;

/** What is measured. */
export interface LoadOptions {
  readonly model: string;
  readonly runtime: RuntimeName;
  readonly tokens: number;
  /** Seconds of the longest level, the last; others get a third of it. */
  readonly seconds: number;
  readonly threads: number | undefined;
}

/** One number of streams. */
export interface Level {
  readonly streams: number;
  readonly requests: number;
  readonly tokensPerSecond: number;
  /** Milliseconds from a request to its first text, median. */
  readonly first: number;
  /** Milliseconds between two tokens: the median, and the longest of all. */
  readonly between: number;
  readonly longest: number;
  readonly errors: number;
  /** Texts that differ from what the same request gave alone. */
  readonly wrong: number;
  /** Milliseconds that `/health` took at most. */
  readonly health: number;
}

/** All of it. */
export interface LoadResult {
  readonly runtime: string;
  readonly levels: readonly Level[];
}

/** Measures a server under load. */
export async function measureLoad(
  options: LoadOptions,
  say: (line: string) => void,
): Promise<LoadResult> {
  const most = Math.max(...LEVELS);
  const server = await startServer(options.runtime, options.model, [
    ...["--parallel", String(most), "--queue", String(most), "--context", "1024"],
    ...(options.threads === undefined ? [] : ["--threads", String(options.threads)]),
  ]);
  try {
    const asks = Array.from({ length: ASKS }, (_, i): Ask => ({
      prompt: `Chapter ${i + 1}. In the year ${1800 + 7 * i} the people of the town`,
      seed: i,
      maxTokens: options.tokens,
    }));
    // The first ones also let the runtime compile its code.
    for (const ask of asks.slice(0, 4)) await stream(server.url, ask);
    const alone: Streamed[] = [];
    for (const ask of asks) alone.push(await stream(server.url, { ...ask, counted: true }));
    const levels: Level[] = [];
    for (const streams of LEVELS) {
      throwIfInterrupted();
      const seconds = streams === most ? options.seconds : options.seconds / 3;
      levels.push(await measureLevel(server.url, streams, asks, alone, seconds));
      const { tokensPerSecond, longest, errors, wrong } = levels.at(-1)!;
      say(
        `${counted(streams, "stream")}: ${tokensPerSecond.toFixed(1)} tokens/s, longest wait ` +
          `${longest.toFixed(0)} ms, ${errors} errors, ${wrong} wrong`,
      );
    }
    return { runtime: server.runtime, levels };
  } finally {
    await server.stop();
  }
}

async function measureLevel(
  url: string,
  streams: number,
  asks: readonly Ask[],
  alone: readonly Streamed[],
  seconds: number,
): Promise<Level> {
  const started = performance.now();
  const isOver = () => performance.now() - started > 1000 * seconds;
  const done: Streamed[] = [];
  const gaps: number[] = [];
  let errors = 0;
  let wrong = 0;
  let next = 0;
  const client = async () => {
    while (!isOver()) {
      const which = next++ % asks.length;
      try {
        const streamed = await stream(url, asks[which]);
        if (streamed.text !== alone[which].text) wrong++;
        done.push(streamed);
        // The same text comes in the same pieces; one of several tokens took several turns.
        const { counts } = alone[which];
        gaps.push(
          ...streamed.times.slice(1).map((time, i) =>
            (time - streamed.times[i]) / (counts[i + 1] ?? 1)
          ),
        );
      } catch {
        errors++;
      }
    }
  };
  const health = watchHealth(url);
  await Promise.all(Array.from({ length: streams }, client));
  const elapsed = (performance.now() - started) / 1000;
  return {
    streams,
    requests: done.length,
    tokensPerSecond: done.reduce((sum, { tokens }) => sum + tokens, 0) / elapsed,
    first: median(done.map(({ times }) => times[0])),
    between: median(gaps),
    longest: gaps.reduce((longest, gap) => Math.max(longest, gap), 0),
    errors,
    wrong,
    health: await health(),
  };
}

/** Asks `/health` again and again; call what it gives to end it and have the longest time. */
function watchHealth(url: string): () => Promise<number> {
  let isOver = false;
  let longest = 0;
  const asking = (async () => {
    while (!isOver) {
      const started = performance.now();
      await (await fetch(`${url}/health`)).text();
      longest = Math.max(longest, performance.now() - started);
      await new Promise((resume) => setTimeout(resume, HEALTH_EVERY));
    }
  })();
  return async () => {
    isOver = true;
    await asking;
    return longest;
  };
}

/** As a table, and what it says of the single stream. */
export function describeLoad({ runtime, levels }: LoadResult): string {
  const [one] = levels;
  const rows = levels.map((level) => [
    String(level.streams),
    String(level.requests),
    level.tokensPerSecond.toFixed(1),
    (level.tokensPerSecond / one.tokensPerSecond).toFixed(2),
    level.first.toFixed(0),
    level.between.toFixed(1),
    level.longest.toFixed(0),
    (level.streams * one.between + 20).toFixed(0),
    String(level.errors),
    String(level.wrong),
    level.health.toFixed(0),
  ]);
  const header = [
    "streams",
    "answers",
    "tokens/s",
    "of one's",
    "first ms",
    "between ms",
    "longest ms",
    "streams × one + 20",
    "errors",
    "wrong",
    "/health ms",
  ];
  return `${runtime}\n\n${markdownTable(header, rows)}`;
}
