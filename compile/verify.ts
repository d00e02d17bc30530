/**
 * `verify`: whether a compiled model computes what its checkpoint computes.
 * @module
 */
import { join } from "node:path";
import { type Backend, openBackend, type Session, type Tensor } from "../src/engine/ort/backend.ts";
import { folderSource } from "../src/engine/folder_source.ts";
import { checkedSource, checkModel } from "../src/engine/integrity.ts";
import { refusalOfHeads, takesHeads } from "../src/engine/ort/decoder_file.ts";
import { windowLogits } from "../src/engine/ort/head.ts";
import { throwIfAborted } from "../src/checks.ts";
import { BackendError, OnnxError } from "../src/errors.ts";
import { parseOptions, type RunHooks } from "../src/api/options.ts";
import { evaluationWindows, OpenModel, Phases, windowLength } from "../src/api/shared.ts";
import { cacheParts } from "../src/checkpoint/architectures/cache_parts.ts";
import { describe } from "../src/checkpoint/architectures/mod.ts";
import { type DecoderSpec, headDimsOf } from "../src/checkpoint/architectures/spec.ts";
import { CompiledModel } from "./compiled_model.ts";
import { type VerifyOptions, verifySchema } from "./options.ts";

const DEFAULT_SEQLEN = 256;

/** What `verify` found. */
export interface VerifyReport {
  readonly model: string;
  readonly against: string;
  readonly windows: number;
  readonly seqlen: number;
  /** Largest difference of a logit. */
  readonly largestDifference: number;
  /** The same over the largest logit. */
  readonly relativeDifference: number;
  /** Fraction of positions at which both foretell the same token. */
  readonly agreement: number;
  readonly perplexity: { readonly compiled: number; readonly checkpoint: number };
  readonly backend: string;
  readonly seconds: Record<string, number>;
  readonly notes: readonly string[];
}

/**
 * Compares the logits of a compiled model with those of the checkpoint that it was made from.
 *
 * @param options See `deno run mod.ts verify --help`.
 * @param hooks Progress and abort.
 * @throws {EspalierError} Of the class that says what is wrong.
 */
export async function verify(options: VerifyOptions, hooks: RunHooks = {}): Promise<VerifyReport> {
  const settings = parseOptions(verifySchema, options);
  const phases = new Phases(hooks);
  await checkModel(await checkedSource(folderSource(settings.model)), hooks.signal);
  const compiled = CompiledModel.open(settings.model);
  let opened: OpenModel | undefined;
  try {
    opened = new OpenModel(settings.against);
    assertMadeOf(compiled, opened);
    assertRunsInOrt(compiled, opened);
    const source = opened.read(settings.text);
    const { spec } = opened;
    const wanted = settings.seqlen ?? ("windows" in source ? undefined : DEFAULT_SEQLEN);
    const context = Math.min(spec.context, compiled.context);
    const length = windowLength(wanted, context, source, (text) => phases.note(text));
    const windows = evaluationWindows(source, length, spec.vocabulary, settings.windows);
    const backend = await openBackend(settings.backend, settings.threads);
    const model = opened.stage(backend, length);
    let session: Session | undefined;
    try {
      const loaded = session = await phases.run(
        "load compiled model",
        "files",
        1,
        () => backend.loadFile(join(compiled.folder, "onnx", "model.onnx")),
      );
      const found = await phases.run("compare", "windows", windows.length, async (step) => {
        const sums = { largest: 0, top: 0, agree: 0, compiled: 0, checkpoint: 0 };
        for (const [i, window] of windows.entries()) {
          throwIfAborted(hooks.signal);
          const a = await compiledLogits(loaded, backend, spec, window);
          if (a.length !== window.length * spec.vocabulary) {
            throw new OnnxError(
              `${compiled.name} gives ${a.length} logits for ${window.length} tokens and a vocabulary ` +
                `of ${spec.vocabulary}: to be verified it must be compiled with --logits all`,
            );
          }
          const b = await windowLogits(model, window);
          add(sums, compare(a, b, window, spec.vocabulary));
          step(i + 1);
        }
        return sums;
      });
      return {
        model: compiled.name,
        against: opened.checkpoint.name,
        windows: windows.length,
        seqlen: length,
        largestDifference: found.largest,
        relativeDifference: found.largest / found.top,
        agreement: found.agree / (windows.length * length),
        perplexity: {
          compiled: Math.exp(found.compiled / windows.length),
          checkpoint: Math.exp(found.checkpoint / windows.length),
        },
        backend: backend.label,
        seconds: phases.seconds,
        notes: phases.notes,
      };
    } finally {
      await session?.release();
      await model.close();
    }
  } finally {
    compiled.close();
    opened?.checkpoint.close();
  }
}

