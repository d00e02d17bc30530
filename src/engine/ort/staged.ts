/**
 * Running a decoder one block at a time, so that no more than one block's weights are in memory.
 *
 * The graph is cut into sections (`src/onnx/sections.ts`); a section's weights are inputs of its
 * session, read from disk into buffers that the next block uses again.
 * @module
 */
import { GraphError } from "../../errors.ts";
import {
  extract,
  type ExtractedModel,
  type ExtractOptions,
  squaresOf,
} from "../../onnx/extract.ts";
import type { GraphProto } from "../../onnx/generated/onnx_pb.ts";
import { type Block, cutIntoSections, type Sections } from "../../onnx/sections.ts";
import type { Matrix } from "../../prune/matrix.ts";
import type { Backend, Session, Tensor } from "./backend.ts";

/** Where weights are read from; a checkpoint is one. */
export interface WeightSource {
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>;
  /** Fills `target` with a tensor's float32 values from element `first` on. */
  readFloats(name: string, target: Float32Array, first?: number): void;
}

/** Changes rows of a table, `[rows, width]`, in place. */
export type RowsChange = (table: string, rows: Float32Array, width: number) => void;

/** Weights that are put in the place of those on disk. */
export interface OtherWeights {
  has(name: string): boolean;
  /** Fills `target` with a weight's values. */
  read(name: string, target: Float32Array): void;
}

/** Windows of equal length that run together. */
export interface Batch {
  /** `[windows, length]` token ids. */
  readonly tokens: Int32Array;
  readonly windows: number;
  readonly length: number;
}

/** What passes from section to section for one batch. */
export interface Activations {
  readonly batch: Batch;
  /** `[windows, length, width]`. */
  hidden: Float32Array;
  /** Values that every block reads beside the hidden states. */
  readonly shared: Record<string, Tensor>;
  /** What becomes of the tokens' rows of tables. */
  readonly change?: RowsChange;
}

/** A block's weights as float32, by initializer name. They are overwritten by the next block's. */
export type BlockWeights = ReadonlyMap<string, Float32Array>;

/** What one run of a block gave. */
export interface BlockResult {
  /** The hidden states after the block, where they were asked for. */
  readonly hidden?: Float32Array;
  /** Squares summed over each window's tokens, `[windows, columns]`, by linear input, if asked for. */
  readonly squares?: ReadonlyMap<string, Float32Array>;
  /** Values inside the block that were asked for, `[windows · length, width]`. */
  readonly taps: ReadonlyMap<string, Matrix>;
}

/** What a run of a block is to give. What none of it needs is not computed. */
export interface BlockWants {
  /** Squares of the inputs of linears. */
  readonly squares?: boolean;
  /** The hidden states after the block. */
  readonly output?: boolean;
  /** Values inside the block, by their names in the graph. */
  readonly taps?: readonly string[];
}

/** A decoder that runs section by section. */
export class StagedModel {
  readonly sections: Sections;
  readonly backend: Backend;
  readonly weights: WeightSource;
  readonly graph: GraphProto;
  readonly #sessions = new Map<Uint8Array, Promise<Session>>();
  /** Each model that was asked for, by its content: blocks of one form share its bytes. */
  readonly #forms = new Map<string, Uint8Array>();
  readonly #extracted = new Map<string, ExtractedModel>();
  readonly #buffers = new Map<string, Float32Array>();
  /** Room for rows of each table. */
  readonly #rows = new Map<string, Float32Array>();

  /**
   * @param graph The decoder's graph; see `buildDecoder`.
   * @param weights Where its initializers are read from.
   * @param backend Where it runs.
   * @throws {GraphError} When the graph cannot be cut into sections.
   */
  constructor(graph: GraphProto, weights: WeightSource, backend: Backend) {
    this.graph = graph;
    this.sections = cutIntoSections(graph);
    this.weights = weights;
    this.backend = backend;
  }

  /** The blocks, in order. */
  get blocks(): readonly Block[] {
    return this.sections.blocks;
  }

