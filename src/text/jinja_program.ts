/**
 * Jinja as Python runs it.
 *
 * `@huggingface/jinja` differs from it in some things that chat templates are written for. Programs are read by it
 * and then written in words that it runs as they are meant:
 *
 * - `text.strip(characters)`, `lstrip` and `rstrip`, whose argument it passes over, and whose white space is
 *   JavaScript's, become calls of functions;
 * - `continue` and `break` make it forget what the iteration has written so far: what follows them moves to
 *   where they are not met, and a loop is left at the beginning of the next iteration;
 * - a loop's `else` is written where no iteration has reached its end, not only where there was none;
 * - what one iteration sets the next one would still know: each has a scope of its own.
 *
 * @module
 */
import { parse, tokenize } from "@huggingface/jinja";

/** A template that has been read. */
export type Program = ReturnType<typeof parse>;

/** What programs call, by names that no template can write. */
export const PROGRAM_FUNCTIONS = {
  "strip()": (text: unknown, characters: unknown) => stripped(text, characters, true, true),
  "lstrip()": (text: unknown, characters: unknown) => stripped(text, characters, true, false),
  "rstrip()": (text: unknown, characters: unknown) => stripped(text, characters, false, true),
};

/** A statement or an expression; its parts are named as the package names them. */
export interface Node {
  type: string;
  /** Whether it is an expression whose value is written. */
  isPrinted?: boolean;
  [part: string]: unknown;
}

/**
 * Reads a template.
 *
 * @throws {Error} Of the package, when it is none.
 */
export function programOf(source: string): Program {
  const lines = source.replace(/\r\n?/g, "\n");
  const program = parse(tokenize(lines, { lstrip_blocks: true, trim_blocks: true }));
  changeCalls(program);
  markPrinted(program);
  program.body = new Loops().block(program.body as unknown as Node[]) as unknown as Program["body"];
  return program;
}

/** Makes what the package knows of calls that it does not, wherever they are. */
function changeCalls(part: unknown): void {
  if (typeof part !== "object" || part === null) return;
  // Dictionaries have their keys and values in a map.
  const parts = part instanceof Map ? [...part].flat() : Object.values(part);
  for (const inner of parts) changeCalls(inner);
  const { type, callee, args } = part as Partial<Node>;
  if (type !== "CallExpression" || !Array.isArray(args)) return;
  callStrip(part, callee as Node, args);
  makeDictionary(part, callee as Node, args);
}

/** Makes a call of one of {@linkcode PROGRAM_FUNCTIONS} of `text.strip()` and the like. */
function callStrip(call: object, callee: Node, args: readonly Node[]): void {
  const { type: kind, object, property, computed } = callee;
  if (kind !== "MemberExpression" || computed) return;
  const value = `${(property as Node).value}()`;
  if (!Object.hasOwn(PROGRAM_FUNCTIONS, value)) return;
  Object.assign(call, { callee: identifier(value), args: [object, ...args] });
}

/** Makes a dictionary as it is written in braces of `dict(name=value, …)`. */
function makeDictionary(call: object, callee: Node, args: readonly Node[]): void {
  const { type: kind, value: name } = callee;
  if (kind !== "Identifier" || name !== "dict") return;
  if (!args.every((arg) => arg.type === "KeywordArgumentExpression")) return;
  const value = new Map(
    args.map(({ key, value }) => [{ type: "StringLiteral", value: (key as Node).value }, value]),
  );
  Object.assign(call, { type: "ObjectLiteral", value });
}

/** What stands among statements and is no expression, and texts, which are written as they are. */
const NOT_PRINTED = [
  "Program",
  "If",
  "For",
  "Break",
  "Continue",
  "Set",
  "Macro",
  "Comment",
  "CallStatement",
  "FilterStatement",
  "StringLiteral",
];

/** Marks expressions that stand among statements. */
function markPrinted(statement: unknown): void {
  for (const part of ["body", "alternate", "defaultBlock"]) {
    const statements = (statement as Node)[part];
    if (!Array.isArray(statements)) continue;
    for (const one of statements as Node[]) {
      markPrinted(one);
      one.isPrinted = !NOT_PRINTED.includes(one.type);
    }
  }
}

/** Rewrites loops, those within others first. */
class Loops {
  #count = 0;

