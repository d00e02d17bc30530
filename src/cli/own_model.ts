/**
 * The model that commands take when none is named: the example, pruned on the way, or, in a binary, the
 * model that it was made of.
 * @module
 */
import type { RunHooks } from "../api/options.ts";
import { assertTogether } from "../generate/choose_engine.ts";
import { loadAs } from "../generate/load.ts";
import type { LoadOptions } from "../generate/load_options.ts";
import type { Model } from "../generate/model.ts";
import type { ModelLocation } from "../generate/place.ts";

/** A model that is there until it is disposed of. */
export interface PlacedModel {
  readonly location: ModelLocation;
  /** What it is called, where its place does not say. */
  readonly name?: string;
  /** Removes what was made to have it, once it has been loaded. */
  readonly dispose: () => void;
}

/** A model that a program carries. */
export interface CarriedModel {
  /** The options that it is loaded with, from those of a command. */
  settings(options: LoadOptions): LoadOptions;
  /** Where it is, for these options. */
  place(options: LoadOptions): Promise<PlacedModel>;
}

let carried: CarriedModel | undefined;

/** Has commands take this model when none is named. */
export function carryModel(model: CarriedModel): void {
  carried = model;
}

/** Whether a command that names no model takes the example. */
export function ownIsExample(): boolean {
  return carried === undefined;
}

/** Finds the program's own model; the example is pruned. */
export async function placeOwn(options: LoadOptions, hooks: RunHooks): Promise<PlacedModel> {
  if (carried) return await carried.place(options);
  // Pruning is much code, which a binary has not.
  const { prunedExample } = await import("./example.ts");
  const { folder, dispose } = await prunedExample(hooks);
  return { location: folder, dispose };
}

/** Options for loading the program's own model. */
export function ownSettings(options: LoadOptions): LoadOptions {
  return carried ? carried.settings(options) : options;
}

/** Loads the program's own model. */
export async function loadOwn(options: LoadOptions, hooks: RunHooks): Promise<Model> {
  const settings = ownSettings(options);
  assertTogether(settings);
  const placed = await placeOwn(settings, hooks);
  try {
    return await loadAs(placed.name, placed.location, settings, hooks);
  } finally {
    // A checkpoint has been compiled, into a folder of its own.
    placed.dispose();
  }
}
