/**
 * Compiled models changed at random: each must end in a result or in an error of ours, soon, and with
 * no more memory than the files justify.
 *
 * The changes follow from a seed, which every failure names: `ESPALIER_FUZZ_SEED=… bun test fuzz`
 * repeats it. With `CI=true` there are ten times as many.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { compile } from "../../compile/compile.ts";
import { CompiledModel } from "../../compile/compiled_model.ts";
import { tensorsOf } from "../../compile/expand.ts";
import { inspectCompiled } from "../../compile/inspect.ts";
import type { CompileOptions } from "../../compile/options.ts";
import { writeSafetensors } from "../../src/checkpoint/safetensors_writer.ts";
import {
  type ModelProto,
  type NodeProto,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation as DataLocation,
} from "../../src/onnx/generated/onnx_pb.ts";
import { modelBytes, parseModel } from "../../src/onnx/model_file.ts";
import { uniformNumbers } from "../../src/text/windows.ts";
import { caseCount, type Dice, fuzz, must } from "../support/fuzz.ts";
import { largestAllocation, Workshop } from "../checkpoint/support.ts";

/** Changes of each kind. */
const CASES = { graphs: caseCount(20_000, 2_000), folders: caseCount(4_000, 400) };

/** Longest time for a test: Bun's own limit is 5 s. */
const LONG = 120_000;
/** Bytes of weights that a byte of a packed linear may stand for, as `compiled_model.ts` says. */
const MOST_BYTES_A_BYTE = 4 << 14;

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** A compiled model's two files. */
interface Files {
  readonly graph: Uint8Array;
  readonly data: Uint8Array;
}

/** One model, compiled in several ways. */
const models: Files[] = [];

beforeAll(async () => {
  const checkpoint = workshop.folder();
  await writeCheckpoint(checkpoint);
  const ways: Omit<CompileOptions, "model">[] = [
    { format: "nm", values: "f16" },
    { format: "csr", values: "int8", head: "f32" },
    { format: "csr", values: "f32", head: "f16" },
    { format: "bitmap", values: "int8", group: 8 },
    { format: "slots", values: "int8" },
    { format: "dense", values: "int8" },
    { format: "nm", values: "int8", logits: "last" },
    { format: "nm", values: "int4", head: "int4" },
    { format: "csr", values: "int4" },
    { format: "bitmap", values: "int4", head: "int4" },
    { format: "dense", values: "int4" },
  ];
  for (const way of ways) {
    const output = workshop.fresh("compiled");
    await compile({ model: checkpoint, output, ...way });
    models.push({
      graph: new Uint8Array(readFileSync(join(output, "onnx", "model.onnx"))),
      data: new Uint8Array(readFileSync(join(output, "onnx", "model.onnx_data"))),
    });
  }
});

/** Writes a checkpoint of one block, as small as the architecture allows, pruned to 2:4. */
async function writeCheckpoint(folder: string): Promise<void> {
  const [hidden, intermediate, vocabulary] = [16, 32, 20];
  writeFileSync(
    join(folder, "config.json"),
    JSON.stringify({
      model_type: "llama",
      hidden_size: hidden,
      intermediate_size: intermediate,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      vocab_size: vocabulary,
      max_position_embeddings: 16,
      rms_norm_eps: 1e-6,
      hidden_act: "silu",
      tie_word_embeddings: true,
    }),
  );
  const next = uniformNumbers(3);
  const tensor = (name: string, shape: number[], pruned = false) => ({
    name: `model.${name}.weight`,
    shape,
    read: () =>
      Float32Array.from(
        { length: shape.reduce((a, b) => a * b, 1) },
        (_, i) => pruned && i % 4 < 2 ? 0 : next() - 0.5,
      ),
  });
  const linear = (name: string, shape: number[]) => tensor(`layers.0.${name}`, shape, true);
  await writeSafetensors(join(folder, "model.safetensors"), [
    tensor("embed_tokens", [vocabulary, hidden]),
    tensor("layers.0.input_layernorm", [hidden]),
    tensor("layers.0.post_attention_layernorm", [hidden]),
    linear("self_attn.q_proj", [hidden, hidden]),
    linear("self_attn.k_proj", [hidden / 2, hidden]),
    linear("self_attn.v_proj", [hidden / 2, hidden]),
    linear("self_attn.o_proj", [hidden, hidden]),
    linear("mlp.gate_proj", [intermediate, hidden]),
    linear("mlp.up_proj", [intermediate, hidden]),
    linear("mlp.down_proj", [hidden, intermediate]),
    tensor("norm", [hidden]),
  ], "f16");
}

/** What numbers of a model are replaced by. */
const ODD_INTEGERS = [
  0n,
  1n,
  2n,
  3n,
  7n,
  8n,
  16n,
  32n,
  255n,
  256n,
  65535n,
  65536n,
  2n ** 20n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n,
  2n ** 40n,
  2n ** 53n,
  2n ** 63n - 1n,
  -1n,
  -2n,
  -(2n ** 31n),
  -(2n ** 63n),
];

