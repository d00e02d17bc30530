/**
 * Kernels of convolutions on their way to their place.
 * @module
 */
import { bytesOfInputs } from "../layout.ts";
import type { Stage } from "./stage.ts";

/**
 * Places the kernels of a layer's channels so that what one token's inputs are multiplied with lies in a row.
 *
 * @param name Tensor `[channels, 1, length]`.
 * @returns The address of `[length, channels]`, with zeros behind each row up to whole lines.
 */
export async function placeKernels(
  stage: Stage,
  name: string,
  channels: number,
  length: number,
): Promise<number> {
  const { memory } = stage;
  const stored = await stage.vector(name);
  const row = bytesOfInputs(channels);
  const address = memory.reserve(length * row);
  // Views end when memory grows: these come after.
  const from = memory.floats(stored, channels * length);
  for (let i = 0; i < length; i++) {
    const to = memory.floats(address + i * row, channels);
    for (let channel = 0; channel < channels; channel++) to[channel] = from[channel * length + i];
  }
  return address;
}
