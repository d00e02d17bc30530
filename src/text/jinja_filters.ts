/**
 * What filters of templates take and find, as Python's Jinja has it.
 * @module
 */
import type { Environment } from "@huggingface/jinja";
import type { Node } from "./jinja_program.ts";
import {
  areEqual,
  characterAt,
  isList,
  isText,
  lettersOf,
  textOf,
  type Value,
  valueOf,
} from "./jinja_values.ts";

/** Filters that take a text for a list of its letters. */
export const OF_LETTERS = ["list", "first", "last"];
/** Filters that give a part of what they are given, or only look at its size. */
export const OF_PART = ["length", "first", "last", "default"];
/** Filters that take the text of whatever they are given. */
const OF_TEXT = ["string", "trim", "upper", "lower", "title", "capitalize", "replace", "indent"];
/** Filters that go through all that is in what they are given. */
export const OF_WHOLE = [...OF_TEXT, "tojson", "join", "sort", "unique"];
/** Filters that leave some of a list: by an attribute of each, or by each itself. */
export const SELECTING = /^(select|reject)(attr)?$/;
/** Other names of filters. */
export const SAME_FILTER: Readonly<Record<string, string>> = { count: "length", d: "default" };

/** What a filter is given for a parameter, by its name or its place. */
export function argumentOf(args: readonly Node[], name: string, place: number): Node | undefined {
  const isNamed = (arg: Node | undefined) => arg?.type === "KeywordArgumentExpression";
  const named = args.find((arg) => isNamed(arg) && (arg.key as Node).value === name);
  return named ? named.value as Node : isNamed(args[place]) ? undefined : args[place];
}

/** What Python's loops go through: items of a list, letters of a text, keys of a dictionary. */
export function partsOf(value: Value): Value[] {
  if (isList(value)) return value.value as Value[];
  if (isText(value)) return lettersOf(value).value as Value[];
  if (value.value instanceof Map) return Array.from(value.value.keys(), valueOf);
  if (value.type === "UndefinedValue") return [];
  throw new Error(`join needs a list, not ${textOf(value)}`);
}

/** An attribute of a value; of `function.name`, that of the attribute before the dot. */
export function attributeOf(value: Value, path: string): Value {
  let found = value;
  for (const name of path.split(".")) {
    const { value: inner } = found;
    const part = inner instanceof Map
      ? (inner as Map<string, Value>).get(name)
      : Array.isArray(inner) && /^\d+$/.test(name)
      ? (inner as Value[])[Number(name)]
      : undefined;
    found = part ?? valueOf(undefined);
  }
  return found;
}

/** Counts what a step goes through, and throws when it is too much. */
export interface Counter {
  /** All that is in a value. */
  whole(value: Value): void;
  /** A value's items, or the letters of a text. */
  size(value: Value): void;
}

/** Python's `==`, counted: one list may be in others any number of times. */
export function isEqual(a: Value, b: Value, counter: Counter): boolean {
  counter.whole(a);
  return areEqual(a, b);
}

/** Python's `in` a list, counted. */
export function isAmong(value: Value, list: Value, counter: Counter): boolean {
  counter.size(list);
  return (list.value as Value[]).some((one) => isEqual(value, one, counter));
}

/**
 * The items of a list that pass a test, or those that do not, by an attribute where there is one. The package's
 * own tests nothing where an item lacks it, so that `undefined` finds none, and knows no comparisons but one.
 */
export function selected(
  list: Value,
  attribute: Value | undefined,
  [named, ...others]: readonly Value[],
  { tests }: Environment,
  isWanted: boolean,
  counter: Counter,
): Value[] {
  const test = named === undefined ? isTrue : testOf(named, tests, counter);
  return (list.value as Value[]).filter((item) => {
    const tested = attribute ? attributeOf(item, String(attribute.value)) : item;
    return test(tested, ...others) === isWanted;
  });
}

function isTrue(value: Value): boolean {
  return value.__bool__().value;
}

/** A test by its name. */
function testOf(
  { value: name }: Value,
  tests: Environment["tests"],
  counter: Counter,
): (...values: Value[]) => boolean {
  switch (name) {
    case "==":
    case "eq":
    case "equalto":
      return (a, b) => isEqual(a, b, counter);
    case "!=":
    case "ne":
      return (a, b) => !isEqual(a, b, counter);
    case "in":
      return (a, b) => {
        if (isList(b)) return isAmong(a, b, counter);
        counter.size(b);
        counter.whole(a);
        return b.type === "StringValue" && (b.value as string).includes(textOf(a));
      };
  }
  const test = tests.get(String(name));
  if (test) return test;
  throw new Error(`there is no test ${String(name)}`);
}

/** Each word with a capital, and small letters behind it; what words begin after is as in Jinja's filter. */
export function titled(text: string): string {
  return text.split(/([-\s({[<]+)/u).map((word) => {
    const first = characterAt(word, 0) ?? "";
    return first.toUpperCase() + word.slice(first.length).toLowerCase();
  }).join("");
}

/** What a filter gets of a value. */
export function operandOf(filter: string, value: Value): Value {
  if (OF_TEXT.includes(filter)) {
    const text = textOf(value);
    return valueOf(filter === "capitalize" ? text.toLowerCase() : text);
  }
  if (filter === "length" && value.type === "UndefinedValue") return valueOf("");
  // The package's own rounds down.
  if (filter === "int" && value.type === "FloatValue") {
    return valueOf(Math.trunc(value.value as number) + 0);
  }
  if (OF_LETTERS.includes(filter)) {
    if (isText(value)) return lettersOf(value);
    if (value.type === "ObjectValue") {
      return valueOf([...(value.value as Map<string, Value>).keys()]);
    }
  }
  return value;
}
