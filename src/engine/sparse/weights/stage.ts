/**
 * Room in memory for what is being packed, and what fills it from a file.
 * @module
 */
import { TABLE_LENGTH } from "../../../../compile/packed/int4.ts";
import { quote } from "../../../checks.ts";
import { OnnxError, PackedFormatError } from "../../../errors.ts";
import { letEventsIn } from "../../../platform/events.ts";
import { exp } from "../../../text/exp.ts";
import type { Kernels } from "../kernels.ts";
import { CONTROL, DESCRIPTOR, DESCRIPTOR_BYTES, JOB, roundUp } from "../layout.ts";
import type { EngineMemory } from "../memory.ts";
import type { ModelReader } from "../model_reader.ts";
import { checkScales } from "./scales.ts";

/** Bytes of a dense matrix that are packed at a time, and of a file that are read at a time. */
export const PIECE = 1 << 20;
/** Bytes, and part of the memory that is left, which rooms may take that other threads pack from. */
const MOST_BYTES = 32 << 20, PART = 1 / 32;

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

/** What is done with a vector's elements on their way. */
export interface HowRead {
  /** What is added to each. */
  readonly above?: number;
  /** Whether it is −e^x of each that is placed. */
  readonly isNegatedExponential?: boolean;
  /** How often each is placed, one after the other; once if not given. */
  readonly each?: number;
  /** Elements from the first on that are needed; all if not given. */
  readonly most?: number;
}

/** Words of a descriptor, by name. */
export type Words = Partial<Record<keyof typeof DESCRIPTOR, number>>;

/** Room for a matrix, or some of its rows, while a kernel packs it. */
export class Room {
  constructor(readonly memory: EngineMemory, readonly address: number, readonly bytes: number) {}

  /** Writes the descriptor that kernels read, at the beginning of the room. */
  describe(words: Words): void {
    this.memory.bytes(this.address, DESCRIPTOR_BYTES).fill(0);
    for (const [word, value] of Object.entries(words)) this.set(word as keyof Words, value);
  }

  /** A word of the descriptor. */
  get(word: keyof Words): number {
    return this.memory.get(this.address + DESCRIPTOR[word]);
  }

  set(word: keyof Words, value: number): void {
    this.memory.set(this.address + DESCRIPTOR[word], value);
  }

  /** Whether the job that was posted is done; what its thread has written can then be seen. */
  isDone(): boolean {
    return Atomics.load(this.memory.words(this.address + DESCRIPTOR.DONE, 1), 0) !== 0;
  }
}

/** Threads that pack what is posted. */
export interface Helpers {
  readonly threads: number;
  /** Milliseconds after which a job that is not done counts as lost. */
  readonly patience: number;
  /** What to say then. */
  lost(): Error;
}

/** A job that has been posted, and what looks at its result. */
interface Posted {
  readonly room: Room;
  readonly check: (result: number) => void;
}

/**
 * Where matrices are put together before kernels pack them.
 *
 * The caller's thread reads one after the other and gives each its place. Where others help, they pack
 * meanwhile: which packs what, and when, changes no place and no byte.
 */
export class Stage {
  readonly reader: ModelReader;
  readonly memory: EngineMemory;
  readonly kernels: Kernels;
  /** All rooms. */
  readonly address: number;
  readonly bytes: number;
  readonly #helpers: Helpers | undefined;
  readonly #free: Room[];
  #posted: Posted[] = [];
  readonly #vectors = new Map<string, number>();
  readonly #piece = new Uint8Array(PIECE);

