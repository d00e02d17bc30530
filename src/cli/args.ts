/**
 * From the words of a command line to options: the flags come from the schemas in `src/api/options.ts`.
 * @module
 */
import { parseArgs } from "@std/cli/cli/parse_args.js";
import { closestString } from "@std/cli/text/closest_string.js";
import { dirname, isAbsolute, join } from "node:path";
import type { z } from "zod";
import { SELF } from "../api/calibration_writer.ts";
import { booleanOf, flagName, parseOptions, variableName } from "../api/options.ts";
import { UsageError } from "../errors.ts";
import { isHubReference } from "../hub/reference.ts";
import { readJson } from "../platform/files.ts";

/** A command's schema: an object whose fields are its options. */
export type CommandSchema = z.ZodObject;

/** What kind of value a flag takes. */
type FlagKind = "boolean" | "number" | "list" | "text";

/** A flag, as help shows it and the parser reads it. */
export interface Flag {
  /** Field of the schema, e.g. `dryRun`. */
  readonly field: string;
  /** As it is typed, without dashes, e.g. `dry-run`. */
  readonly name: string;
  readonly kind: FlagKind;
  readonly help: string;
  /** The default, as text; undefined where there is none or it is no more than "off". */
  readonly fallback?: string;
  readonly choices?: readonly string[];
}

/** What begins as these is asked for where it lies. */
const ADDRESS = /^(?:https?|file):\/\//i;

/** Words for a field that are shorter than its name, for commands that have it. */
const ALIASES: Record<string, string> = { o: "output" };
/** What a flag looks like, known or not, and what ends flags. */
const COULD_BE_FLAG = /^(--?[a-z][\w.-]*(=|$)|--$)/i;
/** Fields that name files: in a config file they are relative to that file. */
const PATHS = [
  "model",
  "output",
  "calibration",
  "text",
  "densities",
  "against",
  "promptFile",
  "jsonSchema",
  "keyFile",
  "svg",
  "state",
  "searchState",
];

/** The flags of a schema, without the positional `model`. */
export function flagsOf(schema: CommandSchema): Flag[] {
  return Object.entries(schema.shape).filter(([field]) => field !== "model").map(([field, type]) =>
    flagOf(field, type as z.ZodType)
  );
}

/** What a command line says. */
export interface CommandLine {
  /** Options for the schema, config file and flags merged. */
  readonly options: Record<string, unknown>;
  /** The variables and fields of the config file that options came from: messages name them in place of flags. */
  readonly sources: Readonly<Record<string, string>>;
  readonly json: boolean;
}

/** Whether a command's words ask for help: `--help`, `--help=true`, `-h`; not what stands behind `--`. */
export function asksForHelp(words: readonly string[]): boolean {
  return words.slice(0, endOfFlags(words)).some((word) => {
    if (word.startsWith("--help=")) return booleanOf("--help", word.slice("--help=".length));
    return word === "--help" || /^-h+$/.test(word);
  });
}

/**
 * Reads a command's words.
 *
 * @param words What follows the command's name.
 * @param schema The command's options.
 * @param taking `config`: read when neither a model nor a config file is given. `modelIsOptional`: that is
 *   left to the command. `severalModels`: `options.model` is a list. `environment`: variables, which go
 *   over the config file as flags go over them.
 * @throws {UsageError} For an unknown flag (naming the nearest), a missing or superfluous argument.
 */
