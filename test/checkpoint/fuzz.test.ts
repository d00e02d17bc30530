/**
 * Files and configs changed at random: each must end in a result or in an error of ours, soon, and
 * with no more memory than the files themselves take.
 *
 * The changes follow from a seed, which every failure names: `ESPALIER_FUZZ_SEED=… bun test fuzz`
 * repeats it. With `CI=true` there are ten times as many.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  buildGraph,
  describe as describeConfig,
  SUPPORTED,
} from "../../src/checkpoint/architectures/mod.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { readSafetensorsHeader, type TensorEntry } from "../../src/checkpoint/safetensors.ts";
import { readCorpus } from "../../src/text/corpus.ts";
import { caseCount, type Dice, fuzz, must } from "../support/fuzz.ts";
import {
  fixtureBytes,
  largestAllocation,
  MemorySource,
  parseSafetensors,
  readJsonOf,
  safetensors,
  Workshop,
} from "./support.ts";

/** Changes of each kind: 21,000 with `CI=true`, half of them in each runtime. */
const CASES = {
  safetensors: caseCount(12_000, 1_200),
  configs: caseCount(6_000, 600),
  indexes: caseCount(1_000, 100),
  corpora: caseCount(2_000, 200),
};

/** Bytes of an array that a small model's description may take: rotary tables, and no more. */
const SMALL = 256 << 10;

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** Values that a number, or anything else in JSON, is replaced by, as text. */
const ODD_JSON = [
  "0",
  "-0",
  "1",
  "-1",
  "2",
  "7",
  "0.5",
  "1e-5",
  "-1e300",
  "5e-324",
  "1e999",
  "1e15",
  "999999",
  "10000000",
  "2147483648",
  "4294967296",
  "9007199254740991",
  "9007199254740993",
  "18446744073709551615",
  "18446744073709551616",
  "null",
  "true",
  "false",
  '""',
  '"1"',
  '"NaN"',
  '"constructor"',
  '"__proto__"',
  '"\\u0000"',
  "[]",
  "[1]",
  "[[]]",
  "{}",
  '{"__proto__":1}',
];

