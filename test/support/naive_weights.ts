/**
 * The weights of a lowered decoder, unpacked as `docs/format.md` says it: slow, and shared with nothing
 * that is tested.
 * @module
 */
import type { Decoder, MatrixRef, RotaryTables } from "../../src/engine/sparse/ir.ts";
import type { ModelReader } from "../../src/engine/sparse/model_reader.ts";

/** Weights in float64. */
export interface NaiveWeights {
  /** Row-major `[rows, columns]`. */
  matrix(ref: MatrixRef): Float64Array;
  vector(name: string): Float64Array;
  /** Cosines and sines of a position. */
  turns(tables: RotaryTables, position: number): [Float64Array, Float64Array];
}

/** Reads all weights that a decoder names. */
export async function loadWeights(decoder: Decoder, reader: ModelReader): Promise<NaiveWeights> {
  const matrices = new Map<MatrixRef, Float64Array>();
  const vectors = new Map<string, Float64Array>();
  const addVector = async (name: string | undefined) => {
    if (name !== undefined) vectors.set(name, floatsOf(await reader.readTensor(name), "f32"));
  };
  for (const step of decoder.steps) {
    switch (step.op) {
      case "attention":
        await addVector(step.sinks);
        break;
      case "convolve":
        await addVector(step.weight);
        await addVector(step.bias);
        break;
      case "embed":
        matrices.set(step.table, await readMatrix(step.table, reader));
        break;
      case "linear":
        matrices.set(step.matrix, await readMatrix(step.matrix, reader));
        await addVector(step.bias);
        break;
      case "rmsNorm":
      case "weigh":
        await addVector(step.weight);
        break;
      case "shift":
        await addVector(step.bias);
        break;
      case "layerNorm":
        await addVector(step.weight);
        await addVector(step.bias);
        break;
      case "rotary":
        if (step.tables.kind === "computed") break;
        await addVector(step.tables.cosines);
        await addVector(step.tables.sines);
    }
  }
  const vector = (name: string) => {
    const values = vectors.get(name);
    if (!values) throw new Error(`${name} was not read`);
    return values;
  };
  return {
    matrix: (ref) => matrices.get(ref)!,
    vector,
    turns(tables, position) {
      if (tables.kind === "computed") {
        const angles = Float64Array.from(tables.frequencies, (f) => Math.fround(f * position));
        const by = (f: (angle: number) => number) =>
          angles.map((angle) => tables.factor * f(angle));
        return [by(Math.cos), by(Math.sin)];
      }
      const row = (name: string) =>
        vector(name).subarray(position * tables.pairs, (position + 1) * tables.pairs);
      return [row(tables.cosines), row(tables.sines)];
    },
  };
}

/** One matrix, dense. */
export async function readMatrix(ref: MatrixRef, reader: ModelReader): Promise<Float64Array> {
  const { rows, columns } = ref;
  const dense = new Float64Array(rows * columns);
  const tensors = ref.kind === "sparse" ? ref.tensors : {
    values: ref.values,
    ...ref.scales ? { scales: ref.scales } : {},
    ...ref.table ? { scale_table: ref.table } : {},
  };
  const bytes = new Map<string, Uint8Array>();
  for (const [part, name] of Object.entries(tensors)) {
    bytes.set(part, await reader.readTensor(name));
  }

  const values = ref.type === "int4" && ref.kind === "dense"
    ? rowsOfLevels(bytes.get("values")!, columns)
    : floatsOf(bytes.get("values")!, ref.type);
  if (ref.kind === "dense") dense.set(values);
  else if (ref.format === "nm") unpackNm(ref, values, bytes.get("codes")!, dense);
  else if (ref.format === "csr") unpackCsr(values, bytes.get("gaps")!, dense);
  else if (ref.format === "slots") {
    unpackSlots(ref, values, bytes.get("counts")!, bytes.get("masks")!, dense);
  } else unpackBitmap(ref, values, bytes.get("bits")!, dense);

  const scaled = bytes.get("scales");
  if (scaled) {
    const table = bytes.get("scale_table");
    const entries = table && floatsOf(table, "f16");
    const scales = entries
      ? Float64Array.from(scaled, (index) => entries[index])
      : floatsOf(scaled, "f32");
    const group = ref.kind === "sparse" ? ref.attributes.group ?? columns : ref.group ?? columns;
    const perRow = Math.ceil(columns / group);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        dense[r * columns + c] *= scales[r * perRow + Math.floor(c / group)];
      }
    }
  }
  return dense;
}