  /**
   * @param bytes Of a room: the most that any matrix takes.
   * @param helpers Other threads that pack, if there are any.
   */
  constructor(
    reader: ModelReader,
    memory: EngineMemory,
    kernels: Kernels,
    bytes: number,
    helpers?: Helpers,
  ) {
    this.reader = reader;
    this.memory = memory;
    this.kernels = kernels;
    this.#helpers = helpers && helpers.threads > 0 ? helpers : undefined;
    const most = Math.min(MOST_BYTES, memory.left * PART);
    const each = roundUp(bytes, 64);
    // For each thread one that is packed and one that is next, and one to read into.
    const wanted = this.#helpers ? 2 * this.#helpers.threads + 1 : 1;
    const count = Math.max(1, Math.min(wanted, Math.floor(most / each)));
    memory.set(CONTROL.RING, memory.reserve(4 * count));
    memory.set(CONTROL.RING_PLACES, count);
    this.bytes = count * each;
    this.address = memory.reserve(this.bytes);
    this.#free = Array.from(
      { length: count },
      (_, i) => new Room(memory, this.address + i * each, bytes),
    );
  }

  /**
   * A room that is free, which is taken until its job is done; if need be, helps until there is one.
   *
   * @throws {PackedFormatError} When a job that was done has found a fault.
   * @throws {WorkerLostError} When a thread is lost.
   */
  async take(): Promise<Room> {
    await this.#until(() => this.#free.length > 0);
    return this.#free.pop()!;
  }

  /**
   * Posts a job.
   *
   * @param room A room that was taken, with its descriptor.
   * @param check Looks at what the kernel says; what it throws, {@linkcode Stage.take} or {@linkcode Stage.settle} throws.
   */
  post(job: keyof typeof JOB, room: Room, check: (result: number) => void): void {
    room.set("JOB", JOB[job]);
    this.#posted.push({ room, check });
    this.kernels.post(room.address);
    if (this.#helpers) return;
    this.kernels.help();
    this.#collect();
  }

  /** Waits until all jobs are done, and helps; throws as {@linkcode Stage.take} does. */
  async settle(): Promise<void> {
    await this.#until(() => this.#posted.length === 0);
  }

  /** Frees rooms whose jobs are done, and looks at results. Whether there were any. */
  #collect(): boolean {
    const done = this.#posted.filter(({ room }) => room.isDone());
    if (done.length === 0) return false;
    this.#posted = this.#posted.filter((job) => !done.includes(job));
    for (const { room } of done) this.#free.push(room);
    for (const { room, check } of done) check(room.get("RESULT"));
    return true;
  }

  async #until(isEnough: () => boolean): Promise<void> {
    let begun: number | undefined;
    for (;;) {
      if (this.#collect()) begun = undefined;
      if (isEnough()) return;
      if (this.kernels.help()) continue;
      // Others have begun all that there is.
      begun ??= performance.now();
      const { patience, lost } = this.#helpers!;
      if (this.memory.get(CONTROL.FAILED) !== 0 || performance.now() - begun > patience) {
        throw lost();
      }
      await letEventsIn();
    }
  }

  /**
   * Places a float32 tensor, with zeros behind it up to a multiple of 16 elements.
   *
   * @returns Its address.
   */
  async vector(
    name: string,
    { above = 0, isNegatedExponential = false, each = 1, most = Infinity }: HowRead = {},
  ): Promise<number> {
    const key = `${above} ${isNegatedExponential} ${each} ${name}`;
    let address = this.#vectors.get(key);
    if (address === undefined) {
      const byteLength = Math.min(this.reader.tensor(name).byteLength, 4 * most);
      address = this.memory.reserve(roundUp(each * byteLength, 64));
      await this.read(name, 0, address, byteLength);
      this.#checkFinite(name, address, byteLength / 4);
      if (above !== 0) {
        const floats = this.memory.floats(address, byteLength / 4);
        for (let i = 0; i < floats.length; i++) floats[i] += above;
      }
      if (isNegatedExponential) {
        const floats = this.memory.floats(address, byteLength / 4);
        for (let i = 0; i < floats.length; i++) floats[i] = -exp(floats[i]);
        this.#checkFinite(name, address, floats.length);
      }
      if (each > 1) {
        const count = byteLength / 4, floats = this.memory.floats(address, each * count);
        // From behind, where nothing is that has still to be read.
        for (let i = count - 1; i >= 0; i--) floats.fill(floats[i], i * each, (i + 1) * each);
      }
      this.#vectors.set(key, address);
    }
    return address;
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
    checkScales(name, this.memory.words(address, count));
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
