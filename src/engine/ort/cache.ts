/**
 * What tokens that have been run leave behind, as ONNX Runtime gave it: keys and values, what convolutions have read
 * last, and states of linear attention.
 *
 * A run does not change its inputs: it gives a longer cache. So sequences with a common beginning can
 * share one, and its tensors stay where the runtime left them, on the GPU where there is one.
 * @module
 */
import type { Backend, Tensor } from "./backend.ts";

/** The cache of one run. Whoever holds it has taken it, and gives it back. */
export class Cache {
  #holders = 1;

  /**
   * Makes a cache that is held once.
   *
   * @param tokens What was run.
   * @param tensors By the name of the input that takes them: `[1, heads, tokens, headDim]`, or states.
   */
  constructor(
    readonly tokens: Int32Array,
    readonly tensors: ReadonlyMap<string, Tensor>,
  ) {}

  /** Takes it once more. */
  take(): this {
    this.#holders++;
    return this;
  }

  /** Gives it back; the last to do so frees what it has on a device. */
  giveBack(): void {
    this.#holders--;
    if (this.#holders > 0) return;
    // Tensors on the CPU go by themselves, and an empty one may be in use elsewhere.
    for (const tensor of this.tensors.values()) {
      if (tensor.location === "gpu-buffer") tensor.dispose();
    }
  }

  /**
   * A cache of the first tokens: this one, held once more, or a copy.
   *
   * @param length How many of its tokens; all of them, where there are states.
   */
  async first(length: number, backend: Backend): Promise<Cache> {
    if (length === this.tokens.length) return this.take();
    const tensors = new Map<string, Tensor>();
    for (const [part, tensor] of this.tensors) {
      const [, heads, total, width] = tensor.dims;
      // What is on a device goes at once: read without that, nothing would free it any more.
      const whole = await tensor.getData(true) as Float32Array;
      const cut = new Float32Array(heads * length * width);
      for (let head = 0; head < heads; head++) {
        const start = head * total * width;
        cut.set(whole.subarray(start, start + length * width), head * length * width);
      }
      tensors.set(part, backend.floats(cut, [1, heads, length, width]));
    }
    return new Cache(this.tokens.slice(0, length), tensors);
  }
}