  /** Bytes that the largest block's weights take as float32. */
  get largestBlockBytes(): number {
    return Math.max(...this.blocks.map((block) => {
      const model = this.#extractBlock(block, { output: true });
      return weightsOf(model).reduce((sum, [, name]) => sum + this.#count(name) * 4, 0);
    }));
  }

  /**
   * Runs what comes before the blocks: embeddings, and the values that all blocks share.
   *
   * Only the rows of the embedding that the batch's tokens name are read.
   *
   * @param change What becomes of those rows before they are looked up, in place; of those that blocks look up, too.
   */
  async embed(batch: Batch, change?: RowsChange): Promise<Activations> {
    const { sections, backend } = this;
    const { tokens, windows, length } = batch;
    const hiddenIn = sections.blocks[0].hiddenIn;
    const inputs = new Set(this.graph.input.map(({ name }) => name));
    const computed = sections.shared.filter((name) => !inputs.has(name));
    const model = this.once(
      "before",
      () => extract(this.graph, sections.before, { outputs: [hiddenIn, ...computed] }),
    );
    const dims = [windows, length];
    const positions = new BigInt64Array(tokens.length);
    for (let i = 0; i < positions.length; i++) positions[i] = BigInt(i % length);
    const feeds: Record<string, Tensor> = {
      position_ids: backend.int64(positions, dims),
      [TOKENS]: backend.int64(BigInt64Array.from(tokens, BigInt), dims),
    };
    const outputs = await this.runSection(model, feeds, this.readWeights(model), change);
    const given = { ...feeds, ...outputs };
    const shared = Object.fromEntries(sections.shared.map((name) => [name, given[name]]));
    return { batch, hidden: outputs[hiddenIn].data as Float32Array, shared, change };
  }

  /**
   * Reads a block's weights.
   *
   * @param index The block.
   * @param others Weights that come from elsewhere; those are not read from disk.
   * @returns Its weights, in buffers that the next call overwrites.
   * @throws {NotFiniteError} When one is NaN or infinite.
   */
  readBlock(index: number, others?: OtherWeights): BlockWeights {
    return this.readWeights(this.#extractBlock(this.blocks[index], { output: true }), others);
  }

  /** Reads a section's weights; see {@linkcode readBlock}. */
  readWeights(section: ExtractedModel, others?: OtherWeights): BlockWeights {
    const weights = new Map<string, Float32Array>();
    for (const [input, name] of weightsOf(section)) {
      const buffer = this.#bufferFor(input, name);
      if (others?.has(name)) others.read(name, buffer);
      else this.weights.readFloats(name, buffer);
      weights.set(name, buffer);
    }
    return weights;
  }

  /**
   * Runs a block on a batch.
   *
   * @param index The block.
   * @param weights Its weights, as read by {@linkcode readBlock} and perhaps masked since.
   * @param activations What came out of the block before it; not changed.
   * @param want What to give.
   */
  async runBlock(
    index: number,
    weights: BlockWeights,
    activations: Activations,
    want: BlockWants,
  ): Promise<BlockResult> {
    const block = this.blocks[index];
    const { batch: { windows, length }, hidden, shared } = activations;
    const model = this.#extractBlock(block, want);
    // Runtimes refuse a graph that puts out nothing, as where all that is asked for is what comes in.
    const outputs = !want.squares && !want.output && insideOf(block, want).length === 0
      ? {}
      : await this.runSection(
        model,
        {
          ...shared,
          [HIDDEN_IN]: this.hiddenTensor(activations.batch, hidden),
        },
        weights,
        activations.change,
      );
    const squares = new Map<string, Float32Array>();
    if (want.squares) {
      for (const { input } of block.linears) {
        squares.set(input, outputs[squaresOf(model.rename(input))].data as Float32Array);
      }
    }
    const taps = new Map<string, Matrix>();
    for (const name of want.taps ?? []) {
      // What comes into a block is no output of it.
      const data = name === block.hiddenIn
        ? hidden
        : outputs[model.rename(name)].data as Float32Array;
      taps.set(name, { data, rows: windows * length, columns: data.length / (windows * length) });
    }
    return {
      hidden: want.output ? outputs[HIDDEN_OUT].data as Float32Array : undefined,
      squares: want.squares ? squares : undefined,
      taps,
    };
  }

  /**
   * Runs what lies between the blocks and the head: `[windows, length, head width]`.
   *
   * @param others Weights that come from elsewhere.
   */
  async finish(activations: Activations, others?: OtherWeights): Promise<Float32Array> {
    const { after, head, blocks } = this.sections;
    const { batch, hidden } = activations;
    if (after.nodes.length === 0) return hidden;
    const hiddenOut = blocks.at(-1)!.hiddenOut;
    const model = this.once("after", () => extract(this.graph, after, { outputs: [head.input] }));
    const feeds = { [hiddenOut]: this.hiddenTensor(batch, hidden) };
    const outputs = await this.runSection(model, feeds, this.readWeights(model, others));
    return outputs[head.input].data as Float32Array;
  }

  /** Hidden states of a batch, or anything of that form: `[windows, length, width]`. */
  hiddenTensor({ windows, length }: Batch, hidden: Float32Array): Tensor {
    return this.backend.floats(hidden, [windows, length, hidden.length / (windows * length)]);
  }

  /**
   * Runs a section that was extracted from the model's graph.
   *
   * @param section The section.
   * @param feeds Its inputs but for weights; those that it does not declare are left out.
   * @param weights Its weights by their names in the whole graph; see {@linkcode readWeights}.
   * @param change What becomes of the tokens' rows of tables.
   */
  async runSection(
    section: ExtractedModel,
    feeds: Record<string, Tensor>,
    weights: BlockWeights,
    change: RowsChange = () => {},
  ): Promise<Record<string, Tensor>> {
    const all = { ...feeds };
    for (const [input, name] of weightsOf(section)) {
      all[input] = this.backend.floats(weights.get(name)!, this.#shape(name));
    }
    for (const [ids, tables] of section.gathered) {
      const { data, dims } = feeds[ids];
      const { unique, positions } = uniqueOf(data as BigInt64Array);
      for (const table of tables) {
        const rows = this.#readRows(table, unique), width = rows.length / unique.length;
        if (ids === TOKENS) change(table, rows, width);
        all[section.rename(table)] = this.backend.floats(rows, [unique.length, width]);
      }
      all[ids] = this.backend.int64(positions, dims);
    }
    return await (await this.#sessionOf(section.bytes)).run(this.#declared(section, all));
  }

  /** Frees all sessions with what they keep; the next run loads those that it needs. */
  async freeSessions(): Promise<void> {
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const session of sessions) await (await session).release();
  }

  /** Frees all that it holds. */
  async close(): Promise<void> {
    this.#buffers.clear();
    this.#rows.clear();
    await this.freeSessions();
  }

  /** Loads a model once, however many sections have its form. */
  session(bytes: Uint8Array): Promise<Session> {
    return this.#sessionOf(this.#formOf(bytes));
  }

  /** The session of a model that {@linkcode #formOf} gave: bytes are not compared at every run. */
  #sessionOf(form: Uint8Array): Promise<Session> {
    let session = this.#sessions.get(form);
    if (!session) this.#sessions.set(form, session = this.backend.load(form));
    return session;
  }

  /** The first bytes of that content: a section has rotary tables in it, and there is one for each block. */
  #formOf(bytes: Uint8Array): Uint8Array {
    const key = textOf(bytes);
    let form = this.#forms.get(key);
    if (!form) this.#forms.set(key, form = bytes);
    return form;
  }

  /**
   * A block's section, extracted the first time that it is asked for. Its hidden states are called
   * {@linkcode HIDDEN_IN} and {@linkcode HIDDEN_OUT}, and all else as in blocks of the same form.
   *
   * @param key What tells it from other sections of that block.
   * @param options What it gives out.
   */
  blockSection(
    block: Block,
    key: string,
    options: () => Omit<ExtractOptions, "label" | "names">,
  ): ExtractedModel {
    return this.once(`${block.index} ${key}`, () =>
      extract(this.graph, block, {
        ...options(),
        label: block.label,
        names: new Map([[block.hiddenIn, HIDDEN_IN], [block.hiddenOut, HIDDEN_OUT]]),
      }));
  }

  #extractBlock(block: Block, want: BlockWants): ExtractedModel {
    const inside = insideOf(block, want);
    return this.blockSection(
      block,
      `${!!want.squares} ${!!want.output} ${inside.join(" ")}`,
      () => ({
        outputs: [...(want.output ? [block.hiddenOut] : []), ...inside],
        squaresOf: want.squares ? [...new Set(block.linears.map(({ input }) => input))] : [],
      }),
    );
  }

