/**
 * Threads of the engine, where other libraries have changed the runtime, and the memory that they share.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { MemoryBudgetError } from "../../../src/errors.ts";
import { EngineMemory, MemoryBudget } from "../../../src/engine/sparse/memory.ts";
import { setUp } from "../../../src/engine/sparse/setup.ts";
import { prefersFixedMemory } from "../../../src/platform/machine.ts";
import { runtime } from "../../../src/platform/runtime.ts";
import { fromRoot } from "../../support/paths.ts";
import { SparseWorkshop, withSparse } from "./engines.ts";

const workshop = new SparseWorkshop();
afterAll(() => workshop.remove());

/** Logits of a small model, on two threads. */
async function logits(): Promise<Float32Array> {
  const folder = await workshop.compiled("tiny", { values: "int8" });
  return await withSparse(
    folder,
    { threads: 2 },
    async (model) => (await model.open().run([1, 2, 3])).slice(),
  );
}

describe("threads of the engine", () => {
  test("start where something has replaced the runtime's Worker", async () => {
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

  // Deno's Worker cannot be told to keep no process.
  test.if(runtime().name === "bun")("keep no process whose model nobody has closed", async () => {
    const folder = await workshop.compiled("tiny", { values: "int8" });
    const script = `
      const { load } = await import(${JSON.stringify(pathToFileURL(fromRoot("mod.ts")).href)});
      const background = process.argv.at(-1) === "background";
      const model = await load(${JSON.stringify(folder)}, { threads: 2, background });
      const sequence = model.open();
      for (let token = 1; token < 9; token++) await sequence.run([token]);
      console.log(sequence.length);
    `;
    for (const where of ["background", "foreground"]) {
      const child = spawn(process.execPath, ["-e", script, where], { timeout: 60_000 });
      let said = "";
      child.stdout.on("data", (text) => said += text);
      const code = await new Promise((resolve) => child.on("close", resolve));
      expect({ where, code, said }).toEqual({ where, code: 0, said: "8\n" });
    }
  }, 150_000);
});

describe("the memory that threads share", () => {
  test("has its whole size from the beginning where addresses are checked by instructions", async () => {
    for (const [threads, background] of [[1, false], [2, false], [1, true]] as const) {
      const { memory, team } = await setUp({ threads, background, memory: 3e6 });
      const isFixed = prefersFixedMemory() && (threads > 1 || background);
      expect(memory.pages).toBe(isFixed ? Math.ceil(3e6 / 65536) : undefined);
      expect(memory.memory.buffer.byteLength < 3e6).toBe(!isFixed);
      team.stop();
    }
  });

  test("grows where the machine does not promise all of it at once", async () => {
    const expected = await logits();
    const { Memory } = WebAssembly;
    let refused = 0;
    WebAssembly.Memory = class extends Memory {
      constructor(descriptor: WebAssembly.MemoryDescriptor) {
        if (descriptor.initial > 1) {
          refused++;
          throw new RangeError("could not allocate memory");
        }
        super(descriptor);
      }
    };
    try {
      expect(await logits()).toEqual(expected);
    } finally {
      WebAssembly.Memory = Memory;
    }
    expect(refused).toBe(prefersFixedMemory() ? 1 : 0);
  });

  test("of a whole size hands out no more than it may", () => {
    const memory = EngineMemory.fixed(new MemoryBudget(1e6))!;
    expect(memory.pages).toBe(16);
    // The kernels' own words lie in the first.
    expect(EngineMemory.fixed(new MemoryBudget(0))!.pages).toBe(1);
    const address = memory.reserve(9e5);
    memory.bytes(address, 9e5).fill(7);
    expect(() => memory.reserve(1e5)).toThrow(MemoryBudgetError);
    expect(() => memory.reserve(1e5)).toThrow("may have 1 MB");
    memory.reserve(memory.left - 64);
    expect(memory.bytes(address, 9e5).every((byte) => byte === 7)).toBe(true);
  });
});
