/**
 * Runs templates with Python's values: `@huggingface/jinja` writes and compares them as JavaScript does.
 * @module
 */
import { type Environment, Interpreter } from "@huggingface/jinja";
import type { Node } from "./jinja_program.ts";
import { areEqual, isList, textOf, type Value, valueOf } from "./jinja_values.ts";

/** A part of a program, as the package takes it. */
type Statement = Parameters<Interpreter["evaluate"]>[0];

/** Most parts of a program that run within one another: what a stack of V8 has room for. Macros may call themselves. */
const DEEPEST = 500;

/** Most parts that run and elements that are made, some hundred times what a conversation of a hundred messages takes. */
const MOST_STEPS = 3_000_000;
/** Most characters of a text. */
const LONGEST = 1 << 24;
/** Characters of a text that are made in the time of a part. */
const CHARACTERS = 64;
/** Parts that make what they give, where others only name it. */
const MAKERS = new Set([
  "BinaryExpression",
  "CallExpression",
  "FilterExpression",
  "SliceExpression",
]);

/** Filters that take a text for a list of its letters. */
const OF_LETTERS = ["list", "first", "last"];
/** Filters that give a part of what they are given, or only look at its size. */
const OF_PART = ["length", "first", "last", "default"];
/** Filters that take the text of whatever they are given. */
const OF_TEXT = ["string", "trim", "upper", "lower", "title", "capitalize", "replace", "indent"];
/** Filters that go through all that is in what they are given. */
const OF_WHOLE = [...OF_TEXT, "tojson", "join", "sort", "unique"];
/** Filters that leave some of a list: by an attribute of each, or by each itself. */
const SELECTING = /^(select|reject)(attr)?$/;
/** Other names of filters. */
const SAME_FILTER: Readonly<Record<string, string>> = { count: "length", d: "default" };

/** Runs programs that `programOf` has read. */
export class TemplateInterpreter extends Interpreter {
  #depth = 0;
  #steps = 0;

  /** @throws {Error} When a template, which anybody may have written, takes too long or makes too much. */
  override evaluate(statement: Statement, environment: Environment): Value {
    const node = statement as unknown as Node | undefined;
    // The stack's own end is far away in some runtimes, and names are looked up through all scopes.
    if (++this.#depth > DEEPEST) throw new Error("it is nested too deeply");
    this.#count(1);
    try {
      const value = this.#valueOf(node, environment) ?? valueOf(undefined);
      if (node && MAKERS.has(node.type)) this.#count(sizeOf(value));
      if (!node?.isPrinted || isText(value)) return value;
      this.#countWhole(value);
      return valueOf(textOf(value));
    } finally {
      this.#depth--;
    }
  }

  #valueOf(node: Node | undefined, environment: Environment): Value | undefined {
    if (node?.type === "Value") return node.value as Value;
    if (node?.type === "BinaryExpression") return this.#binary(node, environment);
    if (node?.type === "FilterExpression") return this.#filter(node, environment);
    if (node?.type === "For") return this.#for(node, environment);
    if (node?.type === "MemberExpression") {
      return node.computed ? this.#member(node, environment) : this.#method(node, environment);
    }
    return super.evaluate(node as unknown as Statement, environment);
  }

