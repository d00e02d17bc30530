/**
 * What `compare` has measured, in a file, so that work that was stopped goes on.
 * @module
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { quote } from "../../checks.ts";
import { CompareStateError } from "../../errors.ts";
import { assertReplaceable, readText, replaceText } from "../../platform/files.ts";
import { exists } from "../../platform/paths.ts";

/** Bytes of the largest file that is read: a variant takes about 500. */
const LARGEST_STATE = 16 << 20;
/** Most variants that are kept, the oldest go first. */
const MOST_VARIANTS = 2000;

const count = z.number().int().min(0);
const positive = z.number().positive();
const measuredSchema = z.strictObject({
  name: z.string().min(1).max(200),
  kind: z.enum(["dense", "sparse", "fit"]),
  values: z.string().min(1).max(20),
  pattern: z.string().max(40).optional(),
  method: z.string().max(40).optional(),
  allocation: z.string().max(40).optional(),
  sparsity: z.number().min(0).max(1),
  bytes: count,
  bytesPerWeight: z.number().min(0),
  /** Absent where it is not finite: JSON has no infinity. */
  perplexity: positive.optional(),
  tokensPerSecond: positive.optional(),
  /** Of the reference, in the same rounds. */
  referenceTokensPerSecond: positive.optional(),
  /** Median over rounds of the one by the other. */
  speedup: positive.optional(),
  engine: z.string().max(20),
  device: z.string().max(200),
});
const stateSchema = z.strictObject({
  format: z.literal(1),
  kind: z.literal("comparison"),
  variants: z.record(z.string().regex(/^[0-9a-f]{64}$/), measuredSchema),
});

/** A variant, measured. */
export type MeasuredVariant = z.output<typeof measuredSchema>;

/** The file and what it holds. */
export class CompareState {
  readonly path: string;
  readonly #variants: Map<string, MeasuredVariant>;
  /** Keys of results that are to be measured again. */
  readonly #stale = new Set<string>();
  /** Keys of results of our own. */
  readonly #own = new Set<string>();

  private constructor(path: string, variants: Map<string, MeasuredVariant>) {
    this.path = path;
    this.#variants = variants;
  }

  /**
   * Opens the file, or begins one.
   *
   * @param options `fresh`: what it holds is not used, and stays until it is measured again.
   * @throws {CompareStateError} When it is there and is no such file.
   * @throws {FileReadError} When it cannot be read.
   */
  static open(path: string, options: { readonly fresh: boolean }): CompareState {
    const variants = variantsIn(path);
    const state = new CompareState(path, new Map(variants));
    if (options.fresh) { for (const [key] of variants) state.#stale.add(key); }
    return state;
  }

  /**
   * Checks that results can be kept, before any is measured.
   *
   * @throws {FileWriteError} When they cannot be.
   */
  assertWritable(): void {
    assertReplaceable(this.path);
  }

  /** What was measured under a key. */
  get(key: string): MeasuredVariant | undefined {
    return this.#stale.has(key) ? undefined : this.#variants.get(key);
  }

  /**
   * Keeps a result, and writes the file: all of it or nothing. What another process has kept there meanwhile stays.
   *
   * @throws {CompareStateError} When the file has become something else.
   */
  set(key: string, variant: MeasuredVariant): void {
    for (const [other, kept] of variantsIn(this.path)) {
      if (!this.#own.has(other)) this.#variants.set(other, kept);
    }
    this.#own.add(key);
    this.#stale.delete(key);
    this.#variants.delete(key);
    this.#variants.set(key, variant);
    const kept = [...this.#variants].slice(-MOST_VARIANTS);
    const state = { format: 1, kind: "comparison", variants: Object.fromEntries(kept) };
    replaceText(this.path, `${JSON.stringify(state, null, 2)}\n`, { private: false });
  }
}

/**
 * What a file holds, by keys; nothing where there is none.
 *
 * @throws {CompareStateError} When it is something else.
 * @throws {FileReadError} When it cannot be read.
 */
function variantsIn(path: string): [string, MeasuredVariant][] {
  if (!exists(path)) return [];
  const refuse = (why: string) =>
    new CompareStateError(
      `${path} is not what compare writes: ${why}: name another --state, or remove it`,
    );
  const text = readText(path, LARGEST_STATE);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw refuse((cause as Error).message);
  }
  const parsed = stateSchema.safeParse(json);
  if (!parsed.success) {
    const { path: field, message } = parsed.error.issues[0];
    const where = field.length > 0 ? `${field.map(String).join(".").slice(0, 200)}: ` : "";
    throw refuse(`${where}${message.length > 200 ? quote(message) : message}`);
  }
  return Object.entries(parsed.data.variants);
}

/** The key of a result: all that it hangs on. */
export function keyOf(facts: unknown): string {
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex");
}
