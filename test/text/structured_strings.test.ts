import { describe, expect, test } from "bun:test";
import { z } from "zod";
import { uniformNumbers } from "../../src/text/windows.ts";
import { babble, BYTE_IDS, check, constraint, isAllowed, validator } from "./structured_support.ts";

describe("a string of a schema", () => {
  test("has durations and names of hosts, as zod asks for them, too", () => {
    const texts = [
      ["P1Y", "P1Y2M10D", "P1Y2M10DT2H30M15S", "P3M", "P1DT5M", "P2W", "PT0S", "PT36H", "PT1M3S"],
      ["P", "PT", "P1DT", "P1W2D", "P1Y2D", "P1D2M", "PT1H3S", "1D", "P1.5D", "P1S"],
    ].map((all) => all.map((text) => `"${text}"`));
    const isDuration = validator({ format: "duration" });
    for (const text of texts[0]) expect(isDuration(JSON.parse(text))).toBe(true);
    check({ type: "string", format: "duration" }, texts[0], texts[1]);
    check(z.toJSONSchema(z.iso.duration()), texts[0], texts[1]);
    check(z.toJSONSchema(z.hostname()), ['"a.example"', '"localhost"'], ['"-a"', '"a..b"', '""']);
  });

  test("has strings that are bytes in an encoding, as of base64 in zod", () => {
    const base64 = z.toJSONSchema(z.base64());
    expect(base64).toHaveProperty("contentEncoding", "base64");
    check(base64, ['""', '"QQ=="', '"QUI="', '"QUJD"', '"+/+/QQ=="'], [
      '"QUJ"',
      '"QR=="',
      '"QUJ="',
      '"Q-_A"',
    ]);
    check(z.toJSONSchema(z.base64url()), ['""', '"QQ"', '"Q-_A"'], ['"Q"', '"QR"', '"Q+/A"']);
    check({ contentEncoding: "base16", minLength: 1 }, ['"0F"'], ['"0"', '""', '"0f"']);
    check({ contentEncoding: "BASE32" }, ['"ME======"', '"MFRGG==="'], ['"MF======"', '"ME=="']);
  });

  test("has characters of every length in UTF-8, from the first to the last of each", () => {
    const all = [
      "\u0080é\u07ff",
      "\u0800ह\u0fff",
      "\u1000€日本語\ud7ff",
      "\ue000\uffff",
      "\u{10000}",
      "\u{40000}",
      "\u{10ffff}",
    ];
    check({ type: "string" }, all.map((text) => `"${text}"`), []);
  });

  test("has strings of whole characters, counted as characters", () => {
    check({ type: "string" }, ['"é🌳\\n\\u00e9"', '"\\ud83c\\udf33"', '""', '"\\/"'], [
      '"\n"',
      '"\t"',
      '"\\ud83c"',
      '"\\udf33"',
      '"\\ud83c\\u0041"',
      '"\\x41"',
      '"\\u00g0"',
      '"a',
    ]);
    check({ type: "string", minLength: 2, maxLength: 3 }, [
      '"ab"',
      '"🌳🌳🌳"',
      '"\\ud83c\\udf33a"',
    ], ['"a"', '"🌳"', '"\\ud83c\\udf33"', '"abcd"', '""']);
    for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90], [0x80]]) {
      const one = constraint({ schema: { type: "string" } });
      const ids = [0x22, ...bytes].map((byte) => BYTE_IDS.get(byte));
      const refused = ids.some((id) => {
        if (id === undefined || !isAllowed(one, id)) return true;
        one.take(id);
        return false;
      });
      expect(refused).toBe(true);
    }
  });

  test("matches its pattern, anywhere or between anchors", () => {
    check({ type: "string", pattern: "^[A-Z]{2}\\d+$" }, ['"DE1"', '"XX12"'], ['"D1"', '"DE"']);
    check({ pattern: "b" }, ['"abc"', '"b"', '"\\n🌳b"'], ['"ac"', '""', "1"]);
    check({ pattern: "^a|b$" }, ['"ax"', '"xb"'], ['"xa"', '"bx"']);
    check({ pattern: '^["\\\\\\t]+$' }, ['"\\"\\\\\\t"'], ['"\\u0022"', '"""']);
    check({ pattern: "^[^a-c]$" }, ['"d"', '"é"', '"🌳"'], ['"a"', '"dd"']);
    check({ pattern: "^(?:x?){3}$" }, ['""', '"xxx"'], ['"xxxx"']);
  });

  test("matches what its pattern looks ahead for at its beginning", () => {
    check({ pattern: "^(?!a)[a-c]+$" }, ['"ba"', '"cab"'], ['"ab"', '"a"']);
    check({ pattern: "^(?=.*\\d)(?=.*[A-Z]).{3}$" }, ['"1aB"', '"B1🌳"'], ['"1ab"', '"1aBc"']);
    check({ pattern: '^(?!.*(?:é|"))(?!x$)[^b]*$' }, ['""', '"xx"', '"è\\n"'], [
      '"x"',
      '"aé"',
      '"\\""',
    ]);
    check({ pattern: "^(?=.{1,3}$)a" }, ['"a"', '"abc"'], ['"abcd"', '"b"']);
    const password = "^(?=.*[a-z])(?=.*[A-Z])(?=.*\\d)(?=.*[^\\w\\s]).{8,64}$";
    const text = babble(constraint({ schema: { pattern: password } }), uniformNumbers(3));
    expect(JSON.parse(text ?? "null")).toMatch(new RegExp(password, "u"));
  });

  test("has the format that it must have", () => {
    check({ format: "date" }, ['"2024-02-28"', '"1999-12-31"'], ['"2024-13-01"', '"2023-02-30"']);
    check({ format: "uuid" }, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']);
    check({ format: "ipv4" }, ['"255.0.10.1"'], ['"256.0.0.1"', '"1.2.3"']);
    check({ format: "ipv6" }, ['"2001:db8:0:0:0:0:0:1"'], ['"1:2"', '"1:2:3:4:5:6:7:g"']);
    check({ format: "uri" }, [
      '"https://example.com"',
      '"http://a.b-c.org:8080/d/e.html?f=1&g=2#h"',
      '"https://example.com/"',
    ], ['"example.com"', '"https://"', '"https://a b.com"', '"https://1.2.3.4"']);
    check({ format: "email" }, ['"ada.l@example.com"', '"a@b-c.d1.org"'], [
      '"ada"',
      '"a@b"',
      '"a@no--t.org"',
      '"a@b.17"',
    ]);
  });
});

