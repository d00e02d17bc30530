/**
 * The size of a compiled model before there is one, to the byte where the zeros of its linears are as
 * many as foretold: the same formulas, the same places in the data file, the same graph. For slots it is
 * the most that there can be: how many windows store their bits, the weights decide.
 * @module
 */
import type { OpenModel } from "../src/api/shared.ts";
import { cutIntoSections, type Linear } from "../src/onnx/sections.ts";
import { groupColumns, INT4_GROUP } from "../src/prune/int4_grid.ts";
import type { Kept } from "../src/prune/kept.ts";
import { type Format, smallestFormat, type Zeros } from "./choose_format.ts";
import { CountingSink, nextPage, PAGE, type TensorSink } from "./data_file.ts";
import { type Packed, scalingOf, store, valueTypeOf } from "./emit.ts";
import { operatorName } from "./functions.ts";
import { contextOf, definitionBytes, graphOf, tablesOf } from "./graph.ts";
import { gridColumns, rowsSeen, TABLE_LENGTH } from "./packed/int4.ts";
import { CANDIDATES, codeBits } from "./packed/nm.ts";
import { VALUE_BYTES } from "./packed/quantize.ts";
import { MOST_SLOTS, SLOT_COLUMNS, SLOT_ROWS } from "./packed/slots.ts";
import type { Matrix, NmPattern, Shape, ValueOptions, Values } from "./packed/types.ts";
import { headGroup, type Storing, tableValues } from "./storing.ts";
import { TensorProto_DataType as DataType } from "../src/onnx/generated/onnx_pb.ts";
import { readMatrix, type Stored, type StoredDense } from "./weights.ts";

/** The part of the weights expected that is left at least, where they may be fewer. */
const LEAST_LEFT = 7 / 8;

/** Bytes by which the node of one format is larger than that of another, at most. */
const OTHER_NODE = 64;

/** What is less likely than this does not come about. */
const LEAST_CHANCE = 1e-6;

/** Longest distance between two entries of CSR. */
const GREATEST_GAP = 255;

/** Foretells sizes of one checkpoint. */
export class CompiledSizes {
  readonly #opened: OpenModel;
  readonly #context: number;
  readonly #linears: readonly Linear[];
  readonly #tables: readonly string[];
  /** Columns of the grid that linears lie on already, by the names of their weights. */
  readonly #grids = new Map<string, number>();
  /** Stands for tensors of any length: nobody reads it. */
  #scratch = new ArrayBuffer(0);

  /** @param context Longest sequence that it will be compiled for; the default of `compile`. */
  constructor(opened: OpenModel, context?: number) {
    this.#opened = opened;
    this.#context = contextOf(opened.spec, context);
    this.#linears = cutIntoSections(opened.graph).blocks.flatMap(({ linears }) => linears);
    this.#tables = tablesOf(opened.graph, this.#linears.map(({ weight }) => weight));
  }

