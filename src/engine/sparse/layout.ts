/**
 * Numbers that JavaScript and the kernels agree on. The kernels have them in `assembly/control.ts`,
 * `program.ts`, `linear.ts` and `pack.ts`.
 * @module
 */

/** Words of the control block, as byte addresses. */
export const CONTROL = {
  PROGRESS: 32,
  EPOCH: 64,
  QUIT: 68,
  LEAD: 96,
  GENERATION: 192,
  FAILED: 200,
  THREADS: 256,
  TOKENS: 260,
  POSITIONS: 264,
  LOGITS: 268,
  PROGRAM: 272,
  IDS: 276,
  PAGES: 280,
  SPINS: 284,
  PATIENCE: 288,
  MAIN_SPINS: 292,
  LOGITS_OF: 296,
  TAKEN: 300,
  WITHIN: 1040,
  PLACES: 1044,
  LEAST_PLACE: 1048,
  CHUNKS_OF_ONE: 1052,
  RING: 1064,
  RING_PLACES: 1068,
  SIGNAL: 1072,
  ENDED: 1076,
} as const;

/** Bytes of a thread's counters of chunks, one for each run of products between two barriers. */
export const TAKEN_BYTES = 64;

/** First address that is free, a multiple of 64: what lies before belongs to the control block. */
export const FIRST_FREE = 3200;

/** Operations of a program. */
export const OP = {
  END: 0,
  BARRIER: 1,
  EMBED: 2,
  NORM: 3,
  QUANTISE: 4,
  LINEAR: 5,
  ELEMENTWISE: 6,
  APPEND: 7,
  ATTEND: 8,
  SELECT: 9,
  COMBINE: 10,
  SKETCH: 11,
  ENOUGH: 12,
  CONVOLVE: 13,
  DELTA: 14,
} as const;

/** When a barrier is needed. */
export const BARRIER = { always: 0, forMany: 1, forOne: 2 } as const;

/** Layouts of matrices. */
export const KIND = {
  SLOTS_ONE: 0,
  SLOTS_TWO: 1,
  DENSE_INT8: 2,
  LISTS_F32: 3,
  LISTS_F16: 4,
  DENSE_F32: 5,
  DENSE_F16: 6,
  SLOTS_ANY: 7,
  SLOTS_ONE_INT4: 10,
  SLOTS_TWO_INT4: 11,
  DENSE_INT4: 12,
} as const;

/** What a sketch of a head has in place of a layout's number. */
export const SKETCH_KIND = 13;

/** A layout of matrices. */
export type Kind = (typeof KIND)[keyof typeof KIND];

/** Whether a layout is multiplied with quantised inputs. */
export function isQuantised(kind: Kind): boolean {
  return kind <= KIND.DENSE_INT8 || kind === KIND.SLOTS_ANY || kind >= KIND.SLOTS_ONE_INT4;
}

/** Activations. */
export const ACTIVATION = {
  none: 0,
  silu: 1,
  gelu: 2,
  relu: 3,
  sigmoid: 4,
  nearlySilu: 5,
  gelu_tanh: 6,
  tanh: 7,
  relu_squared: 8,
  softplus: 9,
} as const;

/** What an element-wise step does with two vectors. */
export const ELEMENTWISE = { add: 0, mul: 1, copy: 2, part: 3, spread: 4 } as const;

/** Words of the descriptor of a matrix that is being packed, as byte offsets. */
export const DESCRIPTOR = {
  FORMAT: 0,
  TYPE: 4,
  ROWS: 8,
  COLUMNS: 12,
  VALUES: 16,
  COUNT: 20,
  INDICES: 24,
  ROW_POINTERS: 32,
  N: 36,
  M: 40,
  BITS: 44,
  SCRATCH: 48,
  KIND: 52,
  OUT: 56,
  LISTS_OUT: 60,
  TABLE: 64,
  SCALES: 68,
  GROUP: 72,
  BEYOND_ONE: 112,
  BEYOND_TWO: 116,
  ANY_BYTES: 120,
  BEYOND_ANY: 124,
  CHUNKS: 128,
  MASKS: 132,
  JOB: 136,
  RESULT: 140,
  DONE: 144,
} as const;

/** What is done with a descriptor that is posted: see `assembly/jobs.ts`. */
export const JOB = { pack: 0, packDense: 1, packSketch: 2 } as const;

/** Bytes of a descriptor. */
export const DESCRIPTOR_BYTES = 192;

/** Numbers of file formats and value types in a descriptor. */
export const FORMAT = { bitmap: 0, csr: 1, nm: 2, slots: 3 } as const;
export const TYPE = { f32: 0, f16: 1, int8: 2, int4: 3 } as const;

/** Positions of a page of the cache. */
export const PAGE = 64;

/** Inputs of a segment: those that share a scale. */
export const SEGMENT = 32;

/** The next multiple. */
export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

/** Segments of an input. */
export function segmentsOf(columns: number): number {
  return Math.ceil(columns / SEGMENT);
}

/** Bytes of a segment of four rows, with the sums of dense ones; nothing for lists and slots that have what they need. */
export function segmentBytes(kind: Kind): number {
  switch (kind) {
    case KIND.SLOTS_ONE:
      return 48;
    case KIND.SLOTS_TWO:
      return 2 * 48;
    case KIND.DENSE_INT8:
      return 8 + 4 * SEGMENT;
    case KIND.DENSE_F16:
      return 4 * SEGMENT * 2;
    case KIND.DENSE_F32:
      return 4 * SEGMENT * 4;
    default:
      return 0;
  }
}