  /**
   * Statements with their loops rewritten.
   *
   * @param rest What follows them, rewritten.
   * @param over Whether the loop that they belong to is over, as a place to read and write; undefined outside of loops.
   */
  block(statements: readonly Node[], rest: readonly Node[] = [], over?: Node): Node[] {
    let reversed = rest.toReversed();
    for (const statement of statements.toReversed()) {
      if (over && statement.type === "Continue") {
        reversed = [];
      } else if (over && statement.type === "Break") {
        reversed = [set(over, identifier("true"))];
      } else if (over && has(statement, ["Continue", "Break"])) {
        // As one, so that it is not copied for each branch.
        const after = [{ type: "Program", body: reversed.toReversed() }];
        const [body, alternate] = [statement.body, statement.alternate].map((branch) =>
          this.block(branch as Node[], after, over)
        );
        reversed = [{ ...statement, body, alternate }];
      } else if (statement.type === "For") {
        reversed.push(...this.#loop(statement).toReversed());
      } else {
        for (const part of ["body", "alternate"]) {
          if (Array.isArray(statement[part])) statement[part] = this.block(statement[part]);
        }
        reversed.push(statement);
      }
    }
    return reversed.toReversed();
  }

  #loop(loop: Node): Node[] {
    const statements = loop.body as Node[];
    const name = identifier(`loop ${this.#count++}`);
    const [over, ended] = ["over", "ended"].map((property) => ({
      type: "MemberExpression",
      object: name,
      property: identifier(property),
      computed: false,
    }));
    const mayLeave = statements.some((statement) => has(statement, ["Break"]));
    const mayCut = mayLeave || statements.some((statement) => has(statement, ["Continue"]));
    const defaultBlock = this.block(loop.defaultBlock as Node[]);
    // What comes where nothing was looped over comes, too, where no iteration has reached its end.
    const tellsEnd = mayCut && defaultBlock.length > 0;
    let body = this.block(statements, tellsEnd ? [set(ended, identifier("true"))] : [], over);
    if (statements.some((statement) => has(statement, ["Set"]))) {
      // One round of a loop within, whose variable is the loop as it is known here.
      const iterable = { type: "ArrayLiteral", value: [identifier("loop")] };
      body = [{ type: "For", loopvar: identifier("loop"), iterable, body, defaultBlock: [] }];
    }
    if (!mayLeave && !tellsEnd) return [{ ...loop, body, defaultBlock }];
    const leave = { type: "If", test: over, body: [{ type: "Break" }], alternate: [] };
    const started = { type: "CallExpression", callee: identifier("namespace"), args: [] };
    const looped = { ...loop, body: mayLeave ? [leave, ...body] : body };
    if (!tellsEnd) return [set(name, started), { ...looped, defaultBlock }];
    const otherwise = { type: "If", test: ended, body: [], alternate: defaultBlock };
    return [set(name, started), { ...looped, defaultBlock: [] }, otherwise];
  }
}

/** Whether a statement is of one of some types, or a condition that has such ones. */
function has(statement: Node, types: readonly string[]): boolean {
  if (statement.type !== "If") return types.includes(statement.type);
  return [statement.body, statement.alternate].some((part) =>
    (part as Node[]).some((inner) => has(inner, types))
  );
}

function identifier(value: string): Node {
  return { type: "Identifier", value };
}

function set(assignee: Node, value: Node): Node {
  return { type: "Set", assignee, value, body: [] };
}

/** Python's `strip`: without the characters at the beginning, at the end, or both; of null, without white space. */
function stripped(text: unknown, characters: unknown, atStart: boolean, atEnd: boolean): string {
  if (typeof text !== "string") throw new Error("only a text can be stripped");
  let start = 0;
  if (typeof characters !== "string") {
    let end = text.length;
    while (atStart && start < end && isSpace(text[start])) start++;
    while (atEnd && end > start && isSpace(text[end - 1])) end--;
    return text.slice(start, end);
  }
  const letters = [...text], named = new Set(characters);
  let end = letters.length;
  while (atStart && start < end && named.has(letters[start])) start++;
  while (atEnd && end > start && named.has(letters[end - 1])) end--;
  return letters.slice(start, end).join("");
}

/** Python's `isspace`: no byte order mark, but what separates files, groups, records and units. */
function isSpace(letter: string): boolean {
  return /\p{White_Space}/u.test(letter) || (letter >= "\x1c" && letter <= "\x1f");
}