type Sparse = MatrixRef & { readonly kind: "sparse" };

function unpackNm(ref: Sparse, values: Float64Array, codes: Uint8Array, dense: Float64Array): void {
  const { rows, columns, attributes: { n, m, bits } } = ref;
  const codeRow = Math.ceil(rows * bits / 8);
  for (let g = 0; g < columns / m; g++) {
    for (let j = 0; j < n; j++) {
      for (let r = 0; r < rows; r++) {
        const byte = codes[(g * n + j) * codeRow + Math.floor(r * bits / 8)];
        const code = byte >> (r * bits % 8) & (2 ** bits - 1);
        dense[r * columns + g * m + code] = values[(g * n + j) * rows + r];
      }
    }
  }
}

function unpackCsr(values: Float64Array, gaps: Uint8Array, dense: Float64Array): void {
  let position = 0;
  for (let e = 0; e < gaps.length; e++) {
    position += gaps[e];
    dense[position] = values[e];
  }
}

function unpackSlots(
  shape: Sparse,
  values: Float64Array,
  counts: Uint8Array,
  masks: Uint8Array,
  dense: Float64Array,
): void {
  visitSlots(shape, counts, masks, (element, weight) => dense[weight] = values[element]);
}

/** Visits what the format of slots keeps: the place of each value, and of the weight that it is. */
export function visitSlots(
  { rows, columns }: { readonly rows: number; readonly columns: number },
  counts: Uint8Array,
  masks: Uint8Array,
  visit: (element: number, weight: number) => void,
): void {
  const windows = columns / 16;
  let [slot, partial] = [1, 2];
  for (let g = 0; g < rows / 4; g++) {
    for (let w = 0; w < windows; w++) {
      const byte = counts[g * Math.ceil(windows / 2) + Math.floor(w / 2)];
      const count = w % 2 ? byte >> 4 : byte & 15;
      const mask = count === 0 ? 0 : count === 4 ? 1 : partial++;
      for (let r = 0; r < 4; r++) {
        for (let c = 0, n = 0; c < 16; c++) {
          if (!(masks[mask * 8 + r * 2 + Math.floor(c / 8)] >> c % 8 & 1)) continue;
          const element = (slot + Math.floor(n / 4)) * 16 + r * 4 + n % 4;
          visit(element, (g * 4 + r) * columns + w * 16 + c);
          n++;
        }
      }
      slot += count;
    }
  }
}

function unpackBitmap(
  { rows, columns }: Sparse,
  values: Float64Array,
  bits: Uint8Array,
  dense: Float64Array,
): void {
  let kept = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const byte = bits[r * Math.ceil(columns / 8) + Math.floor(c / 8)];
      if (byte >> (c % 8) & 1) dense[r * columns + c] = values[++kept];
    }
  }
}

/** Levels of a dense matrix, whose rows begin at bytes of their own. */
function rowsOfLevels(bytes: Uint8Array, columns: number): Float64Array {
  const perRow = 2 * Math.ceil(columns / 2);
  return floatsOf(bytes, "int4").filter((_, i) => i % perRow < columns);
}

function floatsOf(bytes: Uint8Array, type: "f32" | "f16" | "int8" | "int4"): Float64Array {
  if (type === "int4") {
    return Float64Array.from({ length: 2 * bytes.length }, (_, i) => {
      const nibble = i % 2 === 0 ? bytes[i / 2] % 16 : Math.floor(bytes[(i - 1) / 2] / 16);
      return nibble < 8 ? nibble : nibble - 16;
    });
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = { f32: 4, f16: 2, int8: 1 }[type];
  return Float64Array.from({ length: bytes.length / size }, (_, i) => {
    switch (type) {
      case "f32":
        return view.getFloat32(4 * i, true);
      case "f16":
        return halfOf(view.getUint16(2 * i, true));
      case "int8":
        return view.getInt8(i);
    }
  });
}

/** The number that the bits of a finite float16 stand for. */
function halfOf(bits: number): number {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = bits >> 10 & 31;
  const fraction = bits & 1023;
  return exponent === 0
    ? sign * fraction * 2 ** -24
    : sign * (1024 + fraction) * 2 ** (exponent - 25);
}
