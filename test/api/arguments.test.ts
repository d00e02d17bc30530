/** What functions of the library say to who hands over nothing, as scripts without types do. @module */
import { expect, test } from "bun:test";
import { evaluate, inspect, load, prune } from "../../mod.ts";
import { rejectionOf } from "../checkpoint/support.ts";

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
