/**
 * What `prune` is asked for: whether its options go together, and what they mean for a model.
 * @module
 */
import { UsageError } from "../errors.ts";
import { roundTo } from "../onnx/element_type.ts";
import type { Block } from "../onnx/sections.ts";
import { mends } from "../prune/block.ts";
import { nameMatcher } from "../prune/skip.ts";
import { checkPattern, givenShares, sparsityFor, sparsityOfShares } from "./allocate.ts";
import type { PruneRequest } from "./choose_allocation.ts";
import type { PruneSettings } from "./options.ts";
import type { BlockLinear } from "./prune_report.ts";
import type { OpenModel } from "./shared.ts";

/**
 * Checks what needs no model to be checked.
 *
 * @throws {UsageError} When options do not go together.
 */
export function assertGoTogether(settings: PruneSettings): void {
  assertFitGoesWith(settings);
  const { pattern, densities, method, allocation, sparsity } = settings;
  for (const field of ["values", "head"] as const) {
    if (settings[field] !== "int4" || mends(method)) continue;
    throw new UsageError(
      `--${field} int4 rounds weights while others make up for it, which --method ${method} does not do: ` +
        `take sparsegpt or espalier, or only compile with --${field} int4`,
    );
  }
  if (sparsity === 0 && settings.values !== "int4") {
    throw new UsageError("--sparsity 0 prunes nothing: it is for --values int4 alone");
  }
  if (densities !== undefined && pattern.kind === "nm") {
    throw new UsageError("--densities does nothing for an N:M pattern");
  }
  if (densities !== undefined && sparsity !== undefined) {
    throw new UsageError("--densities says how much goes: leave --sparsity out beside it");
  }
  if (settings.compare && settings.text === undefined) {
    throw new UsageError("--compare measures on held-out text: name one with --text");
  }
  if (allocation === "search" && sparsity === 0) {
    throw new UsageError("--allocation search has nothing to search where --sparsity is 0");
  }
  if (allocation === "search" && pattern.kind === "nm") {
    throw new UsageError(
      `--allocation search has nothing to search: ${pattern.n}:${pattern.m} gives every block the same density; ` +
        `mixed:${pattern.m} lets it choose`,
    );
  }
}

/** What is settled by a fit cannot be asked for beside it. */
function assertFitGoesWith(settings: PruneSettings): void {
  const { fit, allocation } = settings;
  if (fit === undefined) return;
  const beside = (["sparsity", "densities", "values", "head"] as const)
    .find((field) => settings[field] !== undefined);
  if (beside) throw new UsageError(`--fit looks for what --${beside} says: leave one of them out`);
  if (allocation === "auto" || allocation === "search") {
    throw new UsageError("--fit tries patterns and value types: name one allocation beside it");
  }
}

/**
 * What settings that go together mean for a model.
 *
 * @param blocks The model's.
 * @param note Told what a person should know.
 * @returns The request, and the linears that will be pruned.
 * @throws {UsageError} When `skip` names what is not there, or leaves nothing.
 * @throws {EspalierError} When a pattern does not suit the linears, or densities are not those of the blocks.
 */
export function requestOf(
  settings: PruneSettings,
  opened: OpenModel,
  blocks: readonly Block[],
  note: (text: string) => void,
): { request: PruneRequest; linears: BlockLinear[] } {
  const { skip, pattern, densities, sparsity } = settings;
  const skipped = nameMatcher(skip);
  const all = blocks.flatMap(({ index, linears }) =>
    linears.map((linear) => ({ ...linear, block: index }))
  );
  for (const name of skip) {
    if (all.some(({ weight }) => nameMatcher([name])(weight))) continue;
    throw new UsageError(
      `--skip ${name} fits no linear of this model: their names look like ${
        all[0].weight.replace(/\.weight$/, "")
      }`,
    );
  }
  const linears = all.filter(({ weight }) => !skipped(weight));
  if (linears.length === 0) throw new UsageError("--skip leaves nothing to prune");
  checkPattern(pattern, linears);
  const byBlock = blocks.map(({ index }) => linears.filter(({ block }) => block === index));
  const found = densities === undefined ? undefined : givenShares(densities, pattern, byBlock);
  const given = found?.shares;
  const left = found?.skip.filter((name) => !skip.includes(name)) ?? [];
  if (left.length > 0) {
    note(
      `the run whose densities are given left ${
        left.join(", ")
      } dense: without --skip it is pruned`,
    );
  }
  const request = {
    settings,
    blocks: blocks.length,
    pruned: [...new Set(linears.map(({ block }) => block))],
    sparsity: given ? sparsityOfShares(given, byBlock) : sparsityFor(pattern, sparsity),
    skipped,
    store: (name: string, values: Float32Array) =>
      roundTo(values, opened.checkpoint.tensors.get(name)!.type!),
    given,
  };
  return { request, linears };
}
