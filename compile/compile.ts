/**
 * `compile`: a pruned checkpoint in, a compact sparse ONNX model out.
 * @module
 */
import { join, resolve } from "node:path";
import { cutIntoSections } from "../src/onnx/sections.ts";
import { headDimsOf } from "../src/checkpoint/architectures/spec.ts";
import type { Checkpoint } from "../src/checkpoint/checkpoint.ts";
import { changeConfig } from "../src/checkpoint/config_text.ts";
import { ownFilesAtTop, straysText } from "../src/checkpoint/own_files.ts";
import { CHUNK, RECORD } from "../src/engine/integrity.ts";
import { refusalOfHeads, takesHeads } from "../src/engine/ort/decoder_file.ts";
import { throwIfAborted } from "../src/checks.ts";
import { FormatUnfitError, UsageError } from "../src/errors.ts";
import { copyFile, readJson, writeBytes, writeText } from "../src/platform/files.ts";
import { makeFolder, pathsIn } from "../src/platform/folders.ts";
import { exists } from "../src/platform/paths.ts";
import { assertApart, assertFree, PendingFolder } from "../src/platform/output_folder.ts";
import { letEventsIn } from "../src/platform/events.ts";
import { type FileHashes, hashFileInSteps } from "../src/platform/hash.ts";
import { atOnce, withPauses } from "../src/platform/steps.ts";
import { peakResidentBytes } from "../src/platform/runtime.ts";
import { INT4_GROUP } from "../src/prune/int4_grid.ts";
import { VERSION } from "../src/version.ts";
import { parseOptions, type RunHooks } from "../src/api/options.ts";
import { OpenModel, Phases } from "../src/api/shared.ts";
import { DATA_FILE, DataFileWriter } from "./data_file.ts";
import { type Format, smallestFormat } from "./choose_format.ts";
import { type Packed, store } from "./emit.ts";
import { headGroup, type Storing, storingFor, tableValues } from "./storing.ts";
import { contextOf, graphOf, tablesOf } from "./graph.ts";
import { type CompileOptions, compileSchema } from "./options.ts";
import { encodeBitmap } from "./packed/bitmap.ts";
import { countEntries, encodeCsr } from "./packed/csr.ts";
import { int4Columns } from "./packed/int4.ts";
import { CANDIDATES, encodeNm, findPattern } from "./packed/nm.ts";
import { countNonzeros } from "./packed/quantize.ts";
import { countSlots, encodeSlots, fitsSlots } from "./packed/slots.ts";
import type { Matrix, ValueOptions } from "./packed/types.ts";
import {
  configForTransformersJs,
  missingInConfig,
  unknownToTransformersJs,
} from "./transformers_js.ts";
import { readMatrix, type Stored, storeDense } from "./weights.ts";

/** Files of a checkpoint that go along: what tokenizes, templates and generates. */
const COMPANIONS = new Set([
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "generation_config.json",
  "merges.txt",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "vocab.json",
  "vocab.txt",
]);
/** Licences go along too. */
const LICENCES = /^(LICENSE|NOTICE|COPYING)/i;

/** One compiled linear. */
export interface CompiledLinear {
  /** Name of its weight in the checkpoint. */
  readonly name: string;
  /** `[out, in]`. */
  readonly shape: readonly [number, number];
  readonly format: Format;
  /** `N:M`, where the format is that. */
  readonly pattern?: string;
  readonly values: string;
  readonly sparsity: number;
  readonly bytes: number;
}

/** What `compile` did. */
export interface CompileReport {
  readonly model: string;
  readonly output: string;
  readonly options: {
    readonly format: string;
    readonly values: string;
    readonly group?: number;
    readonly head: string;
    readonly context: number;
    readonly logits: string;
  };
  readonly linears: readonly CompiledLinear[];
  readonly sparsity: number;
  readonly bytes: {
    readonly linears: number;
    readonly embeddings: number;
    readonly graph: number;
    readonly data: number;
    /** Bytes a weight of the linears. */
    readonly perWeight: number;
  };
  readonly notes: readonly string[];
  readonly seconds: number;
  readonly peakBytes: number;
}