  /** A method or a field by its name. The package's own of these two leave capitals behind the first letter. */
  #method(node: Node, environment: Environment): Value {
    const object = this.evaluate(node.object as Statement, environment);
    const isLowered = ["title", "capitalize"].includes((node.property as Node).value as string);
    const of = isLowered && isText(object)
      ? valueOf((object.value as string).toLowerCase())
      : object;
    return super.evaluate({ ...node, object: known(of) } as unknown as Statement, environment);
  }

  #count(steps: number): void {
    this.#steps += steps;
    if (this.#steps > MOST_STEPS) throw new Error("it takes too many steps");
  }

  /** Counts all that is in a value: one list may be in others any number of times. */
  #countWhole(value: Value): void {
    this.#count(sizeOf(value));
    const parts = value.value;
    if (!Array.isArray(parts) && !(parts instanceof Map)) return;
    for (const part of parts.values()) this.#countWhole(part);
  }

  /** A loop, whose rounds are counted before they begin: an empty one runs no parts. */
  #for(node: Node, environment: Environment): Value {
    const iterable = node.iterable as Node;
    const isSelected = iterable.type === "SelectExpression";
    const over = (isSelected ? iterable.lhs : iterable) as Statement;
    const given = this.evaluate(over, environment);
    if (isText(given)) this.#count((given.value as string).length);
    const items = loopedOver(given);
    this.#count(sizeOf(items));
    const counted = {
      ...node,
      iterable: isSelected ? { ...iterable, lhs: known(items) } : known(items),
    };
    return super.evaluate(counted as unknown as Statement, environment);
  }

  #binary(node: Node, environment: Environment): Value {
    const operator = (node.operator as Node).value as string;
    if (!["~", "+", "==", "!=", "in", "not in", "%"].includes(operator)) {
      return super.evaluate(node as unknown as Statement, environment);
    }
    const [left, right] = [node.left, node.right].map((side) =>
      this.evaluate(side as Statement, environment)
    );
    if (operator === "~" || (operator === "+" && (isText(left) || isText(right)))) {
      // Of texts, what is made of them is counted.
      for (const side of [left, right]) if (!isText(side)) this.#countWhole(side);
    }
    if (operator === "+" && isText(left) !== isText(right)) {
      // JavaScript would make a text of whatever it is, Python does not.
      const other = isText(left) ? right : left;
      throw new Error(`+ needs two texts, and ${shortTextOf(other)} is none: ~ makes a text of it`);
    }
    if (operator === "~") return valueOf(textOf(left) + textOf(right));
    if (operator === "==" || operator === "!=") {
      this.#countWhole(left);
      return valueOf(areEqual(left, right) === (operator === "=="));
    }
    if (operator === "%") {
      // JavaScript gives the remainder the sign of what is divided. Added 0: none is -0.
      const [a, b] = [left.value as number, right.value as number];
      const areWhole = left.type === "IntegerValue" && right.type === "IntegerValue";
      if (areWhole && b !== 0) return valueOf((a % b + b) % b + 0);
    } else if (operator.endsWith("in")) {
      this.#count(sizeOf(right));
      if (isList(right)) {
        const isIn = (right.value as Value[]).some((one) => {
          this.#countWhole(left);
          return areEqual(left, one);
        });
        return valueOf(isIn === (operator === "in"));
      }
    }
    const sides = { left: known(left), right: known(right) };
    return super.evaluate({ ...node, ...sides } as unknown as Statement, environment);
  }

  /** What a place of a value holds; those of a text are its characters, not halves of them. */
  #member(node: Node, environment: Environment): Value {
    const object = this.evaluate(node.object as Statement, environment);
    const place = node.property as Node;
    if (!isText(object) || place.type === "SliceExpression") {
      return super.evaluate(
        { ...node, object: known(object) } as unknown as Statement,
        environment,
      );
    }
    const at = this.evaluate(place as unknown as Statement, environment);
    if (at.type !== "IntegerValue") {
      const parts = { object: known(object), property: known(at) };
      return super.evaluate({ ...node, ...parts } as unknown as Statement, environment);
    }
    this.#count(sizeOf(object));
    return valueOf(characterAt(object.value as string, at.value as number));
  }

  /** Filters take more kinds of values than those of the package. */
  #filter(node: Node, environment: Environment): Value | undefined {
    const { callee, args = [] } = node.filter as Partial<Node>;
    const written = (callee ?? node.filter) as Node;
    const name = SAME_FILTER[written.value as string] ?? written.value as string;
    const given = this.evaluate(node.operand as Statement, environment);
    if (OF_WHOLE.includes(name)) this.#countWhole(given);
    else if (!OF_PART.includes(name)) this.#count(sizeOf(given));
    // Each letter of a text becomes a value.
    if ([...OF_LETTERS, "join"].includes(name) && isText(given)) {
      this.#count((given.value as string).length);
    }
    if (name === "length" && isText(given)) {
      this.#count(sizeOf(given));
      return valueOf(charactersIn(given.value as string));
    }
    if (name === "title") return valueOf(titled(textOf(given)));
    if (name === "tojson" || name === "indent") {
      this.#checkIndent(name, given, args as Node[], environment);
    }
    const operand = known(operandOf(name, given));
    if (SELECTING.test(name) && isList(given)) {
      const values = (args as Node[]).map((arg) =>
        this.evaluate(arg as unknown as Statement, environment)
      );
      const attribute = name.endsWith("attr") ? values.shift() ?? valueOf(undefined) : undefined;
      const items = selected(given, attribute, values, environment, name.startsWith("select"));
      const list = { type: "ArrayLiteral", value: items.map(known) };
      return super.evaluate(list as unknown as Statement, environment);
    }
    if (name === "join") return this.#join(given, args as Node[], environment);
    if (name === "trim") {
      const strip = { type: "Identifier", value: "strip()" };
      const call = { type: "CallExpression", callee: strip, args: [operand, ...args as Node[]] };
      return super.evaluate(call as unknown as Statement, environment);
    }
    const filter = { ...written, value: name };
    const isCall = callee !== undefined || name === "default";
    const filtered = {
      ...node,
      operand,
      filter: isCall ? { type: "CallExpression", callee: filter, args } : filter,
    };
    return super.evaluate(filtered as unknown as Statement, environment);
  }

  /** @throws {Error} When the spaces before lines alone would be a text that is too long. */
  #checkIndent(name: string, given: Value, args: readonly Node[], environment: Environment): void {
    const isJson = name === "tojson";
    const arg = argumentOf(args, isJson ? "indent" : "width", 0);
    if (arg === undefined) return;
    const { value: width } = this.evaluate(arg as unknown as Statement, environment);
    const indents = isJson ? Math.max(1, indentsOf(given, 1)) : textOf(given).split("\n").length;
    if (typeof width === "number" && indents * width > LONGEST) {
      throw new Error("it makes a text that is too long");
    }
  }

  /** The parts of a value as one text, or those of an attribute of each, which the package's own passes over. */
  #join(given: Value, args: readonly Node[], environment: Environment): Value {
    const [between, attribute] = ["d", "attribute"].map((name, place) => {
      const arg = argumentOf(args, name, place);
      return arg === undefined
        ? ""
        : textOf(this.evaluate(arg as unknown as Statement, environment));
    });
    const parts = partsOf(given).map((part) =>
      textOf(attribute === "" ? part : attributeOf(part, attribute))
    );
    const length = parts.reduce((sum, part) => sum + part.length + between.length, 0);
    if (length > LONGEST + between.length) throw new Error("it makes a text that is too long");
    return valueOf(parts.join(between));
  }
}

