/**
 * The compiled kernels: those of the repository are what their sources give, they run on both kinds of
 * memory, and a build that computes wrong here is not taken.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import {
  assertKnowsPlace,
  type Build,
  BUILDS,
  chooseBuild,
  instantiate,
} from "../../../src/engine/sparse/kernels.ts";
import { forMemory, unshared } from "../../../src/engine/sparse/module_bytes.ts";
import { Workshop } from "../../checkpoint/support.ts";
import { rejectionOf, thrownBy } from "../../checkpoint/support.ts";
import { LONG } from "../../compile/support.ts";
import { fromRoot } from "../../support/paths.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const FOLDER = "src/engine/sparse/wasm";

function bytesOf(build: Build): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(fromRoot(`${FOLDER}/${build}.wasm`)));
}

/** The script that compiles them, which is one for Bun; nothing where its compiler is not installed. */
async function compiler(): Promise<typeof import("../../../scripts/build_kernels.ts") | undefined> {
  // What it gives does not depend on who runs it, and it takes a minute.
  if (!("Bun" in globalThis)) return undefined;
  try {
    return await import("../../../scripts/build_kernels.ts");
  } catch {
    return undefined;
  }
}

const script = await compiler();

test.if(script !== undefined)("the kernels are what their sources compile to", async () => {
  const built = await script!.buildKernels();
  expect([...built.keys()].sort()).toEqual([...BUILDS].sort());
  for (const build of BUILDS) {
    const same = Buffer.compare(built.get(build)!, bytesOf(build)) === 0;
    // If not: bun scripts/build_kernels.ts
    expect([build, same]).toEqual([build, true]);
  }
}, LONG);

/** Runs the check of products that every build has. */
function isRight(module: WebAssembly.Module, shared: boolean, pages?: number): boolean {
  const memory = new WebAssembly.Memory({ initial: pages ?? 1, maximum: pages ?? 65536, shared });
  const kernels = instantiate(module, memory);
  kernels.setUp();
  return kernels.isRight(4096) !== 0;
}

describe("kernels for a memory that is not shared", () => {
  for (const build of BUILDS) {
    test(`are those of ${build} with one flag less`, async () => {
      const bytes = bytesOf(build);
      const changed = unshared(bytes);
      const differences = [...bytes.keys()].filter((i) => bytes[i] !== changed[i]);
      expect(differences.length).toBe(1);
      expect(bytes[differences[0]] ^ changed[differences[0]]).toBe(2);
      // What was given is as it was.
      expect(Buffer.compare(bytes, bytesOf(build))).toBe(0);
      let module: WebAssembly.Module;
      try {
        module = await WebAssembly.compile(changed);
      } catch (error) {
        // A runtime without relaxed instructions.
        if (build === "simd") throw error;
        return;
      }
      expect(WebAssembly.Module.imports(module)).toMatchObject([{ kind: "memory" }]);
      if (build === "simd") expect(isRight(module, false)).toBe(true);
      // A module wants the kind of memory that it names.
      expect(() => isRight(module, true)).toThrow();
    });
  }

  test("are not made of bytes that are no kernels", () => {
    const empty = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
    expect(() => unshared(empty)).toThrow("damaged");
    for (let length = 0; length < 40; length++) {
      expect(() => unshared(bytesOf("simd").subarray(0, length))).toThrow("damaged");
    }
    expect(() => unshared(unshared(bytesOf("simd")))).toThrow("damaged");
  });
});

describe("kernels for a memory that does not grow", () => {
  for (const shared of [true, false]) {
    for (const pages of [1, 127, 128, 300, 16384]) {
      test(`are right on ${pages} pages, ${shared ? "" : "not "}shared, and on no other memory`, async () => {
        const bytes = bytesOf("simd");
        const module = await WebAssembly.compile(forMemory(bytes, { shared, pages }));
        expect(Buffer.compare(bytes, bytesOf("simd"))).toBe(0);
        expect(isRight(module, shared, pages)).toBe(true);
        expect(() => isRight(module, shared)).toThrow();
        expect(() => isRight(module, !shared, pages)).toThrow();
        if (pages > 1) expect(() => isRight(module, shared, pages - 1)).toThrow();
      });
    }
  }
});

