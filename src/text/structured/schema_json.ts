/**
 * A schema as JSON, within limits: schemas come from strangers.
 * @module
 */
import { SchemaError } from "../../errors.ts";

/** UTF-16 units of the largest schema, as JSON. */
const LARGEST_SCHEMA = 1 << 18;
/**
 * Levels of lists and objects in each other, those of values and of unknown keywords included. Bun writes
 * some ten thousands of them for seconds, in which nothing else is done, before it fails.
 */
const DEEPEST_JSON = 1000;

/**
 * A schema as JSON, within limits: a name for it.
 *
 * @throws {SchemaError} When it is none, or too large.
 */
export function jsonOf(schema: unknown, name = "the schema"): string {
  assertShallow(schema, name, 0);
  let json: string | undefined;
  try {
    json = JSON.stringify(schema);
  } catch (cause) {
    throw new SchemaError(`${name} is no JSON: ${(cause as Error).message}`, { cause });
  }
  if (json === undefined) throw new SchemaError(`${name} is no JSON: it is ${typeof schema}`);
  if (json.length > LARGEST_SCHEMA) {
    throw new SchemaError(
      `${name} has ${json.length} characters: at most ${LARGEST_SCHEMA} are read`,
    );
  }
  return json;
}

function assertShallow(value: unknown, name: string, depth: number): void {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new SchemaError(`${name} has a number that is too large, ${value}`);
  }
  if (typeof value !== "object" || value === null) return;
  if (depth >= DEEPEST_JSON) {
    throw new SchemaError(
      `${name} holds itself, or more than ${DEEPEST_JSON} lists and objects in each other`,
    );
  }
  for (const inner of Object.values(value)) assertShallow(inner, name, depth + 1);
}
