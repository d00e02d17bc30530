/**
 * What the tests of the sparse engine share: compiled models made once, checkpoints of any shape, and
 * running both.
 * @module
 */
import { expect } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { folderSource } from "../../../src/engine/folder_source.ts";
import type { EngineModel, Sequence } from "../../../src/engine/model.ts";
import { loadSparse } from "../../../src/engine/sparse/engine.ts";
import type { SparseOptions } from "../../../src/engine/sparse/options.ts";
import { safetensors } from "../../checkpoint/support.ts";
import { CompileWorkshop, type How, sourceOf } from "../../compile/support.ts";
import { Dice, SEED } from "../../support/fuzz.ts";
import { expectSameBits } from "./machine.ts";

/** Sizes of a decoder. */
export interface DecoderSizes {
  readonly hidden: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocabulary: number;
  readonly layers?: number;
  readonly positions?: number;
  /** Of the linears' weights (default: 0.6). */
  readonly zeros?: number;
  /** What the last norm's weights are multiplied with (default: 1). */
  readonly lastNorm?: number;
  /** Elements of the embedding, which is the head too (default: from -0.5 to 0.5, evenly). */
  readonly embedding?: (row: number, column: number, dice: Dice) => number;
}

/** A workshop that compiles each model once. */
export class SparseWorkshop extends CompileWorkshop {
  readonly #compiled = new Map<string, Promise<string>>();

  /** The folder of a compiled model, pruned where a pattern is named: do not change it. */
  compiled(model: string, how: How, pattern?: string | number): Promise<string> {
    const key = JSON.stringify([model, how, pattern]);
    const made = this.#compiled.get(key) ?? this.#compile(model, how, pattern);
    this.#compiled.set(key, made);
    return made;
  }

  async #compile(model: string, how: How, pattern?: string | number): Promise<string> {
    const source = model.startsWith("/")
      ? model
      : pattern === undefined
      ? sourceOf(model)
      : await this.pruned(model, pattern);
    return (await this.compile(source, how)).output;
  }

  /** A checkpoint of Llama's form with random weights. */
  checkpoint(sizes: DecoderSizes): string {
    const { hidden, intermediate, heads, keyValueHeads, headDim, vocabulary } = sizes;
    const { layers = 2, positions = 256, zeros = 0.6, lastNorm = 1, embedding } = sizes;
    const folder = this.fresh("checkpoint");
    mkdirSync(folder);
    writeFileSync(
      join(folder, "config.json"),
      JSON.stringify({
        architectures: ["LlamaForCausalLM"],
        model_type: "llama",
        hidden_act: "silu",
        hidden_size: hidden,
        intermediate_size: intermediate,
        num_attention_heads: heads,
        num_key_value_heads: keyValueHeads,
        head_dim: headDim,
        num_hidden_layers: layers,
        vocab_size: vocabulary,
        max_position_embeddings: positions,
        rms_norm_eps: 1e-5,
        rope_theta: 10000,
        tie_word_embeddings: true,
        torch_dtype: "float32",
      }),
    );
    const dice = new Dice(SEED);
    const header: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }> = {};
    const data: Float32Array[] = [];
    let at = 0;
    const add = (name: string, shape: number[], make: () => number) => {
      const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, make);
      header[name] = { dtype: "F32", shape, data_offsets: [at, at + values.byteLength] };
      at += values.byteLength;
      data.push(values);
    };
    const linear = (name: string, rows: number, columns: number) =>
      add(
        `${name}.weight`,
        [rows, columns],
        () => dice.next() < zeros ? 0 : (dice.next() - 0.5) * 3 / Math.sqrt(columns),
      );
    const norm = (name: string, times = 1) =>
      add(`${name}.weight`, [hidden], () => times * (0.5 + dice.next()));
    let element = 0;
    add("model.embed_tokens.weight", [vocabulary, hidden], () => {
      const i = element++;
      return embedding?.(Math.floor(i / hidden), i % hidden, dice) ?? dice.next() - 0.5;
    });
    for (let i = 0; i < layers; i++) {
      const layer = `model.layers.${i}`;
      norm(`${layer}.input_layernorm`);
      linear(`${layer}.self_attn.q_proj`, heads * headDim, hidden);
      linear(`${layer}.self_attn.k_proj`, keyValueHeads * headDim, hidden);
      linear(`${layer}.self_attn.v_proj`, keyValueHeads * headDim, hidden);
      linear(`${layer}.self_attn.o_proj`, hidden, heads * headDim);
      norm(`${layer}.post_attention_layernorm`);
      linear(`${layer}.mlp.gate_proj`, intermediate, hidden);
      linear(`${layer}.mlp.up_proj`, intermediate, hidden);
      linear(`${layer}.mlp.down_proj`, hidden, intermediate);
    }
    norm("model.norm", lastNorm);
    const bytes = new Uint8Array(at);
    data.reduce((offset, values) => {
      bytes.set(new Uint8Array(values.buffer), offset);
      return offset + values.byteLength;
    }, 0);
    writeFileSync(join(folder, "model.safetensors"), safetensors(header, bytes));
    return folder;
  }
}

/** Calls `use` with a loaded model, and closes that. One thread unless told otherwise. */
export async function withSparse<T>(
  folder: string,
  options: SparseOptions,
  use: (model: EngineModel) => Promise<T>,
): Promise<T> {
  const model = await loadSparse(folderSource(folder), { threads: 1, ...options });
  try {
    return await use(model);
  } finally {
    await model.close();
  }
}

