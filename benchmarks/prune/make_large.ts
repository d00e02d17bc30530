/**
 * Writes a large Llama checkpoint of random weights, to time and to measure pruning on.
 *
 *     make_large.ts OUT_DIR [--gb 3] [--blocks 16] [--intermediate N] [--dtype bf16|f16] [--seed 1]
 *                   [--windows N] [--seqlen 512]
 *
 * Runs under Deno (`deno run -A`) and Bun. Weights have a standard deviation of 0.02, norm weights
 * are 1, the head is the embedding. The MLP's width follows from `--gb` (10^9 bytes, all files
 * together) and `--blocks`, unless `--intermediate` gives it. With `--windows`, as many windows of
 * random token ids go to `<OUT_DIR>-windows.json`; there is no tokenizer.
 *
 * The weights are streamed: a run needs a table of random values and one buffer, a few MiB.
 */

import { closeSync, mkdirSync, openSync, readdirSync, writeFileSync, writeSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

const HIDDEN = 2560;
const HEADS = 20;
const HEAD_DIM = 128;
const VOCABULARY = 4096;
const MAX_POSITIONS = 2048;
const STANDARD_DEVIATION = 0.02;
const WIDTH_STEP = 64;
const BYTES_A_WEIGHT = 2;
const SHARD_BYTES = 1e9;

/** Random values kept ready; weights are copied from it in chunks that start anywhere in it. */
const TABLE_VALUES = 1 << 21;
/** Short enough that repeats between rows are rare, long enough that copying is all the work. */
const CHUNK_VALUES = 1 << 13;
/** Values written to disk at once. */
const BUFFER_VALUES = 1 << 21;

type Dtype = "bf16" | "f16";

interface Tensor {
  name: string;
  shape: number[];
  /** Norm weights are 1, all else is random. */
  fill: "random" | "ones";
}

/** Uniform numbers in [0, 1), the same for the same seed (mulberry32). */
function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The 16-bit pattern of each value, rounded to nearest, ties to even. */
function encode(values: Float32Array, dtype: Dtype): Uint16Array {
  if (dtype === "f16") return new Uint16Array(new Float16Array(values).buffer);
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(words, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}

/** Normally distributed values (Box–Muller), encoded. */
function randomTable(random: () => number, dtype: Dtype): Uint16Array {
  const values = new Float32Array(TABLE_VALUES);
  for (let i = 0; i < values.length; i += 2) {
    const radius = STANDARD_DEVIATION * Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return encode(values, dtype);
}

function size(tensor: Tensor): number {
  return tensor.shape.reduce((product, extent) => product * extent, 1);
}

/** The MLP width with which the whole checkpoint comes nearest to `bytes`. */
function intermediateFor(bytes: number, blocks: number): number {
  const outsideBlocks = VOCABULARY * HIDDEN + HIDDEN;
  const besidesMlp = 4 * HIDDEN * HEADS * HEAD_DIM + 2 * HIDDEN;
  const mlp = (bytes / BYTES_A_WEIGHT - outsideBlocks) / blocks - besidesMlp;
  return Math.max(1, Math.round(mlp / (3 * HIDDEN) / WIDTH_STEP)) * WIDTH_STEP;
}

function listTensors(blocks: number, intermediate: number): Tensor[] {
  const weight = (name: string, out: number, inputs: number): Tensor => (
    { name: `model.${name}.weight`, shape: [out, inputs], fill: "random" }
  );
  const norm = (name: string): Tensor => (
    { name: `model.${name}.weight`, shape: [HIDDEN], fill: "ones" }
  );
  const attention = HEADS * HEAD_DIM;
  const tensors = [weight("embed_tokens", VOCABULARY, HIDDEN)];
  for (let i = 0; i < blocks; i++) {
    const block = `layers.${i}`;
    tensors.push(
      norm(`${block}.input_layernorm`),
      weight(`${block}.self_attn.q_proj`, attention, HIDDEN),
      weight(`${block}.self_attn.k_proj`, attention, HIDDEN),
      weight(`${block}.self_attn.v_proj`, attention, HIDDEN),
      weight(`${block}.self_attn.o_proj`, HIDDEN, attention),
      norm(`${block}.post_attention_layernorm`),
      weight(`${block}.mlp.gate_proj`, intermediate, HIDDEN),
      weight(`${block}.mlp.up_proj`, intermediate, HIDDEN),
      weight(`${block}.mlp.down_proj`, HIDDEN, intermediate),
    );
  }
  tensors.push(norm("norm"));
  return tensors;
}

/** Tensors in order, as many a shard as fit in `SHARD_BYTES` with some room for the header. */
function intoShards(tensors: Tensor[]): Tensor[][] {
  const limit = SHARD_BYTES - 1e6;
  const shards: Tensor[][] = [];
  let used = limit;
  for (const tensor of tensors) {
    const bytes = size(tensor) * BYTES_A_WEIGHT;
    if (used + bytes > limit) {
      shards.push([]);
      used = 0;
    }
    shards[shards.length - 1].push(tensor);
    used += bytes;
  }
  return shards;
}

/** A safetensors header: its length in 8 bytes, then JSON padded with spaces to a multiple of 8. */
function header(tensors: Tensor[], dtype: Dtype): Uint8Array {
  const entries: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const tensor of tensors) {
    const end = offset + size(tensor) * BYTES_A_WEIGHT;
    entries[tensor.name] = {
      dtype: dtype.toUpperCase(),
      shape: tensor.shape,
      data_offsets: [offset, end],
    };
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(entries));
  const padded = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  padded.set(json, 8);
  return padded;
}

/** `writeSync` may write less than it was given. */
function writeAll(file: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) {
    done += writeSync(file, bytes, done, bytes.length - done);
  }
}

class WeightWriter {
  readonly #random: () => number;
  readonly #table: Uint16Array;
  readonly #one: number;
  readonly #buffer = new Uint16Array(BUFFER_VALUES);

  constructor(random: () => number, dtype: Dtype) {
    this.#random = random;
    this.#table = randomTable(random, dtype);
    this.#one = encode(Float32Array.of(1), dtype)[0];
  }

  write(file: number, tensor: Tensor): void {
    for (let left = size(tensor); left > 0;) {
      const part = this.#buffer.subarray(0, Math.min(left, BUFFER_VALUES));
      if (tensor.fill === "ones") part.fill(this.#one);
      else this.#randomize(part);
      writeAll(file, new Uint8Array(part.buffer, 0, part.byteLength));
      left -= part.length;
    }
  }

  #randomize(part: Uint16Array): void {
    for (let start = 0; start < part.length; start += CHUNK_VALUES) {
      const length = Math.min(CHUNK_VALUES, part.length - start);
      const from = Math.floor(this.#random() * (TABLE_VALUES - length + 1));
      part.set(this.#table.subarray(from, from + length), start);
    }
  }
}

function config(blocks: number, intermediate: number, dtype: Dtype): Record<string, unknown> {
  return {
    architectures: ["LlamaForCausalLM"],
    attention_bias: false,
    attention_dropout: 0,
    bos_token_id: 1,
    eos_token_id: 2,
    head_dim: HEAD_DIM,
    hidden_act: "silu",
    hidden_size: HIDDEN,
    initializer_range: STANDARD_DEVIATION,
    intermediate_size: intermediate,
    max_position_embeddings: MAX_POSITIONS,
    mlp_bias: false,
    model_type: "llama",
    num_attention_heads: HEADS,
    num_hidden_layers: blocks,
    num_key_value_heads: HEADS,
    rms_norm_eps: 1e-5,
    rope_scaling: null,
    rope_theta: 10000,
    tie_word_embeddings: true,
    torch_dtype: dtype === "bf16" ? "bfloat16" : "float16",
    use_cache: true,
    vocab_size: VOCABULARY,
  };
}

function writeJson(path: string, value: unknown): void {
  writeFileSync(path, JSON.stringify(value, null, 2) + "\n");
}

function writeCheckpoint(
  directory: string,
  options: { blocks: number; intermediate: number; dtype: Dtype; seed: number },
): number {
  const { blocks, intermediate, dtype, seed } = options;
  const tensors = listTensors(blocks, intermediate);
  const shards = intoShards(tensors);
  const writer = new WeightWriter(mulberry32(seed), dtype);
  const weightMap: Record<string, string> = {};
  const digits = (number: number) => String(number).padStart(5, "0");
  shards.forEach((shard, index) => {
    const name = `model-${digits(index + 1)}-of-${digits(shards.length)}.safetensors`;
    const file = openSync(join(directory, name), "w");
    try {
      writeAll(file, header(shard, dtype));
      for (const tensor of shard) {
        writer.write(file, tensor);
        weightMap[tensor.name] = name;
      }
    } finally {
      closeSync(file);
    }
  });
  const parameters = tensors.reduce((sum, tensor) => sum + size(tensor), 0);
  const bytes = parameters * BYTES_A_WEIGHT;
  writeJson(join(directory, "model.safetensors.index.json"), {
    metadata: { total_parameters: parameters, total_size: bytes },
    weight_map: weightMap,
  });
  writeJson(join(directory, "config.json"), config(blocks, intermediate, dtype));
  return bytes;
}

function randomWindows(count: number, length: number, seed: number): { windows: number[][] } {
  const random = mulberry32(seed);
  const token = () => Math.floor(random() * VOCABULARY);
  const windows = Array.from({ length: count }, () => Array.from({ length }, token));
  return { windows };
}

function fail(message: string): never {
  console.error(`make_large.ts: ${message}`);
  process.exit(2);
}

function main(): void {
  const { values, positionals } = parseArgs({
    args: process.argv.slice(2),
    allowPositionals: true,
    options: {
      gb: { type: "string", default: "3" },
      blocks: { type: "string", default: "16" },
      intermediate: { type: "string" },
      dtype: { type: "string", default: "bf16" },
      seed: { type: "string", default: "1" },
      windows: { type: "string", default: "0" },
      seqlen: { type: "string", default: "512" },
    },
  });
  type WholeOption = "blocks" | "intermediate" | "seed" | "windows" | "seqlen";
  const whole = (name: WholeOption, least: number) => {
    const number = Number(values[name]);
    if (!Number.isSafeInteger(number) || number < least) {
      fail(`--${name} must be a whole number of at least ${least}, not "${values[name]}"`);
    }
    return number;
  };
  const [out] = positionals;
  if (positionals.length !== 1) fail("expected one argument, the directory to write");
  const gigabytes = Number(values.gb);
  if (!(gigabytes > 0)) fail(`--gb must be above 0, not "${values.gb}"`);
  const dtype = values.dtype;
  if (dtype !== "bf16" && dtype !== "f16") fail(`--dtype must be bf16 or f16, not "${dtype}"`);
  const blocks = whole("blocks", 1);
  const seed = whole("seed", 0);
  const windows = whole("windows", 0);
  const seqlen = whole("seqlen", 1);
  if (seqlen > MAX_POSITIONS) fail(`--seqlen must be at most ${MAX_POSITIONS}`);
  const intermediate = values.intermediate === undefined
    ? intermediateFor(gigabytes * 1e9, blocks)
    : whole("intermediate", 1);

  const directory = resolve(out);
  mkdirSync(directory, { recursive: true });
  if (readdirSync(directory).length > 0) fail(`${out} is not empty`);
  const started = performance.now();
  const bytes = writeCheckpoint(directory, { blocks, intermediate, dtype, seed });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(
    `${directory}: ${(bytes / 1e9).toFixed(2)} GB of weights, ${blocks} blocks, ` +
      `intermediate ${intermediate}, ${dtype}, in ${seconds} s`,
  );
  if (windows > 0) {
    const path = join(dirname(directory), `${basename(directory)}-windows.json`);
    writeFileSync(path, JSON.stringify(randomWindows(windows, seqlen, seed)) + "\n");
    console.log(`${path}: ${windows} windows of ${seqlen} tokens`);
  }
}

main();
