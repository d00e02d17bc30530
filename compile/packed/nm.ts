/**
 * N:M: `n` of every `m` neighbours in a row, with their positions among the `m`.
 * @module
 */
import { quote } from "../../src/checks.ts";
import { FormatUnfitError } from "../../src/errors.ts";
import {
  applyScales,
  bitsOf,
  bytesOfValues,
  elementsOf,
  narrow,
  nonzero,
  roomLike,
  VALUE_BYTES,
} from "./quantize.ts";
import {
  checkLength,
  checkShape,
  checkValues,
  damaged,
  GREATEST_M,
  type Matrix,
  newDense,
  type NmPattern,
  type PackedNm,
  type Shape,
  type ValueOptions,
  type ValueType,
} from "./types.ts";

/** The M that are looked for. */
export const CANDIDATES: readonly number[] = [2, 4, 8, 16, 32];

/**
 * Bits of a position among M neighbours: enough for M − 1, and a divisor of 8, so that none lies in
 * two bytes.
 */
export function codeBits(m: number): 1 | 2 | 4 | 8 {
  return m <= 2 ? 1 : m <= 4 ? 2 : m <= 16 ? 4 : 8;
}

/**
 * Packs a matrix.
 *
 * @param matrix The matrix; not changed.
 * @param pattern N and M. A group with fewer than N nonzero weights stores some of its zeros: the
 * first ones.
 * @param options How weights are stored.
 * @throws {FormatUnfitError} When the matrix has a group with more than N nonzero weights, M does not
 * divide its rows, or the value type does not hold it.
 * @throws {NotFiniteError} When a weight is NaN or infinite.
 */
export function encodeNm(matrix: Matrix, pattern: NmPattern, options: ValueOptions): PackedNm {
  const { name, rows, columns } = matrix;
  const { n, m } = pattern;
  if (!isPattern(pattern)) {
    throw new FormatUnfitError(
      `${quote(name)} cannot be stored as ${n}:${m}: ` +
        `N:M keeps 1 to M of every M weights, with M from 2 to ${GREATEST_M}`,
    );
  }
  const narrowed = narrow(matrix, options);
  if (columns % m !== 0) {
    throw unfit(matrix, pattern, `${m} does not divide its ${columns} columns`, options);
  }
  const groups = columns / m;
  const values = roomLike(narrowed, groups * n * rows);
  const weightBits = bitsOf(matrix.values);
  const source = narrowed.data;
  const target = values.data;
  const bits = codeBits(m);
  // A byte holds 2^spread codes.
  const spread = 3 - Math.log2(bits);
  const last = (1 << spread) - 1;
  const codeRow = Math.ceil(rows * bits / 8);
  const codes = new Uint8Array(groups * n * codeRow);
  for (let group = 0; group < groups; group++) {
    for (let row = 0; row < rows; row++) {
      const start = row * columns + group * m;
      // Bit c tells whether weight c is stored.
      let stored = 0;
      let count = 0;
      for (let c = 0; c < m; c++) {
        const kept = nonzero(weightBits[start + c]);
        stored |= kept << c;
        count += kept;
      }
      if (count > n) {
        throw unfit(
          matrix,
          pattern,
          `row ${row} keeps ${count} weights of columns ${group * m} to ${group * m + m - 1}`,
          options,
        );
      }
      const nonzeros = stored;
      for (; count < n; count++) stored |= stored + 1; // Sets the lowest bit that is not set.
      let value = group * n * rows + row;
      let code = group * n * codeRow + (row >> spread);
      const shift = (row & last) * bits;
      for (let j = 0; j < n; j++) {
        const c = lowestOf(stored);
        stored &= stored - 1;
        codes[code] |= c << shift;
        // A zero that only fills its place may be -0.
        target[value] = nonzeros >>> c & 1 ? source[start + c] : 0;
        value += rows;
        code += codeRow;
      }
    }
  }
  return { name, rows, columns, n, m, values, codes };
}

/**
 * Unpacks a matrix.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @returns Its weights, `[rows, columns]`.
 * @throws {PackedFormatError} As {@linkcode validateNm}.
 */
export function decodeNm(packed: PackedNm): Float32Array {
  validateNm(packed);
  const { rows, columns, n, m, values, codes } = packed;
  const dense = newDense(packed);
  const elements = elementsOf(values);
  const bits = codeBits(m);
  const spread = 3 - Math.log2(bits);
  const last = (1 << spread) - 1;
  const mask = (1 << bits) - 1;
  const codeRow = Math.ceil(rows * bits / 8);
  for (let slot = 0; slot < elements.length / rows; slot++) {
    const column = Math.floor(slot / n) * m;
    for (let row = 0; row < rows; row++) {
      const code = codes[slot * codeRow + (row >> spread)] >> (row & last) * bits & mask;
      dense[row * columns + column + code] = elements[slot * rows + row];
    }
  }
  applyScales(dense, values, packed);
  return dense;
}

