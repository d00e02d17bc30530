/**
 * What a compiled model is made of, as its `espalier.json` says: for people who look at it.
 * @module
 */
import { z } from "zod";
import type { ModelSource } from "../engine/source.ts";

/** Bytes of the largest `espalier.json` that is read: a line a linear. */
const LARGEST_RECORD = 64 << 20;
/** Bytes a weight of dense int4 in blocks of 32 with a float16 scale each. */
const INT4_BYTES = 0.5 + 2 / 32;

const size = z.int().min(0);
const recordSchema = z.looseObject({
  kind: z.literal("compiled"),
  options: z.looseObject({ values: z.string() }),
  linears: z.array(z.looseObject({
    name: z.string(),
    shape: z.tuple([size, size]),
    format: z.string(),
    sparsity: z.number().min(0).max(1),
    bytes: size,
  })),
  bytes: z.looseObject({ linears: size, graph: size, data: size }),
});

/** One block of a model. */
export interface BlockCard {
  readonly index: number;
  /** Fraction of its linears' weights that is 0. */
  readonly sparsity: number;
  /** Bytes of its linears. */
  readonly bytes: number;
}

/** What a compiled model is made of. */
export interface ModelCard {
  /** Weights of the linears of all blocks, zeros included. */
  readonly parameters: number;
  /** Fraction of them that is 0. */
  readonly sparsity: number;
  /** How values are stored: `f32`, `f16`, `int8` or `int4`. */
  readonly values: string;
  /** Number of linears by format. */
  readonly formats: Readonly<Record<string, number>>;
  readonly blocks: readonly BlockCard[];
  /** Bytes that the model's files would take with dense linears, the rest of them as it is. */
  readonly dense: { readonly f16: number; readonly int8: number; readonly int4: number };
}

/**
 * Reads a model's card.
 *
 * @returns Undefined for a model that was compiled by something else: it is no part of what runs it.
 */
export async function readCard(source: ModelSource): Promise<ModelCard | undefined> {
  if (!await source.has("espalier.json")) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(await source.read("espalier.json", LARGEST_RECORD)));
  } catch {
    return undefined;
  }
  const record = recordSchema.safeParse(json);
  return record.success ? cardOf(record.data) : undefined;
}

function cardOf({ options, linears, bytes }: z.output<typeof recordSchema>): ModelCard {
  const formats: Record<string, number> = {};
  const blocks = new Map<number, { weights: number; zeros: number; bytes: number }>();
  let parameters = 0;
  let zeros = 0;
  let rows = 0;
  for (const { name, shape, format, sparsity, bytes } of linears) {
    const weights = shape[0] * shape[1];
    formats[format] = (formats[format] ?? 0) + 1;
    parameters += weights;
    zeros += sparsity * weights;
    rows += shape[0];
    // `model.layers.3.…`, `transformer.h.3.…`: the first number is the block's.
    const index = /\.(\d+)\./.exec(name)?.[1];
    if (index === undefined) continue;
    const block = blocks.get(Number(index)) ?? { weights: 0, zeros: 0, bytes: 0 };
    block.weights += weights;
    block.zeros += sparsity * weights;
    block.bytes += bytes;
    blocks.set(Number(index), block);
  }
  const rest = Math.max(0, bytes.graph + bytes.data - bytes.linears);
  return {
    parameters,
    sparsity: parameters === 0 ? 0 : zeros / parameters,
    values: options.values,
    formats,
    blocks: [...blocks].sort(([a], [b]) => a - b).map(([index, block]) => ({
      index,
      sparsity: block.weights === 0 ? 0 : block.zeros / block.weights,
      bytes: block.bytes,
    })),
    dense: {
      f16: rest + 2 * parameters,
      int8: rest + parameters + 4 * rows,
      int4: rest + Math.ceil(INT4_BYTES * parameters),
    },
  };
}
