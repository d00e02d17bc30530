/**
 * `expand`: a compiled model back to a dense checkpoint, for PEFT and for comparison.
 * @module
 */
import { join, resolve } from "node:path";
import { changeConfig } from "../src/checkpoint/config_text.ts";
import { ownFilesAtTop, straysText } from "../src/checkpoint/own_files.ts";
import { type OutgoingTensor, writeSafetensors } from "../src/checkpoint/safetensors_writer.ts";
import { folderSource } from "../src/engine/folder_source.ts";
import { checkedSource, checkModel } from "../src/engine/integrity.ts";
import { quote, throwIfAborted } from "../src/checks.ts";
import { OnnxError } from "../src/errors.ts";
import type { FloatType } from "../src/onnx/element_type.ts";
import { copyFile, writeText } from "../src/platform/files.ts";
import { isTurned, turned } from "../src/checkpoint/turned.ts";
import { assertApart, assertFree, PendingFolder } from "../src/platform/output_folder.ts";
import { parseOptions, type RunHooks } from "../src/api/options.ts";
import { Phases } from "../src/api/shared.ts";
import { CompiledModel } from "./compiled_model.ts";
import { type ExpandOptions, expandSchema } from "./options.ts";

/** What transformers calls types of weights. */
const TORCH_NAMES: Record<FloatType, string> = { f32: "float32", f16: "float16", bf16: "bfloat16" };

/** What `expand` did. */
export interface ExpandReport {
  readonly model: string;
  readonly output: string;
  readonly dtype: string;
  readonly tensors: number;
  readonly seconds: number;
  /** What a person should know. */
  readonly notes: readonly string[];
}

/**
 * Writes the dense checkpoint of a compiled model. What int8 rounded stays rounded.
 *
 * @param options See `deno run mod.ts expand --help`.
 * @param hooks Progress and abort.
 * @throws {EspalierError} Of the class that says what is wrong.
 */
export async function expand(options: ExpandOptions, hooks: RunHooks = {}): Promise<ExpandReport> {
  const settings = parseOptions(expandSchema, options);
  const phases = new Phases(hooks);
  await checkModel(await checkedSource(folderSource(settings.model)), hooks.signal);
  const model = CompiledModel.open(resolve(settings.model));
  let pending: PendingFolder | undefined;
  try {
    const output = resolve(settings.output ?? `${model.name}-dense`);
    assertApart(output, model.folder);
    assertFree(output, settings.force);
    const tensors = tensorsOf(model);
    const dtype = settings.dtype ?? model.dtype;
    const typed = (tensor: OutgoingTensor) => ({
      ...tensor,
      type: settings.dtype ?? model.otherDtypes[tensor.name],
    });
    pending = new PendingFolder(output, { force: settings.force });
    const folder = pending.path;
    await phases.run(
      "expand",
      "tensors",
      tensors.length,
      (step) =>
        writeSafetensors(join(folder, "model.safetensors"), tensors.map(typed), dtype, (done) => {
          throwIfAborted(hooks.signal);
          step(done);
        }),
    );
    const config = changeConfig(
      join(model.folder, "config.json"),
      (config) => configOfDense(config, model.addedToConfig, settings.dtype),
    );
    writeText(join(folder, "config.json"), config);
    if (model.config.text_config !== undefined) {
      phases.note(
        `the model reads texts and more, and the decoder of its texts is all that was compiled: what reads the rest ` +
          `is missing here, and transformers makes it anew, at random`,
      );
    }
    const { paths, strays } = ownFilesAtTop(model.folder);
    for (const name of paths) {
      if (name === "config.json" || name === "espalier.json") continue;
      copyFile(join(model.folder, name), join(folder, name));
    }
    if (strays.length > 0) phases.note(straysText(strays));
    pending.commit();
    return {
      model: model.name,
      output,
      dtype,
      tensors: tensors.length,
      seconds: phases.seconds.expand,
      notes: phases.notes,
    };
  } finally {
    pending?.discard();
    model.close();
  }
}

/**
 * The tensors of the dense checkpoint: packed linears, and what is stored dense; everything but scales,
 * packed parts and constants.
 *
 * @throws {OnnxError} When two have the same name, or a packed linear lacks something.
 */
export function tensorsOf(model: CompiledModel): OutgoingTensor[] {
  const linears = model.linears().map(({ name, rows, columns }) => ({
    name: `${name}.weight`,
    shape: [rows, columns],
    read: () => model.dense(name),
  }));
  const plain = [...model.file.tensors.values()]
    .filter(({ name }) => /\.(weight|bias|sinks|dt_bias|A_log|D|layer_scalar)$/.test(name))
    .map(({ name, dims }) => ({
      name,
      shape: dims.map(Number),
      read: () => model.plain(name),
    }));
  const tensors = [...linears, ...plain].map((tensor) =>
    isTurned(model.config, tensor.name) ? turnedAgain(tensor) : tensor
  ).sort((a, b) => a.name < b.name ? -1 : 1);
  const twice = tensors.find(({ name }, i) => i > 0 && name === tensors[i - 1].name);
  if (twice) throw new OnnxError(`${model.file.path}: ${quote(twice.name)} is there twice`);
  return tensors;
}

/** A matrix as its checkpoint stores it, the other way. */
function turnedAgain(tensor: OutgoingTensor): OutgoingTensor {
  const [rows] = tensor.shape;
  return {
    ...tensor,
    shape: tensor.shape.toReversed(),
    read: () => turned(tensor.read(), rows),
  };
}

/** The config of a dense checkpoint: nothing for transformers.js, and the type of its weights where that is another. */
function configOfDense(
  whole: Record<string, unknown>,
  added: readonly string[],
  dtype: FloatType | undefined,
): Record<string, unknown> {
  const others = new Set([...added, "transformers.js_config"]);
  const config = Object.fromEntries(Object.entries(whole).filter(([name]) => !others.has(name)));
  if (dtype === undefined) return config;
  const typed = (part: object): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(part).map(([name, value]) => {
        if (name === "dtype" || name === "torch_dtype") return [name, TORCH_NAMES[dtype]];
        const isText = name === "text_config" && typeof value === "object" && value !== null;
        return [name, isText ? typed(value) : value];
      }),
    );
  return typed(config);
}
