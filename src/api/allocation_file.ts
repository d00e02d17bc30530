/**
 * An allocation read back: from `espalier.json` of a pruned checkpoint, from what `prune --json` prints,
 * or from a list of densities as `prune --densities` takes it.
 *
 * Such files come from anywhere: nothing of them is used before its form is checked.
 * @module
 */
import { join } from "node:path";
import { z } from "zod";
import { quote } from "../checks.ts";
import { AllocationFileError } from "../errors.ts";
import { readJson } from "../platform/files.ts";
import { isFolder } from "../platform/paths.ts";
import type { Share } from "../prune/block.ts";
import type { Pattern } from "../prune/types.ts";
import { density, densityList, MOST_BLOCKS, pattern } from "./options.ts";

/** Bytes of the largest file that is read: a pruned checkpoint's has about 500 a block. */
const LARGEST_FILE = 16 << 20;
/** Most names to skip, and letters of the longest. */
const MOST_NAMES = 4096;
const LONGEST_NAME = 1024;
/** How far a density may be from its N of M: both were written with all their digits. */
const TOLERANCE = 1e-6;

/** How much each block keeps, and in which pattern. */
export interface GivenAllocation {
  readonly pattern: Pattern;
  /** One a block, in their order. */
  readonly shares: readonly Share[];
  /** Densities of each block's pruned linears by their names, where they differ. */
  readonly linears?: readonly Readonly<Record<string, number>>[];
  /** Linears that stay dense, by name or glob. */
  readonly skip: readonly string[];
}

const skipSchema = z.array(z.string().min(1).max(LONGEST_NAME)).max(MOST_NAMES);
const recordSchema = z.looseObject({
  format: z.literal(1, "another version of Espalier wrote this form").optional(),
  // A report has them at its top, a record among its options.
  pattern: pattern.optional(),
  skip: skipSchema.optional(),
  options: z.looseObject({ pattern: pattern.optional(), skip: skipSchema.optional() }).optional(),
  blocks: z.array(z.looseObject({
    index: z.int().min(0),
    density,
    kept: z.int().min(1).max(32).optional(),
    densities: z.record(z.string().min(1).max(LONGEST_NAME), density).optional(),
  })).min(1).max(MOST_BLOCKS),
});

/**
 * Reads an allocation.
 *
 * @param from The folder of a pruned checkpoint, a JSON file, or what such a file holds.
 * @throws {FileReadError} When there is no such file, or it is not JSON.
 * @throws {AllocationFileError} When it holds no allocation; the message names the field.
 */
export function readAllocation(from: string | object): GivenAllocation {
  if (typeof from !== "string") return allocationOf(from, "the allocation");
  const path = fileOf(from);
  return allocationOf(readJson(path, LARGEST_FILE), path);
}

/** The file that an allocation is read from: that of a pruned checkpoint, or the one that is named. */
export function fileOf(from: string): string {
  return isFolder(from) ? join(from, "espalier.json") : from;
}

/** @param where How messages call what holds `json`. */
function allocationOf(json: unknown, where: string): GivenAllocation {
  const given = typeof json === "object" && json !== null ? json as Record<string, unknown> : {};
  if (Array.isArray(json) || given.densities !== undefined) {
    const list = Array.isArray(json) ? json : given.densities;
    const densities = parse(densityList, list, where);
    return {
      pattern: { kind: "unstructured" },
      shares: densities.map((density) => ({ density })),
      skip: [],
    };
  }
  if (given.blocks === undefined) {
    throw new AllocationFileError(
      given.kind === "compiled"
        ? `${where} is that of a compiled model: name the pruned checkpoint that it was made of`
        : `${where} holds no allocation: name a pruned checkpoint, a file with what ` +
          `prune --dry-run --json prints, or one with the density of each block`,
    );
  }
  const record = parse(recordSchema, json, where);
  const chosen = record.pattern ?? record.options?.pattern ?? { kind: "unstructured" };
  const shares = record.blocks.map((block, i): Share => {
    if (block.index !== i) {
      throw new AllocationFileError(
        `${where}: blocks.${i} has the index ${block.index}: blocks must be in order, and all there`,
      );
    }
    return shareOf(block, chosen, `${where}: blocks.${i}`);
  });
  const linears = record.blocks.map(({ densities }) => densities);
  return {
    pattern: chosen,
    shares,
    ...(linears.every((each) => each !== undefined) && { linears }),
    skip: record.skip ?? record.options?.skip ?? [],
  };
}

/** A block's share, its fields compared with each other and with the pattern. */
function shareOf(
  { density, kept }: { density: number; kept?: number },
  pattern: Pattern,
  where: string,
): Share {
  if (pattern.kind === "unstructured" || pattern.kind === "slots") return { density };
  const n = pattern.kind === "nm" ? kept ?? pattern.n : kept;
  if (n === undefined) {
    throw new AllocationFileError(`${where} has no "kept", which a mixed pattern needs`);
  }
  // A block that is left dense keeps all M.
  const fits = n <= pattern.m &&
    (pattern.kind === "mixed" || n === pattern.n || (n === pattern.m && density === 1));
  if (!fits || Math.abs(density - n / pattern.m) > TOLERANCE) {
    throw new AllocationFileError(
      `${where}: density ${density} and ${n} kept of ${pattern.m} do not fit each other or the pattern`,
    );
  }
  return { density, kept: n };
}

function parse<T extends z.ZodType>(schema: T, value: unknown, where: string): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  const field = path.length > 0 ? `${path.join(".")}: ` : "";
  throw new AllocationFileError(`${where}: ${field}${bounded(message)}`);
}

/** A message, cut where it repeats a value of any length. */
function bounded(message: string): string {
  return message.length > 400 ? quote(message) : message;
}
