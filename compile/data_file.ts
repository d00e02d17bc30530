/**
 * The data file of a compiled model: weights one after another, each at the start of a page.
 * @module
 */
import type { ExternalRange } from "../src/onnx/external.ts";
import { PositionedFile } from "../src/platform/files.ts";

/** Tensors start at multiples of this, so that runtimes can map them into memory. */
const PAGE = 4096;

/** Writes tensors to a data file as they come. */
export class DataFileWriter {
  readonly #file: PositionedFile;
  readonly #location: string;
  #end = 0;

  /**
   * @param path The file to create.
   * @param location Its name as tensors refer to it.
   */
  constructor(path: string, location: string) {
    this.#file = PositionedFile.open(path, "create");
    this.#location = location;
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#end;
  }

  /** Appends a tensor's elements, little-endian; returns where they lie. */
  append(elements: ArrayBufferView): ExternalRange {
    const tensor = this.begin(elements.byteLength);
    tensor.write(elements);
    return tensor.range;
  }

  /**
   * Begins a tensor that is written in pieces.
   *
   * @param length Its bytes.
   */
  begin(length: number): { range: ExternalRange; write(elements: ArrayBufferView): void } {
    const offset = Math.ceil(this.#end / PAGE) * PAGE;
    this.#end = offset + length;
    let position = offset;
    return {
      range: { location: this.#location, offset, length },
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
