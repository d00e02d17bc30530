/**
 * The loss of a model on a few windows under one set of shares after another, at a fraction of what pruning
 * it each time would take.
 *
 * The loss is half the cross entropy with the token that came, half that with what the dense model
 * foresaw. Which of the likely tokens came is chance, larger than the differences that are looked for; the
 * dense model's predictions have no such chance, but a pruned model can be nearer to them and no better.
 *
 * Three things make it cheap. The statistics that masks are made of are taken once, where the search
 * begins. The hidden states before every block are kept for the shares that are the best so far: others run
 * from the first block that differs. And the masks of those shares are kept, a bit a weight.
 * @module
 */
import type { PassHooks, PruneRules } from "../calibrate/passes.ts";
import type { WindowStates } from "../calibrate/states.ts";
import { embedAll, runAll, weightOf } from "../calibrate/statistics.ts";
import { BackwardModel } from "../engine/ort/backward.ts";
import { distillationLoss } from "../engine/ort/distillation_loss.ts";
import { lossesUnder, type Teacher, teacherOf } from "../engine/ort/soft_head.ts";
import type { Batch, BlockWeights, StagedModel } from "../engine/ort/staged.ts";
import { throwIfAborted } from "../checks.ts";
import { letEventsIn } from "../platform/events.ts";
import { maskOf, type Share, sharesOfLinears } from "../prune/block.ts";
import { type Margins, marginsOf } from "../prune/margins.ts";
import { applyMask, applyPackedMask, packMask } from "../prune/mask.ts";
import type { MaskMethod, Weight } from "../prune/types.ts";

/** Bytes of masks that are kept; what is more is computed again. */
const MOST_MASKS = 256e6;

/** Bytes of the logits that are there at once where the loss is taken backwards, a dozen times over. */
const LOSS_PIECE = 8 << 20;

/** What is pruned, and how weights are chosen; those that stay are left as they are. */
export interface MaskRules extends Pick<PruneRules, "pattern" | "skipped"> {
  readonly method: MaskMethod;
}

/** ‖X‖₂ of every linear input of a block, by its name. */
export type BlockNorms = ReadonlyMap<string, Float32Array>;

/**
 * The statistics of every block, on inputs from the blocks before it as pruned by `rules`.
 *
 * @param model The dense model.
 * @param states Room for the calibration windows.
 */
export async function prunedStatistics(
  model: StagedModel,
  rules: MaskRules & Pick<PruneRules, "shares">,
  states: WindowStates,
  hooks: PassHooks = {},
): Promise<BlockNorms[]> {
  const { signal, onPart, onBlock } = hooks;
  await embedAll(model, states, signal);
  const all: BlockNorms[] = [];
  for (let index = 0; index < model.blocks.length; index++) {
    const weights = model.readBlock(index);
    const take = { norms: true, advance: false };
    const norms = await runAll(model, index, weights, states, take, onPart, signal);
    all.push(norms);
    if (index < model.blocks.length - 1) {
      const linears = prunedLinears(model, index, weights, norms, rules);
      const shares = sharesOfLinears(linears, rules.method, rules.pattern, rules.shares[index]);
      for (const [i, weight] of linears.entries()) {
        applyMask(weight.values, maskOf(weight, rules.method, rules.pattern, shares[i]));
        await letEventsIn();
      }
      const go = { norms: false, advance: true };
      await runAll(model, index, weights, states, go, onPart, signal);
    }
    onBlock?.(index);
  }
  return all;
}

/** Packed masks of a block's pruned linears, in their order. */
type BlockMasks = Uint8Array[];

/** Windows whose loss is measured under one set of shares after another; {@linkcode close} it when done. */
export class MaskedSlice {
  readonly #model: StagedModel;
  readonly #rules: MaskRules;
  readonly #norms: readonly BlockNorms[] | undefined;
  readonly #teacher: Teacher;
  /** States before each block and after the last: of the base, and of what was measured last. */
  readonly #base: WindowStates[];
  readonly #trial: WindowStates[];
  readonly #masks: (BlockMasks | undefined)[];
  readonly #trialMasks: (BlockMasks | undefined)[];
  readonly #keepsMasks: boolean;
  #shares: readonly Share[] | undefined;
  #measured: { shares: readonly Share[]; from: number } | undefined;

  private constructor(
    model: StagedModel,
    rules: MaskRules,
    norms: readonly BlockNorms[] | undefined,
    teacher: Teacher,
    room: () => WindowStates,
  ) {
    this.#model = model;
    this.#rules = rules;
    this.#norms = norms;
    this.#teacher = teacher;
    const levels = model.blocks.length + 1;
    this.#base = Array.from({ length: levels }, room);
    // What comes out of the embedding is the same for all.
    this.#trial = [this.#base[0], ...Array.from({ length: levels - 1 }, room)];
    this.#masks = model.blocks.map(() => undefined);
    this.#trialMasks = model.blocks.map(() => undefined);
    const weights = model.blocks.reduce(
      (sum, { linears }) =>
        sum + linears.reduce((all, { rows, columns }) => all + rows * columns, 0),
      0,
    );
    this.#keepsMasks = weights / 8 <= MOST_MASKS;
  }

