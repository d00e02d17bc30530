/**
 * A model of transformers.js, for Node and for pages.
 *
 * A step is what `generate` does between two calls of its streamer: the run of the model, and its own
 * search for the likeliest of the logits that come to JavaScript.
 */

/**
 * @param {object} transformers The package's exports.
 * @param {string} name Of the model, below `env.localModelPath`.
 * @param {object} options Of `from_pretrained`.
 * @returns {Promise<import("./engine.ts").Engine>}
 */
export async function openModel(transformers, name, options) {
  const { AutoModelForCausalLM, DynamicCache, Tensor, env } = transformers;
  env.allowLocalModels = true;
  env.allowRemoteModels = false;
  env.useBrowserCache = false;
  const model = await AutoModelForCausalLM.from_pretrained(name, options);
  // Go on after the token that ends a text, as all engines do here.
  model.generation_config.eos_token_id = null;
  let held;

  async function go(tokens, count, cache) {
    const int64 = (values) =>
      new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const all = { tokens: [], seconds: [] };
    let start;
    const streamer = {
      put([[token, ...more]]) {
        const now = performance.now();
        // The prompt itself is the first that is put.
        if (start !== undefined) {
          all.tokens.push(Number(token));
          all.seconds.push((now - start) / 1000);
        } else if (more.length + 1 !== tokens.length) {
          throw new Error("transformers.js did not begin with the prompt");
        }
        start = now;
      },
      end() {},
    };
    const { past_key_values } = await model.generate({
      input_ids: int64(tokens),
      // As its tokenizers give it. Without it, a cache of the prompt's beginning would be misread.
      attention_mask: int64(tokens.map(() => 1)),
      streamer,
      max_new_tokens: count,
      do_sample: false,
      return_dict_in_generate: true,
      ...cache ? { past_key_values: new DynamicCache(cache) } : {},
    });
    return { all, cache: past_key_values };
  }

  return {
    product: `transformers.js ${env.version}`,
    generate: async (prompt, steps) => (await go(prompt.tokens, 1 + steps)).all,
    async hold(prompt) {
      const { all, cache } = await go(prompt.tokens, 1);
      held = { tokens: [...prompt.tokens, ...all.tokens], cache: { ...cache } };
      return all;
    },
    resume: async (steps) => (await go(held.tokens, steps, held.cache)).all,
    close: () => model.dispose(),
  };
}
