/**
 * States of searches read from files, damaged ones among them. The changes of the last test follow from a
 * seed, which every failure names: `ESPALIER_FUZZ_SEED=… bun test search_state` repeats it.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseOptions, type PruneOptions, pruneSchema } from "../../src/api/options.ts";
import { SearchState, type SearchSubject, subjectOf } from "../../src/api/search_state.ts";
import { OpenModel } from "../../src/api/shared.ts";
import { SearchStateError } from "../../src/errors.ts";
import { Workshop } from "../checkpoint/support.ts";
import { caseCount, type Dice, fuzz, must } from "../support/fuzz.ts";
import { fromRoot } from "../support/paths.ts";

const CASES = caseCount(20_000, 2_000);

const workshop = new Workshop();
afterAll(() => workshop.remove());

const ABOUT: SearchSubject = { model: "abc", sparsity: 0.7, beta: null };
const open = (path: string, about = ABOUT, force = false) =>
  new SearchState(path, about, { force });

/** A file with three losses, two slopes and two trials. */
function written(): string {
  const path = join(workshop.folder(), "state.json");
  const state = open(path);
  state.keepTrial("uniform", [0.3, 0.3], 51.5);
  state.keepTrial("owl", [0.4, 0.2], Infinity);
  for (const answer of [3.25, Float64Array.of(0.5, -0.25), Infinity, 2.5]) state.keep(answer);
  return path;
}

describe("the state of a search", () => {
  test("gives back what was measured, in order, infinite losses and slopes too", () => {
    const state = open(written());
    expect(state.known).toBe(4);
    expect([state.replay(), state.replay(2), state.replay(), state.replay()]).toEqual(
      [3.25, Float64Array.of(0.5, -0.25), Infinity, 2.5],
    );
    expect(state.known).toBe(0);
    expect(state.trial("uniform", [0.3, 0.3])).toBe(51.5);
    expect(state.trial("owl", [0.4, 0.2])).toBe(Infinity);
    expect(state.trial("owl", [0.4, 0.3])).toBeUndefined();
    expect(state.trial("dlp", [0.4, 0.2])).toBeUndefined();
  });

  test("is about all that its answers hang on: how head and weights are rounded, too", () => {
    const opened = new OpenModel(fromRoot("test/fixtures/architectures/llama"));
    const windows = { windows: [], length: 2, sha256: "abc" };
    const about = (options: Partial<PruneOptions>) => {
      const settings = parseOptions(pruneSchema, { model: "m", ...options });
      return JSON.stringify(subjectOf(settings, opened, windows, 0.7, "wasm"));
    };
    const all: Partial<PruneOptions>[] = [
      {},
      { head: "int4" },
      { values: "int4" },
      { values: "int4", head: "int4" },
      { values: "int4", group: 64 },
      { method: "espalier" },
      { skip: ["*.down_proj"] },
    ];
    expect(new Set(all.map(about)).size).toBe(all.length);
    opened.checkpoint.close();
  });

  test("goes on where it was, and leaves nothing beside its file", () => {
    const path = written();
    const state = open(path);
    for (const slopes of [undefined, 2, undefined, undefined]) state.replay(slopes);
    state.keep(2.25);
    expect(open(path).known).toBe(5);
    expect(readdirSync(join(path, ".."))).toEqual(["state.json"]);
    state.remove();
    expect(existsSync(path)).toBe(false);
  });

  test("of another search is refused with what is other, and replaced where that is wanted", () => {
    const path = written();
    const other = { ...ABOUT, sparsity: 0.5, beta: 0.01 };
    expect(() => open(path, other)).toThrow(SearchStateError);
    expect(() => open(path, other)).toThrow("another sparsity, beta");
    expect(() => open(path, { model: "abc" })).toThrow("another sparsity, beta");
    expect(open(path, other, true).known).toBe(0);
    expect(open(path).known).toBe(4);
  });

  test("is never written over what is no state of a search", () => {
    const path = workshop.fresh("notes.txt");
    writeFileSync(path, "notes");
    for (const force of [false, true]) {
      expect(() => open(path, ABOUT, force)).toThrow(SearchStateError);
    }
    expect(readFileSync(path, "utf8")).toBe("notes");
  });

  test("that measures otherwise now is refused", () => {
    const state = open(written());
    state.assertMeasured(3.25, 3.25001);
    state.assertMeasured(Infinity, Infinity);
    for (const [recorded, measured] of [[3.25, 3.3], [2, Infinity], [Infinity, 2], [2, NaN]]) {
      expect(() => state.assertMeasured(recorded, measured)).toThrow(SearchStateError);
    }
  });

  test("whose answers are of another kind than what is asked is refused", () => {
    expect(() => open(written()).replay(2)).toThrow(SearchStateError);
    for (const slopes of [undefined, 1, 3]) {
      const state = open(written());
      state.replay();
      expect(() => state.replay(slopes)).toThrow(SearchStateError);
    }
  });

  test("is kept nowhere where no file is named", () => {
    const state = new SearchState(undefined, ABOUT, { force: false });
    state.keep(1);
    state.remove();
    expect(state.known).toBe(0);
  });

  test("is refused when it is something else", () => {
    const whole = JSON.parse(readFileSync(written(), "utf8"));
    const path = join(workshop.folder(), "state.json");
    const cases = [
      "",
      "{",
      "\xff",
      "null",
      "[]",
      JSON.stringify({ ...whole, format: 1 }),
      JSON.stringify({ ...whole, answers: [1, "2"] }),
      JSON.stringify({ ...whole, answers: [-1] }),
      JSON.stringify({ ...whole, answers: [[1, null]] }),
      JSON.stringify({ ...whole, answers: { length: 9 } }),
      JSON.stringify({ ...whole, trials: [{ allocation: "uniform" }] }),
      JSON.stringify({ ...whole, more: 1 }),
      JSON.stringify({ ...whole, about: { ...whole.about, model: {} } }),
    ];
    for (const text of cases) {
      writeFileSync(path, text, "latin1");
      expect(() => open(path)).toThrow(SearchStateError);
    }
    expect(() => open(join(path, ".."))).toThrow(SearchStateError);
  });

  test("changed at random is read or refused, and what is read are losses and slopes", () => {
    const whole = readFileSync(written());
    const path = join(workshop.folder(), "state.json");
    const endings = fuzz(CASES, (dice) => {
      writeFileSync(path, changed(whole, dice));
      const state = open(path);
      for (let i = 0; state.known > 0; i++) {
        const answer = state.replay(i === 1 ? 2 : undefined);
        if (typeof answer === "number") {
          must(answer >= 0, "a loss is a number that is not negative");
        } else must(answer.every(Number.isFinite), "slopes are numbers");
      }
    });
    expect(endings.get("SEARCH_STATE_UNFIT")).toBeGreaterThan(CASES / 4);
  }, 120_000);
});

/** Some bytes replaced, removed, doubled or put in from elsewhere. */
function changed(whole: Uint8Array, dice: Dice): Uint8Array {
  let bytes = [...whole];
  for (let i = 0; i <= dice.below(3); i++) {
    const at = dice.below(bytes.length);
    const length = dice.below(12);
    const piece = dice.pick([
      [],
      bytes.slice(at, at + 2 * length),
      [dice.below(256)],
      [...new TextEncoder().encode(
        dice.pick(["1e999", "-1", "null", "[", "}", '"', "{}", "1e-400"]),
      )],
    ]);
    bytes = [...bytes.slice(0, at), ...piece, ...bytes.slice(at + length)];
  }
  return Uint8Array.from(bytes);
}
