import { expect, test } from "bun:test";
import { headPieces } from "../../src/engine/ort/head.ts";
import { load } from "../support/models.ts";

test("a piece of the head is no larger than it may be, nor are its logits, for few tokens and for many", async () => {
  const { model, close } = await load("test/fixtures/architectures/llama", "wasm");
  try {
    const { rows, columns } = model.sections.head;
    const bytes = 4 * columns * 20;
    for (const tokens of [1, columns, 10 * columns]) {
      let seen = 0;
      for (const { first, size, weight } of headPieces(model, tokens, bytes)) {
        expect(first).toBe(seen);
        expect(weight.byteLength).toBeLessThanOrEqual(bytes);
        expect(4 * size * tokens).toBeLessThanOrEqual(bytes);
        seen += size;
      }
      expect(seen).toBe(rows);
    }
  } finally {
    await close();
  }
});
