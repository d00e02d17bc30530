/**
 * What the tests of checkpoints share: crafted safetensors files, copies of fixtures, a count of what
 * is allocated.
 * @module
 */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import type { ByteSource } from "../../src/checkpoint/safetensors.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/architectures/", import.meta.url));

/** A header's entry for one tensor. */
export interface CraftedTensor {
  dtype: string;
  shape: unknown;
  data_offsets: unknown;
}

/**
 * The bytes of a safetensors file.
 *
 * @param header An object, the text of one, or bytes that are none.
 * @param data The tensors' bytes, or how many zeros to put there.
 * @param declared The header length to claim, where it is not the true one.
 */
export function safetensors(
  header: object | string | Uint8Array,
  data: Uint8Array | number,
  declared?: bigint,
): Uint8Array {
  const head = header instanceof Uint8Array
    ? header
    : new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const body = typeof data === "number" ? new Uint8Array(data) : data;
  const bytes = new Uint8Array(8 + head.length + body.length);
  new DataView(bytes.buffer).setBigUint64(0, declared ?? BigInt(head.length), true);
  bytes.set(head, 8);
  bytes.set(body, 8 + head.length);
  return bytes;
}

/** The header of a safetensors file, parsed, and the bytes behind it. */
export function parseSafetensors(
  bytes: Uint8Array,
): { header: Record<string, CraftedTensor>; data: Uint8Array } {
  const length = Number(
    new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigUint64(0, true),
  );
  return {
    header: JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))),
    data: bytes.subarray(8 + length),
  };
}

/** A file in memory that notes the largest read; to read past its end is a failure of the test. */
export class MemorySource implements ByteSource {
  readonly path = "crafted.safetensors";
  /** Bytes of the largest read so far. */
  largestRead = 0;

  constructor(readonly bytes: Uint8Array) {}

  get size(): number {
    return this.bytes.length;
  }

  read(target: Uint8Array, position: number): void {
    this.largestRead = Math.max(this.largestRead, target.length);
    if (position < 0 || position + target.length > this.bytes.length) {
      throw new Error(`a read of ${target.length} bytes at ${position} of ${this.bytes.length}`);
    }
    target.set(this.bytes.subarray(position, position + target.length));
  }
}

/** What a function throws; fails when it throws nothing. */
export function thrownBy(run: () => unknown): Error & { code?: string } {
  try {
    run();
  } catch (error) {
    if (error instanceof Error) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** What a promise is rejected with; fails when it is kept. */
export async function rejectionOf(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  let error: unknown;
  try {
    await promise;
  } catch (caught) {
    error = caught;
  }
  if (error instanceof Error) return error;
  throw new Error(error === undefined ? "the promise was kept" : String(error));
}

/** A temporary folder, and copies of fixtures in it. */
export class Workshop {
  readonly path = mkdtempSync(join(tmpdir(), "espalier-test-"));
  #count = 0;

  /** A path in it that nothing has yet. */
  fresh(name = "case"): string {
    return join(this.path, `${name}-${this.#count++}`);
  }

  /** A new, empty folder. */
  folder(): string {
    const path = this.fresh();
    mkdirSync(path);
    return path;
  }

  /** A copy of a folder in `test/fixtures/architectures`. */
  copy(fixture: string): string {
    const path = this.fresh(fixture);
    cpSync(join(FIXTURES, fixture), path, { recursive: true });
    return path;
  }

  /** Removes it with all that is in it. */
  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A matrix of a checkpoint, as float32. */
export function matrixOf(folder: string, name: string): { values: Float32Array; width: number } {
  const checkpoint = Checkpoint.open(folder);
  const { shape } = checkpoint.tensors.get(name)!;
  const values = new Float32Array(shape[0] * shape[1]);
  checkpoint.readFloats(name, values);
  checkpoint.close();
  return { values, width: shape[1] };
}

/** The bytes of a file of a fixture. */
export function fixtureBytes(fixture: string, file = "model.safetensors"): Uint8Array {
  return new Uint8Array(readFileSync(join(FIXTURES, fixture, file)));
}

/** All files under a folder with their bytes. */
export function filesOf(folder: string): Map<string, string> {
  const names = readdirSync(folder, { recursive: true }).map(String).sort();
  return new Map(
    names.filter((name) => statSync(join(folder, name)).isFile()).map((name) => [
      name.replaceAll("\\", "/"),
      readFileSync(join(folder, name)).toString("base64"),
    ]),
  );
}

/** Reads a JSON file of a folder. */
export function readJsonOf(folder: string, file: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(folder, file), "utf8"));
}

/** Changes a JSON file of a folder: `change` gets its content, and may return another. */
export function editJson(
  folder: string,
  file: string,
  // deno-lint-ignore no-explicit-any
  change: (json: any) => unknown,
): void {
  const json = readJsonOf(folder, file);
  writeFileSync(join(folder, file), JSON.stringify(change(json) ?? json));
}

/** Rewrites a weight file of a folder with its header changed; its data may be changed in place. */
export function editSafetensors(
  folder: string,
  file: string,
  change: (header: Record<string, CraftedTensor>, data: Uint8Array) => void,
): void {
  const { header, data } = parseSafetensors(new Uint8Array(readFileSync(join(folder, file))));
  change(header, data);
  writeFileSync(join(folder, file), safetensors(header, data));
}

/**
 * Runs something with typed arrays that note how large they are made.
 *
 * @returns Bytes of the largest one.
 */
export function largestAllocation(run: () => void): number {
  const world = globalThis as unknown as Record<
    string,
    new (...args: unknown[]) => ArrayBufferView
  >;
  const kinds = ["Uint8Array", "Int32Array", "Float32Array", "Float64Array", "BigInt64Array"];
  const real = kinds.map((kind) => world[kind]);
  let largest = 0;
  kinds.forEach((kind, i) => {
    world[kind] = new Proxy(real[i], {
      construct(target, args, newTarget) {
        const array = Reflect.construct(target, args, newTarget) as ArrayBufferView;
        largest = Math.max(largest, array.byteLength);
        return array;
      },
    });
  });
  try {
    run();
  } finally {
    kinds.forEach((kind, i) => world[kind] = real[i]);
  }
  return largest;
}

/** The config of a fixture. */
export function configOf(name: string): Record<string, unknown> {
  return readJsonOf(join(FIXTURES, name), "config.json");
}
