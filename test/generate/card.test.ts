/** What a compiled model is said to be made of. @module */
import { expect, test } from "bun:test";
import { filesSource } from "../../src/engine/source.ts";
import { readCard } from "../../src/generate/card.ts";

test("a card adds blocks up in their order, and counts all that is no linear as it is", async () => {
  const linear = (block: number, sparsity: number) => ({
    name: `model.layers.${block}.mlp.up_proj.weight`,
    ...{ shape: [10, 20], format: block === 0 ? "nm" : "csr", sparsity, bytes: 50 + block },
  });
  const record = {
    kind: "compiled",
    options: { values: "int8" },
    linears: [linear(10, 0.5), linear(2, 0.25), linear(0, 0.75), linear(0, 0.25)],
    bytes: { linears: 212, graph: 1000, data: 5000 },
  };
  const source = filesSource({ "espalier.json": new TextEncoder().encode(JSON.stringify(record)) });
  const rest = 1000 + 5000 - 212;
  expect(await readCard(source)).toEqual({
    parameters: 800,
    sparsity: 0.4375,
    values: "int8",
    formats: { nm: 2, csr: 2 },
    blocks: [
      { index: 0, sparsity: 0.5, bytes: 100 },
      { index: 2, sparsity: 0.25, bytes: 52 },
      { index: 10, sparsity: 0.5, bytes: 60 },
    ],
    dense: { f16: rest + 1600, int8: rest + 800 + 160, int4: rest + 450 },
  });
});
