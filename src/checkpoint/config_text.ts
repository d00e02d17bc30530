/**
 * `config.json` with other members, and everything else as it is written.
 * @module
 */

import { readText } from "../platform/files.ts";

/** The largest `config.json` that is read; they have some kilobytes. */
const LARGEST_CONFIG = 64 << 20;

/** JavaScript's numbers do not tell 2.0 from 2: a number as the text has it (ECMAScript 2026; Deno and Bun have it). */
interface JsonWithSources {
  rawJSON?(text: string): unknown;
}

/**
 * Changes members of a config. Numbers that are not changed stay as they are written: transformers 5 refuses `2`
 * where it wants a float, and a round trip would make that of `2.0`.
 *
 * @param path A JSON object, which has been read and checked before.
 * @param change Returns what is to be written; in what it is given, numbers are of no use.
 * @returns The text, indented by two spaces, with a line break behind it.
 */
export function changeConfig(
  path: string,
  change: (config: Record<string, unknown>) => Record<string, unknown>,
): string {
  const { rawJSON } = JSON as JsonWithSources;
  const asWritten = (_: string, value: unknown, context?: { source?: string }) =>
    typeof value === "number" && context?.source !== undefined && rawJSON
      ? rawJSON(context.source)
      : value;
  const text = readText(path, LARGEST_CONFIG);
  return `${JSON.stringify(change(JSON.parse(text, asWritten)), null, 2)}\n`;
}
