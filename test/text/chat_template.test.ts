import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { ChatTemplateError } from "../../src/errors.ts";
import {
  ChatTemplate,
  chatTemplateFrom,
  type Message,
  requireTemplate,
} from "../../src/text/chat_template.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { fromRoot } from "../support/paths.ts";
import { HELLO, refusal } from "./chat_template_support.ts";
import { LARGE_MODEL } from "./support.ts";

/** What transformers makes of conversations, with and without the beginning of an answer. */
interface Fixture {
  readonly now: string;
  readonly conversations: Message[][];
  readonly templates: readonly {
    readonly name: string;
    readonly template: string;
    readonly bos_token: string | null;
    readonly eos_token: string | null;
    readonly variables: Record<string, unknown>;
    readonly rendered: readonly { readonly text?: string; readonly error?: string }[];
  }[];
}
const fixture = JSON.parse(
  readFileSync(fromRoot("test/fixtures/chat/chat.json"), "utf8"),
) as Fixture;
const now = new Date(fixture.now);

describe("a chat template", () => {
  for (const { name, template, rendered, variables, ...tokens } of fixture.templates) {
    test(`in the form of ${name} gives what transformers gives`, () => {
      const chat = chatTemplateFrom({ tokenizerConfig: { ...tokens, chat_template: template } })!;
      let at = 0;
      for (const messages of fixture.conversations) {
        for (const addGenerationPrompt of [true, false]) {
          const { text, error } = rendered[at++];
          const render = () => chat.render(messages, { addGenerationPrompt, variables, now });
          if (error === undefined) {
            expect(render()).toBe(text!);
          } else {
            expect(thrownBy(render)).toBeInstanceOf(ChatTemplateError);
            expect(thrownBy(render).message).toContain(error);
          }
        }
      }
      expect(at).toBe(rendered.length);
    });
  }

  const own = `${LARGE_MODEL}/chat_template.jinja`;
  test.if(existsSync(own))("of the large model, SmolLM2, is the one of the fixture", () => {
    const source = readFileSync(own, "utf8");
    const { rendered } = fixture.templates.find(({ name }) => name === "SmolLM2")!;
    expect(new ChatTemplate(source).render(fixture.conversations[0])).toBe(rendered[0].text!);
  });

  test("ends with the beginning of an answer unless told otherwise", () => {
    const chat = new ChatTemplate("{% if add_generation_prompt %}go{% endif %}");
    expect(chat.render(HELLO)).toBe("go");
    expect(chat.render(HELLO, { addGenerationPrompt: false })).toBe("");
  });

  test("sees further fields of messages, and variables, but cannot be given other messages", () => {
    const chat = new ChatTemplate("{{ messages[0].name }} {{ mood }} {{ messages | length }}");
    const messages = [{ role: "user", content: "Hello", name: "Ada" }];
    expect(chat.render(messages, { variables: { mood: "calm", messages: [] } })).toBe("Ada calm 1");
    // As in transformers, what is asked for comes before what the model's files say.
    const begun = new ChatTemplate("{{ bos_token }}{{ eos_token }}", {
      bos_token: "<s>",
      eos_token: "</s>",
    });
    expect(begun.render(HELLO, { variables: { bos_token: "" } })).toBe("</s>");
  });

  test("selects by what an attribute is, also where an item has none", () => {
    const messages = [
      { role: "user", content: "a", tag: 1 },
      { role: "assistant", content: "b" },
      { role: "tool", content: "c", tag: 0 },
    ];
    const written = (filter: string) =>
      new ChatTemplate(`{{ messages | ${filter} | map(attribute='content') | join }}`)
        .render(messages);
    const cases = [
      ["selectattr('tag', 'undefined')", "b"],
      ["rejectattr('tag', 'undefined')", "ac"],
      ["selectattr('tag')", "a"],
      ["rejectattr('tag')", "bc"],
      ["selectattr('role', 'in', ['user', 'tool'])", "ac"],
      ["rejectattr('role', 'equalto', 'tool') | selectattr('tag', 'defined')", "a"],
      ["selectattr('role', 'ne', 'user')", "bc"],
      ["selectattr('tag', '==', 1.0)", "a"],
    ];
    for (const [filter, text] of cases) expect([filter, written(filter)]).toEqual([filter, text]);
    expect(refusal("{{ messages | selectattr('role', 'odder') }}")).toContain("no test odder");
  });

  test("joins what an attribute is, and finds attributes of attributes, as Jinja does", () => {
    const variables = {
      tools: [{ function: { name: "f", of: ["a"] } }, { function: { name: "g", of: ["b"] } }],
      d: { a: 1, b: 2 },
    };
    const cases = [
      ["tools | join(', ', attribute='function.name')", "f, g"],
      ["tools | join(attribute='function.of.0')", "ab"],
      ["messages | join('+', 'role')", "user+tool"],
      ["messages | map(attribute='role') | join(d='-')", "user-tool"],
      ["tools | selectattr('function.name', 'equalto', 'g') | list | length", "1"],
      ["tools | rejectattr('function.none') | list | length", "2"],
      ["d | join(',')", "a,b"],
      ["'ab' | join('-')", "a-b"],
      ["[1, none, 'x'] | join", "1Nonex"],
    ];
    const messages = [{ role: "user", content: "a" }, { role: "tool", content: "b" }];
    for (const [expression, text] of cases) {
      const written = new ChatTemplate(`{{ ${expression} }}`).render(messages, { variables });
      expect([expression, written]).toEqual([expression, text]);
    }
    const long = "{% set x = ['ab'] | join %}".concat("{% set x = x ~ x %}".repeat(20));
    expect(refusal(`${long}{{ range(99) | join(x) }}`)).toContain("too long");
  });

  test("strips the characters that it names, as Python does, and no others", () => {
    const written = (expression: string, content = "") =>
      new ChatTemplate(`{{ ${expression} }}`).render([{ role: "user", content }]);
    const content = "<think>\n  so \n</think>\n\n    indented\n";
    const after = "messages[0].content.split('</think>')[-1]";
    // As templates of models that think do it.
    expect(written(`${after}.lstrip('\n')`, content)).toBe("    indented\n");
    expect(written(`${after}.strip('\n')`, content)).toBe("    indented");
    expect(written(
      "messages[0]['content'].split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n')",
      content,
    )).toBe("  so ");
    expect(written("'🌳xyx🌳'.strip('🌳x')")).toBe("y");
    expect(written("('  a ' ~ 'b ').rstrip(' ') | upper")).toBe("  A B");
    expect(written("' \n a \t'.strip()")).toBe("a");
    expect(written("' \n a \t'.strip(none)")).toBe("a");
    for (const strip of [".strip()", " | trim", ".lstrip().rstrip()"]) {
      const marked = `messages[0]['content']${strip}`;
      expect(written(marked, "\u00a0\u0085\x1c\ufeff a\ufeff\u2003\x1f")).toBe("\ufeff a\ufeff");
    }
    expect(refusal("{{ messages.strip('x') }}")).toContain("only a text can be stripped");
  });

  test("keeps what an iteration has written where it goes on or ends the loop, as Python does", () => {
    const written = (source: string) => new ChatTemplate(source).render(HELLO);
    const cases = [
      [
        "{% for m in [1, 2] %}{% if m == 1 %}{{ '<' ~ m }}{% continue %}{% endif %}{{ m }}{% endfor %}",
        "<12",
      ],
      [
        "{% for m in [1, 2, 3] %}{{ m }}{% if m == 2 %}{% break %}{% endif %};{% endfor %}.",
        "1;2.",
      ],
      [
        "{% for a in [1, 2, 3] %}{% for b in [1, 2, 3] %}{% if b == 2 %}{% break %}{% endif %}{{ a }}{{ b }} " +
        "{% endfor %}{% if a == 2 %}{% break %}{% endif %}/{% endfor %}",
        "11 /21 ",
      ],
      [
        "{% for i in [1, 2, 3, 4, 5] %}{{ i }}{% if i is odd %}o{% if i > 2 %}!{% break %}{% elif loop.first %}f" +
        "{% else %}c{% continue %}{% endif %}x{% else %}-{% set z = i %}{% endif %};{{ z }}{% endfor %}",
        "1ofx;2-;23o!",
      ],
      [
        "{% macro f(l) %}{% for i in l %}{{ i }}{% if i == 2 %}{% break %}{% endif %}{% endfor %}e{% endmacro %}" +
        "{{ f([1, 2, 3]) }}{{ f([3, 1]) }}",
        "12e31e",
      ],
    ];
    for (const [source, text] of cases) expect([source, written(source)]).toEqual([source, text]);
  });

  test("lets macros see what is named where they stand, not where they are called, as Python does", () => {
    const written = (source: string) => new ChatTemplate(source).render(HELLO);
    const cases = [
      [
        "{% macro f() %}[{{ x }}{{ loop is defined }}]{% endmacro %}{% for x in [1, 2] %}{{ f() }}{% endfor %}",
        "[False][False]",
      ],
      ["{% macro f() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f() }}", "1"],
      [
        "{% for x in [1, 2] %}{% macro f() %}{{ x }}{% endmacro %}{{ f() }}{% endfor %}",
        "12",
      ],
      [
        "{% macro f(a) %}{% macro g() %}{{ a }}{% endmacro %}{{ g() }}{% endmacro %}{{ f(3) }}",
        "3",
      ],
      [
        "{% macro g() %}{{ caller is defined }}{% endmacro %}{% macro f() %}{{ g() }}{{ caller() }}{% endmacro %}" +
        "{% for x in [1, 2] %}{% call f() %}{{ x }}{% endcall %}{% endfor %}",
        "False1False2",
      ],
      ["{% macro f() %}{{ messages[0].role }}{% endmacro %}{{ f() }}", "user"],
      [
        "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
        "3210",
      ],
    ];
    for (const [source, text] of cases) expect([source, written(source)]).toEqual([source, text]);
  });

  test("writes what stands for no iteration where none has reached its end, as Python does", () => {
    const written = (source: string) => new ChatTemplate(source).render(HELLO);
    const cases = [
      ["{% for i in [1, 2] %}{% continue %}{% else %}none{% endfor %}", "none"],
      ["{% for i in [1, 2] %}{{ i }}{% break %}{% else %}none{% endfor %}", "1none"],
      [
        "{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% else %}none{% endfor %}",
        "1",
      ],
      ["{% for i in [] %}{% break %}{% else %}none{% endfor %}", "none"],
      [
        "{% for a in [1, 2] %}{% for i in [1, 2] %}{% continue %}{% else %}none{% endfor %}{{ a }}{% endfor %}",
        "none1none2",
      ],
    ];
    for (const [source, text] of cases) expect([source, written(source)]).toEqual([source, text]);
  });

  test("writes values as Python does", () => {
    const cases = [
      ["true", "True"],
      ["none", "None"],
      ["nothing", ""],
      ["messages", "[{'role': 'user', 'content': 'Hello'}]"],
      [
        "[true, none, 1, 1.5, 2.0, [], {}, {'k': (1, 'b')}]",
        "[True, None, 1, 1.5, 2.0, [], {}, {'k': (1, 'b')}]",
      ],
      [
        `["it's", '"', "'" ~ '"', 'a\\n\\\\', '\\x00', '\\u200b', 'é🌳']`,
        `["it's", '"', '\\'"', 'a\\n\\\\', '\\x00', '\\u200b', 'é🌳']`,
      ],
      ["[1 / 100000, 10.0 ** 17, 123456789.5, -0.0]", "[1e-05, 1e+17, 123456789.5, -0.0]"],
      ["'x' ~ true ~ none ~ [1, 'b'] ~ 1.0 ~ nothing", "xTrueNone[1, 'b']1.0"],
      ["[1, true, none, 'x'] | join(', ')", "1, True, None, x"],
      ["messages[0] | string ~ (none | string)", "{'role': 'user', 'content': 'Hello'}None"],
    ];
    for (const [expression, text] of cases) {
      const written = new ChatTemplate(`{{ ${expression} }}`).render(HELLO);
      expect([expression, written]).toEqual([expression, text]);
    }
  });

  test("compares values as Python does", () => {
    const equal = [
      "[1, 'a'] == [1, 'a']",
      "{'a': [1]} == {'a': [1.0]}",
      "1 == true",
      "none in [none]",
      "[1] in [[1]]",
      "1 in [true]",
      "messages[0] == {'content': 'Hello', 'role': 'user'}",
    ];
    const different = [
      "'' == false",
      "'1' == 1",
      "0 == ''",
      "none == nothing",
      "[1] == [1, 2]",
      "[] == {}",
      "'' in [false, 0]",
      "{'a': 1} == {'b': 1}",
    ];
    for (const expression of [...equal, ...different]) {
      const written = new ChatTemplate(`{{ ${expression} }}`).render(HELLO);
      expect([expression, written]).toEqual([
        expression,
        equal.includes(expression) ? "True" : "False",
      ]);
    }
    // As templates in the form of Llama 2 ask whether there is a system message.
    const system = new ChatTemplate(
      "{% set s = messages[0].content %}{% if s != false %}<<SYS>>{% endif %}",
    );
    expect(system.render([{ role: "system", content: "" }])).toBe("<<SYS>>");
  });

  test("takes remainders of the divisor's sign, as Python does", () => {
    const cases = [
      ["(0 - 1) % 2", "1"],
      ["(0 - 3) % (0 - 2)", "-1"],
      ["7 % (0 - 3)", "-2"],
      ["(0 - 4) % 2", "0"],
      ["7 % 3", "1"],
      ["7.5 % 2", "1.5"],
    ];
    for (const [expression, text] of cases) {
      const written = new ChatTemplate(`{{ ${expression} }}`).render(HELLO);
      expect([expression, written]).toEqual([expression, text]);
    }
  });

  test("has filters for values of other kinds, as Python does", () => {
    const cases = [
      ["'abc' | first ~ ('abc' | last) ~ ('abc' | list | length)", "ac3"],
      ["{'a': 1, 'b': 2} | list | join", "ab"],
      ["nothing | trim ~ (nothing | default) ~ (nothing | d('y')) ~ (nothing | length)", "y0"],
      ["messages | count", "1"],
      ["'xxax' | trim('x') ~ (1 | trim) ~ (none | upper)", "a1NONE"],
      ["'hELLO wORLD' | capitalize", "Hello world"],
      ["[] | first", ""],
    ];
    for (const [expression, text] of cases) {
      const written = new ChatTemplate(`{{ ${expression} }}`).render(HELLO);
      expect([expression, written]).toEqual([expression, text]);
    }
  });

  test("may have lines that end as those of Windows", () => {
    const source = "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc\r\n";
    expect(new ChatTemplate(source).render(HELLO)).toBe("a\nb\nc");
  });

  test("forgets at the end of an iteration what was set in it, as Python does", () => {
    const written = (source: string) => new ChatTemplate(source).render(HELLO);
    expect(written(
      "{% set x = 'o' %}{% for i in [1, 2, 3] %}{{ x }}{% set x = i %}{{ x }}{{ loop.index }} {% endfor %}{{ x }}",
    )).toBe("o11 o22 o33 o");
    expect(
      written(
        "{% for i in [1, 2] %}{% if i == 1 %}{% set x = 'a' %}{% endif %}[{{ x }}]{% endfor %}",
      ),
    )
      .toBe("[a][]");
    expect(written(
      "{% set n = namespace(sum=0) %}{% for i in [1, 2] %}{% set n.sum = n.sum + i %}{% endfor %}{{ n.sum }}",
    )).toBe("3");
  });

  test("that refuses a conversation says why", () => {
    const source = "{{ raise_exception('Roles must\n  alternate') }}";
    expect(refusal(source)).toContain("refuses this: Roles must alternate");
    const long = refusal(`{{ raise_exception('${"x".repeat(5000)}') }}`);
    expect(long.length).toBeLessThan(300);
  });

  test("that is broken fails when it is used, and says why", () => {
    const cases = [
      "{% for %}",
      "{% if messages %}",
      "{{ 1 + }}",
      "{{ nothing() }}",
      "{% unknown %}",
    ];
    for (const source of cases) expect(refusal(source)).toContain("chat template fails: ");
  });

  test("wants messages with a role and text", () => {
    const bad = [[], [{ role: "user" }], [{ role: "", content: "" }], [{
      role: "user",
      content: 7,
    }]];
    for (const messages of bad) {
      expect(refusal("{{ messages }}", messages as Message[])).toContain("messages");
    }
    const second = [...HELLO, { role: "user", content: null }] as unknown as Message[];
    expect(refusal("{{ messages }}", second)).toContain("messages 1.content");
  });
});