  /**
   * Runs the dense model on the windows, and makes room.
   *
   * @param model The dense model.
   * @param rules What is pruned, and how.
   * @param norms Statistics of each block; none for a method that needs none.
   * @param room Makes room for the windows' hidden states; called once, and then twice a block.
   */
  static async open(
    model: StagedModel,
    rules: MaskRules,
    norms: readonly BlockNorms[] | undefined,
    room: () => WindowStates,
    signal?: AbortSignal,
  ): Promise<MaskedSlice> {
    const states = room();
    try {
      await embedAll(model, states, signal);
      const go = { norms: false, advance: true };
      for (const { index } of model.blocks) {
        await runAll(model, index, model.readBlock(index), states, go, undefined, signal);
      }
      const teacher = await teacherOf(model, await finished(model, states, signal));
      return new MaskedSlice(model, rules, norms, teacher, room);
    } finally {
      states.close();
    }
  }

  /**
   * The loss under some shares, a mean over positions, in nats; infinite where activations overflow.
   *
   * @param shares One a block.
   */
  async measure(shares: readonly Share[], signal?: AbortSignal): Promise<number> {
    this.#measured = undefined;
    const base = this.#shares;
    if (!base) await embedAll(this.#model, this.#base[0], signal);
    const differs = base ? shares.findIndex((share, b) => !sameShare(share, base[b])) : 0;
    const from = differs < 0 ? shares.length : differs;
    for (let index = from; index < shares.length; index++) {
      const weights = await this.#masked(index, shares[index], signal);
      const before = index === from ? this.#base[index] : this.#trial[index];
      await this.#run(index, weights, before, this.#trial[index + 1], signal);
    }
    const last = from === shares.length ? this.#base : this.#trial;
    const hidden = await finished(this.#model, last[shares.length], signal);
    const batches = last[shares.length].batches;
    const targets = batches.map(targetsOf);
    const losses = await lossesUnder(this.#model, hidden, this.#teacher, targets);
    this.#measured = { shares, from };
    // A window's last token foretells nothing that is known.
    const known = losses.map(({ hard }, i) =>
      hard.filter((_, t) => (t + 1) % batches[i].length !== 0)
    );
    const loss = (meanOf(losses.map(({ soft }) => soft)) + meanOf(known)) / 2;
    return Number.isFinite(loss) ? loss : Infinity;
  }

  /** Makes the shares that were measured last the ones that others are compared with. */
  accept(): void {
    const { shares, from } = this.#measured!;
    for (let index = from; index < shares.length; index++) {
      const level = index + 1;
      [this.#base[level], this.#trial[level]] = [this.#trial[level], this.#base[level]];
      this.#masks[index] = this.#trialMasks[index];
    }
    this.#shares = shares;
    this.#measured = undefined;
  }

  /**
   * The margins of every block's pruned linears under the shares that were accepted last, with the gradient
   * of the cross entropy with the dense model's predictions. The tokens that came are left out: where the
   * loss is steep, chance in them is smaller than what one gradient says of parts of a linear.
   *
   * @returns For each block, one for each of its pruned linears.
   */
  async margins(signal?: AbortSignal): Promise<Margins[][]> {
    // Each session keeps what its greatest run took: those that run forwards, and those that run backwards.
    await this.#model.freeSessions();
    try {
      return await this.#backward(signal);
    } finally {
      await this.#model.freeSessions();
    }
  }

  async #backward(signal?: AbortSignal): Promise<Margins[][]> {
    const model = this.#model;
    const backward = new BackwardModel(model);
    const shares = this.#shares!;
    const gradients = await this.#finishBackward(backward, signal);
    const all: Margins[][] = [];
    for (let index = shares.length - 1; index >= 0; index--) {
      const weights = model.readBlock(index);
      const linears = this.#weightsOf(index, weights);
      const { method, pattern } = this.#rules;
      const found = marginsOf(linears, method, pattern, shares[index]);
      for (const [i, { mask }] of found.entries()) {
        applyMask(linears[i].values, mask);
        await letEventsIn();
      }
      const by = model.blocks[index].linears.map(({ weight }) => weight)
        .filter((name) => !this.#rules.skipped(name));
      const states = this.#base[index];
      for (let i = 0; i < states.batches.length && (by.length > 0 || index > 0); i++) {
        throwIfAborted(signal);
        const want = { by, hidden: index > 0 };
        const result = await backward.block(index, weights, states.load(i), gradients[i], want);
        for (const [l, name] of by.entries()) found[l].margins.add(result.weights.get(name)!);
        // Copied: a runtime may use its buffer again.
        if (result.hidden) gradients[i] = result.hidden.slice();
      }
      all.unshift(found.map(({ margins }) => margins));
    }
    return all;
  }

  /** The gradient by what comes out of the last block, for each batch; of the mean over all positions. */
  async #finishBackward(backward: BackwardModel, signal?: AbortSignal): Promise<Float32Array[]> {
    const states = this.#base.at(-1)!;
    const { hidden, logSums } = this.#teacher;
    const tokens = hidden.map((_, i) => states.batches[i].tokens.length);
    const sum = tokens.reduce((a, b) => a + b);
    const all: Float32Array[] = [];
    for (let i = 0; i < states.batches.length; i++) {
      throwIfAborted(signal);
      const activations = states.load(i);
      const last = (await this.#model.finish(activations)).slice();
      const lesson = { hidden: hidden[i], logSums: logSums[i] };
      const { gradient } = await distillationLoss(this.#model, last, lesson, LOSS_PIECE);
      const { hidden: by } = await backward.finish(activations, gradient);
      all.push(by!.map((value) => value * tokens[i] / sum));
    }
    return all;
  }

  /** Frees all states. */
  close(): void {
    for (const states of [...this.#base, ...this.#trial]) states.close();
  }

  /** A block's weights, masked; the masks are remembered with what is measured. */
  async #masked(index: number, share: Share, signal?: AbortSignal): Promise<BlockWeights> {
    const weights = this.#model.readBlock(index);
    const { method, pattern } = this.#rules;
    const linears = this.#weightsOf(index, weights);
    const known = this.#shares && sameShare(share, this.#shares[index])
      ? this.#masks[index]
      : undefined;
    const masks = known ?? [];
    const shares = known ? [] : sharesOfLinears(linears, method, pattern, share);
    for (const [i, weight] of linears.entries()) {
      throwIfAborted(signal);
      if (known) {
        applyPackedMask(weight.values, known[i]);
        continue;
      }
      const mask = maskOf(weight, method, pattern, shares[i]);
      applyMask(weight.values, mask);
      masks.push(packMask(mask));
      await letEventsIn();
    }
    this.#trialMasks[index] = this.#keepsMasks ? masks : undefined;
    return weights;
  }

  /** A block's pruned linears, with weights and statistics. */
  #weightsOf(index: number, weights: BlockWeights): Weight[] {
    const norms = this.#norms?.[index] ?? new Map();
    return prunedLinears(this.#model, index, weights, norms, this.#rules);
  }

  async #run(
    index: number,
    weights: BlockWeights,
    before: WindowStates,
    after: WindowStates,
    signal?: AbortSignal,
  ): Promise<void> {
    for (let i = 0; i < before.batches.length; i++) {
      throwIfAborted(signal);
      const activations = before.load(i);
      const want = { squares: false, output: true };
      const { hidden } = await this.#model.runBlock(index, weights, activations, want);
      after.start(i, { ...activations, hidden: hidden! });
    }
  }
}

/** The linears of a block that are pruned, with weights and statistics. */
function prunedLinears(
  model: StagedModel,
  index: number,
  weights: BlockWeights,
  norms: BlockNorms,
  { skipped }: Pick<MaskRules, "skipped">,
): Weight[] {
  return model.blocks[index].linears
    .filter(({ weight }) => !skipped(weight))
    .map((linear) => weightOf(linear, weights, norms));
}

/** The id that follows each token of a batch; 0 after the last of a window. */
function targetsOf({ tokens, length }: Batch): Int32Array {
  return tokens.map((_, t) => (t + 1) % length === 0 ? 0 : tokens[t + 1]);
}

/** What goes into the head, batch by batch. */
async function finished(
  model: StagedModel,
  states: WindowStates,
  signal?: AbortSignal,
): Promise<Float32Array[]> {
  const all: Float32Array[] = [];
  for (let i = 0; i < states.batches.length; i++) {
    throwIfAborted(signal);
    // Copied: a runtime may use its buffer again.
    all.push((await model.finish(states.load(i))).slice());
  }
  return all;
}

function meanOf(values: readonly Float64Array[]): number {
  const count = values.reduce((sum, { length }) => sum + length, 0);
  return values.reduce((sum, part) => sum + part.reduce((a, b) => a + b), 0) / count;
}

function sameShare(a: Share, b: Share): boolean {
  return a.density === b.density && a.kept === b.kept &&
    a.linears?.length === b.linears?.length &&
    (a.linears?.every((density, i) => density === b.linears![i]) ?? true);
}