/** Bytes changed in one of the ways in which files break. */
function changeBytes(dice: Dice, original: Uint8Array, focus: number): Uint8Array {
  // Most of a weight file is weights, which no header reader looks at.
  const end = dice.below(4) === 0 ? original.length : Math.min(focus, original.length);
  const at = dice.below(end);
  const length = 1 + dice.below(Math.min(64, original.length - at));
  const bytes = original.slice();
  switch (dice.below(7)) {
    case 0:
      for (let n = 1 + dice.below(3); n > 0; n--) bytes[dice.below(end)] ^= 1 << dice.below(8);
      return bytes;
    case 1:
      for (let n = 1 + dice.below(3); n > 0; n--) {
        bytes[dice.below(end)] = dice.pick([
          0,
          0x20,
          0x22,
          0x2c,
          0x30,
          0x39,
          0x5b,
          0x7d,
          0x80,
          255,
        ]);
      }
      return bytes;
    case 2:
      return bytes.slice(0, at);
    case 3: // A stretch twice.
      return joined(original.subarray(0, at + length), original.subarray(at));
    case 4: // A stretch left out.
      return joined(original.subarray(0, at), original.subarray(at + length));
    case 5: // A stretch over another.
      bytes.copyWithin(dice.below(end), at, at + length);
      return bytes;
    default: // A file that goes on.
      return joined(original, original.subarray(at, at + length));
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}

/** JSON text with one of its values, or one of its words, changed. */
function changeJsonText(dice: Dice, text: string, words: readonly string[]): string {
  const replaceOne = (pattern: RegExp, by: (match: string) => string) => {
    const places = [...text.matchAll(pattern)];
    if (places.length === 0) return text;
    const { 0: match, index } = dice.pick(places);
    return text.slice(0, index) + by(match) + text.slice(index + match.length);
  };
  switch (dice.below(6)) {
    case 0:
    case 1:
      return replaceOne(/\b\d+\b/g, () => dice.pick(ODD_JSON));
    case 2: // One digit off: what a check by type alone lets pass.
      return replaceOne(/\d/g, () => String(dice.below(10)));
    case 3:
      return replaceOne(/"[^"]*"/g, () => JSON.stringify(dice.pick(words)));
    case 4:
      return replaceOne(/[{}[\],:"]/g, () => dice.pick(["", "{", "}", "[", "]", ",", ":", '"']));
    default:
      return replaceOne(/\[[^[\]]*\]/g, () => dice.pick(ODD_JSON));
  }
}

describe("a safetensors file changed at random", () => {
  const crafted = safetensors({
    __metadata__: { format: "pt", note: "made by a test" },
    "a.weight": { dtype: "F16", shape: [4, 8], data_offsets: [0, 64] },
    "a.bias": { dtype: "F32", shape: [4], data_offsets: [64, 80] },
    none: { dtype: "BF16", shape: [0, 7], data_offsets: [80, 80] },
    scalar: { dtype: "F64", shape: [], data_offsets: [80, 88] },
    ids: { dtype: "I64", shape: [1, 3], data_offsets: [88, 112] },
    flags: { dtype: "BOOL", shape: [5], data_offsets: [112, 117] },
  }, Uint8Array.from({ length: 117 }, (_, i) => i * 37));
  const files = [
    crafted,
    crafted,
    fixtureBytes("llama-rope-scaled", "model-00003-of-00003.safetensors"),
    fixtureBytes("llama"),
  ];
  const words = [
    "F32",
    "F16",
    "BF16",
    "F64",
    "U8",
    "F8_E4M3",
    "F4",
    "toString",
    "__proto__",
    "__metadata__",
    "constructor",
    "dtype",
    "shape",
    "data_offsets",
    "a.weight",
    "",
    "\u0000",
    "x".repeat(300),
  ];

  function change(dice: Dice, file: Uint8Array): Uint8Array {
    const { header, data } = parseSafetensors(file);
    const headerEnd = file.length - data.length;
    switch (dice.below(8)) {
      case 0:
      case 1:
      case 2:
        return changeBytes(dice, file, headerEnd);
      case 3: { // The header's length alone.
        const bytes = file.slice();
        const length = BigInt(headerEnd - 8);
        const lengths = [
          0n,
          1n,
          length - 1n,
          length + 1n,
          BigInt(file.length - 8),
          BigInt(file.length - 7),
          100_000_000n,
          2n ** 31n,
          2n ** 32n + length,
          2n ** 53n,
          2n ** 63n,
          2n ** 64n - 8n,
          2n ** 64n - 1n,
          BigInt(dice.below(2 ** 32)),
        ];
        new DataView(bytes.buffer).setBigUint64(0, dice.pick(lengths), true);
        return bytes;
      }
      default: { // The header's text, with the length that it then has.
        let text = JSON.stringify(header);
        for (let n = 1 + dice.below(2); n > 0; n--) text = changeJsonText(dice, text, words);
        return safetensors(text, data);
      }
    }
  }

  test("gives tensors that lie in it without gaps, or an error", () => {
    const sizes: Record<string, number> = { F16: 2, BF16: 2, F32: 4, F64: 8, I64: 8 };
    const endings = fuzz(CASES.safetensors, (dice) => {
      const source = new MemorySource(change(dice, dice.pick(files)));
      let entries: TensorEntry[] = [];
      let failure: unknown;
      const allocated = largestAllocation(() => {
        try {
          entries = readSafetensorsHeader(source);
        } catch (error) {
          failure = error;
        }
      });
      must(source.largestRead <= Math.max(8, source.size), `read ${source.largestRead} bytes`);
      must(allocated <= Math.max(8, source.size), `an array of ${allocated} bytes`);
      if (failure !== undefined) throw failure;
      let position = entries[0]?.offset ?? source.size;
      for (const { name, dtype, shape, offset, length } of entries) {
        must(offset === position, `tensor ${name} at ${offset}, not ${position}`);
        const count = shape.reduce((product, dim) => product * dim, 1);
        must(length === count * (sizes[dtype] ?? 1), `tensor ${name} has ${length} bytes`);
        position += length;
      }
      must(position === source.size, `tensors end at ${position}, the file at ${source.size}`);
    });
    expect(Object.keys(Object.fromEntries(endings)).sort()).toEqual([
      "SAFETENSORS_INVALID",
      "result",
    ]);
  });
});

describe("a config.json changed at random", () => {
  const fixtures = [
    "llama",
    "llama-rope-scaled",
    "llama-old-rope-scaled",
    "llama-bias-linear-rope",
    "mistral-sliding",
    "opt",
    "opt-post-norm",
    "qwen2-sliding",
    "qwen3",
  ].map((name) => {
    const folder = workshop.copy(name);
    const checkpoint = Checkpoint.open(folder);
    checkpoint.close();
    return { name, config: checkpoint.config, tensors: checkpoint.tensors };
  });
  const values: readonly unknown[] = [
    ...ODD_JSON.map((text) => JSON.parse(text)),
    NaN,
    Infinity,
    -Infinity,
    undefined,
    10_000,
    1_000_000,
    "llama3",
    "linear",
    "yarn",
    "silu",
    "gelu",
    "sliding_attention",
    { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
    { rope_type: "linear", factor: 1e300 },
    { type: "default", rope_theta: 1e308 },
    new Array(1000).fill("sliding_attention"),
  ];
  // Fields that an architecture reads though a fixture's config may not have them.
  const fields = [
    "head_dim",
    "num_key_value_heads",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "word_embed_proj_dim",
    "quantization_config",
    "_remove_final_layer_norm",
  ];

  function change(dice: Dice, original: Record<string, unknown>): Record<string, unknown> {
    const config = structuredClone(original);
    for (let n = 1 + dice.below(3); n > 0; n--) {
      let object = config;
      const nested = Object.values(config).filter((value) =>
        typeof value === "object" && value !== null && !Array.isArray(value)
      );
      if (nested.length > 0 && dice.below(4) === 0) {
        object = dice.pick(nested) as Record<string, unknown>;
      }
      const keys = object === config ? [...Object.keys(config), ...fields] : Object.keys(object);
      if (keys.length === 0) continue;
      const key = dice.pick(keys);
      const value = object[key];
      switch (dice.below(6)) {
        case 0:
          delete object[key];
          break;
        case 1:
          config.model_type = dice.pick([...SUPPORTED, "gpt_neo", "__proto__", "", null, 7]);
          break;
        case 2: // Near the truth: numbers that shapes alone can tell, names that objects have.
          if (typeof value === "number") {
            object[key] = dice.pick([value * 2, value / 2, value + 1, value - 1, -value]);
          } else if (typeof value === "string") {
            object[key] = dice.pick(["constructor", "toString", "__proto__", "relu", "silu", ""]);
          }
          break;
        default:
          object[key] = structuredClone(dice.pick(values));
      }
    }
    return config;
  }

  test("gives a graph of the tensors that there are, or an error", () => {
    const endings = fuzz(CASES.configs, (dice) => {
      const { config, tensors } = dice.pick(fixtures);
      const changed = change(dice, config);
      let failure: unknown;
      const allocated = largestAllocation(() => {
        try {
          const spec = describeConfig(changed);
          const graph = buildGraph({ tensors }, spec, 16);
          for (const { name, externalData, rawData } of graph.initializer) {
            must(externalData.length === 0 || tensors.has(name), `no tensor ${name}`);
            if (!name.endsWith("_cache")) continue;
            const table = new Float32Array(rawData.slice().buffer);
            // YaRN's cosines are multiplied by a factor.
            const most = Math.max(
              ...Array.from({ length: spec.layers }, (_, layer) => spec.rotary(layer)?.factor ?? 0),
            );
            must(table.every((x) => Math.abs(x) <= most), `${name} is no table of cosines`);
          }
          for (const { opType, input } of graph.node) {
            must(input.every((name) => typeof name === "string"), `${opType} lacks an input`);
          }
        } catch (error) {
          failure = error;
        }
      });
      must(allocated <= SMALL, `an array of ${allocated} bytes`);
      if (failure !== undefined) throw failure;
    });
    for (const code of ["result", "CONFIG_INVALID", "TENSOR_SHAPE", "TENSOR_MISSING"]) {
      expect(endings.get(code) ?? 0).toBeGreaterThan(0);
    }
  });
});

/** Open files of this process, where the system tells. */
function openFiles(): number {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return 0;
  }
}

describe("an index changed at random", () => {
  test("opens the shards that it names, or gives an error and leaves no file open", () => {
    const folder = workshop.copy("llama-rope-scaled");
    const path = join(folder, "model.safetensors.index.json");
    const text = JSON.stringify(readJsonOf(folder, "model.safetensors.index.json"));
    const bytes = new TextEncoder().encode(text);
    const words = [
      "model-00001-of-00003.safetensors",
      "model-00003-of-00003.safetensors",
      "model-00004-of-00003.safetensors",
      "../x.safetensors",
      "/dev/zero",
      "/dev/zero.safetensors",
      ".safetensors",
      "\u0000.safetensors",
      `${"x".repeat(300)}.safetensors`,
      "weight_map",
      "__proto__",
      "constructor",
      "model.norm.weight",
      "",
    ];
    const before = openFiles();
    const endings = fuzz(CASES.indexes, (dice) => {
      writeFileSync(
        path,
        dice.below(3) === 0
          ? changeBytes(dice, bytes, bytes.length)
          : changeJsonText(dice, text, words),
      );
      const checkpoint = Checkpoint.open(folder);
      try {
        for (const shard of checkpoint.shards) must(/^model-0000\d-of/.test(shard), shard);
      } finally {
        checkpoint.close();
      }
    });
    expect(openFiles()).toBeLessThan(before + 5);
    for (const code of ["result", "SHARD_INVALID"]) {
      expect(endings.get(code) ?? 0).toBeGreaterThan(0);
    }
  });
});

describe("a text file changed at random", () => {
  const windows = JSON.stringify({
    windows: [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 4095]],
    source: "made by a test",
  });
  const lines = [
    { text: "The first document." },
    { text: "A second one,\nof two lines.", id: 2 },
    { text: "", meta: { language: "en" } },
    { text: "Ünïcödé 🌳" },
  ].map((line) => JSON.stringify(line)).join("\n");
  const words = ["windows", "text", "source", "__proto__", "constructor", "", "\u2028", "\ud800"];

  for (const [name, text] of [["windows.json", windows], ["lines.jsonl", lines]] as const) {
    test(`gives text or windows, or an error, as ${name}`, () => {
      const path = workshop.fresh(name).replace(/(\.jsonl?)(-\d+)$/, "$2$1");
      const bytes = new TextEncoder().encode(text);
      const endings = fuzz(CASES.corpora / 2, (dice) => {
        writeFileSync(
          path,
          dice.below(2) === 0
            ? changeBytes(dice, bytes, bytes.length)
            : changeJsonText(dice, text, words),
        );
        const corpus = readCorpus(path);
        if (corpus.kind === "text") {
          must(typeof corpus.text === "string", "no text");
          return;
        }
        must(corpus.windows.length > 0, "no windows");
        for (const window of corpus.windows) {
          must(window.length === corpus.windows[0].length, "windows of two lengths");
          must(window.every((id) => id >= 0), "an id below 0");
        }
        must(readFileSync(path).length > 0, "windows from nothing");
      });
      for (const code of ["result", "TEXT_UNUSABLE"]) {
        expect(endings.get(code) ?? 0).toBeGreaterThan(0);
      }
    });
  }
});