/**
 * Checks a packed matrix. It reads nothing outside the tensors, whatever is in them.
 *
 * @param packed The matrix, from a file that may be damaged.
 * @throws {PackedFormatError} When N and M are no pattern that divides the columns, a tensor has the
 * wrong length, a value is not finite, or the positions of a group are not ascending, not below M, or
 * padded with other bits than 0.
 */
export function validateNm(packed: PackedNm): void {
  checkShape(packed);
  const { rows, columns, n, m, codes } = packed;
  if (!isPattern(packed) || columns % m !== 0) {
    throw damaged(packed, "pattern", `${n}:${m} is none that ${columns} columns can have`);
  }
  const groups = columns / m;
  const bits = codeBits(m);
  const codeRow = Math.ceil(rows * bits / 8);
  checkValues(packed, groups * n * rows);
  checkLength(packed, "codes", codes.length, groups * n * codeRow);
  const spread = 3 - Math.log2(bits);
  const last = (1 << spread) - 1;
  const mask = (1 << bits) - 1;
  const padding = rows & last;
  /** The least position that the next code of each row may have. */
  const least = new Uint8Array(rows);
  for (let slot = 0; slot < groups * n; slot++) {
    const start = slot * codeRow;
    if (slot % n === 0) least.fill(0);
    for (let row = 0; row < rows; row++) {
      const code = codes[start + (row >> spread)] >> (row & last) * bits & mask;
      if (code < least[row] || code >= m) {
        throw damaged(
          packed,
          "codes",
          `have position ${code} of ${m} at group ${Math.floor(slot / n)}, slot ${slot % n}, ` +
            `row ${row}; positions of a group ascend`,
        );
      }
      least[row] = code + 1;
    }
    if (padding > 0 && codes[start + codeRow - 1] >> padding * bits !== 0) {
      throw damaged(
        packed,
        "codes",
        `have bits after the last row at group ${Math.floor(slot / n)}, slot ${slot % n}`,
      );
    }
  }
}

/**
 * Bytes of a packed matrix.
 *
 * @param shape The matrix's shape.
 * @param pattern N and M; M divides the columns.
 * @param options How weights are stored.
 */
export function bytesOfNm(shape: Shape, pattern: NmPattern, options: ValueOptions): number {
  const { n, m } = pattern;
  const slots = shape.columns / m * n;
  return bytesOfValues(shape, options, slots * shape.rows) +
    slots * Math.ceil(shape.rows * codeBits(m) / 8);
}

/**
 * The N:M pattern that a matrix's zeros obey and that takes the fewest bytes.
 *
 * @param matrix The matrix.
 * @param type How weights are stored: with small values, positions weigh more.
 * @param candidates The M to look for.
 * @returns The pattern, or undefined where every M has a group without a zero, or does not divide
 * the columns.
 */
export function findPattern(
  matrix: Pick<Matrix, "values" | "columns">,
  type: ValueType = "f32",
  candidates: readonly number[] = CANDIDATES,
): NmPattern | undefined {
  const { values, columns } = matrix;
  let best: NmPattern | undefined;
  let fewest = Infinity;
  for (const m of candidates) {
    if (columns % m !== 0) continue;
    const n = Math.max(1, mostOfGroup(values, m));
    if (n === m) continue;
    const bits = n / m * (8 * VALUE_BYTES[type] + codeBits(m));
    if (bits < fewest) {
      fewest = bits;
      best = { n, m };
    }
  }
  return best;
}

/** The greatest number of nonzero weights among M neighbours. */
function mostOfGroup(values: Float32Array, m: number): number {
  const bits = bitsOf(values);
  let most = 0;
  for (let start = 0; start < bits.length && most < m; start += m) {
    let count = 0;
    for (let i = start; i < start + m; i++) count += nonzero(bits[i]);
    if (count > most) most = count;
  }
  return most;
}

/** The position of the lowest bit that is set; one is. */
function lowestOf(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
}

function isPattern({ n, m }: NmPattern): boolean {
  return Number.isInteger(n) && Number.isInteger(m) && 1 <= n && n <= m && 2 <= m &&
    m <= GREATEST_M;
}

function unfit(matrix: Matrix, { n, m }: NmPattern, why: string, options: ValueOptions) {
  const best = findPattern(matrix, options.type);
  return new FormatUnfitError(
    `${quote(matrix.name)} cannot be stored as ${n}:${m}: ${why}; ` +
      (best
        ? `its zeros obey ${best.n}:${best.m}, which works, and so do csr and bitmap`
        : `its zeros obey no N:M; csr and bitmap work`),
  );
}
