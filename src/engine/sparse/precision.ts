/**
 * How exactly the sparse engine computes where nobody says it.
 * @module
 */
import type { MatrixRef } from "./ir.ts";
import type { ModelReader } from "./model_reader.ts";
import type { SparseOptions } from "./options.ts";

/** Weights of a small model, in bytes: they stay in a processor's caches, so precision costs little. */
export const SMALL = 24 << 20;

/** What int8 weights are multiplied with, and how keys and values are kept. */
export function precisionOf(
  reader: ModelReader,
  matrices: readonly MatrixRef[],
  { kv = "auto", activations = "auto" }: SparseOptions,
): { kv: "f32" | "int8"; activations: "int8" | "int16" } {
  const names = new Set(
    matrices.flatMap((ref) => ref.kind === "dense" ? [ref.values] : Object.values(ref.tensors)),
  );
  const bytes = [...names].reduce((sum, name) => sum + reader.tensor(name).byteLength, 0);
  const isQuantised = matrices.some(({ type }) => type === "int8" || type === "int4");
  const isFast = isQuantised && bytes > SMALL;
  return {
    kv: kv === "auto" ? (isFast ? "int8" : "f32") : kv,
    activations: activations === "auto" ? (isFast ? "int8" : "int16") : activations,
  };
}
