/**
 * What a program runs on: memory, kernels, threads.
 * @module
 */
import {
  mainMaySleep,
  mayShareMemory,
  prefersFixedMemory,
  processors,
} from "../../platform/machine.ts";
import { LONGEST_TIMER } from "../../platform/timers.ts";
import {
  type Build,
  chooseBuild,
  compileFixed,
  configure,
  instantiate,
  type KernelModules,
  type Kernels,
} from "./kernels.ts";
import { EngineMemory, MemoryBudget } from "./memory.ts";
import { Team } from "./team.ts";

/**
 * Rounds that a thread spins at a barrier, some hundred microseconds: longer than it takes to wake one that
 * sleeps. Where it was shorter, one that had once slept came late to the next barrier, so that the others
 * slept there, and so on: small models then took ten times as long with two threads (Deno, on a virtual
 * machine), and SmolLM2-135M at 4:16 two and a half times.
 */
const SPINS = 200_000;
/** The same where threads are more than processors: who spins keeps the processor from those it waits for. */
const SPINS_OF_MANY = 1000;
/**
 * Milliseconds. To hand a run over and to hear of its end takes as long as waking threads does, and where
 * all processors compute, the caller takes one from a thread that the others then wait for: together a
 * millisecond or two on a virtual machine with two processors, a fifth of a small model's token. Events
 * wait no longer than they would for other work of a busy process.
 */
const SHORT_RUN = 20;
/** Milliseconds. A thread that was taken off its processor, on a busy machine, comes back well before. */
const PATIENCE = 30_000;

/** What may be chosen. */
export interface SetupOptions {
  /**
   * Threads, the caller's among them (default: all processors). Where one of them takes less time alone, as on a
   * processor that others use as well, it computes alone.
   */
  readonly threads?: number;
  /**
   * Computes on threads of its own, so that the caller's event loop stays free, but for short runs; see
   * `runner.ts` (default: false, and the caller's thread is the first). Where none can be started, the caller's thread
   * computes alone, and the model's `info` says so.
   */
  readonly background?: boolean;
  /**
   * Milliseconds that a run may keep the caller's thread although the model is in the background, where
   * all processors compute (default: 20). 0: it never does.
   */
  readonly shortRun?: number;
  /** Bytes that the model may take. */
  readonly memory?: number;
  /**
   * The kernels as compiled modules, for runtimes that compile no bytes: those of `espalier/wasm`, with
   * `.unshared` in their names for one thread, without for several. Of several builds the fastest that is
   * right is taken. Default: the kernels are read and compiled.
   */
  readonly kernels?: KernelModules;
  /** A build of the kernels, for tests. */
  readonly build?: Build;
  /** Milliseconds without an answer after which a thread counts as lost. */
  readonly patience?: number;
}

/** What a program runs on. */
export interface Setup {
  readonly memory: EngineMemory;
  readonly kernels: Kernels;
  readonly team: Team;
  /** Threads that compute. */
  readonly threads: number;
  /** Whether the caller's is none of them. */
  readonly background: boolean;
  /** Milliseconds of a run in the background that the caller's thread computes all the same. */
  readonly shortRun: number;
  readonly build: Build;
  /** The same for people, and the build. */
  readonly device: string;
}

/**
 * Makes memory and kernels and starts threads, which pack weights until the team begins.
 *
 * @param budget What the memory takes its bytes from.
 * @throws {BackendError} When the kernels do not run here, or the threads do not start.
 */
export async function setUp(
  options: SetupOptions,
  budget = new MemoryBudget(options.memory),
): Promise<Setup> {
  const threads = options.threads ?? (mayShareMemory() ? processors() : 1);
  if (!options.background) return await start(options, budget, threads, false);
  try {
    return await start(options, budget, threads, true);
  } catch (error) {
    // No Worker, or no memory that it may share. What else is wrong, is wrong with one thread as well.
    const alone = await start(options, budget, 1, false);
    const reason = error instanceof Error ? error.message : String(error);
    return { ...alone, device: `${alone.device}, not in the background: ${reason}` };
  }
}

/**
 * The kernels and a memory for them.
 *
 * Where engines check addresses by instructions, they look up the size of a memory that others may let grow after
 * each store, and check what they had checked before: with a size that is known, two threads of Deno read prompts
 * 1.12 times as fast.
 */
async function chooseMemory(
  options: SetupOptions,
  budget: MemoryBudget,
  isShared: boolean,
): Promise<{ build: Build; module: WebAssembly.Module; memory: EngineMemory }> {
  const { build, module } = await chooseBuild(isShared, options.build, options.kernels);
  if (isShared && !options.kernels && prefersFixedMemory()) {
    const memory = EngineMemory.fixed(budget);
    const fixed = memory?.pages && await compileFixed(build, memory.pages);
    if (memory && fixed) return { build, module: fixed, memory };
  }
  return { build, module, memory: new EngineMemory(isShared, budget) };
}

/** Milliseconds that a thread is waited for. Kernels count them in 32 bits, as timers do. */
function patienceOf({ patience = PATIENCE }: SetupOptions): number {
  return Math.min(patience, LONGEST_TIMER);
}

/** Memory and kernels, ready for threads. */
async function prepare(
  options: SetupOptions,
  budget: MemoryBudget,
  threads: number,
  background: boolean,
) {
  const chosen = await chooseMemory(options, budget, background || threads > 1);
  const kernels = instantiate(chosen.module, chosen.memory);
  kernels.setUp();
  configure(chosen.memory, {
    threads,
    spins: threads > processors() ? SPINS_OF_MANY : SPINS,
    patience: patienceOf(options),
    // The thread that leads in the background is none that may not sleep.
    mainMaySleep: background || mainMaySleep(),
  });
  return { ...chosen, kernels };
}

async function start(
  options: SetupOptions,
  budget: MemoryBudget,
  threads: number,
  background: boolean,
): Promise<Setup> {
  const { shortRun = SHORT_RUN } = options, patience = patienceOf(options);
  const prepared = prepare(options, budget, threads, background);
  const team = await Team.start(prepared, { threads, background, patience });
  const { build, memory, kernels } = await prepared;
  const where = background ? " in the background" : "";
  return {
    memory,
    kernels,
    team,
    threads,
    background,
    build,
    shortRun: threads >= processors() && mainMaySleep() ? shortRun : 0,
    device: `WebAssembly (${build}), ${threads} thread${threads > 1 ? "s" : ""}${where}`,
  };
}