/**
 * Compiles a checkpoint whose linears hold zeros, from whatever tool made them.
 *
 * The output has the layout of transformers.js: `config.json`, tokenizer files, `onnx/model.onnx` and
 * `onnx/model.onnx_data`; any ONNX Runtime runs it, but for heads of other sizes than multiples of 8, which a
 * note then says.
 *
 * @param options See `deno run mod.ts compile --help`.
 * @param hooks Progress and abort.
 * @throws {FormatUnfitError} When a linear cannot take the format that was asked for.
 * @throws {EspalierError} Of the class that says what else is wrong.
 */
export async function compile(
  options: CompileOptions,
  hooks: RunHooks = {},
): Promise<CompileReport> {
  const asked = parseOptions(compileSchema, options);
  const phases = new Phases(hooks);
  const opened = new OpenModel(asked.model);
  const { checkpoint, spec } = opened;
  const output = resolve(asked.output ?? `${checkpoint.name}-onnx`);
  let pending: PendingFolder | undefined;
  try {
    const settings = { ...asked, ...storingFor(checkpoint.folder, asked) };
    checkGroupFits(settings);
    assertApart(output, checkpoint.folder);
    assertFree(output, asked.force);
    pending = new PendingFolder(output, { force: asked.force });
    const folder = pending.path;
    makeFolder(join(folder, "onnx"));
    const data = new DataFileWriter(join(folder, "onnx", DATA_FILE));
    try {
      const names = cutIntoSections(opened.graph).blocks.flatMap(({ linears }) =>
        linears.map(({ weight }) => weight)
      );
      const packed = await phases.run(
        "pack linears",
        "linears",
        names.length,
        (step) => packAll(checkpoint, names, settings, data, step, hooks.signal),
      );
      const linears = packed.map(({ linear }) => linear);
      if (!settings.isPrunedFor && !linears.some(({ sparsity }) => sparsity > 0.01)) {
        const how = linears.every(({ format }) => format === "dense")
          ? "everything is stored dense"
          : "dense they are smaller";
        phases.note(`the linears hold hardly any zeros: ${how}; prune first`);
      }
      const untaken = headDimsOf(spec).find((headDim) => !takesHeads(headDim));
      if (untaken !== undefined) {
        phases.note(
          `${refusalOfHeads(untaken)}, so that our own engine alone runs this file`,
        );
      }
      const matrices = new Map(packed.map(({ linear, stored }) => [linear.name, stored]));
      let embeddings = 0;
      const { head } = settings;
      const tables = tablesOf(opened.graph, names);
      await phases.run("pack embeddings", "tensors", tables.length, async (step) => {
        for (const [i, name] of tables.entries()) {
          throwIfAborted(hooks.signal);
          const values = tableValues(name, spec, settings);
          const stored = await withPauses(
            storeDense(checkpoint, name, values, data, headGroup(settings)),
            hooks.signal,
          );
          matrices.set(name, stored);
          embeddings += bytesOf(stored);
          step(i + 1);
          await letEventsIn();
        }
      });
      const context = contextOf(spec, settings.context);
      if (settings.context !== undefined && settings.context > context) {
        phases.note(
          `context ${context}: the model has no more, and ${settings.context} were asked for`,
        );
      }
      if (spec.attention.cap !== undefined) {
        phases.note(
          "attention caps its scores, which ONNX Runtime does on the CPU and in WebAssembly, and not on WebGPU: " +
            "there, transformers.js would write something else",
        );
      }
      const unknown = unknownToTransformersJs(checkpoint.config);
      if (unknown !== undefined) phases.note(unknown);
      const bytes = graphOf(checkpoint, spec, data, matrices, {
        context,
        logits: settings.logits,
      });
      writeBytes(join(folder, "onnx", "model.onnx"), bytes);
      const missing = missingInConfig(checkpoint.config, spec);
      const strays = copyCompanions(checkpoint, missing, folder);
      if (strays.length > 0) phases.note(straysText(strays));

      const weights = linears.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
      const zeros = linears.reduce(
        (sum, { shape, sparsity }) => sum + shape[0] * shape[1] * sparsity,
        0,
      );
      const linearBytes = linears.reduce((sum, { bytes }) => sum + bytes, 0);
      const common = {
        options: {
          format: settings.format,
          values: settings.values,
          group: settings.group ?? (settings.values === "int4" ? INT4_GROUP : undefined),
          head,
          context,
          logits: settings.logits,
        },
        linears,
        sparsity: weights === 0 ? 0 : zeros / weights,
        bytes: {
          linears: linearBytes,
          embeddings,
          graph: bytes.length,
          data: data.size,
          perWeight: weights === 0 ? 0 : linearBytes / weights,
        },
      };
      data.close();
      const record = recordOf(checkpoint, common, missing, await hashesIn(folder, hooks.signal));
      writeText(join(folder, RECORD), `${JSON.stringify(record, null, 2)}\n`);
      throwIfAborted(hooks.signal);
      pending.commit();
      return {
        model: checkpoint.name,
        output,
        ...common,
        notes: phases.notes,
        seconds: Object.values(phases.seconds).reduce((a, b) => a + b, 0),
        peakBytes: peakResidentBytes(),
      };
    } finally {
      data.close();
    }
  } finally {
    pending?.discard();
    checkpoint.close();
  }
}