/** What a filter is given for a parameter, by its name or its place. */
function argumentOf(args: readonly Node[], name: string, place: number): Node | undefined {
  const isNamed = (arg: Node | undefined) => arg?.type === "KeywordArgumentExpression";
  const named = args.find((arg) => isNamed(arg) && (arg.key as Node).value === name);
  return named ? named.value as Node : isNamed(args[place]) ? undefined : args[place];
}

/** How often lines of a value's JSON are indented, deeper ones several times. */
function indentsOf({ value }: Value, depth: number): number {
  if (!Array.isArray(value) && !(value instanceof Map)) return 0;
  const parts = [...value.values()] as Value[];
  return parts.reduce((sum, part) => sum + depth + indentsOf(part, depth + 1), 0);
}

/** What Python's loops go through: items of a list, letters of a text, keys of a dictionary. */
function partsOf(value: Value): Value[] {
  if (isList(value)) return value.value as Value[];
  if (isText(value)) return lettersOf(value).value as Value[];
  if (value.value instanceof Map) return Array.from(value.value.keys(), valueOf);
  if (value.type === "UndefinedValue") return [];
  throw new Error(`join needs a list, not ${textOf(value)}`);
}

/** An attribute of a value; of `function.name`, that of the attribute before the dot. */
function attributeOf(value: Value, path: string): Value {
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

/** What a loop goes through: letters of a text, nothing of what is undefined. */
function loopedOver(value: Value): Value {
  if (value.type === "UndefinedValue") return valueOf([]);
  return isText(value) ? lettersOf(value) : value;
}

/** The letters of a text, a list. */
function lettersOf(text: Value): Value {
  return valueOf([...text.value as string]);
}

/** A value as a message says it. */
function shortTextOf(value: Value): string {
  const text = textOf(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text || "what is undefined";
}

/**
 * The items of a list that pass a test, or those that do not, by an attribute where there is one. The package's
 * own tests nothing where an item lacks it, so that `undefined` finds none, and knows no comparisons but one.
 */
function selected(
  list: Value,
  attribute: Value | undefined,
  [named, ...others]: readonly Value[],
  { tests }: Environment,
  isWanted: boolean,
): Value[] {
  const test = named === undefined ? isTrue : testOf(named, tests);
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
): (...values: Value[]) => boolean {
  switch (name) {
    case "==":
    case "eq":
    case "equalto":
      return areEqual;
    case "!=":
    case "ne":
      return (a, b) => !areEqual(a, b);
    case "in":
      return (a, b) =>
        isList(b)
          ? (b.value as Value[]).some((one) => areEqual(a, one))
          : b.type === "StringValue" && (b.value as string).includes(textOf(a));
  }
  const test = tests.get(String(name));
  if (test) return test;
  throw new Error(`there is no test ${String(name)}`);
}

/** Python's length of a text; no list of its characters is made, which may be many. */
function charactersIn(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; at += widthAt(text, at)) count++;
  return count;
}

/** The character at a place, which is counted from the end where it is below 0. */
function characterAt(text: string, place: number): string | undefined {
  let left = place < 0 ? place + charactersIn(text) : place;
  if (left < 0) return undefined;
  let at = 0;
  while (left-- > 0 && at < text.length) at += widthAt(text, at);
  return at < text.length ? text.slice(at, at + widthAt(text, at)) : undefined;
}

/** Units of UTF-16 that a character takes. */
function widthAt(text: string, at: number): number {
  return (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
}

/** Each word with a capital, and small letters behind it; what words begin after is as in Jinja's filter. */
function titled(text: string): string {
  return text.split(/([-\s({[<]+)/u).map((word) => {
    const first = characterAt(word, 0) ?? "";
    return first.toUpperCase() + word.slice(first.length).toLowerCase();
  }).join("");
}

/** What a filter gets of a value. */
function operandOf(filter: string, value: Value): Value {
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

/**
 * What it takes to make a value, in parts that run.
 *
 * @throws {Error} When it is a text that is too long.
 */
function sizeOf({ value }: Value): number {
  if (Array.isArray(value)) return value.length;
  if (value instanceof Map) return value.size;
  if (typeof value !== "string") return 0;
  if (value.length > LONGEST) throw new Error("it makes a text that is too long");
  return value.length / CHARACTERS;
}

function isText({ type }: Value): boolean {
  return type === "StringValue";
}

/** A value as a part of a program. */
function known(value: Value): Node {
  return { type: "Value", value };
}
