/**
 * Variants of a model, as a person writes them: `dense:int8`, `8:16:int8`, `unstructured@0.7:f16`,
 * `mixed:16@0.6:int8:magnitude:uniform`, `fit@60MB`.
 *
 * `dense:int4:espalier` is dense, and rounded with the weights that are still to come making up for it;
 * `int4-head` behind any of them stores the output head in int4, too.
 *
 * Patterns, values, methods and allocations are those that `prune` and `compile` take, so that a new one
 * there is one here.
 * @module
 */
import { z } from "zod";
import { compileSchema } from "../../../compile/options.ts";
import { bytes, pattern, pruneSchema } from "../../api/options.ts";
import { patternText } from "../../api/prune_report.ts";
import { mends } from "../../prune/block.ts";

type Values = NonNullable<z.output<typeof compileSchema>["values"]>;
type Method = z.output<typeof pruneSchema>["method"];
type Allocation = z.output<typeof pruneSchema>["allocation"];

/** Value types of `compile`. */
export const VALUES: readonly Values[] = compileSchema.shape.values.unwrap().options;
const METHODS: readonly Method[] = pruneSchema.shape.method.unwrap().options;
const ALLOCATIONS: readonly Allocation[] = pruneSchema.shape.allocation.unwrap().options;

/** How a variant is pruned. */
export interface VariantPruning {
  /** As `prune --pattern` spells it. */
  readonly pattern: string;
  /** Absent where the pattern says it. */
  readonly sparsity?: number;
  readonly method: Method;
  readonly allocation: Allocation;
}

/** A way to make a model smaller. */
export interface Variant {
  /** As it is written, in one spelling only. */
  readonly name: string;
  readonly kind: "dense" | "sparse" | "fit";
  /** How values are stored; for `fit` the fit says it. */
  readonly values?: Values;
  /** How the output head is stored, where it is not as `compile` would. */
  readonly head?: typeof HEAD_VALUES;
  /** For `sparse`, and for `dense` where a method rounds the values. */
  readonly pruning?: VariantPruning;
  /** Most bytes, for `fit`, and who prunes. */
  readonly fit?: {
    readonly bytes: number;
    readonly method: Method;
    readonly allocation: Allocation;
  };
}

/** What a variant that does not say so is pruned with. */
export interface VariantDefaults {
  readonly method: Method;
  readonly allocation: Allocation;
}

const HEAD_VALUES = "int4";
/** The word for that. */
const HEAD_WORD = "int4-head";

/** How to write a variant, for help and messages. */
export const GRAMMAR =
  `dense:VALUES, dense:int4:METHOD, PATTERN[@SPARSITY][:VALUES][:METHOD][:ALLOCATION], ` +
  `each with :${HEAD_WORD} or without, or fit@SIZE`;

/**
 * Reads a list of variants: text with commas, or an array.
 *
 * @returns A zod schema that gives functions of the defaults, since those are options as well.
 */
export const variantList = z.union([z.string(), z.array(z.string())]).transform(
  (given, context): (defaults: VariantDefaults) => Variant[] => {
    const words = (typeof given === "string" ? given.split(",") : given)
      .map((word) => word.trim()).filter((word) => word !== "");
    if (words.length === 0) {
      context.addIssue(`no variant is named; write ${GRAMMAR}`);
      return z.NEVER;
    }
    const made: ((defaults: VariantDefaults) => Variant)[] = [];
    for (const word of words) {
      const read = readVariant(word);
      if (typeof read === "string") {
        context.addIssue(`${JSON.stringify(word)}: ${read}; write ${GRAMMAR}`);
        return z.NEVER;
      }
      made.push(read);
    }
    return (defaults) => withoutDoubles(made.map((make) => make(defaults)));
  },
);

/** Each variant once. */
export function withoutDoubles(variants: readonly Variant[]): Variant[] {
  return [...new Map(variants.map((variant) => [variant.name, variant])).values()];
}

