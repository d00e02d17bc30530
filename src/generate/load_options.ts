/**
 * Options of `load`: the flags of the commands that run a model come from this schema.
 * @module
 */
import { z } from "zod";
import { bytes } from "../api/options.ts";

/** The fields of {@linkcode loadSchema}, for schemas that have more. */
export const loadFields = {
  engine: z.enum(["auto", "sparse", "ort"]).default("auto").describe(
    "sparse computes on packed weights, ort is ONNX Runtime; auto takes sparse where it has every operator",
  ),
  device: z.enum(["wasm", "webgpu", "cpu"]).optional().describe(
    "where it runs; webgpu and cpu are ONNX Runtime's (default: wasm; with ort cpu, where it is installed)",
  ),
  threads: z.int().min(1).max(256).optional().describe(
    "threads (default: all processors; onnxruntime-web takes one under Deno)",
  ),
  context: z.int().min(2).max(1 << 20).optional().describe(
    "longest sequence of tokens (default: what the model allows, of a checkpoint 32768 at most)",
  ),
  kv: z.enum(["auto", "f32", "int8"]).default("auto").describe(
    "how the sparse engine keeps keys and values of earlier tokens",
  ),
  activations: z.enum(["auto", "int8", "int16"]).default("auto").describe(
    "what the sparse engine multiplies int8 and int4 weights with",
  ),
  embeddings: z.enum(["auto", "memory", "file"]).default("auto").describe(
    "where the sparse engine has tables of tokens that no product needs; auto leaves those of 64 MiB or more in the file",
  ),
  memory: bytes.optional().describe(
    "memory the model may take, e.g. 2GB (default: what the machine has free)",
  ),
  unchecked: z.boolean().default(false).describe(
    "read a compiled model's files without checking them against the hashes that compile wrote",
  ),
  values: z.enum(["auto", "f32", "f16", "int8", "int4"]).default("auto").describe(
    "a checkpoint is compiled on the way: how its weights are stored; auto is what it was pruned for, else int8",
  ),
  format: z.enum(["auto", "nm", "csr", "bitmap", "slots", "dense"]).default("auto").describe(
    "and how its linears are packed; auto takes the smallest that each one's zeros allow",
  ),
};

/** Fields of {@linkcode loadSchema} for programs that do other things while a model computes. */
export const servingFields = {
  background: z.boolean().default(false).describe(
    "the sparse engine computes on threads of its own, so that the caller's event loop stays free " +
      "(runs of less than 20 ms may be the caller's all the same)",
  ),
  keptSequences: z.int().min(0).max(10_000).optional().describe(
    "closed sequences whose cache the sparse engine keeps for prompts that begin alike (default: 4)",
  ),
};

/** Options of `load`. */
export const loadSchema = z.strictObject({ ...loadFields, ...servingFields });

/** Options of `load`, as a caller writes them. */
export type LoadOptions = z.input<typeof loadSchema>;
/** Options of `load`, checked, with their defaults. */
export type LoadSettings = z.output<typeof loadSchema>;
