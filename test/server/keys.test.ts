/** Keys and the file of their hashes. @module */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { UsageError } from "../../src/errors.ts";
import { makeKey, parseKeys } from "../../src/server/keys.ts";

const HASH = "0123456789abcdef".repeat(4);

describe("a key", () => {
  test("is 192 random bits, and its line the SHA-256 hash of it", async () => {
    const made = await Promise.all(Array.from({ length: 50 }, () => makeKey("till-3")));
    expect(new Set(made.map(({ key }) => key)).size).toBe(50);
    for (const { key, line } of made) {
      expect(key).toMatch(/^esp-[0-9a-f]{48}$/);
      expect(line).toBe(`till-3 ${createHash("sha256").update(key).digest("hex")}`);
    }
  });
});

describe("a key file", () => {
  test("has a line a key; blank lines and those that begin with # say nothing", async () => {
    const made = await makeKey("b.c@d-e_f");
    const text = `# who may come\r\n\n  a\t${HASH.toUpperCase()}  \r\n   # ${HASH}\n${made.line}`;
    expect(parseKeys(text, "keys.txt")).toEqual([
      { name: "a", sha256: HASH },
      { name: "b.c@d-e_f", sha256: made.line.split(" ")[1] },
    ]);
  });

  test("that is wrong is an error that names file and line, and tells nothing of what is there", () => {
    const cases: [text: string, line: number][] = [
      [`a ${HASH}\nesp-0123`, 2],
      [`\n\na ${HASH.slice(1)}`, 3],
      [`a ${HASH}0`, 1],
      [`a ${HASH} more`, 1],
      [`two words ${HASH}`, 1],
      [`${HASH}`, 1],
      [`${"n".repeat(65)} ${HASH}`, 1],
      [`a/b ${HASH}`, 1],
      [`a ${HASH.replace("0", "g")}`, 1],
      [`a ${HASH} # till`, 1],
    ];
    for (const [text, line] of cases) {
      let thrown: unknown;
      try {
        parseKeys(text, "some/keys.txt");
      } catch (error) {
        thrown = error;
      }
      expect(thrown).toBeInstanceOf(UsageError);
      const { message } = thrown as Error;
      expect(message).toContain(`some/keys.txt, line ${line}:`);
      expect(message).not.toContain("esp-");
      expect(message).not.toContain(HASH.slice(1, 9));
    }
  });

  test("without a key is an error: nobody could come in", () => {
    for (const text of ["", "\n# nothing\n"]) {
      expect(() => parseKeys(text, "keys.txt")).toThrow("keys.txt holds no key");
    }
  });
});