describe("a build is chosen", () => {
  for (const shared of [true, false]) {
    test(`that runs right here, for memory that is ${shared ? "" : "not "}shared`, async () => {
      const { build, module } = await chooseBuild(shared);
      expect([...BUILDS]).toContain(build);
      expect(isRight(module, shared)).toBe(true);
      expect((await chooseBuild(shared, "simd")).build).toBe("simd");
    });
  }

  /** Dot products, and others of as many operands: what a processor that computes them wrong does. */
  const WRONG: Partial<Record<Build, [number[], number[]]>> = {
    // i16x8.relaxed_dot_i8x16_i7x16_s → i16x8.extmul_low_i8x16_s
    relaxed: [[0xfd, 0x92, 0x02], [0xfd, 0x9c, 0x01]],
    // i32x4.relaxed_dot_i8x16_i7x16_add_s → f32x4.relaxed_madd
    "relaxed-fused": [[0xfd, 0x93, 0x02], [0xfd, 0x85, 0x02]],
  };

  /** The module that chooses, with kernels of its own. */
  async function choiceOf(
    kernels: Partial<Record<Build, Uint8Array>>,
    root = workshop.folder(),
  ): Promise<typeof chooseBuild> {
    const engine = ["kernels.ts", "layout.ts", "module_bytes.ts"].map((file) =>
      `engine/sparse/${file}`
    );
    for (
      const file of [
        ...engine,
        "checks.ts",
        "errors.ts",
        "platform/assets.ts",
        "platform/builtin.ts",
      ]
    ) {
      const to = join(root, "src", file);
      mkdirSync(dirname(to), { recursive: true });
      cpSync(fromRoot(`src/${file}`), to);
    }
    mkdirSync(join(root, FOLDER));
    for (const build of BUILDS) {
      writeFileSync(join(root, FOLDER, `${build}.wasm`), kernels[build] ?? bytesOf(build));
    }
    const url = pathToFileURL(join(root, "src/engine/sparse/kernels.ts")).href;
    return (await import(url) as { chooseBuild: typeof chooseBuild }).chooseBuild;
  }

  function replaced(bytes: Uint8Array, from: number[], to: number[]): Uint8Array {
    const changed = bytes.slice();
    let count = 0;
    for (let i = 0; i + from.length <= bytes.length; i++) {
      if (!from.every((byte, k) => bytes[i + k] === byte)) continue;
      changed.set(to, i);
      count++;
    }
    // If there are none, these are no longer the instructions that kernels use.
    expect(count).toBeGreaterThan(10);
    return changed;
  }

  test("that is plain SIMD where relaxed products are wrong", async () => {
    const wrong = Object.fromEntries(
      Object.entries(WRONG).map(([build, [from, to]]) => [
        build,
        replaced(bytesOf(build as Build), from, to),
      ]),
    );
    for (const bytes of Object.values(wrong)) {
      let module: WebAssembly.Module;
      try {
        module = await WebAssembly.compile(bytes as Uint8Array<ArrayBuffer>);
      } catch {
        continue;
      }
      expect(isRight(module, true)).toBe(false);
    }
    const choose = await choiceOf(wrong);
    expect((await choose(true)).build).toBe("simd");
    expect((await choose(false)).build).toBe("simd");
    const error = await rejectionOf(choose(true, "relaxed"));
    expect(error.code).toBe("BACKEND_FAILED");
  }, LONG);

  test("where one of the relaxed ones cannot be compiled", async () => {
    const choose = await choiceOf({ relaxed: Uint8Array.of(0, 0x61, 0x73, 0x6d, 9, 9, 9, 9) });
    expect((await choose(true)).build).not.toBe("relaxed");
  }, LONG);

  test("where its file could not be read the first time", async () => {
    const root = workshop.folder(), away = join(root, "away");
    const choose = await choiceOf({}, root);
    renameSync(join(root, FOLDER), away);
    expect((await rejectionOf(choose(true))).code).toBe("FILE_UNREADABLE");
    renameSync(away, join(root, FOLDER));
    expect(BUILDS).toContain((await choose(true)).build);
  }, LONG);

  test("of those that are handed over, where bytes are not compiled", async () => {
    for (const shared of [true, false]) {
      const modules: Partial<Record<Build, WebAssembly.Module>> = {};
      for (const build of BUILDS) {
        const bytes = shared ? bytesOf(build) : unshared(bytesOf(build));
        try {
          modules[build] = await WebAssembly.compile(bytes);
        } catch (error) {
          // A runtime without relaxed instructions.
          if (build === "simd") throw error;
        }
      }
      const { compile } = WebAssembly;
      WebAssembly.compile = () => Promise.reject(new WebAssembly.CompileError("not here"));
      try {
        const { build, module } = await chooseBuild(shared, undefined, modules);
        expect(module).toBe(modules[build]!);
        const { simd } = modules;
        expect(await chooseBuild(shared, undefined, { simd })).toMatchObject({ build: "simd" });
        // For the other kind of memory, and of none at all.
        for (const given of [{ simd }, {}]) {
          const error = await rejectionOf(chooseBuild(!shared, undefined, given));
          expect(error.code).toBe("BACKEND_FAILED");
          expect(error.message).toContain(shared ? "with .unshared" : "without .unshared");
        }
        const error = await rejectionOf(chooseBuild(shared, "simd"));
        expect(error.code).toBe("BACKEND_FAILED");
        expect(error.message).toContain("`kernels`");
      } finally {
        WebAssembly.compile = compile;
      }
    }
  });

  test("that is the first that is right, where the clock stands still", async () => {
    const { now } = performance;
    performance.now = () => 1000;
    try {
      const choose = await choiceOf({});
      const { build } = await choose(false);
      const firstRight = async () => {
        for (const build of BUILDS) {
          try {
            return (await choose(false, build)).build;
          } catch {
            // Not here, or not right.
          }
        }
      };
      expect(build).toBe((await firstRight())!);
    } finally {
      performance.now = now;
    }
  }, LONG);

  test("and where none can be it is an error that says so", async () => {
    const broken = Uint8Array.of(1, 2, 3);
    const choose = await choiceOf({ relaxed: broken, "relaxed-fused": broken, simd: broken });
    const error = await rejectionOf(choose(true));
    expect(error.code).toBe("BACKEND_FAILED");
    expect(error.message).toContain("SIMD");
  }, LONG);
});

test("a module that a bundler left without its address says what to do", () => {
  for (const address of [undefined, ""]) {
    const { code, message } = thrownBy(() => assertKnowsPlace(address));
    expect(code).toBe("BACKEND_FAILED");
    expect(message).toContain("the option `kernels`");
  }
  expect(() => assertKnowsPlace(import.meta.url)).not.toThrow();
});