/** Bytes of two slots that are unpacked, and of what their sums begin with. */
const UNPACKED_PAIR = 64;
const BEGINNING = 16;

/** Rows whose lists one token is multiplied with at a time: see `assembly/beside.ts`. */
const LISTED_ROWS = 2048;

/** Bytes of a thread's table of places: see `assembly/runs.ts`. */
const PLACES_BYTES = 32;

/** Bytes in which products with streams say where things are. */
const STREAMS = 48;

/** Bytes of the list of outliers: see `assembly/outliers.ts`. */
function outlierBytes(segments: number, tokens: number): number {
  return roundUp(4 * (segments + 1) + 16 * segments * tokens, 16);
}

/** Bytes of the sums of whole tiles of tokens, of sixteen rows: see `assembly/sums.ts`. */
function sumsBytes(tokens: number): number {
  return 4 * 16 * roundUp(tokens, 8);
}

/** Whether lists lie beside a matrix's slots, whose inputs are float32. */
export function hasListsBeside({ kind, lists }: { kind: Kind; lists: number }): boolean {
  return lists !== 0 && isQuantised(kind);
}

/** Bytes of a thread's own room for a product of a matrix with so many tokens. */
export function scratchBytes(
  matrix: { kind: Kind; segments: number; lists: number },
  tokens: number,
): number {
  const { kind, segments } = matrix;
  // Inputs of lists are turned at the end: see `assembly/beside.ts`.
  const turned = hasListsBeside(matrix) ? segments * SEGMENT * 4 * roundUp(tokens, 4) : 0;
  return roundUp(kernelBytes(kind, segments, tokens), 64) + turned;
}

/** What a kernel takes of it: four rows are unpacked there, or sixteen. */
function kernelBytes(kind: Kind, segments: number, tokens: number): number {
  // Sums, and those of lower bits or of what lies beside slots, come first.
  const sums = 2 * sumsBytes(tokens);
  // One token has what lists give for some rows in each of four places behind its flagged segments.
  const flagged = PLACES_BYTES + roundUp(2 * (segments + 1), 16);
  const one = flagged + 4 * 4 * LISTED_ROWS;
  switch (kind) {
    case KIND.SLOTS_ONE:
      return Math.max(
        one,
        sums + outlierBytes(segments, tokens) + segments * (BEGINNING + UNPACKED_PAIR),
      );
    case KIND.SLOTS_TWO:
      // Sorted, they have a head each.
      return Math.max(
        one,
        sums + outlierBytes(segments, tokens) +
          segments * (2 * (BEGINNING + UNPACKED_PAIR) + 16),
      );
    // These have 16 bytes of scales before each group, of one segment or more.
    case KIND.SLOTS_ONE_INT4:
      return Math.max(
        one,
        sums + outlierBytes(segments, tokens) + segments * (16 + BEGINNING + UNPACKED_PAIR),
      );
    case KIND.SLOTS_TWO_INT4:
      return Math.max(
        one,
        sums + outlierBytes(segments, tokens) + segments * (16 + BEGINNING + 2 * UNPACKED_PAIR),
      );
    // Four slots a window that are entries of their own; one more makes them even.
    case KIND.SLOTS_ANY:
      return Math.max(
        one,
        STREAMS + sums + outlierBytes(segments, tokens) +
          (8 * segments + 1) * (BEGINNING + UNPACKED_PAIR / 2),
      );
    // What one token needs, its flagged segments and sums of lower bits, is less.
    case KIND.DENSE_INT8:
      return sums + outlierBytes(segments, tokens);
    case KIND.DENSE_F32:
      return sumsBytes(tokens);
    // Sixteen rows as float32 behind the sums.
    case KIND.DENSE_F16:
      return sumsBytes(tokens) + segments * 16 * 4 * SEGMENT;
    // The inputs of sixteen tokens, their sums twice, and four rows' lists as float32: all columns at most.
    case KIND.LISTS_F32:
      return segments * 16 * 4 * SEGMENT + 2 * 4 * 16 * 4;
    case KIND.LISTS_F16:
      return segments * 16 * 4 * SEGMENT + 2 * 4 * 16 * 4 + segments * 24 * SEGMENT;
    // Sixteen rows are unpacked, behind the sums of a group with two tokens; each segment may have scales.
    case KIND.DENSE_INT4:
      return sums + 2 * 4 * 16 + outlierBytes(segments, tokens) +
        segments * 16 * (SEGMENT + 4);
    default:
      return 0;
  }
}

/** Bytes from one token's inputs of a convolution to the next one's, in its part of a page. */
export function bytesOfInputs(channels: number): number {
  return 4 * roundUp(channels, 16);
}

/** Columns of a state that lie together: see `assembly/delta.ts`. */
const STATE_COLUMNS = 16;

/** Bytes of what the heads of a layer with linear attention remember. */
export function bytesOfState(
  { valueHeads, keyDim, valueDim }: {
    readonly valueHeads: number;
    readonly keyDim: number;
    readonly valueDim: number;
  },
): number {
  return 4 * valueHeads * keyDim * roundUp(valueDim, STATE_COLUMNS);
}

/** Bytes that a key/value head of this size takes of a page of the cache. */
export function pageBytes(headDim: number, isInt8: boolean): number {
  return PAGE * (isInt8 ? 2 * headDim + 12 : 8 * headDim);
}
