import { afterAll, describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { CheckpointWriter } from "../../src/checkpoint/writer.ts";
import {
  CheckpointNotFoundError,
  FileReadError,
  SafetensorsError,
  ShardError,
  TensorMissingError,
  TensorShapeError,
  TensorTypeError,
} from "../../src/errors.ts";
import { open, refused } from "./opening.ts";
import {
  editJson,
  editSafetensors,
  filesOf,
  fixtureBytes,
  parseSafetensors,
  readJsonOf,
  rejectionOf,
  safetensors,
  Workshop,
} from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const SHARDS = [1, 2, 3].map((n) => `model-0000${n}-of-00003.safetensors`);

/** The files of a checkpoint's copy. */
async function copied(folder: string): Promise<Map<string, string>> {
  const copy = workshop.folder();
  const checkpoint = Checkpoint.open(folder);
  const writer = new CheckpointWriter(checkpoint, copy);
  await writer.copy(() => {});
  writer.close();
  checkpoint.close();
  return filesOf(copy);
}

describe("a checkpoint's folder", () => {
  test("opens with one weight file", () => {
    const checkpoint = Checkpoint.open(workshop.copy("llama"));
    expect(checkpoint.shards).toEqual([WEIGHTS]);
    expect(checkpoint.name).toMatch(/^llama-\d+$/);
    expect(checkpoint.config.model_type).toBe("llama");
    expect(checkpoint.tensors.get("model.norm.weight")).toMatchObject({
      dtype: "F16",
      shape: [64],
      file: WEIGHTS,
    });
    checkpoint.close();
    checkpoint.close();
  });

  test("opens with shards and an index", () => {
    const checkpoint = Checkpoint.open(workshop.copy("llama-rope-scaled"));
    expect(checkpoint.shards).toEqual(SHARDS);
    expect(checkpoint.tensors.get("model.norm.weight")?.file).toBe(SHARDS[2]);
    checkpoint.close();
  });

  test("has its shards in order, in whatever order the index names them", () => {
    const folder = workshop.copy("llama-rope-scaled");
    editJson(folder, INDEX, ({ weight_map, ...rest }) => ({
      ...rest,
      weight_map: Object.fromEntries(Object.entries(weight_map as object).reverse()),
    }));
    const checkpoint = Checkpoint.open(folder);
    expect(checkpoint.shards).toEqual(SHARDS);
    checkpoint.close();
  });

  test("opens with the one weight file where an index lies beside it, and a copy has that alone", async () => {
    const folder = workshop.copy("llama");
    const sharded = workshop.copy("llama-rope-scaled");
    for (const name of [INDEX, ...SHARDS]) copyFileSync(join(sharded, name), join(folder, name));
    copyFileSync(join(folder, WEIGHTS), join(folder, "consolidated.safetensors"));
    const part = join(folder, "part");
    mkdirSync(part);
    copyFileSync(join(folder, WEIGHTS), join(part, WEIGHTS));
    const before = filesOf(workshop.copy("llama"));
    // What lies in a folder of its own is no other saving of this model.
    before.set(`part/${WEIGHTS}`, before.get(WEIGHTS)!);
    expect(await copied(folder)).toEqual(before);
    expect(await copied(sharded)).toEqual(filesOf(sharded));
  });

  test("may hold its weights in other forms, too, which a copy has not: they would be dense", async () => {
    const folder = workshop.copy("llama");
    const before = await copied(folder);
    for (
      const name of [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
        "flax_model.msgpack",
        "tf_model.h5",
        "consolidated.00.pth",
        "model-q8_0.gguf",
        "model.onnx",
        "model.onnx_data",
        "original/consolidated.00.pth",
        "gguf/model-q8_0.gguf",
        "cpu/int4/model.onnx",
        "cpu/int4/model.onnx.data",
      ]
    ) {
      mkdirSync(join(folder, name, ".."), { recursive: true });
      copyFileSync(join(folder, WEIGHTS), join(folder, name));
    }
    // What else lies in such a folder is no weights.
    writeFileSync(join(folder, "original", "params.json"), "{}");
    before.set("original/params.json", btoa("{}"));
    writeFileSync(join(folder, "convert_to_gguf"), "{}");
    before.set("convert_to_gguf", btoa("{}"));
    mkdirSync(join(folder, "onnx"));
    for (const name of ["model.onnx", "model.onnx_data", "model_q4.onnx"]) {
      copyFileSync(join(folder, WEIGHTS), join(folder, "onnx", name));
    }
    expect(await copied(folder)).toEqual(before);
    writeFileSync(join(folder, "training_args.bin"), "x");
    expect([...await copied(folder)].length).toBe(before.size + 1);
  });

  test("is copied no further than until it is stopped", async () => {
    const checkpoint = Checkpoint.open(workshop.copy("llama-rope-scaled"));
    const writer = new CheckpointWriter(checkpoint, workshop.folder());
    const stop = new AbortController();
    let copied = 0;
    const onBytes = (done: number) => {
      copied = done;
      stop.abort();
    };
    const error = await rejectionOf(writer.copy(onBytes, stop.signal));
    expect(error.code).toBe("ABORTED");
    const { size } = checkpoint.file(SHARDS[0]);
    expect(copied).toBeLessThan(size);
    writer.close();
    checkpoint.close();
  });

  test("may hold links, of which a copy follows those that do not lead around", async () => {
    // One in each: several would be followed by one another, and the copy of a mistake fill the disk.
    for (
      const [link, leadsTo, copies] of [
        ["latest", ".", []],
        ["a/model", "..", []],
        ["a/b", "../b", ["a/b/notes"]],
        ["other", "a", ["other/notes"]],
      ] as const
    ) {
      const folder = workshop.copy("llama");
      for (const part of ["a", "b"]) mkdirSync(join(folder, part));
      writeFileSync(join(folder, "a/notes"), "x");
      writeFileSync(join(folder, "b/notes"), "x");
      const expected = await copied(folder);
      for (const path of copies) expected.set(path, expected.get("a/notes")!);
      symlinkSync(leadsTo, join(folder, link));
      if (link === "a/b") symlinkSync("../a", join(folder, "b/a"));
      if (link === "a/b") expected.set("b/a/notes", expected.get("a/notes")!);
      expect(await copied(folder)).toEqual(expected);
    }
  });

  test("must exist", () => {
    refused(workshop.fresh("nowhere"), CheckpointNotFoundError, "nowhere", "does not exist");
    const inFile = join(workshop.copy("llama"), CONFIG, "model");
    refused(inFile, CheckpointNotFoundError, "does not exist");
    const longName = join(workshop.path, "a".repeat(300));
    refused(longName, CheckpointNotFoundError, "does not exist");
  });

  test("must not be a file", () => {
    const file = join(workshop.copy("llama"), WEIGHTS);
    refused(file, CheckpointNotFoundError, file, "is a file", "name the folder");
  });

  test("must not be empty", () => {
    const folder = workshop.folder();
    refused(folder, CheckpointNotFoundError, folder, "config.json");
  });

  test("must hold a config.json", () => {
    const folder = workshop.copy("llama");
    rmSync(join(folder, CONFIG));
    refused(folder, CheckpointNotFoundError, folder, "no config.json");
  });

  test("must hold weights", () => {
    const folder = workshop.copy("llama");
    rmSync(join(folder, WEIGHTS));
    const message = refused(folder, CheckpointNotFoundError, folder, WEIGHTS, INDEX);
    expect(message).not.toContain("save_pretrained");
  });

  test("must hold weights in safetensors, and says how to get them from another form", () => {
    for (const name of ["pytorch_model.bin", "consolidated.00.pth", "model-Q4.gguf"]) {
      const folder = workshop.copy("llama");
      rmSync(join(folder, WEIGHTS));
      writeFileSync(join(folder, name), "weights");
      refused(folder, CheckpointNotFoundError, "safetensors first", "save_pretrained");
    }
  });
});

describe("model.safetensors.index.json", () => {
  /** A copy of the sharded fixture with another index. */
  // deno-lint-ignore no-explicit-any
  function withIndex(change: (index: any) => unknown): string {
    const folder = workshop.copy("llama-rope-scaled");
    editJson(folder, INDEX, change);
    return folder;
  }

  test("must not name a shard that is missing", () => {
    const folder = workshop.copy("llama-rope-scaled");
    rmSync(join(folder, SHARDS[1]));
    refused(folder, ShardError, SHARDS[1], "missing");
  });

  test("must not name a folder as a shard", () => {
    const folder = workshop.copy("llama-rope-scaled");
    rmSync(join(folder, SHARDS[1]));
    mkdirSync(join(folder, SHARDS[1]));
    refused(folder, FileReadError, SHARDS[1], "it is a folder");
  });

  test("must not name files outside of the folder, even where they exist", () => {
    const outside = workshop.copy("llama");
    const names = [
      "../x.safetensors",
      `../${outside.split("/").at(-1)}/${WEIGHTS}`,
      join(outside, WEIGHTS),
      "/etc/x.safetensors",
      "..\\x.safetensors",
      "C:\\x.safetensors",
      "sub/x.safetensors",
      "./x.safetensors",
      "..",
      "",
    ];
    for (const name of names) {
      const folder = withIndex((index) => {
        index.weight_map["model.norm.weight"] = name;
      });
      refused(folder, ShardError, INDEX, JSON.stringify(name));
    }
  });

  test("must not name a file that is no safetensors file", () => {
    for (const name of ["pytorch_model.bin", "config.json", "model.safetensors.bak"]) {
      const folder = withIndex((index) => {
        index.weight_map["model.norm.weight"] = name;
      });
      refused(folder, ShardError, INDEX, JSON.stringify(name));
    }
  });

  test("must put every tensor in the shard that has it", () => {
    const folder = withIndex((index) => {
      index.weight_map["model.norm.weight"] = SHARDS[0];
    });
    refused(folder, ShardError, INDEX, "model.norm.weight", SHARDS[0]);
  });

  test("must not name a tensor that no shard has", () => {
    const folder = withIndex((index) => {
      index.weight_map["model.layers.9.mlp.up_proj.weight"] = SHARDS[2];
    });
    refused(folder, ShardError, INDEX, "model.layers.9.mlp.up_proj.weight", SHARDS[2]);
  });

  test("must not lead to shards that have one tensor twice", () => {
    const folder = withIndex((index) => {
      index.weight_map["extra"] = "model-00004.safetensors";
    });
    copyFileSync(join(folder, SHARDS[2]), join(folder, "model-00004.safetensors"));
    refused(folder, ShardError, "in more than one shard", 'tensor "model.');
  });

  test("must be JSON with a map of names to files", () => {
    const folder = workshop.copy("llama-rope-scaled");
    for (const text of ["", "{", "not JSON"]) {
      writeFileSync(join(folder, INDEX), text);
      refused(folder, ShardError, INDEX, "not valid JSON");
    }
    for (const json of [null, [], {}, { weight_map: null }, { weight_map: { a: 1 } }]) {
      writeFileSync(join(folder, INDEX), JSON.stringify(json));
      refused(folder, ShardError, INDEX, "weight_map");
    }
  });

  test("may be empty, in which case the tensors are missing", () => {
    refused(withIndex(() => ({ weight_map: {} })), TensorMissingError, "model.embed_tokens.weight");
  });
});

describe("a weight file", () => {
  test("must not be cut short", () => {
    for (const keep of [0, 7, 8, 500, 20_000, 343_935]) {
      const folder = workshop.copy("llama");
      const path = join(folder, WEIGHTS);
      writeFileSync(path, readFileSync(path).subarray(0, keep));
      refused(folder, SafetensorsError, path, "damaged");
    }
  });

  test("must not be cut short in a shard", () => {
    const folder = workshop.copy("llama-rope-scaled");
    const path = join(folder, SHARDS[2]);
    writeFileSync(path, readFileSync(path).subarray(0, 9000));
    refused(folder, SafetensorsError, path, "damaged");
  });

  test("must not be a pointer of Git LFS", () => {
    const folder = workshop.copy("llama");
    const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4cac\nsize 343936\n";
    writeFileSync(join(folder, WEIGHTS), pointer);
    refused(folder, SafetensorsError, WEIGHTS);
  });

  test("must hold every tensor of the architecture", () => {
    const names = Object.keys(
      readJsonOf(workshop.copy("llama-rope-scaled"), INDEX).weight_map as object,
    );
    for (const name of names) {
      const folder = workshop.copy("llama-rope-scaled");
      for (const shard of SHARDS) {
        editSafetensors(folder, shard, (header) => {
          if (!(name in header)) return;
          header[`${name}_renamed`] = header[name];
          delete header[name];
        });
      }
      editJson(folder, INDEX, (index) => {
        delete index.weight_map[name];
      });
      refused(folder, TensorMissingError, name, "do not belong together");
    }
  });

  test("must hold tensors of as many dimensions as the architecture asks for", () => {
    const folder = workshop.copy("llama");
    editSafetensors(folder, WEIGHTS, (header) => {
      header["model.norm.weight"].shape = [1, 64];
    });
    refused(folder, TensorShapeError, WEIGHTS, "model.norm.weight", "[1,64]", "[64]");
  });

  test("must not hold a weight of whole numbers", () => {
    for (const dtype of ["I16", "U16"]) {
      const folder = workshop.copy("llama");
      const name = "model.layers.1.mlp.down_proj.weight";
      editSafetensors(folder, WEIGHTS, (header) => {
        header[name].dtype = dtype;
      });
      refused(folder, TensorTypeError, WEIGHTS, name, dtype, "BF16");
    }
  });

  test("may hold tensors of any type that the architecture does not use", () => {
    const folder = workshop.copy("llama");
    const { header, data } = parseSafetensors(fixtureBytes("llama"));
    const end = data.length + 32;
    header["rotary.position_ids"] = {
      dtype: "I64",
      shape: [1, 4],
      data_offsets: [data.length, end],
    };
    const longer = new Uint8Array(end);
    longer.set(data);
    writeFileSync(join(folder, WEIGHTS), safetensors(header, longer));
    open(folder);
  });
});
