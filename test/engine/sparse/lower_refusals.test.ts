/**
 * What lowering refuses: operators without a kernel, wires that mean something else, shapes that do not
 * fit. Every message names the operator and the node.
 * @module
 */
import { afterAll, beforeAll, describe, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import {
  AttributeProto_AttributeType as AttributeType,
  NodeProtoSchema,
  TensorProto_DataType as DataType,
} from "../../../src/onnx/generated/onnx_pb.ts";
import { CompileWorkshop, type How } from "../../compile/support.ts";
import type { Editor } from "./graph_editor.ts";
import { refusals } from "./refusing.ts";
import { type Files, filesOf, lowerBytes, makerOf } from "./support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

/** Models with everything that there is. */
const MODELS = {
  llama: ["llama-bias-linear-rope", { format: "nm" }],
  csr: ["llama", { format: "csr", values: "f16" }],
  bitmap: ["llama", { format: "bitmap", group: 16, logits: "last" }],
  slots: ["llama", { format: "slots" }],
  qwen3: ["qwen3", { format: "dense" }],
  opt: ["opt", { format: "dense", values: "f16" }],
  gemma: ["gemma", { format: "dense", values: "f16" }],
  gemma2: ["gemma2", { format: "dense", values: "f16" }],
  phi3: ["phi3", { format: "dense", values: "f16" }],
  "gpt-neox": ["gpt-neox", { format: "dense", values: "f16" }],
  cohere: ["cohere", { format: "dense", values: "f16" }],
  granite_swa: ["granite_swa", { format: "dense", values: "f16" }],
} satisfies Record<string, [string, How]>;
type Name = keyof typeof MODELS;

const compiled = new Map<Name, Files>();

beforeAll(async () => {
  for (const [name, [model, how]] of Object.entries(MODELS)) {
    const { output } = await workshop.compile(await workshop.pruned(model, "2:4"), how);
    compiled.set(name as Name, filesOf(output));
  }
});

const { unsupported, damaged } = refusals((model: Name) => compiled.get(model)!);

test("the models that are changed are lowered as they are", () => {
  for (const files of compiled.values()) lowerBytes(files.graph);
});

describe("an operator without a kernel is refused:", () => {
  unsupported(
    "one of ONNX",
    "llama",
    (e) => e.insert(e.node("MatMul"), 0, "Softmax"),
    'node "/inserted/Softmax" (Softmax)',
    "is an operator without a kernel",
  );
  unsupported(
    "one of another domain, whatever its name",
    "llama",
    (e) => e.insert(e.node("MatMul"), 0, "Relu", [], "com.example"),
    "(com.example.Relu)",
  );
  unsupported(
    "one of ONNX that another domain has",
    "llama",
    (e) => e.node("RotaryEmbedding").domain = "",
    "(RotaryEmbedding)",
  );
  unsupported("a node without a name, by what it makes", "llama", (e) => {
    const node = e.node("Sigmoid");
    [node.opType, node.name] = ["Erf", ""];
  }, 'activation/Sigmoid_output_0" (Erf)');
  unsupported("one with a long name, in few words", "llama", (e) => {
    e.node("Sigmoid").opType = "S".repeat(1 << 20);
  }, "SSS");
  damaged(
    "one of ours that is not known",
    "llama",
    (e) => e.node("SparseMatMulNMRowScaled").opType = "SparseMatMulNMSquared",
    'unknown operator "SparseMatMulNMSquared"',
  );
});

describe("an input or attribute that changes what a node computes is refused:", () => {
  const attribute = (
    title: string,
    model: Name,
    opType: string,
    name: string,
    value: bigint | number | bigint[],
    ...parts: string[]
  ) => unsupported(title, model, (e) => e.set(e.node(opType), name, value), `(`, ...parts);
  attribute("one that is not known", "llama", "Sigmoid", "x", 1n, '"x"');
  attribute("pairs of another kind", "llama", "RotaryEmbedding", "interleaved", 2n, "interleaved");
  attribute(
    "heads turned in part",
    "llama",
    "RotaryEmbedding",
    "rotary_embedding_dim",
    8n,
    "rotary_embedding_dim 8",
  );
  attribute("scaled positions", "llama", "RotaryEmbedding", "scale", 2);
  attribute("rotary inside attention", "llama", "GroupQueryAttention", "do_rotary", 1n);
  attribute("a smooth softmax", "llama", "GroupQueryAttention", "smooth_softmax", 1n);
  attribute("a mean over tokens", "llama", "ReduceMean", "axes", [1n], "[1]");
  attribute("a mean over many axes", "llama", "ReduceMean", "axes", new Array(99).fill(1n), "…");
  attribute("a mean without its axis", "llama", "ReduceMean", "keepdims", 0n);
  attribute("a norm over tokens", "opt", "LayerNormalization", "axis", 1n);
  attribute("columns of a table", "llama", "Gather", "axis", 1n);
  attribute("a count over the batch", "llama", "ReduceSum", "keepdims", 1n);
  attribute("a matrix that is not turned", "qwen3", "Transpose", "perm", [0n, 1n], "[0, 1]");
  attribute("a cast to float16", "qwen3", "Cast", "to", 10n, "FLOAT16");
  attribute("zeros that mean zeros", "qwen3", "Reshape", "allowzero", 1n);
  unsupported(
    "an input that is not known",
    "llama",
    (e) => {
      const node = e.node("GroupQueryAttention");
      node.input.push("cos_cache", "sin_cache");
    },
    "has an input 7",
    '"cos_cache"',
  );
  unsupported("sinks that a node makes", "granite_swa", (e) => {
    const node = e.node("GroupQueryAttention");
    node.input[11] = node.input[0];
  }, "as its input 11");
  unsupported("sinks of another type", "granite_swa", (e) => {
    e.reshape(e.node("GroupQueryAttention").input[11], [4], DataType.FLOAT16);
  }, "FLOAT16");
  damaged("sinks of other heads", "granite_swa", (e) => {
    e.reshape(e.node("GroupQueryAttention").input[11], [3]);
  }, "which should be [4]");
  unsupported("one more input of a packed matrix", "llama", (e) => {
    const node = e.node("SparseMatMulNMRowScaled");
    node.input.push(node.input[1]);
  });
  damaged(
    "an attribute of another type",
    "llama",
    (e) => e.node("GroupQueryAttention").attribute[0].type = AttributeType.FLOAT,
    "num_heads as another type than INT",
  );
  damaged("an attribute twice", "llama", (e) => {
    const { attribute } = e.node("GroupQueryAttention");
    attribute.push(attribute[0]);
  }, "num_heads twice");
});

describe("other wires are refused:", () => {
  unsupported(
    "lengths of attention the other way round",
    "llama",
    (e) => {
      const { input } = e.node("GroupQueryAttention", 1);
      [input[5], input[6]] = [input[6], input[5]];
    },
    "layers.1/self_attn/GroupQueryAttention",
    "reads the total of the mask",
  );
  unsupported("a count that is not less one", "llama", (e) => {
    e.node("Sub").input[1] = e.constant([2n]);
  }, "takes 2 from the count");
  unsupported("a length of 64 bits", "llama", (e) => {
    const attention = e.node("GroupQueryAttention");
    attention.input[5] = e.before(attention, 5).input[0];
  }, "as int64");
  unsupported("the batch for the length", "llama", (e) => {
    e.named("/lengths/Gather").input[1] = e.constant([0n]);
  }, "takes dimension 0");
  unsupported("keys of another layer", "llama", (e) => {
    e.node("GroupQueryAttention").input[3] = "past_key_values.1.key";
  }, "two layers");
  unsupported("keys for values", "llama", (e) => {
    e.node("GroupQueryAttention").input[4] = "past_key_values.0.key";
  }, '"past_key_values.0.key" where past values are understood');
  unsupported("a cache that goes to another layer", "llama", (e) => {
    const [one, other] = [0, 1].map((nth) => e.node("GroupQueryAttention", nth).output);
    [one[1], other[1]] = [other[1], one[1]];
  }, "where present.0.key is understood");
  unsupported("a cache that goes nowhere", "llama", (e) => {
    e.node("GroupQueryAttention").output.pop();
    e.graph.output = e.graph.output.filter(({ name }) => name !== "present.0.value");
  }, "where present.0.value is understood");
  unsupported("a cache that is passed through", "llama", (e) => {
    const attention = e.node("GroupQueryAttention");
    attention.output[1] = "hidden";
    e.graph.node.push(create(NodeProtoSchema, {
      name: "/pass",
      opType: "Identity",
      input: ["past_key_values.0.key"],
      output: ["present.0.key"],
    }));
  }, '"hidden" where present.0.key');
  damaged(
    "a layer that is left out",
    "llama",
    (e) => {
      e.graph.output = e.graph.output.filter(({ name }) => !name.startsWith("present.1."));
    },
    "4 outputs present.N",
    "3 layers",
  );
  damaged("layers with a gap", "llama", (e) => {
    const rename = (name: string) => name.replace(/(present|past_key_values)\.2\./, "$1.5.");
    for (const info of [...e.graph.input, ...e.graph.output]) info.name = rename(info.name);
    for (const node of e.graph.node) {
      [node.input, node.output] = [node.input.map(rename), node.output.map(rename)];
    }
  }, "3 layers");
  unsupported("rotary by shifted positions", "llama", (e) => {
    const one = e.constant([1n]);
    e.insert(e.node("RotaryEmbedding"), 1, "Add", [one]);
  }, "not position_ids");
  unsupported("rotary by the tokens", "llama", (e) => {
    e.node("RotaryEmbedding").input[1] = "input_ids";
  }, "not position_ids");
  unsupported("shifted tokens", "llama", (e) => {
    e.insert(e.node("Gather", 1), 1, "Add", [e.constant([1n])]);
  }, "adds 1 to token ids");
  unsupported("a norm of another value", "llama", (e) => {
    const divisions = e.graph.node.filter(({ opType }) => opType === "Div");
    divisions[1].input[0] = divisions[0].input[0];
  }, "another value's mean square");
  unsupported("a norm that lacks its weight", "llama", (e) => {
    const weighed = e.graph.node.find(({ input }) =>
      input[1] === "model.layers.0.input_layernorm.weight"
    )!;
    for (const node of e.graph.node) {
      node.input = node.input.map((name) => name === weighed.output[0] ? weighed.input[0] : name);
    }
  }, '"norm without weight"');
  unsupported("a root that lacks ε", "llama", (e) => {
    const root = e.node("Sqrt");
    root.input[0] = e.before(root).input[0];
  }, "reads the mean of a norm where its shifted is understood");
  unsupported("a cube in a norm", "llama", (e) => {
    e.node("Pow").input[1] = e.constant([3]);
  }, "exponent 3");
  unsupported("heads that are not put together again", "qwen3", (e) => {
    const rotary = e.node("RotaryEmbedding");
    rotary.input[0] = e.before(rotary).input[0];
  }, "cut into heads");
  unsupported("int8 rows with the scales of other rows", "qwen3", (e) => {
    e.named("embed_tokens/Gather_1").input[1] = "position_ids";
  }, 'scales rows of "model.embed_tokens.weight" by something that is not theirs');
  unsupported("a product that lacks its scales", "qwen3", (e) => {
    const product = e.named("gate_proj/MatMul");
    const scaled = e.graph.node.find(({ input }) => input.includes(product.output[0]))!;
    for (const node of e.graph.node) {
      node.input = node.input.map((name) => name === scaled.output[0] ? product.output[0] : name);
    }
  }, '"product without scales"');
  unsupported("a bias of what is no product", "llama", (e) => {
    e.insert(e.node("RotaryEmbedding"), 0, "Add", ["model.layers.0.self_attn.q_proj.bias"]);
  }, "no product without a bias");
  unsupported("the first token for the last", "bitmap", (e) => {
    e.node("Slice").input[1] = e.constant([0n]);
  }, "cuts from 0");
  unsupported("the last token in the middle of the model", "bitmap", (e) => {
    const { input } = e.node("Slice");
    e.insert(e.node("SparseMatMulBitmapGroupScaled"), 0, "Slice", input.slice(1));
  }, "last token alone");
  unsupported("float16 that is not cast", "opt", (e) => {
    const product = e.node("MatMul");
    product.input[1] = e.before(product, 1).input[0];
  }, "cast to float32, is understood");
  unsupported("logits that are no vector for each token", "llama", (e) => {
    makerOf(e.graph, "logits").output = ["unused"];
    e.graph.node.push(create(NodeProtoSchema, {
      opType: "Identity",
      input: ["cos_cache"],
      output: ["logits"],
    }));
  }, "no vector for each token");
  damaged("logits that do not depend on tokens", "llama", (e) => {
    for (const node of e.graph.node) {
      node.input = node.input.map((name) => name === "input_ids" ? "position_ids" : name);
    }
  }, "do not depend on input_ids");
});

describe("shapes that do not fit are refused:", () => {
  damaged(
    "a bias of another length",
    "llama",
    (e) => e.reshape("model.layers.0.mlp.up_proj.bias", [79]),
    '"model.layers.0.mlp.up_proj.bias" of shape [79], which should be [80]',
  );
  unsupported(
    "a bias that is one number",
    "llama",
    (e) => e.reshape("model.layers.0.mlp.up_proj.bias", []),
    "FLOAT []",
  );
  unsupported(
    "a bias in float16",
    "llama",
    (e) => e.reshape("model.layers.0.mlp.up_proj.bias", [80], DataType.FLOAT16),
    "FLOAT16 [80]",
  );
  damaged(
    "the weight of a norm",
    "llama",
    (e) => e.reshape("model.norm.weight", [63]),
    '"model.norm.weight" of shape [63], which should be [64]',
  );
  damaged(
    "the weight of a norm of heads",
    "qwen3",
    (e) => e.reshape("model.layers.0.self_attn.q_norm.weight", [64]),
    "which should be [32]",
  );
  damaged(
    "the bias of a layer norm",
    "opt",
    (e) => e.reshape("model.decoder.final_layer_norm.bias", [65]),
    "which should be [64]",
  );
  damaged("sines for other heads than cosines", "llama", (e) => {
    e.storeTables();
    e.reshape("sin_cache", [128, 4]);
  }, '"sin_cache" of shape [128,4], which should be [128,8]');
  damaged("frequencies for other heads", "llama", (e) => {
    e.reshape("rotary_frequencies", [4]);
  }, "turns 64 elements as 4 heads by tables for heads of 8");
  damaged("rotary tables for other heads", "llama", (e) => {
    e.storeTables();
    e.reshape("sin_cache", [128, 4]);
    e.reshape("cos_cache", [128, 4]);
  }, "turns 64 elements as 4 heads by tables for heads of 8");
  damaged("rotary tables without rows", "llama", (e) => {
    e.storeTables();
    e.reshape("cos_cache", [0, 8]);
  }, "no matrix");
  damaged(
    "a dense matrix with other columns",
    "qwen3",
    (e) => {
      e.reshape("model.layers.0.mlp.up_proj.weight", [160, 65]);
    },
    "multiplies 64 elements",
    "whose rows have 65",
  );
  damaged("a dense matrix with other rows", "qwen3", (e) => {
    e.reshape("model.layers.0.mlp.up_proj.weight", [161, 64]);
    e.reshape("model.layers.0.mlp.up_proj.scales", [161]);
  }, "reads 160 and 161 elements a token");
  damaged("scales of a dense matrix", "qwen3", (e) => {
    e.reshape("model.layers.0.mlp.up_proj.scales", [1]);
  }, "which should be [160]");
  damaged("an embedding that is no matrix", "llama", (e) => {
    e.reshape("model.embed_tokens.weight", [320, 8, 8]);
  }, "[320,8,8], which is no matrix");
  damaged("positions beyond their table", "opt", (e) => {
    e.named("embed_positions/Add").input[1] = e.constant([130n]);
  }, "from 130 on of 130");
  damaged("positions before their table", "opt", (e) => {
    e.named("embed_positions/Add").input[1] = e.constant([-1n]);
  }, "from -1 on of 130");
  const heads = (title: string, name: string, value: bigint, ...parts: string[]) =>
    damaged(title, "llama", (e) => e.set(e.node("GroupQueryAttention"), name, value), ...parts);
  heads("heads that queries do not divide into", "num_heads", 5n, "with 5 heads of queries");
  heads("no heads", "num_heads", 0n, "with 0 heads");
  heads("heads below none", "num_heads", -4n, "with -4 heads");
  heads("more heads than elements", "num_heads", 2n ** 40n);
  heads("heads beyond all numbers", "num_heads", 2n ** 62n, "num_heads 4611686018427387904");
  heads("heads of keys that keys do not divide into", "kv_num_heads", 3n, "and 3 of keys");
  heads("a window of nothing", "local_window_size", 0n, "a window of 0");
  damaged("a cache for other heads", "llama", (e) => {
    e.typeOf("past_key_values.1.value").shape!.dim[1].value = { case: "dimValue", value: 2n };
  }, '"past_key_values.1.value" as [?, 2, ?, 16]');
  damaged("heads of a norm", "qwen3", (e) => {
    e.node("Reshape").input[1] = e.constant([0n, 0n, 3n, 32n]);
  }, "the shape [0, 0, 3, 32] of 128 elements");
  damaged("heads of a norm that cannot be counted", "qwen3", (e) => {
    e.node("Reshape").input[1] = e.constant([0n, 0n, -1n, -1n]);
  }, "the shape [0, 0, -1, -1]");
  damaged(
    "logits of another width than the graph says",
    "llama",
    (e) => {
      const type = e.graph.output.find(({ name }) => name === "logits")!.type!.value;
      if (type.case !== "tensorType") throw new Error();
      type.value.shape!.dim[2].value = { case: "dimValue", value: 321n };
    },
    "there are 320 logits",
    "[?, ?, 321]",
  );
  damaged("a negative ε", "llama", (e) => {
    e.before(e.node("Sqrt")).input[1] = e.constant([-1e-6]);
  }, "epsilon");
  damaged("an ε that is none", "opt", (e) => {
    e.set(e.node("LayerNormalization"), "epsilon", NaN);
  }, "epsilon NaN");
  for (const number of [NaN, Infinity]) {
    damaged(`${number} as a factor`, "gemma", (e) => {
      e.named("embed_tokens/Mul").input[1] = e.constant([number]);
    }, `multiplies by ${number}`);
    damaged(`${number} added to the weight of a norm`, "gemma", (e) => {
      e.named("input_layernorm/Add_1").input[1] = e.constant([number]);
    }, `adds ${number}`);
  }
  for (const number of [0, NaN, 2 ** -140]) {
    damaged(`${number} as a divisor`, "gemma2", (e) => {
      e.named("lm_head/cap/Div").input[1] = e.constant([number]);
    }, `divides by ${number}`);
  }
  for (const number of [-30, NaN, 2 ** -140]) {
    damaged(`${number} as the cap of scores`, "gemma2", (e) => {
      e.set(e.node("GroupQueryAttention"), "softcap", number);
    }, `has the softcap ${number}`);
  }
  for (const [from, to] of [[64n, 64n], [-200n, 16n], [2n ** 40n, 2n ** 41n], [0n, -(2n ** 40n)]]) {
    unsupported(`a part from ${from} to ${to}`, "phi3", (e) => {
      e.named("cut/Slice").input.splice(1, 2, e.constant([from]), e.constant([to]));
    }, `cuts from ${from} to ${to} by 1, of 128 elements`);
  }
  unsupported("a part of heads that have no more", "gpt-neox", (e) => {
    e.named("cut/Slice").input.splice(1, 2, e.constant([48n]), e.constant([64n]));
  }, "cuts from 48 to 64 by 1, of 48 elements a head");
  unsupported("heads in place of a part of each", "gpt-neox", (e) => {
    e.named("cut/Slice").input[3] = e.constant([2n]);
  }, "cut into heads");
  unsupported("a turned part of another size than its tables", "phi3", (e) => {
    e.set(e.node("RotaryEmbedding"), "rotary_embedding_dim", 14n);
  }, "rotary_embedding_dim");
  damaged("weights of heads for other heads", "cohere", (e) => {
    e.reshape("model.layers.0.self_attn.q_norm.weight", [2, 32]);
  }, "[2,32]");
  unsupported("a layer norm over heads", "cohere", (e) => {
    e.set(e.named("q_norm/LayerNormalization"), "axis", 2n);
  }, "axis 2");
  damaged("a turned part that is larger than a head", "phi3", (e) => {
    e.set(e.node("RotaryEmbedding"), "num_heads", 8n);
  }, "as 8 heads by tables for heads of 12");
});

describe("a packed matrix is refused when its", () => {
  const q = "model.layers.0.self_attn.q_proj";
  damaged("codes have another shape", "llama", (e) => {
    e.reshape(`${q}.codes`, [32, 16]);
  }, `"${q}.codes" of shape [32,16], which should be [16,2,16]`);
  damaged("values have another shape", "llama", (e) => {
    e.reshape(`${q}.values`, [16, 2, 63]);
  }, "which should be [16,2,64]");
  damaged("pattern is none", "llama", (e) => {
    const node = e.node("SparseMatMulNMRowScaled");
    e.set(node, "n", 5n);
  }, "pattern 5:4");
  damaged("pattern does not divide its rows", "llama", (e) => {
    const node = e.node("SparseMatMulNMRowScaled");
    e.set(node, "m", 3n);
  }, "2:3 for rows of 64");
  damaged(
    "columns are not those that come in",
    "bitmap",
    (e) => {
      e.set(e.node("SparseMatMulBitmapGroupScaled"), "columns", 63n);
    },
    "multiplies 64 elements",
    "63",
  );
  damaged("bits have another shape", "bitmap", (e) => {
    e.reshape(`${q}.bits`, [64, 9]);
  }, "which should be [64,8]");
  damaged("scales have another shape", "bitmap", (e) => {
    e.reshape(`${q}.scales`, [64, 5]);
  }, "which should be [64,4]");
  damaged("group is none", "bitmap", (e) => {
    e.set(e.node("SparseMatMulBitmapGroupScaled"), "group", 0n);
  }, "groups of 0");
  damaged("slots are not of 4 rows × 4", "slots", (e) => {
    e.reshape(`${q}.values`, [64, 4, 2]);
  }, `"${q}.values" of shape [64,4,2]`);
  damaged("counts have another shape", "slots", (e) => {
    e.reshape(`${q}.counts`, [16, 3]);
  }, "which should be [16,2]");
  damaged("bits of windows have another shape", "slots", (e) => {
    e.reshape(`${q}.masks`, [10, 8]);
  }, `"${q}.masks" of shape [10,8]`);
  damaged("slots have no windows", "slots", (e) => {
    e.set(e.node("SparseMatMulSlotsRowScaled"), "rows", 62n);
  }, "62 × 64 weights, which have no windows of 4 × 16");
  damaged("row pointers are too few", "csr", (e) => {
    e.reshape(`${q}.row_pointers`, [64]);
  }, "which should be [65]");
  damaged("gaps are not as many as its values", "csr", (e) => {
    e.reshape(`${q}.gaps`, [7]);
  }, `"${q}.gaps" of shape [7]`);
  damaged("values are none", "csr", (e) => {
    e.reshape(`${q}.values`, [0]);
    e.reshape(`${q}.gaps`, [0]);
  }, "no values");
  damaged("shape is beyond its bytes", "csr", (e) => {
    e.set(e.node("SparseMatMulCsr"), "columns", 2n ** 40n);
  }, "bytes, which cannot be");
  damaged("attributes are of another type", "csr", (e) => {
    const node = e.node("SparseMatMulCsr");
    node.attribute.find(({ name }) => name === "rows")!.type = AttributeType.FLOAT;
  }, "rows as another type");
  unsupported("tensors are changed before", "csr", (e) => {
    const node = e.node("SparseMatMulCsr");
    const cast = e.insert(node, 1, "Cast");
    e.set(cast, "to", 1n);
  }, "changed");
});

describe("inputs and outputs of the graph are refused:", () => {
  const typed = (name: string, elemType: DataType) => (e: Editor) => {
    const type = [...e.graph.input, ...e.graph.output].find((x) => x.name === name)!.type!.value;
    if (type.case === "tensorType") type.value.elemType = elemType;
  };
  unsupported("token ids of 32 bits", "llama", typed("input_ids", DataType.INT32), "INT32");
  unsupported(
    "a cache in float16",
    "llama",
    typed("past_key_values.0.key", DataType.FLOAT16),
    '"past_key_values.0.key" is FLOAT16',
  );
  unsupported("logits in float16", "llama", typed("logits", DataType.FLOAT16), '"logits"');
  unsupported("an input without a type", "llama", (e) => {
    e.graph.input[0].type = undefined;
  }, '"input_ids" is UNDEFINED');
  unsupported("an input that the engine does not know", "llama", (e) => {
    e.graph.input[0].name = "token_ids";
    for (const { input } of e.graph.node) {
      for (const [i, name] of input.entries()) if (name === "input_ids") input[i] = "token_ids";
    }
  }, 'reads "token_ids", which the engine does not compute');
  damaged("an input that is also a tensor", "llama", (e) => {
    const norm = "model.norm.weight";
    e.tensor(norm).name = "input_ids";
    for (const { input } of e.graph.node) {
      for (const [i, name] of input.entries()) if (name === norm) input[i] = "input_ids";
    }
  }, '"input_ids" is an input and an initializer');
  damaged("no logits", "llama", (e) => {
    e.graph.output.shift();
  }, 'no output "logits"');
});
