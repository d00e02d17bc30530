/** What older files hold beside a model's weights. @module */
import { expect, test } from "bun:test";
import { isBuffer } from "../../src/checkpoint/buffers.ts";

test("masks and frequencies beside weights are no weights, and biases of linears are", () => {
  for (
    const name of [
      "gpt_neox.layers.0.attention.bias",
      "gpt_neox.layers.0.attention.masked_bias",
      "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
      "transformer.h.0.attn.bias",
      "h.0.attn.masked_bias",
      "model.layers.0.self_attn.rotary_emb.inv_freq",
    ]
  ) expect([name, isBuffer(name)]).toEqual([name, true]);
  for (
    const name of [
      "gpt_neox.layers.0.attention.dense.bias",
      "h.0.attn.c_attn.bias",
      "h.0.ln_1.bias",
      "model.layers.0.self_attn.q_proj.bias",
    ]
  ) expect([name, isBuffer(name)]).toEqual([name, false]);
});
