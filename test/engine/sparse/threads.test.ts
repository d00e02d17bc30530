/**
 * Threads of the engine, where other libraries have changed the runtime.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { SparseWorkshop, withSparse } from "./engines.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

describe("threads of the engine", () => {
  test("start where something has replaced the runtime's Worker", async () => {
    const folder = await workshop.compiled("tiny", { values: "int8" });
    const logits = () =>
      withSparse(
        folder,
        { threads: 2 },
        async (model) => (await model.open().run([1, 2, 3])).slice(),
      );
    const expected = await logits();
    const { Worker } = globalThis;
    // As onnxruntime-web does in Bun: Node's Worker takes no blob: addresses.
    globalThis.Worker = class {
      constructor() {
        throw new TypeError("must be an absolute path");
      }
    } as unknown as typeof Worker;
    try {
      expect(await logits()).toEqual(expected);
    } finally {
      globalThis.Worker = Worker;
    }
  });
});