describe("a text of several patterns", () => {
  test("matches all of them: a pattern, a format, and how long it may be", () => {
    check({ pattern: "^a+$", maxLength: 3 }, ['"a"', '"aaa"'], ['"aaaa"', '""']);
    check({ pattern: "b", minLength: 2, maxLength: 3 }, ['"ab"', '"🌳b"', '"b\\"\\n"'], [
      '"b"',
      '"abcd"',
      '"aa"',
    ]);
    check({ pattern: "^a", minLength: 3 }, ['"abc"', '"a🌳🌳🌳"'], ['"a🌳"', '"bcd"']);
    check({ format: "date", pattern: "^2" }, ['"2024-01-31"'], ['"1999-01-01"', '"2024-02-31"']);
    check({ pattern: "^[a-z]*$", maxLength: 5000 }, [`"${"a".repeat(1000)}"`], ['"A"']);
    check({ format: "ipv4", maxLength: 8 }, ['"1.2.3.44"'], ['"10.2.3.44"']);
  });

  test("takes a pattern's word for a format that JSON Schema does not know", () => {
    check({ format: "starts_with", pattern: "^ab" }, ['"abc"'], ['"bc"']);
  });

  test("matches what allOf adds, where it is said of strings alone", () => {
    check({ type: "string", maxLength: 3, allOf: [{ pattern: "\\d" }, { pattern: "[a-z]" }] }, [
      '"1a"',
      '"b 2"',
    ], ['"12"', '"ab"', '"ab12"', "1"]);
    check(
      { allOf: [{ type: "string", maxLength: 3 }, { minLength: 2 }, { title: "x" }] },
      ['"ab"'],
      [
        '"a"',
        '"abcd"',
      ],
    );
    check({ allOf: [{ pattern: "^2" }, { format: "date" }] }, ['"2024-01-31"'], ['"1999-01-01"']);
  });

  test("may be of many lengths beside one pattern: those that are too much have fewer characters", () => {
    for (
      const lengths of [[254, 100, 320, 64], [64, 65, 66, 67, 68, 69, 70, 71], [1000, 900, 800]]
    ) {
      const properties = Object.fromEntries(
        lengths.map((most) => [`of${most}`, z.toJSONSchema(z.email().max(most))]),
      );
      const written = Object.keys(properties).map((name) => `"${name}":"ada.lovelace@example.com"`);
      check({ properties, required: Object.keys(properties) }, [`{${written.join(",")}}`], [
        `{${written.slice(1).join(",")}}`,
      ]);
    }
  });

  test("is what zod asks for", () => {
    const next = uniformNumbers(3);
    for (
      const form of [
        z.email(),
        z.email().max(254),
        z.uuid(),
        z.iso.date(),
        z.iso.datetime({ offset: true }),
        z.ipv4(),
        z.ipv6(),
        z.url(),
        z.httpUrl(),
        z.url().max(60),
        z.string().startsWith("ab").max(9),
        z.string().regex(/^[a-z]+-[0-9]+$/).min(5).max(1000),
        z.cuid2(),
        z.nanoid(),
        z.e164(),
        z.record(z.string(), z.email()),
        z.string().startsWith("a").endsWith("z").max(6),
        z.string().regex(/\d/).regex(/[a-z]/).regex(/[A-Z]/).min(8).max(20),
        z.email().includes("x").max(20),
      ]
    ) {
      const schema = z.toJSONSchema(form);
      const texts = Array.from({ length: 12 }, () => babble(constraint({ schema }), next))
        .filter((text) => text !== undefined);
      expect(texts.length).toBeGreaterThan(6);
      for (const text of texts) {
        expect([text, form.safeParse(JSON.parse(text)).success]).toEqual([text, true]);
      }
    }
  });
});