  /**
   * Bytes of `model.onnx` and `model.onnx_data` together.
   *
   * @param kept What stays of each linear, by the name of its weight; one that is not there keeps all.
   * @param storing How it will be stored.
   */
  bytes(kept: ReadonlyMap<string, Kept>, storing: Storing): number {
    const { checkpoint, spec } = this.#opened;
    const sink = new CountingSink();
    const matrices = this.#linearsIn(sink, kept, storing);
    for (const name of this.#tables) {
      const [rows, columns] = checkpoint.tensors.get(name)!.shape;
      matrices.set(name, this.#dense({ rows, columns }, this.#tableOptions(name, storing), sink));
    }
    const how = { context: this.#context, logits: "all" } as const;
    const graph = graphOf(checkpoint, spec, sink, matrices, how);
    return graph.length + sink.size + this.#otherDefinitions(kept, storing, matrices);
  }

  /**
   * Bytes of operators that only a part of the linears may need: where fewer weights are left than expected, or
   * lie in a pattern by chance, another format may be the smallest of some, by less than its definition takes, its
   * nodes, and the pages that its tensors, or what comes behind smaller ones, may begin later: a dense matrix is one
   * tensor, others are two and more.
   */
  #otherDefinitions(
    kept: ReadonlyMap<string, Kept>,
    storing: Storing,
    matrices: ReadonlyMap<string, Stored>,
  ): number {
    if (storing.format !== "auto") return 0;
    const others = new Set<string>();
    let [nodes, pages] = [0, 0];
    let mayMove = false;
    for (const { weight, rows, columns } of this.#linears) {
      const stays = kept.get(weight);
      if (!stays || stays.kind === "slots") continue;
      const shape = { rows, columns };
      const zeros = zerosOf(shape, stays);
      const { nonzeros, entries } = zeros;
      const options = this.#optionsOf(weight, shape, zeros, storing, stays?.mended);
      const left = { ...zeros, nonzeros: nonzeros * LEAST_LEFT, entries: entries * LEAST_LEFT };
      const formats: Format[] = stays.fewer ? [smallestFormat(shape, left, options)] : [];
      if (stays.kind === "any" && mayBeNm(shape, zeros, options)) {
        formats.push("nm");
        mayMove = true;
      }
      for (const format of formats) {
        if (format !== "dense") others.add(operatorName(format, scalingOf(options, columns)));
      }
      const foretold = matrices.get(weight)!.format;
      if (formats.every((format) => format === foretold)) continue;
      nodes++;
      if (foretold === "dense") pages++;
    }
    for (const stored of matrices.values()) {
      if ("scaling" in stored) others.delete(operatorName(stored.format, stored.scaling));
    }
    return [...others].reduce(
      (sum, name) => sum + definitionBytes(name),
      OTHER_NODE * nodes + PAGE * (pages + (mayMove ? 1 : 0)),
    );
  }

  /**
   * Bytes of the data file up to the end of the linears, which come first: what differs between two
   * plans for the same storing, but for some bytes of the graph.
   */
  linearBytes(kept: ReadonlyMap<string, Kept>, storing: Storing): number {
    const sink = new CountingSink();
    this.#linearsIn(sink, kept, storing);
    return nextPage(sink.size);
  }

  #linearsIn(
    sink: TensorSink,
    kept: ReadonlyMap<string, Kept>,
    storing: Storing,
  ): Map<string, Stored> {
    const { format } = storing;
    const matrices = new Map<string, Stored>();
    for (const { weight, rows, columns } of this.#linears) {
      const shape = { rows, columns };
      const stays = kept.get(weight);
      const zeros = zerosOf(shape, stays);
      const options = this.#optionsOf(weight, shape, zeros, storing, stays?.mended);
      const chosen = format === "auto" ? smallestFormat(shape, zeros, options) : format;
      matrices.set(
        weight,
        chosen === "dense"
          ? this.#dense(shape, options, sink)
          : store(this.#packed(chosen, shape, zeros, options), (view) => sink.append(view)),
      );
      // Its share of the block's slots may be larger or smaller, and the smallest format another one:
      // beyond the mean that costs a page at most.
      if (stays?.kind === "slots") sink.begin(PAGE);
    }
    return matrices;
  }

  /** A matrix of the format with tensors of the right lengths. */
  #packed(
    format: Exclude<Format, "dense">,
    { rows, columns }: Shape,
    { nonzeros, entries, pattern, slots }: Zeros,
    options: ValueOptions,
  ): Packed {
    const shape = { name: "", rows, columns };
    if (slots && format === "slots") {
      const values = this.#values(shape, options, 16 * (1 + slots.slots));
      const counts = this.#bytes(rows / SLOT_ROWS * Math.ceil(columns / SLOT_COLUMNS / 2));
      const masks = this.#bytes(8 * (2 + slots.partial));
      return { format: "slots", matrix: { ...shape, values, counts, masks } };
    }
    if (format === "bitmap") {
      const values = this.#values(shape, options, 1 + nonzeros);
      return {
        format,
        matrix: { ...shape, values, bits: this.#bytes(rows * Math.ceil(columns / 8)) },
      };
    }
    if (format === "csr" || !pattern) {
      const values = this.#values(shape, options, entries);
      const rowPointers = new Int32Array(this.#room(4 * (rows + 1)), 0, rows + 1);
      return {
        format: "csr",
        matrix: { ...shape, values, gaps: this.#bytes(entries), rowPointers },
      };
    }
    const { n, m } = pattern;
    const stored = columns / m * n;
    const codes = this.#bytes(stored * Math.ceil(rows * codeBits(m) / 8));
    const values = this.#values(shape, options, stored * rows);
    return { format: "nm", matrix: { ...shape, n, m, values, codes } };
  }

  #values({ rows, columns }: Shape, { type, group }: ValueOptions, length: number): Values {
    // Of int4, levels are a byte each before they are stored.
    const room = this.#room(length * Math.ceil(VALUE_BYTES[type]));
    switch (type) {
      case "f32":
        return { type, data: new Float32Array(room, 0, length) };
      case "f16":
        return { type, data: new Uint16Array(room, 0, length) };
      case "int8": {
        const shared = Math.min(group ?? columns, columns);
        const scales = rows * Math.ceil(columns / shared);
        return {
          type,
          data: new Int8Array(room, 0, length),
          scales: new Float32Array(this.#room(4 * scales), 0, scales),
          group: shared,
        };
      }
      case "int4": {
        const scales = rows * Math.ceil(columns / group!);
        return {
          type,
          data: new Int8Array(room, 0, length),
          scales: new Uint16Array(this.#room(2 * scales), 0, scales),
          group: group!,
        };
      }
    }
  }

  /**
   * How the values of a linear are stored. What lies on a grid of int4 keeps its groups, which may be smaller, unless
   * its weights are changed.
   */
  #optionsOf(
    weight: string,
    { rows, columns }: Shape,
    { nonzeros }: Zeros,
    { values, group }: Storing,
    areMended = false,
  ): ValueOptions {
    if (values !== "int4") return { type: values, group };
    const byDensity = groupColumns(nonzeros / (rows * columns), group ?? INT4_GROUP);
    const least = areMended ? Infinity : this.#gridOf(weight);
    return { type: values, group: Math.min(byDensity, least) };
  }

  /** The columns that share a scale where a linear lies on a grid already; infinite where it does not. */
  #gridOf(weight: string): number {
    const known = this.#grids.get(weight);
    if (known !== undefined) return known;
    const found = gridColumns(this.#rowsSeen(weight)) ?? Infinity;
    this.#grids.set(weight, found);
    return found;
  }

  /** The rows of a linear that say whether it lies on a grid; all of one that is stored the other way. */
  #rowsSeen(weight: string): Matrix {
    const { checkpoint } = this.#opened;
    const { shape: [rows, columns], isTurned } = checkpoint.tensors.get(weight)!;
    if (isTurned) return readMatrix(checkpoint, weight, new Float32Array(rows * columns));
    const seen = rowsSeen(rows);
    const values = new Float32Array(seen.length * columns);
    for (const [i, row] of seen.entries()) {
      checkpoint.readFloats(weight, values.subarray(i * columns, (i + 1) * columns), row * columns);
    }
    return { name: weight, rows: seen.length, columns, values };
  }

  #tableOptions(name: string, storing: Storing): ValueOptions {
    const type = tableValues(name, this.#opened.spec, storing);
    return {
      type,
      group: type === "int4" ? groupColumns(1, headGroup(storing) ?? INT4_GROUP) : undefined,
    };
  }

  /** As `storeDense` places it. */
  #dense({ rows, columns }: Shape, { type, group }: ValueOptions, sink: TensorSink): StoredDense {
    if (type === "int4") {
      const perRow = Math.ceil(columns / group!);
      const bytes = Math.ceil(columns / 2);
      const { range } = sink.begin(rows * bytes);
      return {
        format: "dense",
        rows,
        columns,
        group,
        values: { type: valueTypeOf(type), dims: [rows, bytes], range },
        scales: {
          type: DataType.UINT8,
          dims: [rows, perRow],
          range: sink.begin(rows * perRow).range,
        },
        table: {
          type: DataType.FLOAT16,
          dims: [TABLE_LENGTH],
          range: sink.begin(2 * TABLE_LENGTH).range,
        },
      };
    }
    const dims = [rows, columns];
    const { range } = sink.begin(rows * columns * VALUE_BYTES[type]);
    return {
      format: "dense",
      rows,
      columns,
      values: { type: valueTypeOf(type), dims, range },
      scales: type === "int8"
        ? { type: DataType.FLOAT, dims: [rows], range: sink.begin(4 * rows).range }
        : undefined,
    };
  }

  #bytes(length: number): Uint8Array {
    return new Uint8Array(this.#room(length), 0, length);
  }

  #room(bytes: number): ArrayBuffer {
    if (this.#scratch.byteLength < bytes) this.#scratch = new ArrayBuffer(bytes);
    return this.#scratch;
  }
}

/** What the formats will find in a matrix. */
function zerosOf({ rows, columns }: Shape, kept: Kept | undefined): Zeros {
  const all = rows * columns;
  if (!kept) return { nonzeros: all, entries: all };
  if (kept.kind === "slots") {
    const nonzeros = 16 * kept.slots;
    // Windows with all or none of their slots do not store their bits, of which each other one has some and lacks some.
    const windows = rows / SLOT_ROWS * (columns / SLOT_COLUMNS);
    const lacking = windows * MOST_SLOTS - kept.slots;
    const slots = { slots: kept.slots, partial: Math.min(windows, kept.slots, lacking) };
    return { nonzeros, entries: nonzeros, slots };
  }
  const nonzeros = kept.kind === "nm" ? all / kept.m * kept.n : kept.weights;
  // Entries of value 0 are put where zeros are many in a row: as often as chance has it.
  const far = Math.pow(1 - nonzeros / all, GREATEST_GAP);
  const entries = Math.max(1, Math.ceil(nonzeros / (1 - far)));
  const pattern = kept.kind === "nm" && kept.n < kept.m ? patternFound(kept) : undefined;
  return { nonzeros, entries, pattern };
}

/**
 * Whether weights that may stay anywhere may be N:M all the same, and take fewest bytes so: a small matrix has so
 * few groups that none need have many.
 */
function mayBeNm(shape: Shape, zeros: Zeros, options: ValueOptions): boolean {
  const { rows, columns } = shape;
  const density = zeros.nonzeros / (rows * columns);
  if (density >= 1) return false;
  return CANDIDATES.some((m) => {
    if (columns % m !== 0) return false;
    const groups = rows * columns / m;
    // The chance that n weights of a group stay, and that no more do.
    let chance = (1 - density) ** m;
    let atMost = chance;
    for (let n = 1; n < m; n++) {
      chance *= (m - n + 1) / n * density / (1 - density);
      atMost += chance;
      // A larger N takes more bytes. Where each row keeps so many in all, no group of it has more.
      if (n >= zeros.nonzeros / rows || atMost ** groups >= LEAST_CHANCE) {
        return smallestFormat(shape, { ...zeros, pattern: { n, m } }, options) === "nm";
      }
    }
    return false;
  });
}

/**
 * The pattern that `findPattern` finds in a matrix pruned to N:M. Multiples of M fit as well, but their
 * positions take more bits.
 */
function patternFound({ n, m }: NmPattern): NmPattern | undefined {
  return CANDIDATES.includes(m) ? { n, m } : undefined;
}