describe("the chat template of a model", () => {
  const text = (files: Parameters<typeof chatTemplateFrom>[0]) =>
    chatTemplateFrom(files)?.render(HELLO);

  test("is chat_template.jinja, or else in tokenizer_config.json", () => {
    expect(text({})).toBeUndefined();
    expect(text({ tokenizerConfig: {} })).toBeUndefined();
    expect(text({ tokenizerConfig: { chat_template: null } })).toBeUndefined();
    expect(text({ tokenizerConfig: { chat_template: "config" } })).toBe("config");
    expect(text({ chatTemplate: "jinja", tokenizerConfig: { chat_template: "config" } })).toBe(
      "jinja",
    );
    expect(text({ chatTemplate: "jinja", tokenizerConfig: { chat_template: 7 } })).toBe("jinja");
  });

  test("is the one named default where there are several", () => {
    const several = [{ name: "tool_use", template: "tools" }, {
      name: "default",
      template: "plain",
    }];
    expect(text({ tokenizerConfig: { chat_template: several } })).toBe("plain");
    const error = thrownBy(() => text({ tokenizerConfig: { chat_template: several.slice(0, 1) } }));
    expect(error).toBeInstanceOf(ChatTemplateError);
    expect(error.message).toContain('"tool_use"');
  });

  test("must be one", () => {
    for (const chat_template of [7, {}, ["a"], [{ name: "default" }]]) {
      const error = thrownBy(() => text({ tokenizerConfig: { chat_template } }));
      expect(error).toBeInstanceOf(ChatTemplateError);
      expect(error.message).toContain("tokenizer_config.json");
    }
  });

  test("can name special tokens, written as text or as an object", () => {
    const tokenizerConfig = {
      bos_token: "<s>",
      eos_token: { content: "</s>", lstrip: false },
      pad_token: null,
      add_bos_token: true,
      chat_template: "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}",
    };
    expect(text({ tokenizerConfig })).toBe("<s></s>False");
  });

  test("that is missing is asked for in words", () => {
    const error = thrownBy(() => requireTemplate(undefined));
    expect(error).toBeInstanceOf(ChatTemplateError);
    expect(error.message).toContain("chat_template.jinja");
  });
});
