/**
 * Which files of a repository a model needs: a list of names, so that no other name that a server may
 * give reaches the file system.
 * @module
 */
import { z } from "zod";
import { INDEX, SINGLE } from "../checkpoint/file_names.ts";
import { quote } from "../checks.ts";
import { CheckpointNotFoundError, ShardError } from "../errors.ts";
import type { HubFile } from "./listing.ts";

/** The graph of a compiled model. */
export const GRAPH = "onnx/model.onnx";
/** The data of a graph that `compile` wrote. */
export const GRAPH_DATA = "onnx/model.onnx_data";
/** How a model was made. */
export const RECORD = "espalier.json";
/** What no model is without. */
export const CONFIG = "config.json";

/** Config, text, and how it was made. */
const SMALL = [
  CONFIG,
  "generation_config.json",
  RECORD,
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "tokenizer.model",
  "vocab.json",
  "vocab.txt",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
];
/** Weights that no code is needed to read, and those that are pickles or for other programs. */
const OTHER_WEIGHTS = /\.(bin|pth?|ckpt|msgpack|h5|gguf|onnx|safetensors)$/;
/** A shard of a checkpoint: nothing but a name, on every system. */
const SHARD = /^\w[\w.-]*\.safetensors$/;
/** The data beside any graph. */
const DATA = /^onnx\/model\.onnx_data(_\d+)?$/;

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) });

/** The files that are needed. */
export interface Choice {
  readonly files: readonly HubFile[];
  /** The index that names the shards which are needed, too; it is among the files. */
  readonly index?: HubFile;
}

/**
 * Chooses files: a checkpoint in safetensors, else a compiled model. Where the weights are there several
 * times, they are taken once.
 *
 * @param listed What the repository holds.
 * @param repository For messages.
 * @throws {CheckpointNotFoundError} When it holds neither, or no `config.json`.
 */
export function chooseFiles(listed: readonly HubFile[], repository: string): Choice {
  const byPath = new Map(listed.map((file) => [file.path, file]));
  if (!byPath.has(CONFIG)) {
    throw new CheckpointNotFoundError(
      `${repository} holds no ${CONFIG}: it is no model that is known`,
    );
  }
  const small = SMALL.flatMap((name) => byPath.get(name) ?? []);
  const single = byPath.get(SINGLE);
  if (single) return { files: [...small, single] };
  const index = byPath.get(INDEX);
  if (index) return { files: [...small, index], index };
  const graph = byPath.get(GRAPH);
  if (graph) {
    return { files: [...small, graph, ...listed.filter(({ path }) => DATA.test(path))] };
  }
  const others = listed.filter(({ path }) => OTHER_WEIGHTS.test(path)).map(({ path }) =>
    quote(path)
  );
  throw new CheckpointNotFoundError(
    `${repository} holds neither ${SINGLE} nor ${INDEX} nor ${GRAPH}` +
      (others.length > 0
        ? `, but ${others.slice(0, 3).join(", ")}: save the weights as safetensors first`
        : ": it is no model that is known"),
  );
}

/**
 * Names of the shards in an index, sorted.
 *
 * @param json The parsed index.
 * @param where Its path, for messages.
 * @throws {ShardError} When it is damaged, or names what is no shard.
 */
export function shardsIn(json: unknown, where: string): string[] {
  const parsed = indexSchema.safeParse(json);
  if (!parsed.success) {
    throw new ShardError(`${where} is no index of weights: it has no weight_map`);
  }
  const names = [...new Set(Object.values(parsed.data.weight_map))].sort();
  const wrong = names.find((name) => !SHARD.test(name));
  if (wrong !== undefined) {
    throw new ShardError(`${where} names ${quote(wrong)}, which is no shard beside it`);
  }
  return names;
}

/**
 * The shards that an index names.
 *
 * @throws {ShardError} As {@linkcode shardsIn} does, and when the repository lacks one.
 */
export function chooseShards(json: unknown, where: string, listed: readonly HubFile[]): HubFile[] {
  return shardsIn(json, where).map((name) => {
    const file = listed.find(({ path }) => path === name);
    if (!file) throw new ShardError(`${where} names ${name}, which the repository does not have`);
    return file;
  });
}