/** What models have alike whose logits can be compared, and how messages call it. */
const ALIKE = [
  ["layers", "blocks"],
  ["keyValueHeads", "key/value heads"],
  ["headDim", "elements a head"],
  ["vocabulary", "token ids"],
] as const;

/** Refuses a checkpoint that a compiled model cannot be of. */
function assertMadeOf(compiled: CompiledModel, { checkpoint, spec }: OpenModel): void {
  const own = describe(compiled.config);
  for (const [field, what] of ALIKE) {
    if (own[field] === spec[field]) continue;
    throw new OnnxError(
      `${compiled.name} was not compiled from ${checkpoint.name}: it has ${own[field]} ${what}, ` +
        `the checkpoint ${spec[field]}: name the one that it was compiled from with --against`,
    );
  }
}

/** Refuses a model that our own engine alone runs. */
function assertRunsInOrt({ name }: CompiledModel, { checkpoint, spec }: OpenModel) {
  const untaken = headDimsOf(spec).find((headDim) => !takesHeads(headDim));
  if (untaken === undefined) return;
  const why = refusalOfHeads(untaken);
  throw new BackendError(
    `${name}: ${why}, and verify runs models in it: expand this one, and compare what eval gives for the ` +
      `result and for ${checkpoint.name}`,
  );
}

/** Logits of one window through the compiled model, with an empty cache: `[length, vocabulary]`. */
export async function compiledLogits(
  session: Session,
  backend: Backend,
  spec: DecoderSpec,
  window: Int32Array,
): Promise<Float32Array> {
  const dims = [1, window.length];
  const feeds: Record<string, Tensor> = {
    input_ids: backend.int64(BigInt64Array.from(window, BigInt), dims),
    attention_mask: backend.int64(new BigInt64Array(window.length).fill(1n), dims),
    position_ids: backend.int64(BigInt64Array.from(window, (_, i) => BigInt(i)), dims),
  };
  for (const { past, dims } of cacheParts(spec)) {
    const nothing = dims(0);
    const zeros = new Float32Array(nothing.reduce((product, dim) => product * dim, 1));
    feeds[past] = backend.floats(zeros, [1, ...nothing]);
  }
  return (await session.run(feeds)).logits.data as Float32Array;
}

interface Sums {
  /** Largest difference. */
  largest: number;
  /** Largest logit of the checkpoint. */
  top: number;
  /** Positions at which both agree. */
  agree: number;
  /** Loss of the compiled model. */
  compiled: number;
  /** Loss of the checkpoint. */
  checkpoint: number;
}

function add(sums: Sums, more: Sums): void {
  sums.largest = Math.max(sums.largest, more.largest);
  sums.top = Math.max(sums.top, more.top);
  sums.agree += more.agree;
  sums.compiled += more.compiled;
  sums.checkpoint += more.checkpoint;
}

/** Compares the logits of one window. */
function compare(a: Float32Array, b: Float32Array, window: Int32Array, vocabulary: number): Sums {
  const sums: Sums = { largest: 0, top: 0, agree: 0, compiled: 0, checkpoint: 0 };
  const scored = window.length - 1;
  for (let t = 0; t < window.length; t++) {
    const rowA = a.subarray(t * vocabulary, (t + 1) * vocabulary);
    const rowB = b.subarray(t * vocabulary, (t + 1) * vocabulary);
    let bestA = 0;
    let bestB = 0;
    for (let v = 0; v < vocabulary; v++) {
      if (rowA[v] > rowA[bestA]) bestA = v;
      if (rowB[v] > rowB[bestB]) bestB = v;
      sums.largest = Math.max(sums.largest, Math.abs(rowA[v] - rowB[v]));
      sums.top = Math.max(sums.top, Math.abs(rowB[v]));
    }
    if (bestA === bestB) sums.agree++;
    if (t < scored) {
      sums.compiled += lossOf(rowA, bestA, window[t + 1]) / scored;
      sums.checkpoint += lossOf(rowB, bestB, window[t + 1]) / scored;
    }
  }
  return sums;
}

function lossOf(row: Float32Array, best: number, target: number): number {
  let sum = 0;
  for (let v = 0; v < row.length; v++) sum += Math.exp(row[v] - row[best]);
  return row[best] + Math.log(sum) - row[target];
}
