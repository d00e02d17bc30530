/**
 * Tables that stay in their file: a row is read when a token asks for it.
 *
 * Of an embedding that no product multiplies with, a token needs a few kB, and a file gives them in microseconds. In
 * memory such tables would be the largest part of some models: of Gemma 4 E2B, which has one for all layers, half.
 * @module
 */
import { TABLE_LENGTH } from "../../../../compile/packed/int4.ts";
import { quote } from "../../../checks.ts";
import { PackedFormatError } from "../../../errors.ts";
import { halves } from "../../../onnx/half.ts";
import type { MatrixRef } from "../ir.ts";
import type { DirectTensor, ModelReader } from "../model_reader.ts";
import type { FusedDecoder } from "../plan/fuse.ts";
import { type Widen, widenF16, widenF32, widenInt4, widenInt8 } from "./row_values.ts";
import { checkScales } from "./scales.ts";

/** A table: only dense ones have rows that can be taken. */
export type TableRef = MatrixRef & { readonly kind: "dense" };

/** Where rows are when tokens ask for them; `auto` is in the file for large tables. */
export type Embeddings = "auto" | "memory" | "file";

/** Bytes of the smallest table that stays in its file unless all shall. */
export const LEAST_TABLE = 64 << 20;

/** A part of each row, read into the same bytes for every row. */
interface Part {
  readonly tensor: DirectTensor;
  readonly row: Uint8Array<ArrayBuffer>;
}

/** A table in a file; {@linkcode FileRows.close} it when done. */
export class FileRows {
  /** Bytes of it that stay in the file. */
  readonly bytes: number;
  readonly #name: string;
  readonly #parts: readonly Part[];
  readonly #widen: Widen;
  /** The row that is read. */
  #row = 0;

  /** @param scales Of all rows (int8), or those that groups name (int4). */
  private constructor(ref: TableRef, parts: readonly Part[], scales: Float32Array) {
    const { columns, group = columns } = ref;
    this.#name = ref.name;
    this.#parts = parts;
    const [{ row }, places] = parts;
    this.bytes = ref.rows * parts.reduce((sum, { row }) => sum + row.length, 0);
    this.#widen = {
      f32: () => widenF32(row),
      f16: () => widenF16(row),
      int8: () => widenInt8(row, () => scales[this.#row]),
      int4: () => widenInt4(row, places.row, scales, { columns, group }),
    }[ref.type]();
  }

  /**
   * Opens a table, and has it checked where its file has hashes.
   *
   * @returns Nothing where its rows cannot be read for themselves: see {@linkcode ModelReader.direct}.
   * @throws {PackedFormatError} When its scales are damaged. Rows are looked at when they are read.
   * @throws {IntegrityError} When it differs from its hashes.
   * @throws {AbortError} When the signal says so.
   */
  static async open(
    reader: ModelReader,
    ref: TableRef,
    signal?: AbortSignal,
  ): Promise<FileRows | undefined> {
    const parts: Part[] = [];
    const drop = () => parts.forEach(({ tensor }) => tensor.close());
    try {
      for (const name of ref.type === "int4" ? [ref.values, ref.scales!] : [ref.values]) {
        const tensor = reader.direct(name);
        if (!tensor) {
          drop();
          return undefined;
        }
        const row = new Uint8Array(reader.tensor(name).byteLength / ref.rows);
        parts.push({ tensor, row });
        await reader.check(name, signal);
      }
      return new FileRows(ref, parts, await readScales(reader, ref));
    } catch (error) {
      drop();
      throw error;
    }
  }

  /**
   * Reads a row.
   *
   * @param row Below the table's rows.
   * @param target `[columns]`, filled with float32.
   * @throws {PackedFormatError} When it holds what weights are not.
   * @throws {FileReadError} When the file cannot be read any more.
   */
  async read(row: number, target: Float32Array): Promise<void> {
    this.#row = row;
    for (const part of this.#parts) await part.tensor.read(row * part.row.length, part.row);
    const fault = this.#widen(target);
    if (fault) throw new PackedFormatError(`${quote(this.#name)} ${fault}, in row ${row}`);
  }

  close(): void {
    for (const { tensor } of this.#parts) tensor.close();
  }
}

/** Scales that are kept in memory: four bytes a row, or 256 for all. */
async function readScales(reader: ModelReader, ref: TableRef): Promise<Float32Array> {
  const { type, rows, scales, table } = ref;
  if (type === "int8") {
    const floats = new Float32Array(rows);
    await reader.readTensor(scales!, new Uint8Array(floats.buffer));
    checkScales(scales!, new Int32Array(floats.buffer));
    return floats;
  }
  if (type !== "int4") return new Float32Array();
  const bits = new Uint16Array(TABLE_LENGTH), wide = halves();
  await reader.readTensor(table!, new Uint8Array(bits.buffer));
  return Float32Array.from(bits, (half) => wide[half]);
}

/** Tables of tokens that no product multiplies with, and that therefore may stay in the file. */
export function tablesForFile(
  reader: ModelReader,
  { steps }: FusedDecoder,
  how: Embeddings = "auto",
): TableRef[] {
  const multiplied = new Set(
    steps.flatMap((step) =>
      step.op === "linear" && step.matrix.kind === "dense" ? [step.matrix.values] : []
    ),
  );
  return steps.flatMap((step) => {
    if (step.op !== "embed" || step.of !== "tokens" || multiplied.has(step.table.values)) return [];
    return mayStay(reader.tensor(step.table.values).byteLength, how) ? [step.table] : [];
  });
}

/** Of tables with so many bytes each, what stays in the file. */
export function bytesLeftInFile(tables: readonly number[], how: Embeddings): number {
  return tables.filter((bytes) => mayStay(bytes, how)).reduce((sum, bytes) => sum + bytes, 0);
}

function mayStay(bytes: number, how: Embeddings): boolean {
  return how === "file" || (how === "auto" && bytes >= LEAST_TABLE);
}
