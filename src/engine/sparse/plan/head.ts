/**
 * The sketch of a model's head, if it has one.
 * @module
 */
import type { Value } from "../ir.ts";
import type { EngineMemory } from "../memory.ts";
import type { WeightLoader } from "../weights/loader.ts";
import type { PlacedMatrix } from "../weights/placed.ts";
import { canBeSketched, isWorthSketching, type PlacedSketch } from "../weights/sketch.ts";
import { type FusedDecoder, type FusedStep, type LinearStep, readBy } from "./fuse.ts";

/** A sketch of the head. */
export interface Sketch extends PlacedSketch {
  /** The head, and the step that multiplies with it. */
  readonly of: PlacedMatrix;
  readonly step: LinearStep;
  /** What its products are capped by to be logits; 0 for nothing. */
  readonly cap: number;
}

/**
 * Makes a sketch of the head, where there are kernels for it.
 *
 * @param wanted Whether it is to have one; default: where that saves time and takes little of the memory.
 * @throws {AbortError} When the loader's signal says so.
 */
export async function sketchOf(
  decoder: FusedDecoder,
  matrices: ReadonlyMap<FusedStep, PlacedMatrix>,
  weights: WeightLoader,
  memory: EngineMemory,
  wanted: boolean | undefined,
): Promise<Sketch | undefined> {
  const cap = capOf(decoder), step = headOf(decoder, cap);
  const of = step && matrices.get(step);
  if (!of || !canBeSketched(of) || !isPlain(step)) return undefined;
  if (!(wanted ?? isWorthSketching(of, memory))) return undefined;
  return { of, step, cap: cap?.cap ?? 0, ...await weights.sketch(of) };
}

/** The product that makes the logits, or what they are before they are capped, which nothing else then reads. */
function headOf({ steps, logits }: FusedDecoder, cap: CapStep | undefined): LinearStep | undefined {
  const product = makerOf(steps, cap ? cap.a : logits);
  const isReadElsewhere = cap &&
    steps.filter((step) => readBy(step).includes(cap.a)).length > 1;
  return product?.op === "linear" && !isReadElsewhere ? product : undefined;
}

/** A step that caps a value. */
type CapStep = Extract<FusedStep, { op: "elementwise" }> & { readonly cap: number };

/** The step that caps the logits, where one does. */
function capOf({ steps, logits }: FusedDecoder): CapStep | undefined {
  const last = makerOf(steps, logits);
  return last?.op === "elementwise" && last.cap !== undefined
    ? { ...last, cap: last.cap }
    : undefined;
}

function makerOf(steps: readonly FusedStep[], value: Value): FusedStep | undefined {
  return steps.find((step) => step.op !== "select" && step.output === value);
}

/** Whether a product is all of its step. */
function isPlain({ bias, activation, times, plus }: LinearStep): boolean {
  return bias === undefined && activation === "none" && times === undefined && plus === undefined;
}
