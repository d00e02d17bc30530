/**
 * The compiled kernels: which build this machine runs best, and whether it runs it right.
 *
 * All builds give the same bits. `relaxed` and `relaxed-fused` use relaxed SIMD, whose results may
 * differ between processors in cases that the kernels avoid; that is checked, not believed.
 * @module
 */
import { BackendError } from "../../errors.ts";
import { readAsset } from "../../platform/assets.ts";
import { CONTROL, TAKEN_BYTES } from "./layout.ts";
import type { EngineMemory } from "./memory.ts";
import { forMemory, type MemoryKind } from "./module_bytes.ts";

/** The builds, best first where all are right. */
export const BUILDS = ["relaxed", "relaxed-fused", "simd"] as const;

/** A build of the kernels. */
export type Build = (typeof BUILDS)[number];

/** What a build exports. */
export interface Kernels {
  setUp(): void;
  run(): number;
  survey(descriptor: number): number;
  measure(descriptor: number): number;
  sketchMean(descriptor: number): void;
  post(descriptor: number): void;
  help(): number;
  isRight(address: number): number;
  race(address: number, rounds: number): number;
}

/** A build that was chosen. */
export interface ChosenBuild {
  readonly build: Build;
  /** For a memory that is shared, or for one that is not. */
  readonly module: WebAssembly.Module;
}

/** Kernels that have been compiled elsewhere, by build. */
export type KernelModules = Readonly<Partial<Record<Build, WebAssembly.Module>>>;

const chosen = new Map<boolean, Promise<ChosenBuild>>();

/**
 * The build that this machine runs fastest among those that it runs right.
 *
 * @param shared Whether threads will share its memory.
 * @param only Takes this build, if it is right.
 * @param modules Takes one of these, where bytes cannot be compiled.
 * @throws {BackendError} When none runs here.
 */
export function chooseBuild(
  shared: boolean,
  only?: Build,
  modules?: KernelModules,
): Promise<ChosenBuild> {
  if (modules) return chooseModule(shared, modules, only);
  const compile = (build: Build) => compileBuild(build, { shared });
  const noneRuns = "this runtime has no WebAssembly with 128-bit SIMD and threads";
  if (only) return tryBuilds(shared, [only], compile, noneRuns);
  let promise = chosen.get(shared);
  if (!promise) {
    promise = tryBuilds(shared, BUILDS, compile, noneRuns);
    chosen.set(shared, promise);
    // A file that could not be fetched may be there the next time.
    promise.catch(() => chosen.delete(shared));
  }
  return promise;
}

function chooseModule(
  shared: boolean,
  modules: KernelModules,
  only?: Build,
): Promise<ChosenBuild> {
  const builds = BUILDS.filter((build) => modules[build] && (!only || only === build));
  return tryBuilds(
    shared,
    builds,
    (build) => Promise.resolve(modules[build]),
    `none of the kernels that were handed over runs here on memory that is ` +
      (shared ? "shared: several threads need those" : "not shared: one thread needs those") +
      ` of espalier/wasm ${shared ? "without" : "with"} .unshared in their names`,
  );
}

async function tryBuilds(
  shared: boolean,
  builds: readonly Build[],
  compile: (build: Build) => Promise<WebAssembly.Module | undefined>,
  noneRuns: string,
): Promise<ChosenBuild> {
  const find = async (some: readonly Build[]) => {
    const right: Candidate[] = [];
    for (const build of some) {
      const module = await compile(build);
      const kernels = module && tried(module, shared);
      if (module && kernels) right.push({ build, module, kernels });
    }
    return fastest(right);
  };
  // Plain SIMD is never faster.
  const found = await find(builds.filter((build) => build !== "simd")) ??
    await find(builds.filter((build) => build === "simd"));
  if (!found) throw new BackendError(noneRuns);
  const { build, module } = found;
  return { build, module };
}

/** A build that is right here, on a memory of its own. */
interface Candidate extends ChosenBuild {
  readonly kernels: Kernels;
}

/**
 * Compiles a build; nothing where its instructions are not known.
 *
 * @throws {BackendError} Where nothing may be compiled.
 */
async function compileBuild(
  build: Build,
  kind: MemoryKind,
): Promise<WebAssembly.Module | undefined> {
  await assertCompiles();
  assertKnowsPlace(import.meta.url);
  const bytes = await readAsset(new URL(`./wasm/${build}.wasm`, import.meta.url));
  try {
    return await WebAssembly.compile(forMemory(bytes, kind));
  } catch {
    return undefined;
  }
}

