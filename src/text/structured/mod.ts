/**
 * Constraints for text that is JSON: any object, or what a JSON schema describes.
 *
 * The parts: `schema.ts` reads a schema into values (`value.ts`), `containers.ts` (`arrays.ts`,
 * `objects.ts`) and the scalars (`string.ts`, `number.ts`, `literal.ts`, `pattern.ts`) say what bytes
 * each may be written with, `states.ts` follows a text through them, `vocabulary.ts` finds the tokens
 * that may come next. It is our own, all in TypeScript: it needs no module to be instantiated, runs wherever the rest runs, and
 * what a schema from a stranger can cost is bounded at every step.
 *
 * Loaded when it is first asked for: import it with `import()`. `serve` alone has it from the start.
 *
 * @module
 */
import { UsageError } from "../../errors.ts";
import type { TokenConstraint } from "../constraint.ts";
import type { Tokenizer } from "../tokenizer.ts";
import { Grammar } from "./grammar.ts";
import { readSchema } from "./schema.ts";
import { jsonOf } from "./schema_json.ts";
import { anyValue } from "./value.ts";
import { Vocabulary } from "./vocabulary.ts";

/** Grammars of a vocabulary that are kept. */
const MOST_GRAMMARS = 16;

/**
 * What a text must be: `"json"` for any JSON object, or a JSON schema (`schema.ts` says which).
 * `name` is for messages.
 */
export type TextForm = "json" | { readonly schema: unknown; readonly name?: string };

/** A vocabulary, and grammars over it: the ones that were used last, by their schemas. */
interface Kept {
  readonly vocabulary: Vocabulary;
  readonly grammars: Map<string, Grammar>;
}

const kept = new WeakMap<Tokenizer, Map<number, Kept>>();

/**
 * Makes a constraint for one text.
 *
 * @param tokenizer The model's. What was made for it is kept as long as it is.
 * @param vocabulary Logits of a token.
 * @throws {SchemaError} Naming what is wrong with the schema, and where.
 * @throws {UsageError} When the form is neither.
 */
export function constraintFor(
  tokenizer: Tokenizer,
  vocabulary: number,
  form: TextForm,
): TokenConstraint {
  // As who has no types may write it: a schema alone, say.
  if (form !== "json" && !(typeof form === "object" && form && "schema" in form)) {
    throw new UsageError(
      'the form of a text is "json" for any object, or { schema } for a JSON schema',
    );
  }
  const { grammars, ...rest } = keptOf(tokenizer, vocabulary);
  const key = form === "json" ? "" : jsonOf(form.schema, form.name);
  let grammar = grammars.get(key);
  if (!grammar) {
    const value = form === "json" ? anyValue().object : readSchema(form.schema, form.name);
    grammar = new Grammar(value, rest.vocabulary);
  }
  // The last one is the one that was used last.
  grammars.delete(key);
  grammars.set(key, grammar);
  if (grammars.size > MOST_GRAMMARS) grammars.delete(grammars.keys().next().value!);
  return grammar.constraint();
}

function keptOf(tokenizer: Tokenizer, size: number): Kept {
  let sizes = kept.get(tokenizer);
  if (!sizes) kept.set(tokenizer, sizes = new Map());
  let found = sizes.get(size);
  if (!found) {
    sizes.set(size, found = { vocabulary: new Vocabulary(tokenizer, size), grammars: new Map() });
  }
  return found;
}
