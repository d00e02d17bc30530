/**
 * The data file of a compiled model: weights one after another, all but small ones at the start of a page.
 * @module
 */
import type { ExternalRange } from "../src/onnx/external.ts";
import { PositionedFile } from "../src/platform/positioned_file.ts";

/** The data file's name, beside the graph. */
export const DATA_FILE = "model.onnx_data";

/** Tensors start at multiples of this, so that runtimes can map them into memory … */
export const PAGE = 4096;
/** … but those of less than a page at multiples of this: a model has hundreds of them. */
const SMALL = 64;

/** Takes tensors one after another, and tells where each lies. */
export interface TensorSink {
  /** Bytes so far. */
  readonly size: number;
  /** Appends a tensor's elements, little-endian; returns where they lie. */
  append(elements: ArrayBufferView): ExternalRange;
  /**
   * Begins a tensor that is written in pieces.
   *
   * @param length Its bytes.
   */
  begin(length: number): { range: ExternalRange; write(elements: ArrayBufferView): void };
}

/** Counts tensors as {@linkcode DataFileWriter} would place them, and writes nothing. */
export class CountingSink implements TensorSink {
  #end = 0;

  get size(): number {
    return this.#end;
  }

  append(elements: ArrayBufferView): ExternalRange {
    return this.begin(elements.byteLength).range;
  }

  begin(length: number): ReturnType<TensorSink["begin"]> {
    const offset = startOf(length, this.#end);
    this.#end = offset + length;
    return { range: { location: DATA_FILE, offset, length }, write: () => {} };
  }
}

/** The start of the page at or after a place. */
export function nextPage(end: number): number {
  return Math.ceil(end / PAGE) * PAGE;
}

/** Where a tensor starts that is put behind what is there. */
function startOf(length: number, end: number): number {
  return length < PAGE ? Math.ceil(end / SMALL) * SMALL : nextPage(end);
}

/** Writes tensors to a data file as they come. */
export class DataFileWriter implements TensorSink {
  readonly #file: PositionedFile;
  #end = 0;

  /** @param path The file to create: {@linkcode DATA_FILE} beside the graph. */
  constructor(path: string) {
    this.#file = PositionedFile.open(path, "create");
  }

  get size(): number {
    return this.#end;
  }

  append(elements: ArrayBufferView): ExternalRange {
    const tensor = this.begin(elements.byteLength);
    tensor.write(elements);
    return tensor.range;
  }

  begin(length: number): ReturnType<TensorSink["begin"]> {
    const offset = startOf(length, this.#end);
    this.#end = offset + length;
    let position = offset;
    return {
      range: { location: DATA_FILE, offset, length },
      write: (elements) => {
        const bytes = new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength);
        this.#file.write(bytes, position);
        position += bytes.length;
      },
    };
  }

  close(): void {
    this.#file.close();
  }
}