/**
 * Checks that files beside this module can be found: bundlers that make CommonJS leave its address empty.
 *
 * @throws {BackendError} Where they cannot.
 */
export function assertKnowsPlace(address: string | undefined): void {
  if (address) return;
  throw new BackendError(
    "a bundler has made this module one that does not know where it lies, and so not where its kernels lie: have " +
      "it make ECMAScript modules, with the folder espalier/wasm beside them as wasm, or hand the kernels over, " +
      "compiled, as the option `kernels`",
  );
}

/** For each build the last module for a memory of fixed size: who loads several models compiles once. */
const fixed = new Map<Build, { pages: number; module: Promise<WebAssembly.Module | undefined> }>();

/** Compiles a build for a memory of so many pages that threads share. */
export function compileFixed(
  build: Build,
  pages: number,
): Promise<WebAssembly.Module | undefined> {
  let last = fixed.get(build);
  if (last?.pages !== pages) {
    last = { pages, module: compileBuild(build, { shared: true, pages }) };
    fixed.set(build, last);
    last.module.catch(() => fixed.delete(build));
  }
  return last.module;
}

/** The smallest module. */
const EMPTY = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

/** @throws {BackendError} Where nothing may be compiled. */
async function assertCompiles(): Promise<void> {
  try {
    await WebAssembly.compile(EMPTY);
  } catch (cause) {
    throw new BackendError(
      "this runtime compiles no WebAssembly from bytes: in a page, its Content-Security-Policy must allow " +
        "'wasm-unsafe-eval'; elsewhere, import the kernels as modules, from espalier/wasm/, and hand them over " +
        "as the option `kernels`",
      { cause },
    );
  }
}

/** Where kernels that are tried may write. */
const ADDRESS = 4096;
/** Times that products of each build are timed, and how many rounds of them each time: a millisecond. */
const RACES = 20, ROUNDS = 20_000;

/** The kernels of a module; nothing when they are wrong, or for the other kind of memory. */
function tried(module: WebAssembly.Module, shared: boolean): Kernels | undefined {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared });
  let kernels: Kernels;
  try {
    kernels = instantiate(module, memory);
  } catch {
    return undefined;
  }
  kernels.setUp();
  for (let i = 0; i < 2; i++) {
    if (!kernels.isRight(ADDRESS)) return undefined;
    kernels.race(ADDRESS, ROUNDS);
  }
  return kernels.isRight(ADDRESS) ? kernels : undefined;
}

/**
 * The build that computes some products in the least time, if any is right with the code that it ends with.
 *
 * They take turns: engines have better code for a function some milliseconds after it was first run, and
 * whoever ran alone, and first, would be timed without it. Where the clock stands still during a
 * computation, as on Cloudflare's servers, all are as fast: then it is the first, which needs no
 * instruction of the newest processors to be fast.
 */
function fastest(candidates: readonly Candidate[]): Candidate | undefined {
  if (candidates.length < 2) return candidates[0];
  const best = candidates.map(() => Infinity);
  for (let round = 0; round < RACES; round++) {
    for (const [i, { kernels }] of candidates.entries()) {
      const started = performance.now();
      kernels.race(ADDRESS, ROUNDS);
      best[i] = Math.min(best[i], performance.now() - started);
    }
  }
  let winner: number | undefined;
  for (const [i, { kernels }] of candidates.entries()) {
    if (!kernels.isRight(ADDRESS)) continue;
    if (winner === undefined || best[i] < best[winner]) winner = i;
  }
  return winner === undefined ? undefined : candidates[winner];
}

/** Makes the kernels of a module run on a memory. */
export function instantiate(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory | EngineMemory,
): Kernels {
  const shared = memory instanceof WebAssembly.Memory ? memory : memory.memory;
  return new WebAssembly.Instance(module, { env: { memory: shared } })
    .exports as unknown as Kernels;
}

/** Tells the kernels how they are run. */
export function configure(
  memory: EngineMemory,
  settings: { threads: number; spins: number; patience: number; mainMaySleep: boolean },
): void {
  memory.set(CONTROL.THREADS, settings.threads);
  memory.set(CONTROL.TAKEN, memory.reserve(TAKEN_BYTES * settings.threads));
  memory.set(CONTROL.SPINS, settings.spins);
  memory.set(CONTROL.PATIENCE, settings.patience);
  memory.set(CONTROL.MAIN_SPINS, settings.mainMaySleep ? 0 : 1);
}
