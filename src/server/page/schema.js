// @ts-check
/**
 * Shows JSON schemas, as OpenAPI 3.1 has them, as trees that unfold; and makes examples of them.
 *
 * A branch is built when it is opened: a schema may contain itself.
 *
 * @module
 */
import { make } from "./dom.js";

/**
 * As much of a schema as is shown.
 *
 * @typedef {object} Schema
 * @property {string} [$ref]
 * @property {string | string[]} [type]
 * @property {string} [format]
 * @property {string} [description]
 * @property {unknown} [default]
 * @property {unknown} [const]
 * @property {unknown[]} [enum]
 * @property {unknown} [example]
 * @property {unknown[]} [examples]
 * @property {Record<string, Schema>} [properties]
 * @property {string[]} [required]
 * @property {Schema | boolean} [additionalProperties]
 * @property {Schema} [items]
 * @property {Schema[]} [anyOf]
 * @property {Schema[]} [oneOf]
 * @property {Schema[]} [allOf]
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {number} [exclusiveMinimum]
 * @property {number} [exclusiveMaximum]
 * @property {number} [minLength]
 * @property {number} [maxLength]
 * @property {number} [minItems]
 * @property {number} [maxItems]
 * @property {string} [pattern]
 */

/** How deep an example goes into a schema that may contain itself. */
const DEEPEST = 5;
/** Whole numbers beyond this are what generators write for no limit. */
const NO_LIMIT = Number.MAX_SAFE_INTEGER;

/** The schemas of a document. */
export class Schemas {
  #document;

  /** @param {any} document */
  constructor(document) {
    this.#document = document;
  }