/** A number as protobuf writes it. */
function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  do {
    bytes.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}

function joined(...parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let position = 0;
  for (const part of parts) {
    bytes.set(part, position);
    position += part.length;
  }
  return bytes;
}

/** Bytes changed in one of the ways in which files break. */
function changeBytes(dice: Dice, original: Uint8Array): Uint8Array {
  const at = dice.below(original.length);
  const length = 1 + dice.below(Math.min(dice.pick([4, 64, 1024]), original.length - at));
  const bytes = original.slice();
  switch (dice.below(9)) {
    case 0:
    case 1:
      for (let n = 1 + dice.below(3); n > 0; n--) {
        bytes[dice.below(bytes.length)] ^= 1 << dice.below(8);
      }
      return bytes;
    case 2:
      for (let n = 1 + dice.below(3); n > 0; n--) {
        bytes[dice.below(bytes.length)] = dice.pick([0, 1, 0x0a, 0x12, 0x7f, 0x80, 0xff]);
      }
      return bytes;
    case 3:
      return bytes.slice(0, at);
    case 4: // A stretch twice.
      return joined(original.subarray(0, at + length), original.subarray(at));
    case 5: // A stretch left out.
      return joined(original.subarray(0, at), original.subarray(at + length));
    case 6: // A stretch over another.
      bytes.copyWithin(dice.below(bytes.length), at, at + length);
      return bytes;
    case 7: // A number for another.
      return joined(
        original.subarray(0, at),
        varint(dice.pick(ODD_INTEGERS)),
        original.subarray(at + 1),
      );
    default: // A file that goes on.
      return joined(original, original.subarray(at, at + length));
  }
}

/** A model that protobuf reads, with something in it changed: what bytes at random seldom hit. */
function changeModel(dice: Dice, model: ModelProto): void {
  const { initializer, node } = model.graph!;
  if (initializer.length === 0 || node.length === 0) return;
  if (dice.below(3) > 0) changeTensor(dice, dice.pick(initializer), initializer);
  else changeNode(dice, dice.pick(node), node);
}

function changeTensor(dice: Dice, tensor: TensorProto, all: TensorProto[]): void {
  const other = dice.pick(all);
  const entry = (key: string, change: (value: string) => string) => {
    for (const e of tensor.externalData) if (e.key === key) e.value = change(e.value);
  };
  switch (dice.below(10)) {
    case 0:
      tensor.dataType = dice.pick([0, 1, 2, 3, 6, 7, 10, 16, 21, 22, 23, 99]);
      return;
    case 1:
      tensor.dims[dice.below(tensor.dims.length + 1)] = dice.pick(ODD_INTEGERS);
      return;
    case 2: // Another shape of as many elements.
      tensor.dims = [...tensor.dims.reverse()];
      if (dice.below(2) === 0) tensor.dims.push(1n);
      return;
    case 3: // Whole tensors change places: types, shapes and lengths may fit or not.
      [tensor.dims, other.dims] = [other.dims, tensor.dims];
      [tensor.dataType, other.dataType] = [other.dataType, tensor.dataType];
      if (dice.below(2) === 0) {
        [tensor.externalData, other.externalData] = [other.externalData, tensor.externalData];
      }
      return;
    case 4:
      entry(
        "offset",
        (value) =>
          dice.pick([
            "",
            "-1",
            "4096",
            "x",
            String(Number(value) + dice.pick([1, -1, 4096])),
            "9e9",
          ]),
      );
      return;
    case 5:
      entry("length", (value) => dice.pick(["", "0", "-1", String(Number(value) + 1), "1e3"]));
      return;
    case 6:
      entry("location", () => dice.pick(["", ".", "..", "model.onnx", "/dev/zero", "config.json"]));
      return;
    case 7: { // More data, and a shape that goes with them.
      const count = dice.pick([0, 1, 2, 100, 4096, 30_000]);
      tensor.dims = [BigInt(count)];
      tensor.dataType = dice.pick([2, 3]);
      entry("length", () => String(count));
      entry("offset", () => "0");
      return;
    }
    case 8:
      tensor.name = dice.pick([other.name, "", "a.weight", `${tensor.name}.weight`, "__proto__"]);
      return;
    default:
      if (dice.below(2) === 0) {
        tensor.dataLocation = DataLocation.DEFAULT;
        tensor.rawData = new Uint8Array(dice.pick([0, 1, 32, 512]));
      } else {
        tensor.dataLocation = DataLocation.EXTERNAL;
        tensor.externalData.push(
          create(StringStringEntryProtoSchema, { key: "length", value: "4" }),
        );
      }
  }
}

