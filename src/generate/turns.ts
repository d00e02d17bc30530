/**
 * Sequences that share an engine, taking turns.
 *
 * Runs wait in two lines: short ones, with which sequences generate, and long ones, with which they read
 * their prompts. Whoever generates has a turn each round, together with others where the engine computes
 * several sequences at once; after a round one piece of the prompt that came first is run, no longer than
 * generation may be held up. So a long answer does not starve a short one, and a long prompt holds nobody
 * up.
 *
 * When memory for the cache runs out, a sequence waits until another ends; when all of an engine wait, the one
 * that was opened last gives its cache up and computes it again once another has ended. One that has all memory
 * and needs more fails.
 *
 * @module
 */
import type { CacheUse, EngineModel, ModelInfo, RunOptions, Sequence } from "../engine/model.ts";
import { AbortError, hasCode, type MemoryBudgetError, ModelClosedError } from "../errors.ts";
import { letEventsIn } from "../platform/events.ts";
import { TurnSequence, Waiting } from "./turn_sequence.ts";

const OUT_OF_MEMORY: MemoryBudgetError["code"] = "MEMORY_BUDGET";
/** Tokens of a prompt that are run at once while nobody generates. */
const LONGEST_PIECE = 128;
/** Pieces are multiples of it, as far as they can: kernels compute so many tokens together. */
const TOGETHER = 4;
/** Milliseconds that a piece may hold up those who generate, beyond what one turn of theirs takes. */
const HOLD_UP = 6;
/** Turns of the event loop in which whoever has got logits comes back for the next run. */
const COMING_BACK = 3;
/** Part of the latest measurement in a mean of measurements. */
const NEWEST = 0.3;

/** Who may compute when. One of these may rule several engines, which then share the processors fairly. */
export class Turns {
  readonly #short: Waiting[] = [];
  readonly #long: Waiting[] = [];
  /** Runs that found no memory. */
  readonly #parked: Waiting[] = [];
  readonly #open = new Set<TurnSequence>();
  /** Whether somebody has a turn, or chooses who has the next one. */
  #isTaken = false;
  /** Sequences that have had a turn and may be about to come back for the next one. */
  readonly #due = new Set<TurnSequence>();
  /** Turns of generation since a piece of a prompt was run. */
  #turns = 0;
  /** Milliseconds of a turn of generation, and of a token of a prompt. */
  #turnTime = 0;
  #tokenTime = 0;
  readonly #now: () => number;

  /** @param now A clock, in milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Sequences that are open. */
  get open(): number {
    return this.#open.size;
  }

  /** An engine whose sequences take turns here. */
  share(engine: EngineModel): EngineModel {
    return new SharedEngine(engine, this);
  }

  /** A new sequence of one of the engines. */
  enter(engine: EngineModel, prompt?: ArrayLike<number>): Sequence {
    const entered = new TurnSequence(engine, this, prompt);
    this.#open.add(entered);
    return entered;
  }

