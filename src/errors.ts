/**
 * Every way Espalier can fail, one class a cause.
 *
 * A message says what was wrong, where (file, tensor, block, option) and what to do about it, in one
 * line. `code` is stable: scripts may compare it. `exitCode` is what the CLI ends with: 1 for work
 * that failed, 2 for a command that could never have worked as it was written.
 *
 * This module imports nothing, so that the pure core (`src/prune`) can use it in any runtime.
 * @module
 */

/**
 * What errors are known by in every build of this module: `espalier`, `espalier/run`, `espalier/server` and
 * `espalier/prune` are built apart, and each has classes of its own.
 */
const BRAND = Symbol.for("espalier.error");

/**
 * The base of all errors that Espalier throws on purpose.
 *
 * `instanceof` takes errors of the package's other exports, too: of this class all of them, of a class below
 * it those of the class of that name.
 */
export abstract class EspalierError extends Error {
  static override [Symbol.hasInstance](value: unknown): boolean {
    const isOf = (one: unknown) => Function.prototype[Symbol.hasInstance].call(one, value);
    if (isOf(this) || isOf(EspalierError)) return isOf(this);
    if (!(value instanceof Error && BRAND in value)) return false;
    // A minifier's names say nothing.
    const isNamed = this.name.endsWith("Error");
    return this === EspalierError || (isNamed && namesOf(value).includes(this.name));
  }

  /** Stable identifier of the cause, e.g. `SAFETENSORS_INVALID`. */
  abstract readonly code: string;
  /** Exit status of a command that ends with this error. */
  readonly exitCode: 1 | 2 = 1;

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }

  /** See {@linkcode BRAND}; on the prototype, where nobody who prints an error sees it. */
  get [BRAND](): true {
    return true;
  }
}

/** The names of the classes that an error is of. */
function namesOf(error: Error): string[] {
  const names: string[] = [];
  for (let one = Object.getPrototypeOf(error); one; one = Object.getPrototypeOf(one)) {
    names.push(one.constructor.name);
  }
  return names;
}

/**
 * Whether an error has a code.
 *
 * By that, not by its class: modules that are built apart, as `espalier/run` and `espalier/server`, have classes of
 * their own.
 */
export function hasCode<C extends string>(
  error: unknown,
  code: C,
): error is Error & { readonly code: C } {
  return error instanceof Error && (error as { readonly code?: unknown }).code === code;
}

/** An option or argument of a command, or a field of a config file, that cannot be used. */
export class UsageError extends EspalierError {
  readonly code = "USAGE";
  override readonly exitCode = 2;
}

/** A folder that holds no checkpoint, or lacks a file that a checkpoint must have. */
export class CheckpointNotFoundError extends EspalierError {
  readonly code = "CHECKPOINT_NOT_FOUND";
}

/** A file that cannot be opened or read. */
export class FileReadError extends EspalierError {
  readonly code = "FILE_UNREADABLE";
}

/** A file that cannot be created or written, for a reason other than a full disk. */
export class FileWriteError extends EspalierError {
  readonly code = "FILE_UNWRITABLE";
}

/** No room is left on the device that is written to. */
export class DiskFullError extends EspalierError {
  readonly code = "DISK_FULL";
}

/** A safetensors file whose header or layout is damaged. */
export class SafetensorsError extends EspalierError {
  readonly code = "SAFETENSORS_INVALID";
}

/** A shard that `model.safetensors.index.json` names and that is not there, or an index that lies. */
export class ShardError extends EspalierError {
  readonly code = "SHARD_INVALID";
}

/** A tensor that the architecture needs and the checkpoint lacks. */
export class TensorMissingError extends EspalierError {
  readonly code = "TENSOR_MISSING";
}

/** A tensor whose shape does not fit `config.json`. */
export class TensorShapeError extends EspalierError {
  readonly code = "TENSOR_SHAPE";
}

/** A tensor stored in a type that Espalier does not compute with. */
export class TensorTypeError extends EspalierError {
  readonly code = "TENSOR_TYPE";
}

/** A weight or activation that is NaN or infinite. */
export class NotFiniteError extends EspalierError {
  readonly code = "NOT_FINITE";
}

/** A `config.json` that is damaged, or asks for something its architecture does not have. */
export class ConfigError extends EspalierError {
  readonly code = "CONFIG_INVALID";
}

/** A `model_type` that has no graph builder. */
export class ArchitectureError extends EspalierError {
  readonly code = "ARCHITECTURE_UNSUPPORTED";
}

/** A graph in which blocks or linears cannot be found, or that does not hang together. */
export class GraphError extends EspalierError {
  readonly code = "GRAPH_INVALID";
}

/** An ONNX file that is damaged, or whose graph or data do not hang together. */
export class OnnxError extends EspalierError {
  readonly code = "ONNX_INVALID";
}

/** An allocation that cannot be carried out, e.g. an alpha that would empty a block. */
export class AllocationError extends EspalierError {
  readonly code = "ALLOCATION_IMPOSSIBLE";
}

/** A size that no plan of `prune --fit` comes down to. */
export class SizeUnreachableError extends EspalierError {
  readonly code = "SIZE_UNREACHABLE";
}

/** A file of measured variants that is damaged, or something else. */
export class CompareStateError extends EspalierError {
  readonly code = "COMPARE_STATE_INVALID";
}

/** A file that holds no allocation, or a damaged one. */
export class AllocationFileError extends EspalierError {
  readonly code = "ALLOCATION_INVALID";
}