  /**
   * What a reference stands for, or the thing itself.
   *
   * @template T
   * @param {T} thing
   * @returns {T}
   */
  resolve(thing) {
    const seen = new Set();
    let found = /** @type {any} */ (thing);
    while (typeof found?.$ref === "string" && !seen.has(found.$ref)) {
      const { $ref, ...beside } = found;
      seen.add($ref);
      const target = $ref.split("/").slice(1).reduce(
        (/** @type {any} */ at, /** @type {string} */ step) =>
          at?.[decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~")],
        this.#document,
      );
      found = { ...target, ...beside };
    }
    return found ?? {};
  }

  /**
   * The parts of a schema, together: references followed, `allOf` merged.
   *
   * @param {Schema} schema
   * @param {number} [depth]
   * @returns {Schema}
   */
  #whole(schema, depth = 0) {
    const { allOf, ...own } = this.resolve(schema);
    if (!allOf || depth > DEEPEST) return own;
    const parts = [...allOf.map((part) => this.#whole(part, depth + 1)), own];
    return Object.assign({}, ...parts, {
      properties: Object.assign({}, ...parts.map(({ properties }) => properties)),
      required: parts.flatMap(({ required }) => required ?? []),
    });
  }

  /**
   * @param {Schema} schema
   * @returns {Schema[]} What it may be instead, without null; empty where there is no choice.
   */
  #choices({ anyOf, oneOf }) {
    return (anyOf ?? oneOf ?? []).filter((choice) => this.resolve(choice).type !== "null");
  }

  /**
   * A schema's name for a reader: `string`, `array of ChatMessage`, `number or null`.
   *
   * @param {Schema} schema
   * @param {number} [depth]
   * @returns {string}
   */
  nameOf(schema, depth = 0) {
    const name = schema.$ref?.split("/").at(-1);
    if (name) return name;
    const { type, items, anyOf, oneOf, enum: values, format, ...rest } = this.#whole(schema);
    if ("const" in rest) return JSON.stringify(rest.const);
    if (depth > DEEPEST) return "…";
    const choices = anyOf ?? oneOf;
    if (choices) {
      return [...new Set(choices.map((each) => this.nameOf(each, depth + 1)))].join(" or ");
    }
    const types = (type === undefined ? [] : [type].flat()).map((each) =>
      each === "array" && items ? `array of ${this.nameOf(items, depth + 1)}` : each
    );
    const found = types.join(" or ") ||
      (values ? "one of" : rest.properties ? "object" : "anything");
    return format ? `${found} (${format})` : found;
  }

  /**
   * The tree of a schema's fields.
   *
   * @param {Schema} schema
   * @returns {HTMLElement | undefined} Nothing where its name says all.
   */
  tree(schema) {
    const whole = this.#whole(schema);
    const fields = Object.entries(whole.properties ?? {});
    if (fields.length > 0) {
      const list = make("ul", { class: "fields" });
      for (const [name, field] of fields) {
        list.append(this.#field(name, field, whole.required?.includes(name) ?? false));
      }
      const { additionalProperties: more } = whole;
      if (typeof more === "object" && Object.keys(more).length > 0) {
        list.append(this.#field("any other name", more, false));
      }
      return list;
    }
    if (whole.items) return this.tree(whole.items);
    if (typeof whole.additionalProperties === "object") {
      return make(
        "ul",
        { class: "fields" },
        this.#field("any name", whole.additionalProperties, false),
      );
    }
    const choices = this.#choices(whole).filter((choice) => this.#unfolds(choice));
    if (choices.length === 1) return this.tree(choices[0]);
    if (choices.length === 0) return undefined;
    const list = make("ul", { class: "fields" });
    choices.forEach((choice, i) =>
      list.append(this.#field(this.#markOf(choice) ?? `either ${i + 1}`, choice, false))
    );
    return list;
  }

  /**
   * @param {Schema} choice One of several.
   * @returns {string | undefined} What tells it from the others: a field with one value.
   */
  #markOf(choice) {
    for (const [name, field] of Object.entries(this.#whole(choice).properties ?? {})) {
      const { enum: values = [], ...rest } = this.#whole(field);
      const only = "const" in rest ? rest.const : values.length === 1 ? values[0] : undefined;
      if (only !== undefined) return `${name} is ${JSON.stringify(only)}`;
    }
    return undefined;
  }

  /**
   * @param {Schema} schema
   * @returns {boolean} Whether there is a tree of it.
   */
  #unfolds(schema, depth = 0) {
    const { properties, items, additionalProperties: more, ...rest } = this.#whole(schema);
    if (depth > DEEPEST) return false;
    return Object.keys(properties ?? {}).length > 0 ||
      (items !== undefined && this.#unfolds(items, depth + 1)) ||
      (typeof more === "object" && Object.keys(more).length > 0) ||
      this.#choices(rest).some((choice) => this.#unfolds(choice, depth + 1));
  }

  /**
   * @param {string} name
   * @param {Schema} schema
   * @param {boolean} required
   */
  #field(name, schema, required) {
    const whole = this.#whole(schema);
    const generic = name.includes(" ");
    const limits = limitsOf(whole);
    const item = make(
      "li",
      {},
      make(generic ? "span" : "code", { class: "field-name" }, name),
      " ",
      make("span", { class: "field-type" }, this.nameOf(schema)),
      required && make("span", { class: "field-required" }, " required"),
      whole.description && make("p", {}, ...prose(whole.description)),
      limits && make("p", {}, limits),
      whole.enum && make("p", {}, ...listed(whole.enum)),
    );
    if (!this.#unfolds(schema)) return item;
    const details = make("details", {}, make("summary", {}, `Inside ${name}`));
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(this.tree(schema) ?? "");
    });
    item.append(details);
    return item;
  }

  /**
   * An example of a schema: its own, or one that its types allow.
   *
   * @param {Schema} schema
   * @param {number} [depth]
   * @returns {unknown}
   */
  example(schema, depth = 0) {
    const whole = this.#whole(schema);
    if (whole.example !== undefined) return whole.example;
    if (whole.examples?.length) return whole.examples[0];
    if (whole.const !== undefined) return whole.const;
    if (whole.default !== undefined) return whole.default;
    if (whole.enum?.length) return whole.enum[0];
    if (depth > DEEPEST) return null;
    const [choice] = this.#choices(whole);
    if (choice) return this.example(choice, depth + 1);
    const type = [whole.type ?? (whole.properties ? "object" : "string")].flat()[0];
    if (type === "object") {
      const names = whole.required ?? [];
      return Object.fromEntries(
        names.map((name) => [name, this.example(whole.properties?.[name] ?? {}, depth + 1)]),
      );
    }
    if (type === "array") return whole.items ? [this.example(whole.items, depth + 1)] : [];
    if (type === "boolean") return false;
    if (type === "integer" || type === "number") return whole.minimum ?? 0;
    return type === "null" ? null : "text";
  }
}

/**
 * @param {Schema} schema
 * @returns {string} Empty where there is no limit.
 */
function limitsOf(schema) {
  const parts = [];
  const { minimum: least, maximum: most, exclusiveMinimum: above, exclusiveMaximum: below } =
    schema;
  if (least !== undefined && least > -NO_LIMIT) parts.push(`at least ${number(least)}`);
  if (above !== undefined && above > -NO_LIMIT) parts.push(`more than ${number(above)}`);
  if (most !== undefined && most < NO_LIMIT) parts.push(`at most ${number(most)}`);
  if (below !== undefined && below < NO_LIMIT) parts.push(`less than ${number(below)}`);
  const { minItems, maxItems, minLength, maxLength } = schema;
  if (minItems !== undefined) parts.push(`at least ${counted(minItems, "item")}`);
  if (maxItems !== undefined) parts.push(`at most ${counted(maxItems, "item")}`);
  if (minLength !== undefined) parts.push(`at least ${counted(minLength, "character")}`);
  if (maxLength !== undefined) parts.push(`at most ${counted(maxLength, "character")}`);
  if (schema.pattern !== undefined) parts.push(`matches ${schema.pattern}`);
  if (schema.default !== undefined) parts.push(`default ${JSON.stringify(schema.default)}`);
  return parts.join(", ");
}

/** @param {number} value */
const number = (value) => String(value).replace("-", "−");

/**
 * @param {number} count
 * @param {string} thing
 */
const counted = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;

/** @param {readonly unknown[]} values */
function listed(values) {
  return values.flatMap((value, i) => [i > 0 && ", ", make("code", {}, JSON.stringify(value))]);
}

/**
 * A description: text in which backticks mark code.
 *
 * @param {string} text
 * @returns {(Node | string)[]}
 */
export function prose(text) {
  return text.split(/`([^`]+)`/).map((part, i) => i % 2 === 1 ? make("code", {}, part) : part);
}
