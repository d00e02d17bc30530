/** Perplexity by an engine's logits, against its definition. @module */
import { expect, test } from "bun:test";
import type { EngineModel, Sequence } from "../../src/engine/model.ts";
import { Model } from "../../src/generate/model.ts";
import { perplexityOf } from "../../src/generate/perplexity.ts";
import { babbler } from "./support.ts";

const vocabulary = 5;
const row = (token: number) => [0, 1, 2, 3, 4].map((id) => Math.sin(7 * token + id) * 3);
/** An engine whose logits hang on a token alone, and how many of its sequences are open. */
function engineOfRows() {
  const open = { count: 0 };
  const engine = {
    info: { ...babbler().info, vocabulary },
    open: () => {
      open.count++;
      return {
        run: (tokens: ArrayLike<number>) =>
          Promise.resolve(Float32Array.from(Array.from(tokens).flatMap(row))),
        close: () => void open.count--,
      } as unknown as Sequence;
    },
  } as unknown as EngineModel;
  return { engine, open };
}

test("perplexity is of all tokens of a window but its first, a mean over windows of means", async () => {
  const { engine, open } = engineOfRows();
  const windows = [[0, 1, 4, 2], [3, 3, 0]];
  const loss = (window: number[]) => {
    const losses = window.slice(1).map((next, t) => {
      const logits = row(window[t]);
      return Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)) - logits[next];
    });
    return losses.reduce((a, b) => a + b) / losses.length;
  };
  const expected = Math.exp((loss(windows[0]) + loss(windows[1])) / 2);
  const found = await perplexityOf(engine, windows.map((window) => Int32Array.from(window)));
  expect(found).toBeCloseTo(expected, 5);
  expect(open.count).toBe(0);
});

test("perplexity of a text that is shorter than a usual window takes all of it as one", async () => {
  const { engine } = engineOfRows();
  const info = { ...engine.info, name: "rows", why: "it is a test", loadSeconds: 0 };
  const model = new Model({ engine, text: undefined, info, dispose: () => {} });
  const tokens = Int32Array.of(0, 1, 4, 2, 3, 3);
  expect(await model.perplexity(tokens)).toBe(await perplexityOf(engine, [tokens]));
});
