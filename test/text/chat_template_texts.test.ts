/** Texts and numbers in chat templates, as jinja2 3.1 has them: what it wrote stands beside each expression. @module */
import { expect, test } from "bun:test";
import { ChatTemplate } from "../../src/text/chat_template.ts";

const MESSAGES = [{ role: "user", content: "x😀y" }];

/** Writes expressions, which must be what Python writes. */
function check(cases: readonly (readonly [expression: string, text: string])[]): void {
  for (const [expression, text] of cases) {
    const written = new ChatTemplate(`<{{ ${expression} }}>`).render(MESSAGES);
    expect([expression, written]).toEqual([expression, `<${text}>`]);
  }
}

test("a character beyond U+FFFF is one, and not two halves", () => {
  check([
    ["messages[0].content | length", "3"],
    ["messages[0].content | count", "3"],
    ["messages[0]['content'][1]", "😀"],
    ["messages[0].content[-2] ~ messages[0].content[-1] ~ messages[0].content[0]", "😀yx"],
    ["messages[0].content[3] ~ messages[0].content[-4]", ""],
    ["messages[0].content[3] is defined", "False"],
    ["messages[0].content[:2] ~ messages[0].content[::-1]", "x😀y😀x"],
    ["[1, [2, 3]][1][0] ~ [1, 2][-1] ~ {'a': {'b': 4}}['a']['b']", "224"],
    ["messages[0]['no'] is defined", "False"],
  ]);
});

test("title begins each word with a capital, where Python's filter sees one", () => {
  check([
    ["'straße café' | title", "Straße Café"],
    [`"it's o'neil's HOUSE" | title`, "It's O'neil's House"],
    ["'élan (vital)-x [y] {z} <a>  b' | title", "Élan (Vital)-X [Y] {Z} <A>  B"],
    ["'😀a ßx' | title", "😀a SSx"],
    ["'' | title", ""],
    ["none | title", "None"],
  ]);
});

test("int cuts off what is behind the point", () => {
  check([
    ["-3.7 | int", "-3"],
    ["3.7 | int", "3"],
    ["-0.5 | int", "0"],
    ["'3.9' | int", "3"],
    ["'x' | int", "0"],
    ["true | int", "1"],
    ["'-4' | int", "-4"],
  ]);
});
