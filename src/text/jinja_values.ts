/**
 * Values of templates, as Python has them: what is equal, and how each is written.
 * @module
 */
import { Environment, type Interpreter } from "@huggingface/jinja";

/** A value of a template that runs. */
export type Value = ReturnType<Interpreter["evaluate"]>;

/** A value of JavaScript as one of a template. */
export function valueOf(value: unknown): Value {
  return new Environment().set("", value);
}

/** What Python's `str` writes; nothing for what is undefined. */
export function textOf(value: Value): string {
  if (value.type === "UndefinedValue") return "";
  return value.type === "StringValue" ? value.value as string : representation(value);
}

/** What Python's `==` says. */
export function areEqual(a: Value, b: Value): boolean {
  if (isNumber(a) && isNumber(b)) return Number(a.value) === Number(b.value);
  if (a.type !== b.type) return false;
  if (isList(a)) {
    const [left, right] = [a.value as Value[], b.value as Value[]];
    return left.length === right.length && left.every((one, i) => areEqual(one, right[i]));
  }
  if (a.type === "ObjectValue") {
    const [left, right] = [a.value as Map<string, Value>, b.value as Map<string, Value>];
    return left.size === right.size && [...left].every(([key, one]) => {
      const other = right.get(key);
      return other !== undefined && areEqual(one, other);
    });
  }
  return a.value === b.value;
}

/** Whether a value is a list or a tuple. */
export function isList(value: Value): boolean {
  return value.type === "ArrayValue" || value.type === "TupleValue";
}

/** Whether a value is a text. */
export function isText({ type }: Value): boolean {
  return type === "StringValue";
}

/** The letters of a text, a list. */
export function lettersOf(text: Value): Value {
  return valueOf([...text.value as string]);
}

/** Python's length of a text; no list of its characters is made, which may be many. */
export function charactersIn(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; at += widthAt(text, at)) count++;
  return count;
}

/** The character at a place, which is counted from the end where it is below 0. */
export function characterAt(text: string, place: number): string | undefined {
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

/** Truth values are numbers. */
function isNumber({ type }: Value): boolean {
  return type === "IntegerValue" || type === "FloatValue" || type === "BooleanValue";
}

/** What Python's `repr` writes. */
function representation(value: Value): string {
  switch (value.type) {
    case "StringValue":
      return quoted(value.value as string);
    case "BooleanValue":
      return value.value ? "True" : "False";
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "Undefined";
    case "FloatValue":
      return float(value.value as number);
    case "ArrayValue":
      return `[${(value.value as Value[]).map(representation).join(", ")}]`;
    case "TupleValue": {
      const items = (value.value as Value[]).map(representation);
      return items.length === 1 ? `(${items[0]},)` : `(${items.join(", ")})`;
    }
    case "ObjectValue":
    case "NamespaceValue": {
      const entries = [...value.value as Map<string, Value>];
      return `{${
        entries.map(([key, one]) => `${quoted(key)}: ${representation(one)}`).join(", ")
      }}`;
    }
    default:
      return value.toString();
  }
}

/** Letters that Python has an escape for. */
const ESCAPES: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

/** A text in single quotes, or in double ones where it has single ones alone. */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const letters = text.replace(/[\\\p{C}\p{Z}]/gu, (letter) => {
    if (letter === " ") return letter;
    const code = letter.codePointAt(0)!;
    const [kind, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
    return ESCAPES[letter] ?? `\\${kind}${code.toString(16).padStart(digits as number, "0")}`;
  });
  return `${quote}${quote === "'" ? letters.replaceAll("'", "\\'") : letters}${quote}`;
}

/** Digits as JavaScript finds them, with an exponent where Python writes one. */
function float(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  const size = Math.abs(value);
  if (size === 0 || size >= 1e-4 && size < 1e16) {
    const text = Object.is(value, -0) ? "-0" : String(value);
    return text.includes(".") ? text : `${text}.0`;
  }
  const [digits, exponent] = value.toExponential().split("e");
  return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}