/** A file that holds no state of a search, a damaged one, or that of another search. */
export class SearchStateError extends EspalierError {
  readonly code = "SEARCH_STATE_UNFIT";
}

/** A sparsity pattern that does not fit a weight, e.g. an M that does not divide its rows. */
export class PatternError extends EspalierError {
  readonly code = "PATTERN_IMPOSSIBLE";
}

/** A file of a compiled model that is not what `compile` wrote. */
export class IntegrityError extends EspalierError {
  readonly code = "INTEGRITY";
}

/** A packed matrix whose tensors break a rule of its format (`docs/format.md`). */
export class PackedFormatError extends EspalierError {
  readonly code = "PACKED_INVALID";
}

/** A matrix that the packed format or the value type asked for cannot hold. */
export class FormatUnfitError extends EspalierError {
  readonly code = "FORMAT_UNFIT";
}

/** Calibration or evaluation text that cannot be used, e.g. shorter than one window. */
export class TextError extends EspalierError {
  readonly code = "TEXT_UNUSABLE";
}

/** A tokenizer that is missing or cannot be read. */
export class TokenizerError extends EspalierError {
  readonly code = "TOKENIZER_INVALID";
}

/** A token id outside the model's vocabulary. */
export class TokenRangeError extends EspalierError {
  readonly code = "TOKEN_OUT_OF_RANGE";
}

/** An output folder that exists and is not empty. */
export class OutputExistsError extends EspalierError {
  readonly code = "OUTPUT_EXISTS";
}

/** A backend that is not installed, has no device, or failed to run a graph. */
export class BackendError extends EspalierError {
  readonly code = "BACKEND_FAILED";
}

/** A model that does not fit where a bundle is to run. */
export class TargetUnfitError extends EspalierError {
  readonly code = "TARGET_UNFIT";
}

/** A program that is needed and not installed, or that failed. */
export class ToolMissingError extends EspalierError {
  readonly code = "TOOL_MISSING";
}

/** A package that a part of Espalier is made of, and that is neither installed nor to be had. */
export class PackageMissingError extends EspalierError {
  readonly code = "PACKAGE_MISSING";
}

/** Something that Deno was not told to allow, and that a command cannot do without. */
export class PermissionMissingError extends EspalierError {
  readonly code = "PERMISSION_MISSING";
}

/** Work that needs more memory than `--memory` allows, however it is cut. */
export class MemoryBudgetError extends EspalierError {
  readonly code = "MEMORY_BUDGET";
}

/** Tokens that do not fit into a model's context, or a context that does not fit into the model. */
export class ContextOverflowError extends EspalierError {
  readonly code = "CONTEXT_OVERFLOW";
}

/** An ONNX operator that the sparse engine has no kernel for. */
export class UnsupportedOperatorError extends EspalierError {
  readonly code = "OPERATOR_UNSUPPORTED";
}

/** A thread of the engine that has died or does not answer. */
export class WorkerLostError extends EspalierError {
  readonly code = "WORKER_LOST";
}

/** A model that has been closed. */
export class ModelClosedError extends EspalierError {
  readonly code = "MODEL_CLOSED";
}

/** A chat template that is missing or cannot be used. */
export class ChatTemplateError extends EspalierError {
  readonly code = "CHAT_TEMPLATE";
}

/** A JSON schema that is damaged, too large, or asks for something that cannot be promised. */
export class SchemaError extends EspalierError {
  readonly code = "SCHEMA_UNSUPPORTED";
}

/** An address that a server cannot listen on. */
export class ListenError extends EspalierError {
  readonly code = "LISTEN_FAILED";
}

/** A repository that the Hub does not have, or does not show to who asks. */
export class RepositoryNotFoundError extends EspalierError {
  readonly code = "HUB_REPOSITORY_NOT_FOUND";
}

/** A branch, tag or commit that a repository of the Hub does not have. */
export class RevisionNotFoundError extends EspalierError {
  readonly code = "HUB_REVISION_NOT_FOUND";
}

/** A file that a repository of the Hub lists, or should have, and does not give. */
export class HubFileNotFoundError extends EspalierError {
  readonly code = "HUB_FILE_NOT_FOUND";
}

/** A token that the Hub does not take, or that may not read what was asked for. */
export class UnauthorizedError extends EspalierError {
  readonly code = "HUB_UNAUTHORIZED";
}

/** A repository whose licence must be accepted on its page first. */
export class GatedRepositoryError extends EspalierError {
  readonly code = "HUB_GATED";
}

/** A Hub that cannot be reached, or whose connections break off again and again. */
export class HubUnreachableError extends EspalierError {
  readonly code = "HUB_UNREACHABLE";
}

/** A Hub that has had more requests than it takes from one place. */
export class RateLimitError extends EspalierError {
  readonly code = "HUB_RATE_LIMITED";
}

/** A Hub, or a server that it sends files from, that fails. */
export class HubFailedError extends EspalierError {
  readonly code = "HUB_FAILED";
}

/** An answer of the Hub that makes no sense, or that would be unsafe to follow. */
export class HubAnswerError extends EspalierError {
  readonly code = "HUB_ANSWER_INVALID";
}

/** A file whose content is not the one that was promised, fetched twice. */
export class HashMismatchError extends EspalierError {
  readonly code = "HASH_MISMATCH";
}

/** A model that is not in the cache, or not all of it, where the network must not be asked. */
export class OfflineError extends EspalierError {
  readonly code = "HUB_OFFLINE";
}

/** Work that was stopped by its `AbortSignal` or by Ctrl-C. */
export class AbortError extends EspalierError {
  readonly code = "ABORTED";
}
