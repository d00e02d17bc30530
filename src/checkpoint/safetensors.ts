/**
 * Reading the header of a safetensors file: which tensor lies where.
 *
 * The form is 8 bytes of little-endian header length, that many bytes of JSON, then the tensors' bytes
 * without gaps. The file is hostile until it has passed: nothing is allocated by what a header says
 * before that has been compared with the file's real size.
 * @module
 */
import { z } from "zod";
import type { FloatType } from "../onnx/element_type.ts";
import { quote } from "../checks.ts";
import { SafetensorsError } from "../errors.ts";

/** Bytes of the longest header that is read; the format's own limit. */
export const LARGEST_HEADER = 100_000_000;
/** More dimensions than any weight has. */
const MOST_DIMENSIONS = 8;

/** Bits of an element, for every type of the format; only some are computed with. */
const BITS: Record<string, number> = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64,
};

const FLOATS: Record<string, FloatType> = { F32: "f32", F16: "f16", BF16: "bf16" };

const headerEntry = z.object({
  dtype: z.string(),
  shape: z.array(z.number().int().nonnegative()).max(MOST_DIMENSIONS),
  data_offsets: z.tuple([z.number().int().nonnegative(), z.number().int().nonnegative()]),
});
const metadataEntry = z.record(z.string(), z.string());

/** One tensor of a file. */
export interface TensorEntry {
  readonly name: string;
  /** The type as the file spells it, e.g. `BF16`. */
  readonly dtype: string;
  /** The type as we compute with it; undefined for types that we only carry along. */
  readonly type: FloatType | undefined;
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** Something bytes can be read from at a position. */
export interface ByteSource {
  readonly path: string;
  readonly size: number;
  read(target: Uint8Array, position: number): void;
}

/**
 * Reads and checks a safetensors header.
 *
 * @param source The file.
 * @returns Its tensors in the order of their bytes.
 * @throws {SafetensorsError} When the length, the JSON, a type, a shape or an offset cannot be right.
 */
export function readSafetensorsHeader(source: ByteSource): TensorEntry[] {
  const { path, size } = source;
  const fail = (what: string, cause?: unknown): never => {
    throw new SafetensorsError(`${path}: ${what}; the file is damaged, fetch it again`, { cause });
  };
  if (size < 8) fail(`has ${size} bytes, too few for a safetensors file`);
  const prefix = new Uint8Array(8);
  source.read(prefix, 0);
  const declared = new DataView(prefix.buffer).getBigUint64(0, true);
  if (declared > BigInt(size - 8)) {
    fail(`the header length ${declared} reaches past the end of the file (${size} bytes)`);
  }
  if (declared > BigInt(LARGEST_HEADER)) {
    fail(`the header length ${declared} is above the format's limit of ${LARGEST_HEADER}`);
  }
  const bytes = new Uint8Array(Number(declared));
  source.read(bytes, 8);

  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    fail("the header is not valid JSON", cause);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    fail("the header is not a JSON object");
  }

  const start = 8 + bytes.length;
  const entries: TensorEntry[] = [];
  for (const [name, value] of Object.entries(header as Record<string, unknown>)) {
    if (name === "__metadata__") {
      if (!metadataEntry.safeParse(value).success) fail("__metadata__ is not a map of strings");
      continue;
    }
    const parsed = headerEntry.safeParse(value);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      return fail(`tensor ${quote(name)}: ${issue.path.join(".") || "entry"}: ${issue.message}`);
    }
    const { dtype, shape, data_offsets: [begin, end] } = parsed.data;
    const bits = Object.hasOwn(BITS, dtype) ? BITS[dtype] : undefined;
    if (bits === undefined) return fail(`tensor ${quote(name)}: unknown dtype ${quote(dtype)}`);
    const wanted = shape.reduce((product, dim) => product * dim, 1) * (bits / 8);
    if (end < begin || end > size - start) {
      fail(`tensor ${quote(name)}: bytes ${begin} to ${end} reach outside the file`);
    }
    if (end - begin !== wanted) {
      fail(
        `tensor ${
          quote(name)
        }: shape [${shape}] of ${dtype} takes ${wanted} bytes, the header gives ${end - begin}`,
      );
    }
    entries.push({
      name,
      dtype,
      type: Object.hasOwn(FLOATS, dtype) ? FLOATS[dtype] : undefined,
      shape,
      offset: start + begin,
      length: end - begin,
    });
  }

  entries.sort((a, b) => a.offset - b.offset || a.length - b.length);
  let position = start;
  for (const entry of entries) {
    if (entry.offset < position) fail(`tensor ${quote(entry.name)} overlaps another one`);
    if (entry.offset > position) {
      fail(`${entry.offset - position} bytes before tensor ${quote(entry.name)} belong to none`);
    }
    position += entry.length;
  }
  if (position !== size) fail(`${size - position} bytes at the end belong to no tensor`);
  return entries;
}
