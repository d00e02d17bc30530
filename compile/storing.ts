/**
 * How a checkpoint is to be stored: what the caller says, else what `prune` wrote beside it (`--fit`
 * counts on it), else int8.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import { type DecoderSpec, tokenTables } from "../src/checkpoint/architectures/spec.ts";
import { RECORD } from "../src/engine/integrity.ts";
import { quote } from "../src/checks.ts";
import { ConfigError } from "../src/errors.ts";
import { readJson } from "../src/platform/files.ts";
import { exists } from "../src/platform/paths.ts";
import type { CompileSettings } from "./options.ts";
import { compileSchema } from "./options.ts";

/** Bytes of the largest record that is read. */
const LARGEST_RECORD = 64 << 20;

/** How weights are stored, all of it settled. */
export interface Storing {
  readonly format: NonNullable<CompileSettings["format"]>;
  readonly values: NonNullable<CompileSettings["values"]>;
  readonly group?: number;
  /** Of what has a row for each token: embeddings and output head. */
  readonly head: NonNullable<CompileSettings["head"]>;
  /** Whether `prune` chose how, which may be dense. */
  readonly isPrunedFor?: boolean;
}

const { format, values, group, head } = compileSchema.shape;
/** The field `compile` of a pruned checkpoint's `espalier.json`. */
const recordSchema = z.looseObject({
  compile: z.strictObject({ format, values, group, head }).optional(),
});

/**
 * How to store a checkpoint.
 *
 * @param folder Its folder, where `espalier.json` may say what it was pruned for.
 * @param asked What the caller said; that goes first. Other values than the record's bring their own group and
 *   head.
 * @throws {ConfigError} When the record says something that cannot be.
 */
export function storingFor(
  folder: string,
  asked: Pick<CompileSettings, "format" | "values" | "group" | "head">,
): Storing {
  const recorded = recordIn(folder);
  const values = asked.values ?? recorded.values ?? "int8";
  const own = asked.values === undefined || asked.values === recorded.values ? recorded : {};
  return {
    format: asked.format ?? recorded.format ?? "auto",
    values,
    group: asked.group ?? own.group,
    // What int4 saves in embedding and head costs more than it does in linears.
    head: asked.head ?? own.head ?? (values === "int4" ? "int8" : values),
    isPrunedFor: Object.keys(recorded).length > 0,
  };
}

/** Kept weights that share a scale of a head in int4: a group of int8 linears says nothing of it. */
export function headGroup(
  { values, group }: Pick<Storing, "values" | "group">,
): number | undefined {
  return values === "int4" ? group : undefined;
}

/**
 * How a table is stored. `head` says it of the head and of what has a row for each token; positions that were learned,
 * and projections beside embeddings, are too small for int4 to be worth what it costs in them.
 *
 * @param name Of its tensor in the checkpoint.
 */
export function tableValues(
  name: string,
  spec: Pick<DecoderSpec, "root" | "names" | "embedding" | "perLayer" | "head">,
  { head }: Pick<Storing, "head">,
): Storing["head"] {
  const named = tokenTables(spec).includes(name) || name === `${spec.head}.weight`;
  return head === "int4" && !named ? "int8" : head;
}

function recordIn(folder: string): Pick<CompileSettings, "format" | "values" | "group" | "head"> {
  const path = join(folder, RECORD);
  if (!exists(path)) return {};
  const json = readJson(path, LARGEST_RECORD);
  // Other tools may write a file of that name: only what we would use must be as we know it.
  if (typeof json !== "object" || json === null || Array.isArray(json)) return {};
  const parsed = recordSchema.safeParse(json);
  if (parsed.success) return parsed.data.compile ?? {};
  const { path: field, message } = parsed.error.issues[0];
  throw new ConfigError(
    `${path}: ${field.join(".")}: ${message.length > 200 ? quote(message) : message}: ` +
      `prune again, or take the field "compile" out and say --values and --head`,
  );
}
