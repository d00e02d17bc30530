import { describe, expect, test } from "bun:test";
import { nameMatcher } from "../../src/prune/skip.ts";

describe("names to skip", () => {
  const name = "model.layers.3.mlp.down_proj.weight";
  for (
    const pattern of ["down_proj", "mlp.down_proj", "*.down_proj", "layers.3.*", "layers.?.mlp.*"]
  ) {
    test(`${pattern} fits ${name}`, () => expect(nameMatcher([pattern])(name)).toBe(true));
  }
  for (const pattern of ["proj", "own_proj", "layers.4.*", "mlp", "down_proj.*", "layers[3].*"]) {
    test(`${pattern} does not fit ${name}`, () => expect(nameMatcher([pattern])(name)).toBe(false));
  }
});
