/**
 * What is asked of models whose gradients are not known: those with linear attention or state spaces.
 * @module
 */
import { UsageError } from "../errors.ts";
import { distillSteps, type PruneSettings } from "./options.ts";
import type { OpenModel } from "./shared.ts";

/**
 * Settings for a model: without the distillation that nobody asked for, where it has no gradients.
 *
 * @param note Told of that.
 * @throws {UsageError} When a distillation is asked for, or a search, of such a model.
 */
export function withinGradients(
  settings: PruneSettings,
  { spec, checkpoint }: OpenModel,
  note: (text: string) => void,
): PruneSettings {
  if (!spec.recurrent) return settings;
  const { distill, allocation } = settings;
  const why =
    `gradients, which are not known of linear attention and state spaces (model_type ${checkpoint.config.model_type})`;
  if (distill !== undefined && distill > 0) {
    throw new UsageError(`--distill needs ${why}: leave it out`);
  }
  if (allocation === "search") {
    throw new UsageError(`--allocation search needs ${why}: auto tries the others`);
  }
  if (distillSteps(settings) > 0) note(`no distillation: it needs ${why}`);
  return { ...settings, distill: 0 };
}
