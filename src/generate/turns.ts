/**
 * Sequences that share an engine, taking turns.
 *
 * An engine computes one run at a time. Here runs wait in two lines: short ones, with which sequences
 * generate, and long ones, with which they read their prompts. Whoever generates has a turn each round;
 * after a round one piece of the prompt that came first is run, no longer than generation may be held
 * up. So a long answer does not starve a short one, and a long prompt holds nobody up.
 *
 * When memory for the cache runs out, a sequence waits until another ends; when all wait, the one that
 * was opened last fails, and the others go on.
 *
 * @module
 */
import type { CacheUse, EngineModel, ModelInfo, RunOptions, Sequence } from "../engine/model.ts";
import { AbortError, MemoryBudgetError, ModelClosedError } from "../errors.ts";
import { letEventsIn } from "../platform/events.ts";

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
  enter(sequence: Sequence): Sequence {
    const entered = new TurnSequence(sequence, this);
    this.#open.add(entered);
    return entered;
  }

  /**
   * Waits for turns until all tokens have been run.
   *
   * Everyone computes by themselves when it is their turn, and then says who is next: in edge runtimes
   * what a request has begun ends with the request, and nobody may touch another's signals.
   */
  async run(
    sequence: TurnSequence,
    tokens: ArrayLike<number>,
    options: RunOptions,
  ): Promise<Float32Array> {
    const waiting = new Waiting(sequence, tokens, options);
    this.#lineOf(waiting).push(waiting);
    this.#goOn();
    for (let isFirst = true; !waiting.isOver || waiting.chooses; isFirst = false) {
      if (waiting.chooses) {
        waiting.chooses = false;
        // Who got logits chooses a token now, and comes back for the next turn.
        if (!isFirst) await letEventsIn();
        this.#giveTurn();
      } else if (waiting.hasTurn) {
        waiting.hasTurn = false;
        await this.#turn(waiting);
        this.#isTaken = false;
        this.#goOn();
      } else {
        await waiting.called();
      }
    }
    return await waiting.result;
  }

  leave(sequence: TurnSequence): void {
    this.#open.delete(sequence);
    for (const line of [this.#short, this.#long, this.#parked]) {
      for (const waiting of line.filter((waiting) => waiting.sequence === sequence)) {
        line.splice(line.indexOf(waiting), 1);
        waiting.fail(new ModelClosedError("the sequence has been closed"));
      }
    }
    // Its memory may be what others wait for.
    this.#unpark();
  }

  #lineOf({ tokens }: Waiting): Waiting[] {
    return tokens.length <= SHORT ? this.#short : this.#long;
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
    const next = this.#next();
    this.#isTaken = next !== undefined;
    if (!next) return;
    next.hasTurn = true;
    next.call();
  }

  /** Takes out who has the next turn. */
  #next(): Waiting | undefined {
    const round = this.#open.size - this.#long.length - this.#parked.length;
    if (this.#long.length > 0 && (this.#short.length === 0 || this.#turns >= round)) {
      this.#turns = 0;
      return this.#long.shift();
    }
    this.#turns++;
    return this.#short.shift();
  }

  async #turn(waiting: Waiting): Promise<void> {
    const { sequence, tokens, options } = waiting;
    if (options.signal?.aborted) {
      return waiting.fail(
        new AbortError(`stopped after ${waiting.done} of ${tokens.length} tokens`),
      );
    }
    const isShort = tokens.length <= SHORT;
    const count = isShort || options.logits === "all"
      ? tokens.length
      : Math.min(tokens.length - waiting.done, this.#pieceLength());
    const isLast = waiting.done + count === tokens.length;
    const piece = Array.prototype.slice.call(tokens, waiting.done, waiting.done + count);
    const started = performance.now();
    try {
      const logits = await sequence.inner.run(piece, isLast ? options : { signal: options.signal });
      this.#learn(isShort, count, performance.now() - started);
      waiting.done += count;
      if (isLast) return waiting.settle(sequence.own(logits));
      // Before those that came later: prompts are read one after the other.
      this.#long.unshift(waiting);
    } catch (error) {
      if (!(error instanceof MemoryBudgetError) || this.#open.size < 2) return waiting.fail(error);
      this.#park(waiting, error);
    }
  }

  /** Tokens of a prompt that may be run at once now. */
  #pieceLength(): number {
    const generating = this.#open.size - this.#long.length - this.#parked.length > 1;
    if (!generating || this.#turnTime === 0) return LONGEST_PIECE;
    const tokens = (this.#turnTime + HOLD_UP) / (this.#tokenTime || this.#turnTime);
    const whole = Math.floor(tokens / TOGETHER) * TOGETHER;
    return Math.min(LONGEST_PIECE, Math.max(TOGETHER, whole));
  }

  #learn(isShort: boolean, tokens: number, milliseconds: number): void {
    const time = milliseconds / tokens;
    const mean = (former: number) => former === 0 ? time : former + NEWEST * (time - former);
    if (isShort) this.#turnTime = mean(this.#turnTime);
    else this.#tokenTime = mean(this.#tokenTime);
  }

  /** Lets a run wait for memory, unless everybody does. */
  #park(waiting: Waiting, error: MemoryBudgetError): void {
    this.#parked.push(waiting);
    waiting.options.signal?.addEventListener("abort", () => this.#unpark(), { once: true });
    if (this.#parked.length < this.#open.size) return;
    const sequences = [...this.#open];
    const last = this.#parked.reduce((a, b) =>
      sequences.indexOf(a.sequence) > sequences.indexOf(b.sequence) ? a : b
    );
    this.#parked.splice(this.#parked.indexOf(last), 1);
    // Its owner closes it, and the others get its memory.
    last.fail(error);
  }

  #unpark(): void {
    for (const waiting of this.#parked.splice(0)) this.#lineOf(waiting).push(waiting);
    this.#goOn();
  }
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
    return this.#turns.enter(this.#engine.open(prompt));
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
  readonly #turns: Turns;
  /** Logits of its own: the engine's are overwritten by the next turn, which is another's. */
  #logits: Float32Array | undefined;
  #isClosed = false;

  constructor(inner: Sequence, turns: Turns) {
    this.inner = inner;
    this.#turns = turns;
  }

  get length(): number {
    return this.inner.length;
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

  /** A copy that holds until this sequence's next run. */
  own(logits: Float32Array): Float32Array {
    if (this.#logits?.length !== logits.length) this.#logits = new Float32Array(logits.length);
    this.#logits.set(logits);
    return this.#logits;
  }
}
