/**
 * What a function's environment says: as the variables of `serve`, as far as there is something to choose.
 * @module
 */
import type { z } from "zod";
import { booleanOf, parseOptions, variableName } from "../api/options.ts";
import { UsageError } from "../errors.ts";
import { KEYS, parseKeys } from "../server/keys.ts";
import { serverSchema, type ServerSettings } from "../server/options.ts";

/** Variables by name, and whatever else an environment has. */
export type Variables = Readonly<Record<string, unknown>>;

/** What `serve` has in place of {@linkcode KEYS}. */
const KEY_FILE = "ESPALIER_KEY_FILE";

const NUMBERS = [
  "queue",
  "queueTimeout",
  "requestTimeout",
  "readTimeout",
  "promptLimit",
  "maxTokens",
] as const;

const LISTS = ["cors", "allowHost"] as const;

/** Every variable that is looked at. */
export const VARIABLES: readonly string[] = [
  KEYS,
  KEY_FILE,
  ...[...NUMBERS, ...LISTS, "bodyLimit", "logPrompts"].map(variableName),
];

/**
 * Options of the server.
 *
 * @param parallel Sequences at once; the memory was counted for so many.
 * @throws {UsageError} Naming the variable that is wrong. Nobody must be served then: it may be the keys.
 */
export function serverSettings(variables: Variables, parallel: number): ServerSettings {
  const textOf = (name: string) => wordOf(name, variables[name]) || undefined;
  const options: z.input<typeof serverSchema> = { parallel };
  for (const field of NUMBERS) {
    const text = textOf(variableName(field));
    if (text !== undefined) options[field] = numberOf(variableName(field), text);
  }
  const bodyLimit = textOf(variableName("bodyLimit"));
  if (bodyLimit !== undefined) options.bodyLimit = bodyLimit;
  for (const field of LISTS) {
    const text = textOf(variableName(field));
    if (text !== undefined) options[field] = text.split(",").map((one) => one.trim());
  }
  const logPrompts = textOf(variableName("logPrompts"));
  if (logPrompts !== undefined) {
    options.logPrompts = booleanOf(variableName("logPrompts"), logPrompts);
  }
  // Also where it is empty: a secret that was set to nothing must not open the door.
  if (textOf(KEY_FILE) !== undefined) {
    throw new UsageError(`${KEY_FILE}: no file is read here: put its lines into ${KEYS}`);
  }
  const keys = wordOf(KEYS, variables[KEYS]);
  if (keys !== undefined) options.keys = parseKeys(keys, KEYS);
  return parseOptions(serverSchema, options, variableName);
}

/**
 * What a variable says; nothing where there is none. Those of a Worker may be what JSON has.
 *
 * @throws {UsageError} When it is a list or an object, as bindings are: passed over, it might be the keys.
 */
function wordOf(name: string, value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  if (["string", "number", "boolean"].includes(typeof value)) return String(value);
  throw new UsageError(`${name} is no text: write it in quotation marks`);
}

function numberOf(variable: string, text: string): number {
  const number = Number(text);
  if (Number.isFinite(number)) return number;
  throw new UsageError(`${variable}: ${JSON.stringify(text)} is not a number`);
}
