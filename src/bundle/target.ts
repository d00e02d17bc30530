/**
 * What every target of `bundle` gets and gives.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import type { BundleSettings } from "./options.ts";

/** What a binary is called in the folder that it is made in, and the model beside it, with `.model`. */
export const MADE = "program";

/** What a target is made from. */
export interface TargetInput {
  /** What the model is called. */
  readonly name: string;
  /** The folder of the compiled model. */
  readonly model: string;
  /** Where to write: a folder that is there and empty, which becomes the output when all is done. */
  readonly folder: string;
  readonly settings: BundleSettings;
  readonly hooks: RunHooks;
}

/** What a target has made. */
export interface TargetReport {
  /** What a person does next, a command a line. */
  readonly next: readonly string[];
  /** What a person should know. */
  readonly notes: readonly string[];
  /** Bytes that a running instance takes, by part, where the target has a limit. */
  readonly memory?: {
    readonly limit: number;
    readonly total: number;
    readonly parts: Readonly<Record<string, number>>;
  };
}

/** Writes the output of one target. */
export type Target = (input: TargetInput) => Promise<TargetReport>;