/** Reads one variant; text says what is wrong. */
function readVariant(word: string): string | ((defaults: VariantDefaults) => Variant) {
  const pieces = word.split(":");
  const at = pieces.indexOf(HEAD_WORD);
  if (at < 0) return readWithoutHead(pieces);
  if (pieces[0].startsWith("fit@")) return "a fit looks for the head's values by itself";
  const read = readWithoutHead(pieces.toSpliced(at, 1));
  return typeof read === "string" ? read : (defaults) => withNarrowHead(read(defaults));
}

function readWithoutHead(
  pieces: string[],
): string | ((defaults: VariantDefaults) => Variant) {
  if (pieces[0] === "dense") {
    const values = VALUES.find((values) => values === pieces[1]);
    if (!values) return `dense is stored as ${VALUES.join(", ")}`;
    if (pieces.length === 2) return () => denseVariant(values);
    const method = METHODS.find((method) => method === pieces[2]);
    if (pieces.length > 3 || values !== "int4" || !method || !mends(method)) {
      return "a method that rounds dense values is sparsegpt or espalier, and rounds to int4";
    }
    return () => roundedVariant(method);
  }
  const fit = /^fit@([^:]+)((?::.*)?)$/.exec(pieces.join(":"));
  if (fit) {
    const size = bytes.safeParse(fit[1]);
    if (!size.success) return size.error.issues[0].message;
    const words = readWords(fit[2].split(":").slice(1));
    if (typeof words === "string") return words;
    if (words.values) return "a fit looks for the values by itself";
    return (defaults) => fitVariant(size.data, { ...defaults, ...words }, defaults);
  }
  return readSparse(pieces);
}

/** The longest beginning that is a pattern, its sparsity, and words in any order. */
function readSparse(pieces: string[]): string | ((defaults: VariantDefaults) => Variant) {
  for (const length of [2, 1]) {
    if (pieces.length < length) continue;
    const [text, asked, more] = pieces.slice(0, length).join(":").split("@");
    const parsed = pattern.safeParse(text);
    // `unstructured@0.5:int8` is a pattern of one piece.
    if (!parsed.success || more !== undefined || asked?.includes(":")) continue;
    const words = readWords(pieces.slice(length));
    if (typeof words === "string") return words;
    const { values = "int8", method, allocation } = words;
    const spelled = patternText(parsed.data);
    if (parsed.data.kind === "nm") {
      if (asked !== undefined) return `${spelled} says its sparsity by itself`;
      if (parsed.data.n === parsed.data.m) return `${spelled} prunes nothing`;
      return (defaults) =>
        sparseVariant(
          { ...defaults, ...given({ method, allocation }), pattern: spelled },
          values,
          defaults,
        );
    }
    const sparsity = asked === undefined ? NaN : sparsityOf(asked);
    if (!(sparsity > 0 && sparsity < 1)) {
      return `${spelled} needs a sparsity between 0 and 1, as ${spelled}@0.7`;
    }
    return (defaults) =>
      sparseVariant(
        { ...defaults, ...given({ method, allocation }), pattern: spelled, sparsity },
        values,
        defaults,
      );
  }
  return "it begins with no pattern";
}

interface Words {
  readonly values?: Values;
  readonly method?: Method;
  readonly allocation?: Allocation;
}

function readWords(pieces: readonly string[]): string | Words {
  const words: { values?: Values; method?: Method; allocation?: Allocation } = {};
  for (const piece of pieces) {
    const values = VALUES.find((word) => word === piece);
    const method = METHODS.find((word) => word === piece);
    const allocation = ALLOCATIONS.find((word) => word === piece);
    const kind = values ? "values" : method ? "method" : allocation ? "allocation" : undefined;
    if (!kind) {
      return `${JSON.stringify(piece)} is neither values (${VALUES.join(", ")}) nor a method (${
        METHODS.join(", ")
      }) nor an allocation (${ALLOCATIONS.join(", ")})`;
    }
    if (words[kind] !== undefined) {
      return `it has two ${kind === "values" ? "value types" : `${kind}s`}`;
    }
    Object.assign(words, { [kind]: values ?? method ?? allocation });
  }
  return words;
}

