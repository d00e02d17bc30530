/**
 * One thread that reads memory. Told a number of bytes, it makes them; told `read`, it reads them all
 * and says from when to when.
 * @module
 */

/** Milliseconds since 1970, so that threads can be compared. */
export interface Passed {
  readonly start: number;
  readonly end: number;
}

/** The part of a worker's global object that is used. */
const worker = globalThis as unknown as {
  onmessage: (event: MessageEvent<number | "read">) => void;
  postMessage(message: unknown): void;
};

const [I32, V128] = [0x7f, 0x7b];
/** Vectors in a turn of the loop: each is added up for itself, so that loads need not wait. */
const VECTORS = 8;
const STRIDE = 16 * VECTORS;
const PAGE = 2 ** 16;

let read: (from: number, to: number) => number;
let bytes = 0;

worker.onmessage = ({ data }) => {
  if (data === "read") {
    const start = performance.timeOrigin + performance.now();
    read(0, bytes);
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

/** `read(from, to)` over a memory of its own: the exclusive or of all vectors between. */
function assemble(pages: number): Uint8Array<ArrayBuffer> {
  const get = (local: number) => [0x20, local];
  const set = (local: number) => [0x21, local];
  const xor = [0xfd, 0x51];
  const vectors = Array.from({ length: VECTORS }, (_, i) => i);
  const sum = (i: number) => 2 + i; // after the two parameters
  const code = [
    ...[1, VECTORS, V128], // locals
    ...[0x03, 0x40], // loop
    ...vectors.flatMap((i) => [
      ...get(sum(i)),
      ...get(0),
      ...[0xfd, 0x00, 4, ...leb(16 * i)], // v128.load
      ...xor,
      ...set(sum(i)),
    ]),
    ...get(0),
    ...[0x41, ...signedLeb(STRIDE), 0x6a], // i32.const, i32.add
    ...[0x22, 0], // local.tee
    ...get(1),
    ...[0x49, 0x0d, 0, 0x0b], // i32.lt_u, br_if, end
    ...vectors.flatMap((i) => i === 0 ? get(sum(i)) : [...get(sum(i)), ...xor]),
    ...[0xfd, 0x1b, 0, 0x0b], // i32x4.extract_lane, end
  ];
  const section = (id: number, content: number[]) => [id, ...leb(content.length), ...content];
  const name = (text: string) => [text.length, ...new TextEncoder().encode(text)];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 2, I32, I32, 1, I32]),
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

/** A number from 0 on as WebAssembly writes signed ones: the highest bit of its last seven is the sign. */
function signedLeb(value: number): number[] {
  return value < 0x40 ? [value] : [value % 0x80 | 0x80, ...signedLeb(Math.floor(value / 0x80))];
}
