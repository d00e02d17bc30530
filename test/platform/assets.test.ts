import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readAsset } from "../../src/platform/assets.ts";
import { rejectionOf } from "../checkpoint/support.ts";

describe("a file of the program that cannot be read", () => {
  const { fetch } = globalThis;
  let answer: () => Promise<Response>;
  beforeAll(() =>
    void (globalThis.fetch = Object.assign(() => answer(), { preconnect: () => {} }))
  );
  afterAll(() => void (globalThis.fetch = fetch));
  const url = new URL("https://x.example/wasm/simd.wasm?key=secret");

  test("is named, without its query, with what the server says", async () => {
    answer = () => Promise.resolve(new Response("", { status: 503 }));
    const { code, message } = await rejectionOf(readAsset(url));
    expect(code).toBe("FILE_UNREADABLE");
    expect(message).toBe("cannot read https://x.example/wasm/simd.wasm: the server says 503");
  });

  test("is named where there is no network, and where there is no such file", async () => {
    answer = () => Promise.reject(new TypeError("Failed to fetch"));
    const { code, message } = await rejectionOf(readAsset(url));
    expect(code).toBe("FILE_UNREADABLE");
    expect(message).toContain("simd.wasm: Failed to fetch");
    const missing = await rejectionOf(readAsset(new URL("./none.wasm", import.meta.url)));
    expect(missing.code).toBe("FILE_UNREADABLE");
    expect(missing.message).toContain("none.wasm");
  });

  test("is read where there is an answer", async () => {
    answer = () => Promise.resolve(new Response(Uint8Array.of(1, 2, 3)));
    expect(await readAsset(url)).toEqual(Uint8Array.of(1, 2, 3));
  });
});