/** `0.7`, or `70%`. */
function sparsityOf(word: string): number {
  if (!/^(\d+(\.\d*)?|\.\d+)%?$/.test(word)) return NaN;
  return word.endsWith("%") ? Number(word.slice(0, -1)) / 100 : Number(word);
}

function given<T extends object>(words: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(words).filter(([, word]) => word !== undefined),
  ) as Partial<T>;
}

/** A model that is compiled as it is. */
export function denseVariant(values: Values): Variant {
  return { name: `dense:${values}`, kind: "dense", values };
}

/** A dense model whose weights a method rounds to int4, so that others make up for each. */
export function roundedVariant(method: Method): Variant {
  const pruning = { pattern: "unstructured", sparsity: 0, method, allocation: "uniform" } as const;
  return { name: `dense:int4:${method}`, kind: "dense", values: "int4", pruning };
}

/** A variant with its output head in int4. */
export function withNarrowHead(variant: Variant): Variant {
  return { ...variant, name: `${variant.name}:${HEAD_WORD}`, head: HEAD_VALUES };
}

/** A pruned model. Its name says what is not the default. */
export function sparseVariant(
  pruning: VariantPruning,
  values: Values,
  defaults: VariantDefaults,
): Variant {
  const { pattern, sparsity } = pruning;
  const at = sparsity === undefined ? "" : `@${sparsity}`;
  const name = [`${pattern}${at}`, values, ...namesOf(pruning, defaults)].join(":");
  return { name, kind: "sparse", values, pruning };
}

/** Whatever `prune --fit` finds. */
export function fitVariant(bytes: number, who: VariantDefaults, defaults = who): Variant {
  const name = [
    `fit@${bytes % 1000 === 0 ? `${bytes / 1e6}MB` : bytes}`,
    ...namesOf(who, defaults),
  ];
  const { method, allocation } = who;
  return { name: name.join(":"), kind: "fit", fit: { bytes, method, allocation } };
}

function namesOf(who: VariantDefaults, defaults: VariantDefaults): string[] {
  return (["method", "allocation"] as const).filter((field) => who[field] !== defaults[field])
    .map((field) => who[field]);
}

/** Patterns that are compared with a head in int4 as well: the dense model's, and one that is pruned. */
const HEADED = ["unstructured", "8:16"];

/**
 * What is compared when nobody says what: the model dense in every value type but float32, and pruned in
 * the usual ways in those that are smaller than float16.
 */
export function defaultVariants(defaults: VariantDefaults): Variant[] {
  const dense = VALUES.filter((values) => values !== "f32");
  const narrow = dense.filter((values) => values !== "f16");
  const prunings = [
    { pattern: "unstructured", sparsity: 0.5 },
    { pattern: "unstructured", sparsity: 0.7 },
    { pattern: "slots", sparsity: 0.5 },
    { pattern: "slots", sparsity: 0.7 },
    { pattern: "8:16" },
    { pattern: "4:16" },
    { pattern: "2:4" },
  ];
  const sparse = prunings.flatMap((pruning) =>
    narrow.map((values) => sparseVariant({ ...defaults, ...pruning }, values, defaults))
  );
  const all = [
    ...dense.map(denseVariant),
    ...(mends(defaults.method) ? [roundedVariant(defaults.method)] : []),
    ...sparse,
  ];
  // Only methods that mend round a head at little loss.
  const mended = all.filter(({ values, pruning }) =>
    values === "int4" && pruning && HEADED.includes(pruning.pattern) && !pruning.sparsity
  );
  return [...all, ...(mends(defaults.method) ? mended.map(withNarrowHead) : [])];
}
