/** Texts and numbers in chat templates, as jinja2 3.1 has them: what it wrote stands beside each expression. @module */
import { expect, test } from "bun:test";
import { ChatTemplateError } from "../../src/errors.ts";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import { thrownBy } from "../checkpoint/support.ts";

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

test("methods that begin words with a capital leave no other capitals", () => {
  check([
    ["'HELLO wORLD'.title()", "Hello World"],
    ["'HELLO wORLD'.capitalize()", "Hello world"],
    ["messages[0].role.upper().capitalize()", "User"],
    ["messages[0]['role'].title()", "User"],
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

test("select and reject leave what passes a test, and what does not", () => {
  check([
    ["[1, none, 'a', ''] | select | join(',')", "1,a"],
    ["['a', 'b', 'a'] | reject('equalto', 'a') | join(', ')", "b"],
    ["[1, 2, 3] | select('ne', 2) | list | length", "2"],
    ["[1, none] | reject | list | length", "1"],
    ["['a', 'b'] | select('in', ['b', 'c']) | first", "b"],
    ["[1, 'a', 2.5] | select('string') | join(',')", "a"],
  ]);
});

test("loops go through the letters of a text, and through nothing of what is undefined", () => {
  const cases = [
    ["{% for t in messages[0].tool_calls %}x{% endfor %}ok", "ok"],
    ["{% for t in messages[0].tool_calls %}x{% else %}none{% endfor %}", "none"],
    ["{% for c in messages[0].content %}[{{ c }}{{ loop.index }}]{% endfor %}", "[x1][😀2][y3]"],
    ["{% for c in '' %}x{% else %}none{% endfor %}", "none"],
    ["{% for c in 'abc' if c != 'b' %}{{ c }}{% endfor %}", "ac"],
  ];
  for (const [template, text] of cases) {
    expect([template, new ChatTemplate(template).render(MESSAGES)]).toEqual([template, text]);
  }
});

test("what is no text is not added to one", () => {
  const cases = ["'n: ' + 5", "'x' + messages", "none + 'x'", "'x' + messages[0].no", "5 + 'x'"];
  for (const expression of cases) {
    const render = () => new ChatTemplate(`{{ ${expression} }}`).render(MESSAGES);
    expect(thrownBy(render)).toBeInstanceOf(ChatTemplateError);
    expect(thrownBy(render).message).toContain("+ needs two texts");
  }
});

test("dict makes a dictionary of named values", () => {
  check([
    ["dict(a=1, b='x')", "{'a': 1, 'b': 'x'}"],
    ["dict()", "{}"],
    ["dict(a=dict(b=[2])).a.b[0] ~ dict(a=1)['a']", "21"],
    ["dict(a=messages[0].role) | tojson", '{"a": "user"}'],
    ["{'k': dict(a=1)}['k'].a", "1"],
    ["{'k': 'xxaxx'.strip('x')}['k']", "a"],
  ]);
});
