/**
 * Calibration text that is no file: what `prune` asks of who can write it. The one who can is above, in
 * `src/workflow`: it takes a compiled model and an engine.
 * @module
 */
import { UsageError } from "../errors.ts";
import type { Phases } from "./shared.ts";

/** What `--calibration` says in place of a file: text that the model writes itself. */
export const SELF = "self";

/** What `prune` orders. */
export interface CalibrationOrder {
  readonly windows: number;
  /** Tokens a window. */
  readonly length: number;
  readonly seed: number;
  readonly phases: Phases;
  readonly signal: AbortSignal | undefined;
}

/** How text was drawn; it goes into `espalier.json`. */
export interface Sampling {
  readonly temperature: number;
  /** The token that each text begins with. */
  readonly begin: number;
  readonly seed: number;
  /** How the weights of the model that wrote it were stored. */
  readonly values: string;
}

/** Windows that a model wrote. */
export interface WrittenCalibration {
  readonly windows: Int32Array[];
  readonly sampling: Sampling;
}

/** Writes calibration windows. */
export type CalibrationWriter = (order: CalibrationOrder) => Promise<WrittenCalibration>;

/** Stands where nobody can write. */
export function noWriter(): never {
  throw new UsageError(
    `calibration ${SELF} has the model write its own text, which takes an engine: the library's prune and ` +
      `the command have one (a file of that name is ./${SELF})`,
  );
}