/** All logits of tokens, run in pieces of these lengths: the last again and again. */
export async function logitsInPieces(
  model: EngineModel,
  tokens: readonly number[],
  pieces: readonly number[] = [tokens.length],
): Promise<Float32Array> {
  const sequence = model.open();
  try {
    const { vocabulary } = model.info;
    const all = new Float32Array(tokens.length * vocabulary);
    for (let done = 0, piece = 0; done < tokens.length; piece++) {
      const part = tokens.slice(done, done + pieces[Math.min(piece, pieces.length - 1)]);
      all.set(await sequence.run(part, { logits: "all" }), done * vocabulary);
      done += part.length;
    }
    return all;
  } finally {
    sequence.close();
  }
}

/** The index of the largest of some logits, the first of equal ones. */
export function greedy(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** The code of what a promise is rejected with; nothing when it is kept. */
export async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "";
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

/** Tokens that two seeds share none of, most likely. */
export function tokensOf(seed: number, count: number): number[] {
  const dice = new Dice(SEED * 1000 + seed);
  return Array.from({ length: count }, () => 3 + dice.below(300));
}

/** The last token's logits of a sequence of its own, in a model of its own. */
export async function alone(
  folder: string,
  tokens: readonly number[],
  options: SparseOptions = {},
) {
  return await withSparse(
    folder,
    options,
    async (model) => (await model.open().run(tokens)).slice(),
  );
}

/** The last token's logits, in an array of their own. */
export async function run(sequence: Sequence, tokens: readonly number[]): Promise<Float32Array> {
  return (await sequence.run(tokens)).slice();
}

/**
 * Cuts sequences of 120 tokens to lengths, and goes on: each must give what its tokens give alone, to the bit.
 *
 * @param lengths At most 120.
 */
export async function expectCutsToLeaveNothing(
  folder: string,
  lengths: readonly number[],
  options: SparseOptions = {},
): Promise<void> {
  const prompt = tokensOf(1, 120);
  await withSparse(folder, options, async (model) => {
    for (const length of lengths) {
      const sequence = model.open();
      await sequence.run(prompt);
      sequence.truncate(length);
      expect(sequence.length).toBe(length);
      const rest = tokensOf(length + 2, 5);
      const whole = [...prompt.slice(0, length), ...rest];
      const wanted = await alone(folder, whole, options);
      expectSameBits([await run(sequence, rest)], [wanted], `${length}`);
      expect(sequence.length).toBe(length + 5);
      sequence.truncate(0);
      sequence.close();
    }
  });
}

/** Closes a sequence with these tokens: its cache is kept. */
export async function leave(model: EngineModel, tokens: readonly number[]): Promise<void> {
  const sequence = model.open();
  await sequence.run(tokens);
  sequence.close();
}

/**
 * Expects that sequences which are opened, cut, gone on with and closed at random, and share what they begin with, give
 * what their tokens give alone. The model has 128 positions.
 *
 * @param options Of the model with all of them, not of those with one.
 */
export async function expectTurnsToLeaveNothing(
  folder: string,
  seed: number,
  options: SparseOptions = {},
): Promise<void> {
  await withSparse(folder, { threads: 2, ...options }, async (model) => {
    const dice = new Dice(SEED + seed);
    const prompts = [1, 2, 3].map((seed) => tokensOf(seed, 110));
    const open: { sequence: Sequence; tokens: number[] }[] = [];
    for (let step = 0; step < 60; step++) {
      const one = open.length > 0 ? dice.pick(open) : undefined;
      const what = dice.below(5);
      if (!one || (what === 0 && open.length < 4)) {
        const prompt = [...dice.pick(prompts).slice(0, 1 + dice.below(105)), 7 + step];
        open.push({ sequence: model.open(prompt), tokens: prompt });
        const { sequence } = open.at(-1)!;
        await sequence.run(prompt.slice(sequence.length));
      } else if (what === 1) {
        const length = dice.below(one.tokens.length + 1);
        one.sequence.truncate(length);
        one.tokens.length = length;
      } else if (what === 2) {
        one.sequence.close();
        open.splice(open.indexOf(one), 1);
      } else {
        const some = Math.min(1 + dice.below(20), 128 - one.tokens.length);
        if (some === 0) continue;
        const rest = tokensOf(100 + step, some);
        const found = await run(one.sequence, rest);
        one.tokens.push(...rest);
        expectSameBits([found], [await alone(folder, one.tokens)], `step ${step}`);
      }
      for (const { sequence, tokens } of open) expect(sequence.length).toBe(tokens.length);
    }
  });
}

/**
 * Expects that sequences which run at once give what each gives alone, on any number of threads.
 *
 * @param options Of the model with all of them, not of those with one.
 */
export async function expectOthersNotToMatter(
  folder: string,
  options: SparseOptions = {},
): Promise<void> {
  const prompts = [1, 2, 3, 4].map((seed) => tokensOf(seed, 20 + 33 * (seed - 1)));
  const wanted = await Promise.all(prompts.map((prompt) => alone(folder, [...prompt, 9])));
  for (const threads of [1, 2, 3]) {
    await withSparse(folder, { threads, ...options }, async (model) => {
      const sequences = prompts.map(() => model.open());
      await Promise.all(sequences.map((sequence, i) => run(sequence, prompts[i])));
      const found = await Promise.all(sequences.map((sequence) => run(sequence, [9])));
      expectSameBits(found, wanted, `${threads} threads`);
    });
  }
}
