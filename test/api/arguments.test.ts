/** What functions of the library say to who hands over nothing, as scripts without types do. @module */
import { expect, test } from "bun:test";
import { bench, compile, evaluate, expand, inspect, load, prune, pull, verify } from "../../mod.ts";
import { rejectionOf } from "../checkpoint/support.ts";
import { generate } from "../../src/generate/generate.ts";
import { babbler, text } from "../generate/support.ts";
import { fromRoot } from "../support/paths.ts";

test("nothing in place of a model, or of options, is wrong usage", async () => {
  const functions = { evaluate, inspect, load, prune };
  for (const [name, call] of Object.entries(functions)) {
    for (const given of [undefined, null, {}, "", 7, { files: undefined }, { files: null }]) {
      const wrong = call as unknown as (given: unknown) => Promise<unknown>;
      const { code } = await rejectionOf((async () => await wrong(given))());
      expect([name, given, code]).toEqual([name, given, "USAGE"]);
    }
  }
});

test("what stops work must be able to, and who is told of it a function", async () => {
  const model = fromRoot("examples/tiny");
  const reading = `${model}/evaluation.txt`;
  const calls: Record<string, (hooks: object) => unknown> = {
    bench: (hooks) => bench(model, {}, hooks),
    compile: (hooks) => compile({ model }, hooks),
    evaluate: (hooks) => evaluate({ model, text: reading }, hooks),
    expand: (hooks) => expand({ model }, hooks),
    load: (hooks) => load(model, {}, hooks),
    prune: (hooks) => prune({ model, dryRun: true, allocation: "uniform" }, hooks),
    pull: (hooks) => pull({ model: "hf:a/b" }, hooks),
    verify: (hooks) => verify({ model, against: model, text: reading }, hooks),
  };
  const controller = new AbortController();
  const wrong = [null, 5, { signal: controller }, { signal: 5 }, { signal: null }, {
    onProgress: "log",
  }];
  for (const [name, call] of Object.entries(calls)) {
    for (const hooks of wrong) {
      const { code } = await rejectionOf((async () => await call(hooks as object))());
      expect([name, hooks, code]).toEqual([name, hooks, "USAGE"]);
    }
  }
  const signal = controller as unknown as AbortSignal;
  const { code } = await rejectionOf(
    (async () => await generate(babbler(), text, "a", { signal }).next())(),
  );
  expect(code).toBe("USAGE");
});
