/**
 * Options that do nothing beside the others: who gave one should know.
 * @module
 */
import type { AllocationName } from "../prune/types.ts";
import { flagName, type PruneOptions, type PruneSettings } from "./options.ts";

/** What a run does, beside what its settings say. */
export interface RunUses {
  /** The allocations that it makes, tries or compares. */
  readonly allocations: readonly AllocationName[];
  /** Whether it reads calibration text. */
  readonly calibration: boolean;
}

/**
 * Notes on the options of `prune` that were given and do nothing.
 *
 * @param options As the caller wrote them: defaults are nobody's wish.
 */
export function idleNotes(
  options: PruneOptions,
  { allocation, text, values, fit }: PruneSettings,
  { allocations, calibration }: RunUses,
): string[] {
  const needs = (name: AllocationName) =>
    allocations.length === 0
      ? "where no allocation is made"
      : `where no ${name.toUpperCase()} allocation is made`;
  const rules: [isUsed: boolean, options: (keyof PruneOptions)[], why: string][] = [
    [allocation === "search", ["searchBudget", "searchState"], "without --allocation search"],
    [text !== undefined, ["windows"], "without --text"],
    [allocations.includes("dlp"), ["reducer", "alpha"], needs("dlp")],
    [allocations.includes("owl"), ["lambda", "outlierThreshold"], needs("owl")],
    [allocations.includes("atp"), ["beta"], needs("atp")],
    // A fit may come to int4 by itself.
    [values === "int4" || fit !== undefined, ["group"], "without --values int4"],
    [
      calibration,
      // Windows of --text are as long, too.
      ["calibration", "samples", "seed", ...text === undefined ? ["seqlen" as const] : []],
      "where neither method nor allocation reads calibration text",
    ],
  ];
  return rules.flatMap(([isUsed, names, why]) => {
    const given = names.filter((name) => options[name] !== undefined).map((name) =>
      `--${flagName(name)}`
    );
    if (isUsed || given.length === 0) return [];
    const last = given.pop()!;
    return given.length === 0
      ? [`${last} does nothing ${why}`]
      : [`${given.join(", ")} and ${last} do nothing ${why}`];
  });
}
