/**
 * The sketch of a model's head, if it has one.
 * @module
 */
import type { EngineMemory } from "../memory.ts";
import type { WeightLoader } from "../weights/loader.ts";
import type { PlacedMatrix } from "../weights/placed.ts";
import { canBeSketched, isWorthSketching, type PlacedSketch } from "../weights/sketch.ts";
import type { FusedDecoder, FusedStep, LinearStep } from "./fuse.ts";

/** A sketch of the head. */
export interface Sketch extends PlacedSketch {
  readonly of: PlacedMatrix;
}

/**
 * Makes a sketch of the head, where there are kernels for it.
 *
 * @param wanted Whether it is to have one; default: where that saves time and takes little of the memory.
 * @throws {AbortError} When the loader's signal says so.
 */
export async function sketchOf(
  { steps, logits }: FusedDecoder,
  matrices: ReadonlyMap<FusedStep, PlacedMatrix>,
  weights: WeightLoader,
  memory: EngineMemory,
  wanted: boolean | undefined,
): Promise<Sketch | undefined> {
  const step = steps.find((step) => step.op === "linear" && step.output === logits);
  const of = step && matrices.get(step);
  if (!of || !canBeSketched(of) || !isPlain(step as LinearStep)) return undefined;
  if (!(wanted ?? isWorthSketching(of, memory))) return undefined;
  return { of, ...await weights.sketch(of) };
}

/** Whether a product is all of its step. */
function isPlain({ bias, activation, times, plus }: LinearStep): boolean {
  return bias === undefined && activation === "none" && times === undefined && plus === undefined;
}
