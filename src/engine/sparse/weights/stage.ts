/**
 * Room in memory for what is being packed, and what fills it from a file.
 * @module
 */
import { TABLE_LENGTH } from "../../../../compile/packed/int4.ts";
import { OnnxError, PackedFormatError, quote } from "../../../errors.ts";
import type { Kernels } from "../kernels.ts";
import { DESCRIPTOR, DESCRIPTOR_BYTES, roundUp } from "../layout.ts";
import type { EngineMemory } from "../memory.ts";
import type { ModelReader } from "../model_reader.ts";

/** Bytes of a dense matrix that are packed at a time, and of a file that are read at a time. */
export const PIECE = 1 << 20;
/** Greatest scale of int8 values; see docs/format.md. */
const GREATEST_SCALE = 2 ** 121;

/** What the kernels' decoders report, by number. */
const FAULTS: readonly string[] = [
  "",
  "has fewer values than its indices say",
  "has more values than its indices say",
  "has a weight outside of its row",
  "has places that do not ascend",
  "holds NaN or infinity",
  "has row pointers that do not fit its entries",
  "has bits behind its last row or column",
  "has a gap of 0",
  "has a first value that is not 0",
  "holds -128, which int8 weights are not",
  "has a window with more than 4 slots",
  "has a window whose bits are not as many as its slots hold",
  "has bits before those of its windows that are not none and all",
  "has a scale that is 0 or not finite",
];

/** Words of a descriptor, by name. */
export type Words = Partial<Record<keyof typeof DESCRIPTOR, number>>;

/** Where matrices are put together before kernels pack them. */
export class Stage {
  readonly reader: ModelReader;
  readonly memory: EngineMemory;
  readonly kernels: Kernels;
  readonly address: number;
  readonly bytes: number;
  readonly #vectors = new Map<string, number>();
  readonly #piece = new Uint8Array(PIECE);

  /** @param bytes Room that is reserved: the most that any matrix takes. */
  constructor(reader: ModelReader, memory: EngineMemory, kernels: Kernels, bytes: number) {
    this.reader = reader;
    this.memory = memory;
    this.kernels = kernels;
    this.bytes = bytes;
    this.address = memory.reserve(bytes);
  }

  /**
   * Places a float32 tensor, with zeros behind it up to a multiple of 16 elements.
   *
   * @returns Its address.
   */
  async vector(name: string): Promise<number> {
    let address = this.#vectors.get(name);
    if (address === undefined) {
      const { byteLength } = this.reader.tensor(name);
      address = this.memory.reserve(roundUp(byteLength, 64));
      await this.read(name, 0, address, byteLength);
      this.#checkFinite(name, address, byteLength / 4);
      this.#vectors.set(name, address);
    }
    return address;
  }

  /** Writes the descriptor that kernels read, at the beginning of the room. */
  describe(words: Words): void {
    this.memory.bytes(this.address, DESCRIPTOR_BYTES).fill(0);
    for (const [word, value] of Object.entries(words)) {
      this.memory.set(this.address + DESCRIPTOR[word as keyof typeof DESCRIPTOR], value);
    }
  }

  /** @throws {PackedFormatError} When kernels report a fault. */
  check(name: string, fault: number): void {
    if (fault !== 0) throw new PackedFormatError(`${quote(name)} ${FAULTS[fault]}`);
  }

  /** Places scales, one of which each row or group has; those of rows that do not exist are 0. */
  async scales(name: string, count: number): Promise<number> {
    const { byteLength } = this.reader.tensor(name);
    if (byteLength !== 4 * count) {
      throw new OnnxError(`${quote(name)} has ${byteLength / 4} scales, not ${count}`);
    }
    const address = await this.vector(name);
    for (const scale of this.memory.floats(address, count)) {
      if (!(scale > 0 && scale <= GREATEST_SCALE)) {
        throw new PackedFormatError(`${quote(name)} has the scale ${scale}`);
      }
    }
    return address;
  }

  #checkFinite(name: string, address: number, count: number): void {
    const bits = this.memory.words(address, count);
    for (let i = 0; i < count; i++) {
      if ((bits[i] & 0x7f800000) === 0x7f800000) {
        throw new PackedFormatError(`${quote(name)} holds NaN or infinity at element ${i}`);
      }
    }
  }

  /** Reads a part of a tensor to an address. */
  async read(name: string, offset: number, address: number, length: number): Promise<void> {
    // By way of memory that is not shared: runtimes do not read files into shared memory.
    for (let done = 0; done < length; done += PIECE) {
      const piece = this.#piece.subarray(0, Math.min(PIECE, length - done));
      await this.reader.readRange(name, offset + done, piece);
      this.memory.bytes(address + done, piece.length).set(piece);
    }
  }

  /**
   * Looks scales of int4 weights up, and puts them as float16 to an address.
   *
   * @param indices Tensor of places in the table.
   * @param table Tensor of 256 float16 numbers.
   * @param first Of the scales, and how many.
   * @throws {PackedFormatError} When the table has another length.
   */
  async int4Scales(
    indices: string,
    table: string,
    { first, count, address }: { first: number; count: number; address: number },
  ): Promise<void> {
    const { byteLength } = this.reader.tensor(table);
    const entries = new Uint16Array(TABLE_LENGTH);
    if (byteLength !== entries.byteLength) {
      throw new PackedFormatError(
        `${quote(table)} has ${byteLength} bytes, not ${entries.byteLength}`,
      );
    }
    await this.reader.readRange(table, 0, new Uint8Array(entries.buffer));
    const target = this.memory.halves(address, count);
    for (let done = 0; done < count; done += PIECE) {
      const piece = this.#piece.subarray(0, Math.min(PIECE, count - done));
      await this.reader.readRange(indices, first + done, piece);
      for (let i = 0; i < piece.length; i++) target[done + i] = entries[piece[i]];
    }
  }
}