function changeNode(dice: Dice, node: NodeProto, all: NodeProto[]): void {
  const other = dice.pick(all);
  switch (dice.below(7)) {
    case 0:
    case 1:
    case 2: {
      const attribute = node.attribute[dice.below(node.attribute.length || 1)];
      if (attribute) attribute.i = dice.pick(ODD_INTEGERS);
      return;
    }
    case 3:
      node.attribute.splice(dice.below(node.attribute.length || 1), 1);
      return;
    case 4:
      node.opType = dice.pick([other.opType, "SparseMatMulCsr", "SparseMatMulNMGroupScaled", "X"]);
      if (dice.below(2) === 0) node.domain = dice.pick(["ai.espalier", ""]);
      return;
    case 5:
      node.input[dice.below(node.input.length + 1)] = dice.pick([...node.input, ...other.input]);
      return;
    default:
      node.input.splice(dice.below(node.input.length), 1);
  }
}

/** A graph changed by one to three changes of either kind. */
function changeGraph(dice: Dice, graph: Uint8Array): Uint8Array {
  if (dice.below(2) === 0) return changeBytes(dice, graph);
  const model = parseModel(graph, "whole");
  for (let n = 1 + dice.below(3); n > 0; n--) changeModel(dice, model);
  return modelBytes(model);
}

describe("a graph changed at random", () => {
  test("is read, or refused", () => {
    const endings = fuzz(CASES.graphs, (dice) => {
      const bytes = changeGraph(dice, dice.pick(models).graph);
      let failure: unknown;
      const allocated = largestAllocation(() => {
        try {
          const model = parseModel(bytes, "changed.onnx");
          must(model.graph !== undefined, "a model without a graph");
        } catch (error) {
          failure = error;
        }
      });
      must(allocated <= bytes.length, `an array of ${allocated} bytes`);
      if (failure !== undefined) throw failure;
    });
    expect([...endings.keys()].sort()).toEqual(["ONNX_INVALID", "result"]);
  }, LONG);
});

/** Open files of this process, where the system tells. */
function openFiles(): number {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return 0;
  }
}

describe("a compiled model's files changed at random", () => {
  let folder = "";
  let open = 0;

  beforeAll(() => {
    folder = workshop.folder();
    mkdirSync(join(folder, "onnx"));
    writeFileSync(join(folder, "config.json"), '{"model_type":"llama"}');
    writeFileSync(join(folder, "espalier.json"), '{"kind":"compiled","dtype":"f16"}');
    open = openFiles();
  });

  function write({ graph, data }: Files): void {
    writeFileSync(join(folder, "onnx", "model.onnx"), graph);
    writeFileSync(join(folder, "onnx", "model.onnx_data"), data);
  }

  function change(dice: Dice, { graph, data }: Files): Files {
    const which = dice.below(4);
    return {
      graph: which > 0 ? changeGraph(dice, graph) : graph,
      data: which < 2 ? changeBytes(dice, data) : data,
    };
  }

  /** Runs something with the memory that it takes watched. */
  function run(work: () => void): void {
    let failure: unknown;
    const allocated = largestAllocation(() => {
      try {
        work();
      } catch (error) {
        failure = error;
      }
    });
    // No packed linear here has more than 1.5 kB.
    must(allocated <= MOST_BYTES_A_BYTE * 1536, `an array of ${allocated} bytes`);
    if (failure !== undefined) throw failure;
  }

  test("are looked into, or refused", () => {
    const endings = fuzz(CASES.folders, (dice) => {
      write(change(dice, dice.pick(models)));
      run(() => {
        const { linears, totals } = inspectCompiled(folder);
        for (const { name, shape, bytes, sparsity } of linears) {
          must(4 * shape[0] * shape[1] <= bytes * MOST_BYTES_A_BYTE, `${name} of ${bytes} bytes`);
          must(sparsity >= 0 && sparsity <= 1, `${name} has a sparsity of ${sparsity}`);
        }
        must(totals.sparsity >= 0 && totals.sparsity <= 1, `a sparsity of ${totals.sparsity}`);
      });
    });
    for (const code of ["result", "ONNX_INVALID", "PACKED_INVALID"]) {
      expect(endings.get(code) ?? 0).toBeGreaterThan(0);
    }
    expect(openFiles()).toBe(open);
  }, LONG);

  test(
    "give the tensors of a checkpoint, finite and of the shapes they say, or are refused",
    () => {
      const endings = fuzz(CASES.folders, (dice) => {
        write(change(dice, dice.pick(models)));
        run(() => {
          const model = CompiledModel.open(folder);
          try {
            const names = new Set<string>();
            for (const { name, shape, read } of tensorsOf(model)) {
              must(!names.has(name), `${name} is there twice`);
              names.add(name);
              const values = read();
              must(values.length === shape.reduce((a, b) => a * b, 1), `${name} of ${shape}`);
              must(values.every(Number.isFinite), `${name} is not finite`);
            }
          } finally {
            model.close();
          }
        });
      });
      for (const code of ["result", "ONNX_INVALID", "PACKED_INVALID"]) {
        expect(endings.get(code) ?? 0).toBeGreaterThan(0);
      }
      expect(openFiles()).toBe(open);
    },
    LONG,
  );
});
