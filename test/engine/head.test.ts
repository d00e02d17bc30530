import { expect, test } from "bun:test";
import { headPieces, logits, negativeLogLikelihoods } from "../../src/engine/ort/head.ts";
import { lossesUnder, teacherOf } from "../../src/engine/ort/soft_head.ts";
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

/** log of the chances that logits give, in float64. */
function logChances(row: Float32Array): Float64Array {
  const logits = Float64Array.from(row);
  const top = Math.max(...logits);
  const sum = top + Math.log(logits.reduce((all, logit) => all + Math.exp(logit - top), 0));
  return logits.map((logit) => logit - sum);
}

test("losses by a head in pieces are those of its logits, capped or not, with a bias or without", async () => {
  for (const name of ["llama", "gemma2", "phi"]) {
    const { model, spec, close } = await load(`test/fixtures/architectures/${name}`, "wasm");
    try {
      const { columns } = model.sections.head;
      const count = 6;
      const wave = (by: number) =>
        Float32Array.from({ length: count * columns }, (_, i) => 2 * Math.sin(i * by));
      const [own, others] = [wave(0.7), wave(1.3)];
      const targets = Int32Array.from({ length: count }, (_, t) => (t * 97) % spec.vocabulary);
      const rowsOf = async (hidden: Float32Array) => {
        const all = await logits(model, hidden);
        return Array.from(
          { length: count },
          (_, t) => logChances(all.subarray(t * spec.vocabulary, (t + 1) * spec.vocabulary)),
        );
      };
      const [q, p] = [await rowsOf(own), await rowsOf(others)];
      const [found] = await negativeLogLikelihoods(model, [targets], () => Promise.resolve(own));
      const teacher = await teacherOf(model, [others]);
      const [{ soft, hard }] = await lossesUnder(model, [own], teacher, [targets]);
      for (let t = 0; t < count; t++) {
        const wanted = -q[t][targets[t]];
        const cross = -p[t].reduce((sum, log, id) => sum + Math.exp(log) * q[t][id], 0);
        expect(Math.abs(found[t] - wanted)).toBeLessThan(1e-4);
        expect(Math.abs(hard[t] - wanted)).toBeLessThan(1e-4);
        expect(Math.abs(soft[t] - cross)).toBeLessThan(1e-4);
      }
    } finally {
      await close();
    }
  }
});