export function readCommandLine(
  words: readonly string[],
  schema: CommandSchema,
  taking: {
    readonly config?: string;
    readonly modelIsOptional?: boolean;
    readonly severalModels?: boolean;
    readonly environment?: Environment;
  } = {},
): CommandLine {
  const flags = flagsOf(schema);
  const valued = [...flags.filter(({ kind }) => kind !== "boolean").map(({ name }) => name)];
  const known = [...flags.map(({ name }) => name), "config", "json", "help"];
  const switches = [
    ...flags.filter(({ kind }) => kind === "boolean").map(({ name }) => name),
    "json",
    "help",
  ];
  const joined = readSwitches(joinValues(words, flags), switches);
  // The name under which parseArgs keeps what is no flag.
  if (joined.slice(0, endOfFlags(joined)).some((word) => /^--?_(=|$)/.test(word))) {
    throw unknownFlag("--_", known);
  }
  const parsed = parseArgs(joined, {
    boolean: switches,
    // "_": a folder may be called 007. A value that is given twice is the last, as aliases of shells rely on.
    string: [...valued, "config", "_"],
    collect: flags.filter(({ kind }) => kind === "list").map(({ name }) => name),
    unknown: (word: string, key?: string) => {
      if (key === undefined) return true;
      throw unknownFlag(word.replace(/=.*$/, ""), known);
    },
  }) as Record<string, unknown> & { _: (string | number)[] };

  const models = parsed._.map(String);
  const [model, ...rest] = models;
  if (model !== undefined && !("model" in schema.shape)) {
    throw new UsageError(`unexpected argument ${JSON.stringify(model)}`);
  }
  if (rest.length > 0 && !taking.severalModels) {
    throw new UsageError(
      `unexpected argument ${JSON.stringify(rest[0])}: one model folder is expected`,
    );
  }
  const given = words.map((word) => word.replace(/=.*$/, ""));
  const options: Record<string, unknown> = {};
  const { environment = {} } = taking;
  const named = parsed.config ?? environment[variableName("config")];
  const config = named ?? (model === undefined ? taking.config : undefined);
  const sources: Record<string, string> = {};
  let json = false;
  if (config !== undefined) {
    const path = text("config", config);
    const { json: asked = false, ...found } = readConfigFile(path);
    if (typeof asked !== "boolean") throw new UsageError(`${path}: json is neither true nor false`);
    json = asked;
    assertKnown(found, Object.keys(schema.shape), path);
    // As a variable has it: one of what may be several needs no list.
    const lists = flags.filter(({ kind }) => kind === "list").map(({ field }) => field);
    for (const field of [...lists, ...(taking.severalModels ? ["model"] : [])]) {
      if (typeof found[field] === "string") found[field] = [found[field]];
    }
    Object.assign(options, found);
    for (const field of Object.keys(found)) sources[field] = `${path}: ${field}`;
  }
  const fromFile = { ...options };
  const { output: ownOutput } = options;
  const fromEnvironment = readEnvironment(environment, flags, taking.severalModels ?? false);
  Object.assign(options, fromEnvironment);
  if (model !== undefined) options.model = taking.severalModels ? models : model;
  for (const { name, field, kind } of flags) {
    const value = parsed[name];
    if (kind === "boolean") {
      // Flags that are not there are false: that must not go over the config file.
      if (given.includes(`--${name}`)) options[field] = value;
    } else if (kind === "list") {
      if ((value as string[]).length > 0) options[field] = value;
    } else if (value !== undefined) {
      options[field] = kind === "number" ? number(name, value) : text(name, value);
    }
  }
  const asksForForce = given.includes("--force") || fromEnvironment.force !== undefined;
  // A config file that nobody named says what may be done with its own output, and no more.
  if (named === undefined && options.output !== ownOutput && !asksForForce) delete options.force;
  if (options.model === undefined && !taking.modelIsOptional) {
    throw new UsageError("name the folder of a model, or hf:owner/name for one of the Hub");
  }
  for (const field of Object.keys(fromEnvironment)) sources[field] = variableName(field);
  for (const field of Object.keys(sources)) {
    // A flag has gone over it.
    if (options[field] !== (fromEnvironment[field] ?? fromFile[field])) delete sources[field];
  }
  const asksForJson = environment[variableName("json")];
  if (asksForJson) json = booleanOf(variableName("json"), asksForJson);
  if (given.includes("--json")) json = Boolean(parsed.json);
  return { options, sources, json };
}

/** Variables of the environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Options from the environment: `ESPALIER_QUEUE_TIMEOUT` is `--queue-timeout`. Lists have commas.
 *
 * @throws {UsageError} Naming the variable that is wrong.
 */
function readEnvironment(
  environment: Environment,
  flags: readonly Flag[],
  severalModels: boolean,
): Record<string, unknown> {
  const options: Record<string, unknown> = {};
  const model = { field: "model", kind: severalModels ? "list" : "text" } as const;
  for (const { field, kind } of [model, ...flags]) {
    const variable = variableName(field);
    const value = environment[variable];
    if (value === undefined || value === "") continue;
    if (kind === "list") options[field] = value.split(",").map((word) => word.trim());
    else if (kind === "text") options[field] = value;
    else if (kind === "number") options[field] = numberOf(variable, value);
    else options[field] = booleanOf(variable, value);
  }
  return options;
}

/**
 * Spells aliases out, and joins `--beta -0.1` to `--beta=-0.1`, `--prompt "- a list"` and `--prompt ""` alike: the parser takes a word with a
 * dash for another flag, and an empty one for an argument.
 */
function joinValues(words: readonly string[], flags: readonly Flag[]): string[] {
  const valued = new Set(
    flags.filter(({ kind }) => kind !== "boolean").map(({ name }) => `--${name}`),
  );
  const joined: string[] = [];
  const end = endOfFlags(words);
  for (const [at, word] of words.entries()) {
    const before = joined.at(-1) ?? "";
    // What could be a flag is one: a flag that lacks its value is told so.
    const isValue = word === "" || (word.startsWith("-") && !COULD_BE_FLAG.test(word));
    if (isValue && valued.has(before)) joined[joined.length - 1] = `${before}=${word}`;
    else joined.push(at < end ? spelledOut(word, valued) : word);
  }
  return joined;
}

/** `-o`, `-oVALUE` and `-o=VALUE` by the field's name: the parser looks for the first `=` anywhere in a value. */
function spelledOut(word: string, valued: ReadonlySet<string>): string {
  const [, alias, value] = /^-([a-z])(.*)$/s.exec(word) ?? [];
  const flag = `--${ALIASES[alias]}`;
  if (!valued.has(flag)) return word;
  return value === "" ? flag : `${flag}=${value.replace(/^=/, "")}`;
}

