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
 * that was opened last fails, and the others go on.
 *
 * @module
 */
import type { CacheUse, EngineModel, ModelInfo, RunOptions, Sequence } from "../engine/model.ts";
import { AbortError, hasCode, type MemoryBudgetError, ModelClosedError } from "../errors.ts";
import { letEventsIn } from "../platform/events.ts";

const OUT_OF_MEMORY: MemoryBudgetError["code"] = "MEMORY_BUDGET";
/** Runs of at most so many tokens count as generation. */
const SHORT = 2;
/** Tokens of a prompt that are run at once while nobody generates. */
const LONGEST_PIECE = 128;
/** Pieces are multiples of it, as far as they can: kernels compute so many tokens together. */
const TOGETHER = 4;
/** Milliseconds that a piece may hold up those who generate, beyond what one turn of theirs takes. */
const HOLD_UP = 6;
/** Part of the latest measurement in a mean of measurements. */
const NEWEST = 0.3;

/** A run that waits for its turn, or for the rest of its tokens to be run. */
class Waiting {
  /** Tokens that have been run. */
  done = 0;
  /** Whether it says who has the next turn. */
  chooses = false;
  /** Whether it may compute now. */
  hasTurn = false;
  /** Others for whom it then computes as well. */
  others: readonly Waiting[] = [];
  /** Whether it waits for memory, and is to look itself whether it is stopped meanwhile. */
  isParked = false;
  /** Whether there is a result. */
  isOver = false;
  readonly result: Promise<Float32Array>;
  #settle!: (result: Float32Array) => void;
  #fail!: (error: unknown) => void;
  #wake: (() => void) | undefined;

  constructor(
    readonly sequence: TurnSequence,
    readonly tokens: ArrayLike<number>,
    readonly options: RunOptions,
  ) {
    this.result = new Promise((settle, fail) => {
      this.#settle = settle;
      this.#fail = fail;
    });
    // It may fail while its owner is busy choosing who is next.
    this.result.catch(() => {});
  }

  settle(result: Float32Array): void {
    this.isOver = true;
    this.#settle(result);
    this.call();
  }

  fail(error: unknown): void {
    this.isOver = true;
    this.#fail(error);
    this.call();
  }

  /** Wakes who waits: for its turn, to choose, or for a result. */
  call(): void {
    this.#wake?.();
  }

  /** Waits for the next call. */
  called(): Promise<void> {
    return new Promise((wake) => this.#wake = wake);
  }
}

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

  /** Sequences that are open. */
  get open(): number {
    return this.#open.size;
  }

  /** An engine whose sequences take turns here. */
  share(engine: EngineModel): EngineModel {
    return new SharedEngine(engine, this);
  }

  /** A new sequence of one of the engines. */
  enter(sequence: Sequence, engine: EngineModel): Sequence {
    const entered = new TurnSequence(sequence, engine, this);
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
    for (let isFirst = true; !waiting.isOver || waiting.chooses; isFirst = false) {
      if (waiting.chooses) {
        waiting.chooses = false;
        // Who got logits chooses a token now, and comes back for the next turn, some after a pause.
        if (!isFirst || this.#due.size > 0) await letEventsIn();
        if (this.#due.size > 0) await letEventsIn();
        this.#due.clear();
        this.#giveTurn();
      } else if (waiting.hasTurn) {
        waiting.hasTurn = false;
        if (isShort(waiting)) await this.#generate([waiting, ...waiting.others]);
        else await this.#read(waiting);
        this.#isTaken = false;
        this.#goOn();
      } else if (waiting.isParked) {
        waiting.isParked = false;
        this.#watch(waiting);
      } else {
        await waiting.called();
      }
    }
    const logits = await waiting.result;
    // Nobody else has looked.
    assertGoingOn(options.signal, tokens.length, tokens.length);
    return logits;
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
  #withdraw(waiting: Waiting, error: Error): void {
    for (const line of [this.#short, this.#long, this.#parked]) {
      const at = line.indexOf(waiting);
      if (at < 0) continue;
      line.splice(at, 1);
      waiting.fail(error);
    }
  }

  #lineOf(waiting: Waiting): Waiting[] {
    return isShort(waiting) ? this.#short : this.#long;
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
    const started = performance.now();
    const results = await Promise.allSettled(
      together.map(async ({ sequence, tokens, options: { logits, within } }) =>
        await sequence.inner.run(tokens, { logits, within })
      ),
    );
    this.#turnTime = newMean(this.#turnTime, performance.now() - started);
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
    const count = options.logits === "all"
      ? tokens.length
      : Math.min(tokens.length - waiting.done, this.#pieceLength());
    const isLast = waiting.done + count === tokens.length;
    const piece = Array.prototype.slice.call(tokens, waiting.done, waiting.done + count);
    try {
      assertGoingOn(options.signal, waiting.done, tokens.length);
      const started = performance.now();
      const logits = await sequence.inner.run(piece, isLast ? options : { signal: options.signal });
      this.#tokenTime = newMean(this.#tokenTime, (performance.now() - started) / count);
      waiting.done += count;
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

  /**
   * What a run ends with that failed; where memory has run out, it waits for some, unless all do that have theirs of
   * the same engine.
   */
  #failed(waiting: Waiting, error: unknown): void {
    const { engine } = waiting.sequence;
    const sequences = [...this.#open].filter((sequence) => sequence.engine === engine);
    if (!hasCode(error, OUT_OF_MEMORY) || sequences.length < 2) return waiting.fail(error);
    this.#parked.push(waiting);
    waiting.isParked = true;
    waiting.call();
    const parked = this.#parked.filter(({ sequence }) => sequence.engine === engine);
    if (parked.length < sequences.length) return;
    const last = parked.reduce((a, b) =>
      sequences.indexOf(a.sequence) > sequences.indexOf(b.sequence) ? a : b
    );
    // Its owner closes it, and the others get its memory.
    this.#withdraw(last, error);
  }

  /** Lets go of a run that waits for memory when it is stopped. */
  #watch(waiting: Waiting): void {
    const { done, tokens, options: { signal } } = waiting;
    const stop = () => this.#withdraw(waiting, stopped(done, tokens.length));
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  }

  #unpark(): void {
    for (const waiting of this.#parked.splice(0)) this.#lineOf(waiting).push(waiting);
    this.#goOn();
  }
}

/** Whether a run counts as generation. */
function isShort({ tokens }: Waiting): boolean {
  return tokens.length <= SHORT;
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
    return this.#turns.enter(this.#engine.open(prompt), this.#engine);
  }

  cacheUse(): CacheUse | undefined {
    return this.#engine.cacheUse?.();
  }

  close(): Promise<void> {
    return this.#engine.close();
  }
}

/** A sequence that waits for its turn. */
class TurnSequence implements Sequence {
  readonly inner: Sequence;
  /** Whose it is. */
  readonly engine: EngineModel;
  readonly #turns: Turns;
  #isClosed = false;

  constructor(inner: Sequence, engine: EngineModel, turns: Turns) {
    this.inner = inner;
    this.engine = engine;
    this.#turns = turns;
  }

  get length(): number {
    return this.inner.length;
  }

  get likeliest(): number | undefined {
    return this.inner.likeliest;
  }

  run(tokens: ArrayLike<number>, options: RunOptions = {}): Promise<Float32Array> {
    if (this.#isClosed) {
      return Promise.reject(new ModelClosedError("the sequence has been closed"));
    }
    return this.#turns.run(this, tokens, options);
  }

  truncate(length: number): void {
    this.inner.truncate(length);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.inner.close();
    this.#turns.leave(this);
  }
}
