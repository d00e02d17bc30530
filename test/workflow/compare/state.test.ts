/** The file in which a comparison keeps what it has measured. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CompareState, keyOf, type MeasuredVariant } from "../../../src/workflow/compare/state.ts";
import { thrownBy, Workshop } from "../../checkpoint/support.ts";
import { fuzz, must } from "../../support/fuzz.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const VARIANT: MeasuredVariant = {
  name: "8:16:int8",
  kind: "sparse",
  values: "int8",
  pattern: "8:16",
  method: "wanda",
  allocation: "uniform",
  sparsity: 0.5,
  bytes: 99_000_000,
  bytesPerWeight: 0.63,
  perplexity: 46.2,
  tokensPerSecond: 80,
  referenceTokensPerSecond: 60,
  speedup: 1.33,
  engine: "sparse",
  device: "WebAssembly (relaxed), 2 threads",
};
const KEY = keyOf({ model: "one" });

describe("the state file", () => {
  test("gives back what was put in, by all that it hangs on", () => {
    const path = join(workshop.folder(), "state.json");
    const state = CompareState.open(path, { fresh: false });
    expect(state.get(KEY)).toBeUndefined();
    state.set(KEY, VARIANT);
    expect(CompareState.open(path, { fresh: false }).get(KEY)).toEqual(VARIANT);
    expect(CompareState.open(path, { fresh: false }).get(keyOf({ model: "two" }))).toBeUndefined();
    expect(CompareState.open(path, { fresh: true }).get(KEY)).toBeUndefined();
    // Nothing half-written lies beside it.
    expect(readdirSync(join(path, ".."))).toEqual(["state.json"]);
  });

  test("keeps what was measured under other options", () => {
    const path = join(workshop.folder(), "state.json");
    CompareState.open(path, { fresh: false }).set(KEY, VARIANT);
    const other = keyOf({ model: "two" });
    CompareState.open(path, { fresh: false }).set(other, { ...VARIANT, bytes: 1 });
    const state = CompareState.open(path, { fresh: false });
    expect([state.get(KEY)?.bytes, state.get(other)?.bytes]).toEqual([VARIANT.bytes, 1]);
  });

  test("keeps what another process has measured meanwhile", () => {
    const path = join(workshop.folder(), "state.json");
    const [one, two] = [false, false].map((fresh) => CompareState.open(path, { fresh }));
    const other = keyOf({ model: "two" });
    one.set(KEY, VARIANT);
    two.set(other, { ...VARIANT, bytes: 1 });
    // Both measured it: what this process has found it keeps for its own.
    two.set(KEY, { ...VARIANT, bytes: 2 });
    one.set(keyOf({ model: "three" }), VARIANT);
    const state = CompareState.open(path, { fresh: false });
    expect([state.get(KEY)?.bytes, state.get(other)?.bytes]).toEqual([VARIANT.bytes, 1]);
    expect(state.get(keyOf({ model: "three" }))).toEqual(VARIANT);
  });

  test("that is measured anew keeps what is not measured again", () => {
    const path = join(workshop.folder(), "state.json");
    const other = keyOf({ model: "two" });
    for (const key of [KEY, other]) CompareState.open(path, { fresh: false }).set(key, VARIANT);
    const fresh = CompareState.open(path, { fresh: true });
    fresh.set(KEY, { ...VARIANT, bytes: 1 });
    expect([fresh.get(KEY)?.bytes, fresh.get(other)]).toEqual([1, undefined]);
    const state = CompareState.open(path, { fresh: false });
    expect([state.get(KEY)?.bytes, state.get(other)?.bytes]).toEqual([1, VARIANT.bytes]);
  });

  test("that is something else is named with what to do, and left as it is", () => {
    const path = join(workshop.folder(), "state.json");
    for (
      const text of [
        "",
        '{"format":1,"kind',
        "[".repeat(9999),
        "{}",
        "[]",
        "null",
        '{"format":1,"kind":"compiled","variants":{}}',
      ]
    ) {
      writeFileSync(path, text);
      const error = thrownBy(() => CompareState.open(path, { fresh: true }));
      expect(error.code).toBe("COMPARE_STATE_INVALID");
      expect(error.message).toContain("--state");
      expect(readFileSync(path, "utf8")).toBe(text);
    }
  });

  test("that is damaged ends in an error of ours, or in variants of the right form", () => {
    const path = join(workshop.folder(), "state.json");
    CompareState.open(path, { fresh: false }).set(KEY, VARIANT);
    const whole = new Uint8Array(readFileSync(path));
    const endings = fuzz(500, (dice) => {
      const bytes = whole.slice(0, dice.below(6) === 0 ? dice.below(whole.length) : undefined);
      for (let i = dice.below(3); i > 0 && bytes.length > 0; i--) {
        bytes[dice.below(bytes.length)] = 32 + dice.below(96);
      }
      writeFileSync(path, bytes);
      const found = CompareState.open(path, { fresh: false }).get(KEY);
      if (!found) return;
      must(Number.isInteger(found.bytes) && found.bytes >= 0, `bytes ${found.bytes}`);
      must(found.sparsity >= 0 && found.sparsity <= 1, `sparsity ${found.sparsity}`);
      must(found.perplexity === undefined || found.perplexity > 0, `${found.perplexity}`);
    });
    expect([...endings.keys()].sort())
      .toEqual(["COMPARE_STATE_INVALID", "result"]);
  });
});