/** Packs and writes all linears, one in memory at a time. */
async function packAll(
  checkpoint: Checkpoint,
  names: readonly string[],
  settings: Storing,
  data: DataFileWriter,
  step: (done: number) => void,
  signal: AbortSignal | undefined,
): Promise<{ linear: CompiledLinear; stored: Stored }[]> {
  const sizes = names.map((name) =>
    checkpoint.tensors.get(name)!.shape.reduce((product, dim) => product * dim, 1)
  );
  const buffer = new Float32Array(Math.max(...sizes));
  const packed = [];
  for (const [i, name] of names.entries()) {
    throwIfAborted(signal);
    packed.push(pack(checkpoint, readMatrix(checkpoint, name, buffer), settings, data));
    step(i + 1);
    // Lets Ctrl-C in: packing is all synchronous.
    await letEventsIn();
  }
  return packed;
}

function pack(
  checkpoint: Checkpoint,
  matrix: Matrix,
  settings: Storing,
  data: DataFileWriter,
): { linear: CompiledLinear; stored: Stored } {
  const { name, rows, columns, values } = matrix;
  const options: ValueOptions = {
    type: settings.values,
    group: settings.values === "int4" ? int4Columns(matrix, settings.group) : settings.group,
  };
  const nonzeros = countNonzeros(values);
  const pattern = findPattern(matrix, settings.values);
  const format = settings.format === "auto"
    ? smallestFormat(matrix, {
      nonzeros,
      entries: countEntries(values),
      pattern,
      slots: fitsSlots(matrix) ? countSlots(matrix) : undefined,
    }, options)
    : settings.format;
  const write = (elements: ArrayBufferView) => data.append(elements);
  let stored: Stored;
  if (format === "dense") {
    stored = atOnce(storeDense(checkpoint, name, settings.values, data, settings.group));
  } else {
    if (format === "nm" && !pattern) throw unfit(matrix, nonzeros);
    checkGroup(matrix, settings);
    const packed: Packed = format === "nm"
      ? { format, matrix: encodeNm(matrix, pattern!, options) }
      : format === "csr"
      ? { format, matrix: encodeCsr(matrix, options) }
      : format === "slots"
      ? { format, matrix: encodeSlots(matrix, options) }
      : { format, matrix: encodeBitmap(matrix, options) };
    stored = store(packed, write);
  }
  return {
    stored,
    linear: {
      name,
      shape: [rows, columns],
      format,
      pattern: format === "nm" ? `${pattern!.n}:${pattern!.m}` : undefined,
      values: settings.values,
      sparsity: 1 - nonzeros / (rows * columns),
      bytes: bytesOf(stored),
    },
  };
}

