/**
 * One thread that reads memory. Told a number of bytes, it makes them; told a way to read, it reads them
 * all and says from when to when.
 * @module
 */

/** Milliseconds since 1970, so that threads can be compared. */
export interface Passed {
  readonly start: number;
  readonly end: number;
}

/** One place after the other, or several at once, a half or a quarter of all bytes from each other. */
export type Way = "in one place" | "in two places" | "in four places";

/** The part of a worker's global object that is used. */
const worker = globalThis as unknown as {
  onmessage: (event: MessageEvent<number | Way>) => void;
  postMessage(message: unknown): void;
};

const [I32, V128] = [0x7f, 0x7b];
/** Vectors of a place in a turn of the loop: each is added up for itself, so that loads need not wait. */
const VECTORS = 2;
/** Bytes of a place in a turn. */
const BLOCK = 16 * VECTORS;
const PLACES = 4;
const PAGE = 2 ** 16;

let read: (from: number, turns: number, pair: number, apart: number, stride: number) => number;
let bytes = 0;

worker.onmessage = ({ data }) => {
  if (typeof data === "string") {
    const start = performance.timeOrigin + performance.now();
    const turns = bytes / (PLACES * BLOCK);
    if (data === "in one place") read(0, turns, BLOCK, BLOCK, PLACES * BLOCK);
    else if (data === "in two places") read(0, turns, BLOCK, bytes / 2 - BLOCK, 2 * BLOCK);
    else read(0, turns, bytes / PLACES, bytes / PLACES, BLOCK);
    worker.postMessage({ start, end: performance.timeOrigin + performance.now() } satisfies Passed);
    return;
  }
  bytes = data;
  const module = new WebAssembly.Module(assemble(bytes / PAGE));
  const { exports } = new WebAssembly.Instance(module);
  // Pages that were never written are all the same page of zeros.
  new Uint8Array((exports.memory as WebAssembly.Memory).buffer).fill(1);
  read = exports.read as typeof read;
  worker.postMessage("ready");
};

/**
 * `read(from, turns, pair, apart, stride)` over a memory of its own: the exclusive or of the vectors at two pairs of
 * places, each of which moves on by `stride` bytes a turn. Those of a pair are `pair` bytes from each other, and the
 * second pair begins `apart` bytes behind the last of the first.
 */
function assemble(pages: number): Uint8Array<ArrayBuffer> {
  const [from, turns, pair, apart, stride, place] = [0, 1, 2, 3, 4, 5];
  const get = (local: number) => [0x20, local];
  const set = (local: number) => [0x21, local];
  const xor = [0xfd, 0x51];
  const add = 0x6a;
  const vectors = Array.from({ length: PLACES * VECTORS }, (_, i) => i);
  const sum = (i: number) => place + 1 + i;
  const code = [
    ...[2, 1, I32, PLACES * VECTORS, V128], // locals
    ...[0x03, 0x40], // loop
    ...get(from),
    ...set(place),
    ...vectors.flatMap((i) => [
      ...(i > 0 && i % VECTORS === 0
        ? [...get(place), ...get(i === 2 * VECTORS ? apart : pair), add, ...set(place)]
        : []),
      ...get(sum(i)),
      ...get(place),
      ...[0xfd, 0x00, 4, ...leb(16 * (i % VECTORS))], // v128.load
      ...xor,
      ...set(sum(i)),
    ]),
    ...get(from),
    ...get(stride),
    add,
    ...set(from),
    ...get(turns),
    ...[0x41, 1, 0x6b], // i32.const, i32.sub
    ...[0x22, turns], // local.tee
    ...[0x0d, 0, 0x0b], // br_if, end
    ...vectors.flatMap((i) => i === 0 ? get(sum(i)) : [...get(sum(i)), ...xor]),
    ...[0xfd, 0x1b, 0, 0x0b], // i32x4.extract_lane, end
  ];
  const section = (id: number, content: number[]) => [id, ...leb(content.length), ...content];
  const name = (text: string) => [text.length, ...new TextEncoder().encode(text)];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 5, I32, I32, I32, I32, I32, 1, I32]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, ...leb(pages)]),
    ...section(7, [2, ...name("memory"), 2, 0, ...name("read"), 0, 0]),
    ...section(10, [1, ...leb(code.length), ...code]),
  ]);
}

/** An unsigned number as WebAssembly writes it. */
function leb(value: number): number[] {
  return value < 0x80 ? [value] : [value % 0x80 | 0x80, ...leb(Math.floor(value / 0x80))];
}
