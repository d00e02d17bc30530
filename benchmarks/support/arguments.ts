/** The benchmarks' command lines: options, messages, ends. */
import process from "node:process";

/** Wrong options: the message says which. */
export class UsageError extends Error {}

/** A number above 0. */
export function positive(name: string, text: string): number {
  const number = Number(text);
  if (!(number > 0) || number === Infinity) {
    throw new UsageError(`--${name} must be a number above 0, not "${text}"`);
  }
  return number;
}

/** A whole number above 0. */
export function whole(name: string, text: string): number {
  const number = positive(name, text);
  if (!Number.isSafeInteger(number)) {
    throw new UsageError(`--${name} must be a whole number, not "${text}"`);
  }
  return number;
}

/** Words that must be among those known; each is given once. */
export function oneOf<T extends string>(
  name: string,
  texts: readonly string[],
  known: readonly T[],
): T[] {
  for (const text of texts) {
    if (!known.includes(text as T)) {
      throw new UsageError(`--${name} is ${known.join(" or ")}, not "${text}"`);
    }
  }
  return [...new Set(texts as readonly T[])];
}

/** Writes a line of progress. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/**
 * Runs a benchmark's program; an error becomes a line, with the usage where the options are wrong, and
 * the exit code.
 */
export async function runMain(main: () => Promise<void>, usage: string): Promise<void> {
  try {
    await main();
  } catch (error) {
    const isUsage = error instanceof UsageError ||
      String((error as { code?: string }).code).startsWith("ERR_PARSE_ARGS");
    say(`main.ts: ${(error as Error).message}${isUsage ? `\n${usage}` : ""}`);
    process.exit(isUsage ? 2 : 1);
  }
}