/** Bytes of all tensors of a matrix. */
function bytesOf(stored: Stored): number {
  const tensors = stored.format === "dense"
    ? [stored.values, stored.scales, stored.table].filter((tensor) => tensor !== undefined)
    : Object.values(stored.tensors);
  return tensors.reduce((sum, { range }) => sum + range.length, 0);
}

function unfit({ name, rows, columns }: Matrix, nonzeros: number): FormatUnfitError {
  const dividing = CANDIDATES.filter((m) => columns % m === 0);
  const zeros = (100 * (1 - nonzeros / (rows * columns))).toFixed(1);
  const why = dividing.length === 0
    ? `no M of ${CANDIDATES.join(", ")} divides its rows of ${columns} weights`
    : `its zeros (${zeros} %) leave a full group for M = ${dividing.join(", ")}`;
  return new FormatUnfitError(
    `${name} does not fit --format nm: ${why}; bitmap, csr and auto take any zeros` +
      (columns % 16 === 0 ? ", or prune with --pattern 8:16" : ""),
  );
}

function checkGroupFits({ values, group }: Storing): void {
  if (group === undefined) return;
  if (values === "f32" || values === "f16") {
    throw new UsageError(`--group ${group} is for int8 and int4: ${values} has no scales to share`);
  }
  if (values === "int4" && group !== 32 && group !== 64) {
    throw new UsageError(`--group ${group} is none of int4: take 32 or 64`);
  }
}

function checkGroup({ name, columns }: Matrix, { values, group }: Storing): void {
  if (values === "int8" && group && group < columns && columns % group !== 0) {
    throw new FormatUnfitError(
      `--group ${group} does not divide the rows of ${name}, which have ${columns} weights: choose another`,
    );
  }
}

/** @returns Those that are links to what is none of the model's, and are left out. */
function copyCompanions(
  checkpoint: Checkpoint,
  missing: Record<string, unknown>,
  folder: string,
): string[] {
  const isCompanion = (name: string) => COMPANIONS.has(name) || LICENCES.test(name);
  const { paths, strays } = ownFilesAtTop(checkpoint.folder);
  for (const name of paths.filter(isCompanion)) {
    copyFile(join(checkpoint.folder, name), join(folder, name));
  }
  const config = changeConfig(
    join(checkpoint.folder, "config.json"),
    (config) => configForTransformersJs(config, missing),
  );
  writeText(join(folder, "config.json"), config);
  return strays.filter(isCompanion);
}

/** What `espalier.json` says: no times and no paths, so that the same command gives the same bytes. */
function recordOf(
  checkpoint: Checkpoint,
  common: object,
  missing: object,
  files: object,
): object {
  const path = join(checkpoint.folder, RECORD);
  return {
    format: 1,
    kind: "compiled",
    espalier: VERSION,
    source: checkpoint.name,
    ...typesOf(checkpoint),
    ...common,
    // Members of config.json that its source has not.
    addedToConfig: Object.keys(missing).length > 0 ? Object.keys(missing) : undefined,
    files,
    pruning: exists(path) ? readJson(path, 64 << 20) : undefined,
  };
}

/** The type of the first matrix, and by name those of tensors that have another one. */
function typesOf(checkpoint: Checkpoint): object {
  const tensors = [...checkpoint.tensors.values()];
  const dtype = tensors.find(({ shape }) => shape.length === 2)?.type;
  const others = tensors.filter(({ type }) => type !== undefined && type !== dtype);
  if (others.length === 0) return { dtype };
  return { dtype, otherDtypes: Object.fromEntries(others.map(({ name, type }) => [name, type])) };
}

/** Hashes of all files in a folder and below, by path: loaders check what they read against them. */
async function hashesIn(
  folder: string,
  signal: AbortSignal | undefined,
): Promise<{ chunkBytes: number; hashes: Record<string, FileHashes> }> {
  const hashes: Record<string, FileHashes> = {};
  for (const path of pathsIn(folder)) {
    hashes[path] = await withPauses(hashFileInSteps(join(folder, path), CHUNK), signal);
  }
  return { chunkBytes: CHUNK, hashes };
}
