/**
 * The hidden states of all windows between two blocks: in memory, or in a file that leaves no trace.
 * @module
 */
import type { Tensor } from "../engine/ort/backend.ts";
import type { Activations, Batch } from "../engine/ort/staged.ts";
import { giveBack } from "../platform/garbage.ts";
import { temporaryFile } from "../platform/positioned_file.ts";

/** The activations of many batches, one of which is in use at a time. */
export class WindowStates {
  readonly batches: readonly Batch[];
  readonly #shared: Activations["shared"][] = [];
  readonly #change: Activations["change"][] = [];
  readonly #kept: Float32Array[] = [];
  readonly #file: ReturnType<typeof temporaryFile> | undefined;
  readonly #offsets: number[] = [];
  /** Elements of a batch's states in the file. */
  readonly #lengths: number[] = [];
  #loaded: Float32Array | undefined;

  /**
   * @param batches The windows, grouped as they run.
   * @param width Elements of what goes from block to block of one token, at most.
   * @param spill Whether the states go to a file.
   */
  constructor(batches: readonly Batch[], width: number, spill: boolean) {
    this.batches = batches;
    if (!spill) return;
    this.#file = temporaryFile("states");
    let offset = 0;
    for (const batch of batches) {
      this.#offsets.push(offset);
      offset += batch.tokens.length * width * 4;
    }
  }

  /** Number of windows in all batches. */
  get windows(): number {
    return this.batches.reduce((sum, batch) => sum + batch.windows, 0);
  }

  /** Stores what comes out of the embedding. */
  start(index: number, activations: Activations): void {
    // The mask of a window has the square of its length in numbers, the same for all windows.
    const before = this.#shared[index - 1] ?? {};
    this.#shared[index] = Object.fromEntries(
      Object.entries(activations.shared).map(([name, tensor]) => [
        name,
        name in before && isSame(before[name], tensor) ? before[name] : tensor,
      ]),
    );
    this.#change[index] = activations.change;
    this.take(index, activations.hidden);
  }

  /** Replaces the hidden states of a batch by those that a run gave, whose memory is free from then on. */
  take(index: number, hidden: Float32Array): void {
    this.store(index, hidden);
    // Who waits for it to be collected has hundreds of megabytes of it.
    if (hidden.byteLength === hidden.buffer.byteLength) giveBack(hidden.buffer as ArrayBuffer);
  }

  /** Replaces the hidden states of a batch. */
  store(index: number, hidden: Float32Array): void {
    if (this.#file) {
      const bytes = new Uint8Array(hidden.buffer, hidden.byteOffset, hidden.byteLength);
      this.#file.write(bytes, this.#offsets[index]);
      this.#lengths[index] = hidden.length;
    } else if (this.#kept[index]?.length === hidden.length) {
      // Copied, so that the runtime's own buffer may be given back.
      this.#kept[index].set(hidden);
    } else {
      this.#kept[index] = hidden.slice();
    }
  }

  /** The activations of a batch; a spilled batch is overwritten by the next one asked for. */
  load(index: number): Activations {
    const batch = this.batches[index];
    let hidden = this.#kept[index];
    if (this.#file) {
      const length = this.#lengths[index];
      if (this.#loaded?.length !== length) this.#loaded = new Float32Array(length);
      hidden = this.#loaded;
      this.#file.read(new Uint8Array(hidden.buffer), this.#offsets[index]);
    }
    return { batch, hidden, shared: this.#shared[index], change: this.#change[index] };
  }

  /** Frees memory and file. */
  close(): void {
    this.#file?.close();
    this.#kept.length = 0;
  }
}

function isSame(a: Tensor, b: Tensor): boolean {
  if (a.type !== b.type || a.dims.join() !== b.dims.join()) return false;
  const [left, right] = [a.data, b.data];
  for (let i = 0; i < left.length; i++) if (left[i] !== right[i]) return false;
  return true;
}
