import { describe, expect, test } from "bun:test";
import process from "node:process";
import { collectGarbage, collectorOf, giveBack } from "../../src/platform/garbage.ts";
import { sleep } from "../../src/platform/sleep.ts";

/** References to many objects that nobody else holds. */
function abandoned(): WeakRef<Uint8Array>[] {
  return Array.from({ length: 500 }, () => new WeakRef(new Uint8Array(1000)));
}

/** Collects where the process says this of its memory. */
function collectWhere(memoryUsage: () => unknown): void {
  const { memoryUsage: own } = process;
  process.memoryUsage = memoryUsage as typeof own;
  try {
    collectGarbage();
  } finally {
    process.memoryUsage = own;
  }
}

describe("collecting garbage", () => {
  test("gives back what nobody holds, at once", async () => {
    const references = abandoned();
    // Who has looked at an object keeps it until the next job.
    await sleep(1);
    // Other tests may have left more objects in this process than it is worth to look at.
    collectWhere(() => ({ heapUsed: 1 << 20 }));
    const left = references.filter((reference) => reference.deref() !== undefined);
    expect(left.length).toBeLessThan(references.length / 10);
  });

  test("keeps what somebody holds, and leaves globals as they are", async () => {
    const names = Object.getOwnPropertyNames(globalThis);
    const kept = { deep: [new Uint8Array([1, 2, 3])] };
    const reference = new WeakRef(kept.deep[0]);
    await sleep(1);
    collectGarbage();
    collectGarbage();
    expect(reference.deref()).toEqual(new Uint8Array([1, 2, 3]));
    expect(kept.deep.length).toBe(1);
    expect(Object.getOwnPropertyNames(globalThis)).toEqual(names);
  });

  test("does not need to know how much there is: without /proc that is an error", async () => {
    const references = abandoned();
    await sleep(1);
    collectWhere(() => {
      throw new Error("ENOENT: no such file or directory, uv_resident_set_memory");
    });
    const left = references.filter((reference) => reference.deref() !== undefined);
    expect(left.length).toBeLessThan(references.length / 10);
  });

  test("is not to be had where the runtime has no way to ask", () => {
    expect(collectorOf({})).toBeUndefined();
    expect(collectorOf({ process: {} })).toBeUndefined();
    expect(collectorOf({ process: { getBuiltinModule: () => undefined } })).toBeUndefined();
    const fail = () => {
      throw new Error("known by name only");
    };
    const getBuiltinModule = () => ({ setFlagsFromString: fail, runInNewContext: fail });
    expect(collectorOf({ process: { getBuiltinModule } })).toBeUndefined();
  });
});

describe("giving a buffer back", () => {
  test("leaves nothing of it, where the runtime has a way, and does nothing where it has none", () => {
    const buffer = new ArrayBuffer(1000);
    giveBack(buffer);
    expect(buffer.byteLength).toBe("transfer" in buffer ? 0 : 1000);
    const old = { byteLength: 1000 } as ArrayBuffer;
    giveBack(old);
    expect(old.byteLength).toBe(1000);
  });
});
