/**
 * Runs templates with Python's values: `@huggingface/jinja` writes and compares them as JavaScript does.
 * @module
 */
import { Environment, Interpreter } from "@huggingface/jinja";
import {
  argumentOf,
  attributeOf,
  type Counter,
  isAmong,
  isEqual,
  OF_LETTERS,
  OF_PART,
  OF_WHOLE,
  operandOf,
  partsOf,
  SAME_FILTER,
  selected,
  SELECTING,
  titled,
} from "./jinja_filters.ts";
import type { Node } from "./jinja_program.ts";
import {
  characterAt,
  charactersIn,
  isList,
  isText,
  lettersOf,
  textOf,
  type Value,
  valueOf,
} from "./jinja_values.ts";

/** A part of a program, as the package takes it. */
type Statement = Parameters<Interpreter["evaluate"]>[0];

/** What a macro does, with the scope that calls it. */
type Run = (args: Value[], scope: Environment) => Value;

/** Most parts of a program that run within one another: what a stack of V8 has room for. Macros may call themselves. */
const DEEPEST = 500;

/** Most parts that run and elements that are made, some hundred times what a conversation of a hundred messages takes. */
const MOST_STEPS = 3_000_000;
/** Most characters of a text: some million tokens, and what several texts made of it have room for in small machines. */
const LONGEST = 1 << 22;
/** Characters of a text that are made in the time of a part. */
const CHARACTERS = 64;
/** Parts that make what they give, where others only name it. */
const MAKERS = new Set([
  "BinaryExpression",
  "CallExpression",
  "FilterExpression",
  "SliceExpression",
]);

/** Runs programs that `programOf` has read. */
export class TemplateInterpreter extends Interpreter {
  #depth = 0;
  #steps = 0;
  readonly #counter: Counter = {
    whole: (value) => this.#countWhole(value),
    size: (value) => this.#count(sizeOf(value)),
  };

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
    if (node?.type === "Macro") return this.#macro(node, environment);
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
    const found = super.evaluate(
      { ...node, object: known(of) } as unknown as Statement,
      environment,
    );
    const name = (node.property as Node).value as string;
    const isMaker = isText(of) && (name === "replace" || name === "split");
    return isMaker ? this.#counted(of, name, found) : found;
  }

  /** A method of a text that may make much of little: what it will make is counted before. */
  #counted(text: Value, name: "replace" | "split", method: Value): Value {
    const whole = text.value as string, run = method.value as Run;
    const counted: Run = (args, scope) => {
      const made = madeOf(whole, name, args);
      if (made.characters > LONGEST) throw new Error("it makes a text that is too long");
      this.#count(made.values);
      return run(args, scope);
    };
    // The method itself stays as it is: a variable's may be called many times.
    return Object.assign(Object.create(Object.getPrototypeOf(method)), method, { value: counted });
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

  /** A macro, which sees what is named where it stands. The package's own sees what is named where it is called. */
  #macro(node: Node, environment: Environment): Value {
    const nothing = super.evaluate(node as unknown as Statement, environment);
    const macro = environment.lookupVariable((node.name as Node).value as string);
    const run = macro.value as Run;
    const bound: Run = (args, scope) => {
      const own = new Environment(environment);
      const caller = scope.variables.get("caller");
      if (caller) own.setVariable("caller", caller);
      return run(args, own);
    };
    Object.assign(macro, { value: bound });
    return nothing;
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
      return valueOf(isEqual(left, right, this.#counter) === (operator === "=="));
    }
    if (operator === "%") {
      // JavaScript gives the remainder the sign of what is divided. Added 0: none is -0.
      const [a, b] = [left.value as number, right.value as number];
      const areWhole = left.type === "IntegerValue" && right.type === "IntegerValue";
      if (areWhole && b !== 0) return valueOf((a % b + b) % b + 0);
    } else if (operator.endsWith("in")) {
      if (isList(right)) {
        return valueOf(isAmong(left, right, this.#counter) === (operator === "in"));
      }
      this.#count(sizeOf(right));
    }
    const sides = { left: known(left), right: known(right) };
    return super.evaluate({ ...node, ...sides } as unknown as Statement, environment);
  }

  /** What a place of a value holds; those of a text are its characters, not halves of them. */
  #member(node: Node, environment: Environment): Value {
    const object = this.evaluate(node.object as Statement, environment);
    const place = node.property as Node;
    if (isText(object) && place.type === "SliceExpression") {
      // Each letter becomes a text for a while.
      this.#count((object.value as string).length);
    }
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
      const items = selected(
        given,
        attribute,
        values,
        environment,
        name.startsWith("select"),
        this.#counter,
      );
      const list = { type: "ArrayLiteral", value: items.map(known) };
      return super.evaluate(list as unknown as Statement, environment);
    }
    if (name === "join") return this.#join(given, args as Node[], environment);
    if (name === "trim") {
      const strip = { type: "Identifier", value: "strip()" };
      const call = { type: "CallExpression", callee: strip, args: [operand, ...args as Node[]] };
      return super.evaluate(call as unknown as Statement, environment);
    }
    if (name === "replace") {
      const property = { type: "Identifier", value: name };
      const method = { type: "MemberExpression", object: operand, property, computed: false };
      const call = { type: "CallExpression", callee: method, args };
      return this.evaluate(call as unknown as Statement, environment);
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

/** What a loop goes through: letters of a text, nothing of what is undefined. */
function loopedOver(value: Value): Value {
  if (value.type === "UndefinedValue") return valueOf([]);
  return isText(value) ? lettersOf(value) : value;
}

/** A value as a message says it. */
function shortTextOf(value: Value): string {
  const text = textOf(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text || "what is undefined";
}

/** A value as a part of a program. */
function known(value: Value): Node {
  return { type: "Value", value };
}

/** At most what `replace` and `split` make of a text: its characters, and values beside it. */
function madeOf(
  text: string,
  name: string,
  args: readonly Value[],
): { characters: number; values: number } {
  const [first, second] = args;
  const sought = first && isText(first) ? first.value as string : undefined;
  // Python's split without one is at spaces.
  const places = sought === undefined ? text.length / 2 : placesOf(text, sought);
  if (name === "split") return { characters: 0, values: places };
  const put = second && isText(second) ? (second.value as string).length : 0;
  return { characters: text.length + places * put, values: places / CHARACTERS };
}

/** How often something is in a text: nothing before each of its letters and at its end. */
function placesOf(text: string, sought: string): number {
  if (sought === "") return text.length + 1;
  let places = 0;
  for (let at = text.indexOf(sought); at >= 0; at = text.indexOf(sought, at + sought.length)) {
    places++;
  }
  return places;
}

/** How often lines of a value's JSON are indented, deeper ones several times. */
function indentsOf({ value }: Value, depth: number): number {
  if (!Array.isArray(value) && !(value instanceof Map)) return 0;
  const parts = [...value.values()] as Value[];
  return parts.reduce((sum, part) => sum + depth + indentsOf(part, depth + 1), 0);
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