  /** Extracts a section the first time that it is asked for. */
  once(key: string, make: () => ExtractedModel): ExtractedModel {
    let model = this.#extracted.get(key);
    if (!model) {
      const made = make();
      this.#extracted.set(key, model = { ...made, bytes: this.#formOf(made.bytes) });
    }
    return model;
  }

  #shape(name: string): readonly number[] {
    const tensor = this.weights.tensors.get(name);
    if (!tensor) throw new GraphError(`initializer ${name} is not among the weights`);
    return tensor.shape;
  }

  #count(name: string): number {
    return this.#shape(name).reduce((product, dim) => product * dim, 1);
  }

  #bufferFor(input: string, name: string): Float32Array {
    const count = this.#count(name);
    let buffer = this.#buffers.get(input);
    if (buffer?.length !== count) this.#buffers.set(input, buffer = new Float32Array(count));
    return buffer;
  }

  /** Reads rows of a table, in ascending order. The next rows of it are read to the same place. */
  #readRows(table: string, unique: Int32Array): Float32Array {
    const width = this.#shape(table)[1], count = unique.length * width;
    let room = this.#rows.get(table);
    if (room === undefined || room.length < count) {
      this.#rows.set(table, room = new Float32Array(count));
    }
    const rows = room.subarray(0, count);
    // Neighbouring rows are read together.
    for (let from = 0; from < unique.length;) {
      let to = from + 1;
      while (to < unique.length && unique[to] === unique[to - 1] + 1) to++;
      const target = rows.subarray(from * width, to * width);
      this.weights.readFloats(table, target, unique[from] * width);
      from = to;
    }
    return rows;
  }

  /** Leaves out feeds that a model has no input for: runtimes refuse them. */
  #declared(model: ExtractedModel, feeds: Record<string, Tensor>): Record<string, Tensor> {
    return Object.fromEntries(Object.entries(feeds).filter(([name]) => model.inputs.has(name)));
  }
}