  /**
   * Waits for turns until all tokens have been run.
   *
   * Everyone computes when it is their turn, for themselves and for those who have it with them, and then
   * says who is next: in edge runtimes what a request has begun ends with the request, and nobody may
   * touch another's signals.
   */
  async run(
    sequence: TurnSequence,
    tokens: ArrayLike<number>,
    options: RunOptions,
  ): Promise<Float32Array> {
    assertGoingOn(options.signal, 0, tokens.length);
    const waiting = new Waiting(sequence, tokens, options);
    this.#due.delete(sequence);
    this.#lineOf(waiting).push(waiting);
    this.#goOn();
    const { signal } = options;
    const stop = () => this.#withdraw(waiting, stopped(waiting.done, tokens.length));
    // Behind a long prompt, who has been stopped would hold its place for as long as that takes. Short runs come soon.
    if (!waiting.isShort) signal?.addEventListener("abort", stop);
    try {
      await this.#takeTurns(waiting, stop);
      const logits = await waiting.result;
      // Nobody else has looked.
      assertGoingOn(signal, tokens.length, tokens.length);
      return logits;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  /**
   * Chooses, computes and waits until a run is over.
   *
   * @param stop Takes the run out of its line, when it is stopped.
   */
  async #takeTurns(waiting: Waiting, stop: () => void): Promise<void> {
    for (let isFirst = true; !waiting.isOver || waiting.chooses; isFirst = false) {
      if (waiting.chooses) {
        waiting.chooses = false;
        // Who got logits chooses a token now, and comes back for the next turn, some after a pause.
        if (!isFirst || this.#due.size > 0) await letEventsIn();
        for (let i = 1; i < COMING_BACK && this.#due.size > 0; i++) await letEventsIn();
        this.#due.clear();
        this.#giveTurn();
      } else if (waiting.hasTurn) {
        waiting.hasTurn = false;
        if (waiting.isShort) await this.#generate([waiting, ...waiting.others]);
        else await this.#read(waiting);
        this.#isTaken = false;
        this.#goOn();
      } else if (waiting.isParked) {
        waiting.isParked = false;
        const { signal } = waiting.options;
        if (signal?.aborted) stop();
        else signal?.addEventListener("abort", stop);
      } else {
        await waiting.called();
      }
    }
  }

  leave(sequence: TurnSequence): void {
    this.#open.delete(sequence);
    this.#due.delete(sequence);
    for (const waiting of [...this.#short, ...this.#long, ...this.#parked]) {
      if (waiting.sequence !== sequence) continue;
      this.#withdraw(waiting, new ModelClosedError("the sequence has been closed"));
    }
    // Its memory may be what others wait for.
    this.#unpark();
  }

  /** Takes a run out of its line; one that computes goes on. */
  #withdraw(waiting: Waiting, error: unknown): void {
    for (const line of [this.#short, this.#long, this.#parked]) {
      const at = line.indexOf(waiting);
      if (at < 0) continue;
      line.splice(at, 1);
      waiting.fail(error);
    }
  }

  #lineOf(waiting: Waiting): Waiting[] {
    return waiting.isShort ? this.#short : this.#long;
  }

  /** Lets one of those who wait choose who is next, unless there is somebody who has a turn. */
  #goOn(): void {
    const chooser = this.#short[0] ?? this.#long[0];
    if (this.#isTaken || !chooser) return;
    this.#isTaken = true;
    chooser.chooses = true;
    chooser.call();
  }

  #giveTurn(): void {
    const [next, ...others] = this.#next();
    this.#isTaken = next !== undefined;
    if (!next) return;
    next.hasTurn = true;
    next.others = others;
    next.call();
  }

  /** Takes out who has the next turn: one who reads a prompt, or some who generate. */
  #next(): Waiting[] {
    const round = this.#open.size - this.#long.length - this.#parked.length;
    if (this.#long.length > 0 && (this.#short.length === 0 || this.#turns >= round)) {
      this.#turns = 0;
      return [this.#long.shift()!];
    }
    const engine = this.#short[0]?.sequence.engine;
    const together = this.#short
      .filter(({ sequence }) => sequence.engine === engine)
      .slice(0, engine?.info.together ?? 1);
    for (const waiting of together) this.#short.splice(this.#short.indexOf(waiting), 1);
    this.#turns += together.length;
    return together;
  }

  /**
   * A turn of some who generate. Nobody asks here whether they have been stopped: all but the first belong
   * to others, and each looks at its own signal before it comes, and when it has its result.
   */
  async #generate(together: readonly Waiting[]): Promise<void> {
    const started = this.#now();
    const results = await Promise.allSettled(
      together.map(async ({ sequence, tokens, options: { logits, within } }) =>
        await sequence.compute(tokens, { logits, within })
      ),
    );
    this.#turnTime = newMean(this.#turnTime, this.#now() - started);
    for (const [i, result] of results.entries()) {
      const waiting = together[i];
      if (result.status === "rejected") this.#failed(waiting, result.reason);
      else {
        this.#expect(waiting.sequence);
        waiting.settle(result.value);
      }
    }
  }

  /** A turn of one who reads a prompt: a piece of it. */
  async #read(waiting: Waiting): Promise<void> {
    const { sequence, tokens, options } = waiting;
    const { signal } = options;
    try {
      assertGoingOn(signal, waiting.done, tokens.length);
      const missing = sequence.missing();
      const left = missing.length > 0 ? missing : Array.prototype.slice.call(tokens, waiting.done);
      const isAll = missing.length === 0 && options.logits === "all";
      const piece = left.slice(0, isAll ? left.length : this.#pieceLength());
      const isLast = missing.length === 0 && piece.length === left.length;
      const started = this.#now();
      const logits = await sequence.compute(piece, isLast ? options : { signal });
      this.#tokenTime = newMean(this.#tokenTime, (this.#now() - started) / piece.length);
      if (missing.length === 0) waiting.done += piece.length;
      if (isLast) {
        this.#expect(sequence);
        return waiting.settle(logits);
      }
      // Before those that came later: prompts are read one after the other.
      this.#long.unshift(waiting);
    } catch (error) {
      this.#failed(waiting, error);
    }
  }

  /** Waits for one who has got logits, unless it was closed meanwhile. */
  #expect(sequence: TurnSequence): void {
    if (this.#open.has(sequence)) this.#due.add(sequence);
  }

  /** Tokens of a prompt that may be run at once now. */
  #pieceLength(): number {
    const generating = this.#open.size - this.#long.length - this.#parked.length > 1;
    if (!generating || this.#turnTime === 0) return LONGEST_PIECE;
    const tokens = (this.#turnTime + HOLD_UP) / (this.#tokenTime || this.#turnTime);
    const whole = Math.floor(tokens / TOGETHER) * TOGETHER;
    return Math.min(LONGEST_PIECE, Math.max(TOGETHER, whole));
  }

  /** What a run ends with that failed; where memory has run out, it waits for some. */
  #failed(waiting: Waiting, error: unknown): void {
    const { engine } = waiting.sequence;
    const sequences = [...this.#open].filter((sequence) => sequence.engine === engine);
    if (!hasCode(error, OUT_OF_MEMORY) || sequences.length < 2) return waiting.fail(error);
    this.#parked.push(waiting);
    waiting.isParked = true;
    waiting.call();
    const parked = this.#parked.filter(({ sequence }) => sequence.engine === engine);
    if (parked.length === sequences.length) this.#makeRoom(parked, error);
  }

  /** Finds memory where all of an engine wait for some. */
  #makeRoom(parked: readonly Waiting[], error: unknown): void {
    const byAge = this.#byAge(parked);
    const holders = byAge.filter(({ sequence }) => sequence.holdsCache);
    if (holders.length < 2) {
      // Nobody else has what it lacks. Its owner closes it, and the others get what it had.
      return this.#withdraw(holders[0] ?? byAge.at(-1)!, error);
    }
    holders.at(-1)!.sequence.release();
    // It waits for one who ends, itself: to begin again at once would take from the others what they got.
    this.#unpark(holders.slice(0, -1));
  }

  #byAge(some: readonly Waiting[]): Waiting[] {
    const order = [...this.#open];
    return some.toSorted((a, b) => order.indexOf(a.sequence) - order.indexOf(b.sequence));
  }

  /** Lets some try again, or all who wait for memory, the oldest first. */
  #unpark(some: readonly Waiting[] = this.#byAge(this.#parked)): void {
    for (const waiting of some) {
      this.#parked.splice(this.#parked.indexOf(waiting), 1);
      this.#lineOf(waiting).push(waiting);
    }
    this.#goOn();
  }
}

/** @throws {AbortError} When the signal has been aborted. */
function assertGoingOn(signal: AbortSignal | undefined, done: number, all: number): void {
  if (signal?.aborted) throw stopped(done, all);
}

function stopped(done: number, all: number): AbortError {
  return new AbortError(`stopped after ${done} of ${all} tokens`);
}

/** A mean of measurements, the latest of which counts most. */
function newMean(former: number, time: number): number {
  return former === 0 ? time : former + NEWEST * (time - former);
}

/** An engine whose sequences take turns. */
class SharedEngine implements EngineModel {
  readonly info: ModelInfo;
  readonly #engine: EngineModel;
  readonly #turns: Turns;

  constructor(engine: EngineModel, turns: Turns) {
    this.#engine = engine;
    this.#turns = turns;
    this.info = engine.info;
  }

  open(prompt?: ArrayLike<number>): Sequence {
    return this.#turns.enter(this.#engine, prompt);
  }

  cacheUse(): CacheUse | undefined {
    return this.#engine.cacheUse?.();
  }

  close(): Promise<void> {
    return this.#engine.close();
  }
}
