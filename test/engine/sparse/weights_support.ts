/**
 * What the tests of weights share: matrices that are placed and multiplied.
 * @module
 */
import { encodeBitmap } from "../../../compile/packed/bitmap.ts";
import { encodeCsr } from "../../../compile/packed/csr.ts";
import { encodeNm } from "../../../compile/packed/nm.ts";
import { encodeSlots, type PackedSlots } from "../../../compile/packed/slots.ts";
import type {
  PackedBitmap,
  PackedCsr,
  PackedNm,
  ValueOptions,
} from "../../../compile/packed/types.ts";
import type { MatrixRef } from "../../../src/engine/sparse/ir.ts";
import { isQuantised } from "../../../src/engine/sparse/layout.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import type { PlacedMatrix } from "../../../src/engine/sparse/weights/placed.ts";
import { besideInputs, type Machine } from "./machine.ts";
import type { Tensors } from "./tensors.ts";

/** Places matrices of one file. */
export async function place(
  machine: Machine,
  file: Tensors,
  refs: readonly MatrixRef[],
): Promise<PlacedMatrix[]> {
  const reader = await file.open();
  try {
    const loader = machine.loader(reader, refs);
    const placed: PlacedMatrix[] = [];
    for (const ref of refs) placed.push(await loader.matrix(ref));
    return placed;
  } finally {
    reader.close();
  }
}

/** W·x for some vectors; int8 weights are multiplied with inputs of 14 bits. */
export function multiply(
  machine: Machine,
  matrix: PlacedMatrix,
  vectors: readonly number[][],
): Float32Array[] {
  machine.reset();
  const { rows, columns, kind } = matrix;
  const tokens = vectors.length;
  const program = new Program();
  const x = machine.place(vectors);
  const input = isQuantised(kind) ? machine.quantisedRoom(tokens, columns) : undefined;
  // All of 14 bits.
  if (input) program.quantise(x, input, columns, 0);
  const out = machine.room(tokens, rows);
  const plain = { bias: 0, activation: "none", times: 0, plus: 0 } as const;
  const scratch = machine.scratchFor(matrix, tokens);
  program.linear(matrix, input ?? x, besideInputs(matrix, x), out, scratch, plain);
  machine.run(program, { tokens });
  return machine.read(out, tokens, rows);
}

export const ENCODERS: Readonly<
  Record<
    string,
    (rows: number, columns: number, values: Float32Array, options: ValueOptions) =>
      | PackedNm
      | PackedCsr
      | PackedBitmap
      | PackedSlots
  >
> = {
  nm: (rows, columns, values, options) =>
    encodeNm({ name: "w", rows, columns, values }, { n: 8, m: 16 }, options),
  csr: (rows, columns, values, options) => encodeCsr({ name: "w", rows, columns, values }, options),
  slots: (rows, columns, values, options) =>
    encodeSlots({ name: "w", rows, columns, values }, options),
  bitmap: (rows, columns, values, options) =>
    encodeBitmap({ name: "w", rows, columns, values }, options),
};