/** The place of the `--` behind which no word is a flag, or that behind the last word. */
function endOfFlags(words: readonly string[]): number {
  const end = words.indexOf("--");
  return end < 0 ? words.length : end;
}

/**
 * Reads what `--force=0` says of a flag that is on or off, as a variable says it: the parser takes any word but `false`
 * for true.
 *
 * @throws {UsageError} Naming the flag whose word is neither true nor false.
 */
function readSwitches(words: readonly string[], switches: readonly string[]): string[] {
  const end = endOfFlags(words);
  return words.map((word, at) => {
    const [, name, value] = /^--([^=]+)=(.*)$/s.exec(word) ?? [];
    if (at > end || !switches.includes(name)) return word;
    return `--${name}=${booleanOf(`--${name}`, value)}`;
  });
}

/**
 * Checks options against a schema, naming fields as flags.
 *
 * @param sources Fields that are to be named otherwise.
 */
export function checkOptions<T extends CommandSchema>(
  schema: T,
  options: Record<string, unknown>,
  sources: Readonly<Record<string, string>> = {},
): z.output<T> {
  return parseOptions(
    schema,
    options,
    (field) => sources[field] ?? (field === "model" ? field : `--${flagName(field)}`),
  );
}

/**
 * The error for a word that is no flag, with the nearest one that is.
 *
 * @param known Names without dashes.
 */
export function unknownFlag(word: string, known: readonly string[]): UsageError {
  return new UsageError(
    `unknown option ${word}${suggestion(word.replace(/^-+/, ""), known, "--")}`,
  );
}

/** `: did you mean X?`, where something is near. */
export function suggestion(word: string, known: readonly string[], prefix = ""): string {
  const nearest = closestString(word, known) as string;
  return distanceIsSmall(word, nearest) ? `: did you mean ${prefix}${nearest}?` : "";
}

function distanceIsSmall(a: string, b: string): boolean {
  const shared = new Set(a);
  const common = [...new Set(b)].filter((c) => shared.has(c)).length;
  return common * 2 >= Math.max(new Set(a).size, new Set(b).size);
}

function text(name: string, value: unknown): string {
  if (typeof value !== "string" || value === "") throw new UsageError(`--${name} needs a value`);
  return value;
}

function number(name: string, value: unknown): number {
  return numberOf(`--${name}`, text(name, value));
}

/** @param where How a message calls what holds it. */
function numberOf(where: string, word: string): number {
  const parsed = Number(word);
  if (word.trim() === "" || Number.isNaN(parsed)) {
    throw new UsageError(`${where}: ${JSON.stringify(word)} is not a number`);
  }
  return parsed;
}

/**
 * Options from a JSON file, its paths taken as relative to it.
 *
 * @throws {UsageError} When it is no object.
 */
export function readConfigFile(path: string): Record<string, unknown> {
  const json = readJson(path, 1 << 20);
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new UsageError(`${path} is not a JSON object of options`);
  }
  const options = { ...json } as Record<string, unknown>;
  delete options.$schema;
  for (const field of PATHS) {
    const value = options[field];
    // What is none on the command line is none here: an address, standard input, a model's own text.
    const isFile = (name: string) =>
      name !== "-" && !isAbsolute(name) && !isHubReference(name) && !ADDRESS.test(name) &&
      !(field === "calibration" && name === SELF);
    const placed = (name: unknown) =>
      typeof name === "string" && isFile(name) ? join(dirname(path), name) : name;
    if (value !== undefined) {
      options[field] = Array.isArray(value) ? value.map(placed) : placed(value);
    }
  }
  return options;
}

/** @throws {UsageError} When a config file has a field that is no option. */
function assertKnown(options: object, known: readonly string[], path: string): void {
  const field = Object.keys(options).find((name) => !known.includes(name));
  if (field === undefined) return;
  throw new UsageError(`${path}: unknown option ${field}${suggestion(field, known)}`);
}

/** As much of a zod type as help needs, from under its defaults and wrappers. */
function flagOf(field: string, type: z.ZodType): Flag {
  interface Definition {
    type: string;
    innerType?: z.ZodType;
    in?: z.ZodType;
    defaultValue?: unknown;
    entries?: Record<string, string>;
  }
  let help = type.description ?? "";
  let fallback: unknown;
  let inner = type;
  let definition = inner.def as unknown as Definition;
  while (["default", "prefault", "optional", "pipe"].includes(definition.type)) {
    if (definition.defaultValue !== undefined) fallback = definition.defaultValue;
    inner = (definition.type === "pipe" ? definition.in : definition.innerType)!;
    help ||= inner.description ?? "";
    definition = inner.def as unknown as Definition;
  }
  const kinds: Record<string, FlagKind> = { boolean: "boolean", number: "number", array: "list" };
  const kind = kinds[definition.type] ?? "text";
  const shown = fallback === undefined || fallback === false || Array.isArray(fallback)
    ? undefined
    : String(fallback);
  return {
    field,
    name: flagName(field),
    kind,
    help,
    fallback: shown,
    choices: definition.entries && Object.values(definition.entries),
  };
}