/** Weights of a section that are read whole, with the inputs that they are fed to. */
function weightsOf({ weights, gathered }: ExtractedModel): [input: string, name: string][] {
  const tables = new Set([...gathered.values()].flat());
  return [...weights].filter(([, name]) => !tables.has(name));
}

/** The ids that there are, in ascending order, and the place of each one among them. */
function uniqueOf(ids: BigInt64Array): { unique: Int32Array; positions: BigInt64Array } {
  const unique = Int32Array.from(new Set(ids), Number).sort();
  const places = new Map([...unique].map((id, place) => [id, BigInt(place)]));
  return { unique, positions: ids.map((id) => places.get(Number(id))!) };
}

/** What is asked for of a block beside what comes in and, where that is given anyway, what comes out. */
function insideOf({ hiddenIn, hiddenOut }: Block, { taps = [], output }: BlockWants): string[] {
  return taps.filter((name) => name !== hiddenIn && !(output && name === hiddenOut));
}

/** The graph's input of token ids. */
const TOKENS = "input_ids";
/** Hidden states that come into a block's section. */
export const HIDDEN_IN = "hidden_in";
/** And those that come out of it. */
export const HIDDEN_OUT = "hidden_out";

/** Bytes as a string of the same length: a map's key that compares by content. */
function textOf(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}
