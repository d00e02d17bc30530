import { describe, expect, test } from "bun:test";
import { hexOf, sha256Of } from "../../src/platform/sha256.ts";

describe("the SHA-256 of bytes in memory", () => {
  test("is the one that FIPS 180-2 gives for its example", async () => {
    const bytes = new TextEncoder().encode("abc");
    expect(await sha256Of(bytes)).toBe(
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
  });

  test("is that of a part of a buffer where a part is given, as crypto.subtle has it", async () => {
    const all = Uint8Array.from({ length: 70_000 }, (_, i) => (i * 31) >> 3);
    for (const [from, to] of [[0, 0], [5, 6], [63, 127], [1, 65_537], [0, all.length]]) {
      const part = all.subarray(from, to);
      const digest = await crypto.subtle.digest("SHA-256", part);
      expect(await sha256Of(part)).toBe(hexOf(new Uint8Array(digest)));
    }
  });
});
