/**
 * Matrices that checkpoints store turned, `[inputs, outputs]`: those of GPT-2's blocks, which are convolutions of one
 * place there. All else takes them as `[outputs, inputs]`; they are turned where they are read and written.
 * @module
 */

const OF_BLOCKS = /(^|\.)h\.\d+\.(attn\.c_(attn|proj)|mlp\.c_(fc|proj))\.weight$/;

/** Whether a tensor of a model is stored turned, by the `model_type` of its config. */
export function isTurned(config: { readonly model_type?: unknown }, name: string): boolean {
  return config.model_type === "gpt2" && OF_BLOCKS.test(name);
}

/**
 * Turns a matrix.
 *
 * @param values Its values, row by row.
 * @param rows How many rows it has; what comes back has so many columns.
 */
export function turned(values: Float32Array, rows: number): Float32Array {
  const columns = values.length / rows;
  const result = new Float32Array(values.length);
  for (let r = 0, i = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++, i++) result[c * rows + r] = values[i];
  }
  return result;
}
