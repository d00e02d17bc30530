/**
 * What older files hold beside a model's weights: masks, what masked scores were (-1e9, which float16 has no number
 * for), and rotary frequencies. Nobody reads them; they are copied as they are.
 * @module
 */

const BUFFER = /(^|\.)(attention|attn)\.(bias|masked_bias)$|\.rotary_emb\.inv_freq$/;

/** Whether a tensor is no weight of its model, by its name. */
export function isBuffer(name: string): boolean {
  return BUFFER.test(name);
}
