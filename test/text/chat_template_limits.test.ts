/**
 * Chat templates that anybody may have written: what they cannot do, and what they may take.
 * @module
 */
import { describe, expect, test } from "bun:test";
import { ChatTemplate } from "../../src/text/chat_template.ts";
import { HELLO, refusal } from "./chat_template_support.ts";

describe("a chat template", () => {
  test("ends where it would run for hours, or fill the memory", () => {
    const doubled = (sum: string, first: string, times = 99) =>
      `{% set n = namespace(s=${first}) %}{% for i in range(${times}) %}{% set n.s = ${sum} %}{% endfor %}`;
    for (
      const [source, reason] of [
        [
          "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
          "too many steps",
        ],
        [
          "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
          "too many steps",
        ],
        [doubled("n.s + n.s", "[1]"), "too many steps"],
        [doubled("n.s ~ n.s", "'x'"), "too long"],
        ["{{ [1, [2]] | tojson(indent=400000000) }}", "too long"],
        ["{{ {'a': [[1]]} | tojson(indent=9000000) }}", "too long"],
        ["{{ 'a\\nb' | indent(999999999) }}", "too long"],
        ["{{ 'a\\nb' | indent(width=9000000) }}", "too long"],
        // Lists that hold one twice are small until all that is in them is gone through.
        ...["{{ n.s | tojson }}", "{{ n.s }}", "{{ 'x' ~ n.s }}", "{{ 'x' + n.s }}"].map((end) => [
          doubled("[n.s, n.s]", "[1]", 40) + end,
          "too many steps",
        ]),
        [doubled("[n.s, n.s]", "[1]", 40) + "{{ n.s == n.s }}", "too many steps"],
        [doubled("[n.s, n.s]", "[1]", 40) + "{{ n.s in [n.s] }}", "too many steps"],
        [
          "{% set l = range(99999) %}{% for a in l %}{% set x = l | selectattr('x', 'in', 'y') %}{% endfor %}",
          "too many steps",
        ],
        [
          "{% set l = range(99999) %}{% for a in l %}{% set x = 'x' in l %}{% endfor %}",
          "too many steps",
        ],
        ...["equalto", "ne", "in"].map((test) => [
          doubled("[n.s, n.s]", "[1]", 60) + `{{ [n.s] | select('${test}', n.s) | list | length }}`,
          "too many steps",
        ]),
        // Much of little in one call.
        ...[
          "n.s.replace('x', n.s)",
          "n.s | replace('x', 'yyyyyyyy')",
          "n.s.replace('', 'yyyyyyyy')",
        ].map((
          call,
        ) => [doubled("n.s ~ n.s", "'x'", 20) + `{{ ${call} }}`, "too long"]),
        ...["n.s.split('x')", "n.s[::2]", "n.s.split()"].map((call) => [
          doubled("n.s ~ n.s", "'x x '", 20) + `{{ ${call} | length }}`,
          "too many steps",
        ]),
        ["{{ range(99999) | select('in', range(100000, 199999)) | list }}", "too many steps"],
        [
          doubled("[n.s, n.s]", "[1]", 60) + "{{ [n.s] | select('in', 'x') | list }}",
          "too many steps",
        ],
      ]
    ) {
      const message = refusal(source);
      expect(message).toContain(`chat template fails: it`);
      expect(message).toContain(reason);
    }
  });

  test("may replace and split what is long, where little is made of it", () => {
    const long =
      "{% set n = namespace(s='ab c') %}{% for i in range(18) %}{% set n.s = n.s ~ n.s %}{% endfor %}";
    const source = long +
      "{{ n.s.replace('b', '') | length }} {{ n.s | replace('ab', 'x', 1) | length }} " +
      "{{ n.s.split('ca') | length }} {{ n.s.split() | length }} {{ n.s.replace('a', 'xyz', count=2) | length }}";
    expect(new ChatTemplate(source).render(HELLO)).toBe("786432 1048575 262144 262145 1048580");
    const twice =
      "{% set f = 'a-a' %}{% for i in range(3) %}{{ f.replace('a', 'b') }}{{ f.split('-')[0] }}{% endfor %}";
    expect(new ChatTemplate(twice).render(HELLO)).toBe("b-bab-bab-ba");
  });

  test("may indent", () => {
    const written = (expression: string) => new ChatTemplate(`{{ ${expression} }}`).render(HELLO);
    expect(written("[1, [2]] | tojson(indent=2)")).toBe("[\n  1,\n  [\n    2\n  ]\n]");
    expect(written("'a\\nb' | indent(3)")).toBe("a\n   b");
    expect(written("'a\\nb' | indent(width=2, first=true)")).toBe("  a\n  b");
  });

  test("may have a conversation of ten thousand messages", () => {
    const messages = Array.from({ length: 10_000 }, (_, i) => ({
      role: i % 2 ? "assistant" : "user",
      content: "some words of a message ".repeat(8),
    }));
    const source =
      "{% set n = namespace(last=0) %}{% for m in messages[::-1] %}{% if m.role == 'user' %}" +
      "{% set n.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}" +
      "{% set c = m.content | trim %}{% if '</think>' in c %}{% set c = c.split('</think>')[-1].strip() %}" +
      "{% endif %}{{ '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{% endfor %}";
    expect(new ChatTemplate(source).render(messages).length).toBeGreaterThan(2_000_000);
  });

  test("strips as many characters as there are in a time that grows with the text", () => {
    const started = performance.now();
    const source =
      "{% set n = namespace(a='é', b='è') %}{% for i in range(20) %}{% set n.a = n.a ~ n.a %}" +
      "{% set n.b = n.b ~ n.b %}{% endfor %}[{{ n.a.strip(n.b ~ 'é') }}]";
    expect(new ChatTemplate(source).render(HELLO)).toBe("[]");
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  test("is read in a time that grows with its length", () => {
    const many = 30_000;
    const started = performance.now();
    const loop = "{% for m in messages %}" + "{% if m %}".repeat(200) + "{% continue %}" +
      "{% endif %}".repeat(200) + "{{ 1 }}".repeat(many) + "{% endfor %}";
    expect(new ChatTemplate(loop).render(HELLO)).toBe("");
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  test("that calls itself without end fails by a bound of ours: stacks end late in some runtimes", () => {
    for (const call of ["{{ f() }}", "{{ [f()] }}", "{% if f() %}{% endif %}"]) {
      const source = `{% macro f() %}${call}{% endmacro %}{{ f() }}`;
      expect(refusal(source)).toContain("nested too deeply");
    }
    const many =
      "{% for a in range(2000) %}{% for b in [1] %}{% break %}{% endfor %}{% endfor %}end";
    expect(new ChatTemplate(many).render(HELLO)).toBe("end");
  });

  test("cannot make lists as long as it likes", () => {
    expect(new ChatTemplate("{{ range(3) | join }}{{ range(4, 0, -2) | join }}").render(HELLO))
      .toBe("01242");
    for (const call of ["range(1000000000)", "range(0, 10, 0)", "range(0, -100000000, -1)"]) {
      expect(refusal(`{{ ${call} | length }}`)).toContain("range()");
    }
  });

  test("reaches nothing outside", () => {
    for (const name of ["process", "Deno", "globalThis", "require", "constructor", "__proto__"]) {
      expect(new ChatTemplate(`{{ ${name} is defined }}`).render(HELLO)).toBe("False");
    }
    const escape = "{{ messages.constructor is defined }}{{ messages[0].__proto__ is defined }}";
    expect(new ChatTemplate(escape).render(HELLO)).toBe("FalseFalse");
  });
});
