/**
 * An allocation as a recipe of llm-compressor (vLLM's; `llmcompressor` on PyPI): for checkpoints that
 * outgrow one machine, which it prunes on graphics cards.
 *
 * What its source (0.14.0.1) does with the fields:
 *
 * - A modifier prunes all linears in the modules that `targets` names; `sparsity` is a list with one
 *   number for each of these modules, in the model's order, and another length is an error there.
 * - `mask_structure` N:M means N _pruned_ of M. `0:0` is unstructured.
 * - Wanda prunes ⌊columns · sparsity⌋ of each row, as ours does. SparseGPT prunes at least one weight of
 *   every `block_size` columns, and takes N:M groups inside those only.
 * - Several modifiers run one after the other over the whole model, unless `oneshot` is told
 *   `pipeline="sequential"`.
 * @module
 */
import { Document, type Scalar, type YAMLSeq } from "yaml";
import { AllocationError, PatternError } from "../errors.ts";
import type { Pattern } from "../prune/types.ts";
import { globExpression } from "../prune/skip.ts";
import { VERSION } from "../version.ts";
import type { GivenAllocation } from "./allocation_file.ts";

/** The release whose source was read, and which `test/consumers/llm_compressor.ts` runs. */
export const LLM_COMPRESSOR = "0.14.0.1";

/** Its modifier for each method. */
const MODIFIERS = { wanda: "WandaPruningModifier", sparsegpt: "SparseGPTModifier" } as const;
/** Columns that its SparseGPT takes at a time, unless told otherwise. */
const BLOCK_SIZE = 128;
/** Left out even if somebody widens `targets`: Espalier prunes neither. */
const NEVER = [
  "re:.*lm_head$",
  "re:.*embed_tokens$",
  "re:.*embed_out$",
  "re:.*embed_in$",
  "re:.*wte$",
];
/** A block of which less than this is to go stays as it is: no row of it would lose a weight. */
const NOTHING = 1e-6;
/** Decimals of a sparsity. */
const DECIMALS = 1e10;

/** Which weights go first. */
export type RecipeMethod = keyof typeof MODIFIERS;

/** A modifier of the recipe. */
interface Modifier {
  /** Its group's name; two of one kind need two groups. */
  readonly group: string;
  readonly blocks: readonly number[];
  readonly sparsity: number | readonly number[];
  /** N pruned of M. */
  readonly maskStructure: string;
  readonly blockSize?: number;
}

/** A recipe, and what its reader should know. */
export interface Recipe {
  /** YAML. */
  readonly text: string;
  /** Blocks that keep all their weights. */
  readonly dense: readonly number[];
  readonly notes: readonly string[];
}

/**
 * The recipe that carries out an allocation.
 *
 * @param allocation What each block keeps.
 * @param method Which of its modifiers does it.
 * @throws {AllocationError} When every block keeps all its weights, or one keeps none.
 * @throws {PatternError} When its pattern is slots.
 */
export function llmCompressorRecipe(allocation: GivenAllocation, method: RecipeMethod): Recipe {
  const { shares, pattern, skip } = allocation;
  const all = shares.map((_, block) => block);
  const pruned = all.filter((block) => 1 - shares[block].density >= NOTHING);
  if (pruned.length === 0) {
    throw new AllocationError("every block keeps all its weights: there is nothing to prune");
  }
  const empty = pruned.find((block) => sparsityOf(shares[block].density) >= 1);
  if (empty !== undefined) {
    throw new AllocationError(
      `density ${shares[empty].density} leaves nothing of block ${empty}: give it more`,
    );
  }
  const dense = all.filter((block) => !pruned.includes(block));
  const modifiers = modifiersOf(allocation, pruned, method);
  const notes: string[] = [];
  if (allocation.linears) {
    notes.push(
      "linears of a block have densities of their own in this allocation, which a recipe has not: each block has their mean",
    );
  }
  if (modifiers.length > 1) {
    notes.push(
      `one modifier for each N: give oneshot pipeline="sequential", else it goes through the model ` +
        `${modifiers.length} times, and blocks are pruned by what dense ones before them give`,
    );
  }
  if (dense.length > 0) {
    notes.push(`left dense, as the allocation says: blocks ${dense.join(", ")}`);
  }
  const ignore = [...NEVER, ...skip.map((name) => `re:${globExpression(name)}`)];
  const document = new Document({
    prune_stage: Object.fromEntries(modifiers.map((modifier) => [
      `${modifier.group}_modifiers`,
      {
        [MODIFIERS[method]]: {
          sparsity: modifier.sparsity,
          mask_structure: modifier.maskStructure,
          ...(modifier.blockSize !== undefined && { block_size: modifier.blockSize }),
          targets: [targetOf(modifier.blocks, shares.length)],
          ignore,
        },
      },
    ])),
  }, {
    // What PyYAML reads: there a bare 8:16 is a number of base 60.
    version: "1.1",
    aliasDuplicateObjects: false,
  });
  nameBlocks(document, modifiers, method);
  document.commentBefore = headOf(shares.length, pattern, notes);
  return { text: document.toString({ lineWidth: 0 }), dense, notes };
}

/** One modifier, or one for each N of a mixed pattern. */
function modifiersOf(
  { shares, pattern }: GivenAllocation,
  pruned: readonly number[],
  method: RecipeMethod,
): Modifier[] {
  if (pattern.kind === "unstructured") {
    const sparsity = pruned.map((block) => sparsityOf(shares[block].density));
    return [{ group: "pruning", blocks: pruned, sparsity, maskStructure: "0:0" }];
  }
  if (pattern.kind === "slots") {
    throw new PatternError(
      "slots are a pattern of Espalier's own, which llm-compressor has not: hand over the allocation of a run with --pattern unstructured or mixed:16",
    );
  }
  const { m } = pattern;
  // Groups do not reach over the end of SparseGPT's columns.
  const blockSize = method === "sparsegpt" && BLOCK_SIZE % m !== 0
    ? BLOCK_SIZE - BLOCK_SIZE % m
    : undefined;
  const modifier = (group: string, n: number, blocks: readonly number[]): Modifier => ({
    group,
    blocks,
    sparsity: pattern.kind === "nm" ? sparsityOf(n / m) : blocks.map(() => sparsityOf(n / m)),
    maskStructure: `${m - n}:${m}`,
    blockSize,
  });
  if (pattern.kind === "nm") return [modifier("pruning", pattern.n, pruned)];
  const counts = [...new Set(pruned.map((block) => shares[block].kept!))].sort((a, b) => a - b);
  return counts.map((n) =>
    modifier(`keep_${n}_of_${m}`, n, pruned.filter((block) => shares[block].kept === n))
  );
}

/**
 * 1 − density, short and without the noise of the subtraction. It is rounded up: where a row's share is a
 * whole number of weights, a number a little too small would leave one weight more.
 */
function sparsityOf(density: number): number {
  return Math.ceil((1 - density - 1e-13) * DECIMALS) / DECIMALS;
}

/** The modules of blocks, by the end of their names: `model.layers.3`, `model.decoder.layers.3`, `transformer.h.3`. */
function targetOf(blocks: readonly number[], count: number): string {
  const which = blocks.length === count ? "\\d+" : `(?:${blocks.join("|")})`;
  return `re:(?:.*\\.)?(?:layers|h)\\.${which}$`;
}

/** Writes beside each number of a list whose it is. */
function nameBlocks(document: Document, modifiers: readonly Modifier[], method: RecipeMethod) {
  for (const { group, blocks, sparsity } of modifiers) {
    if (typeof sparsity === "number") continue;
    const path = ["prune_stage", `${group}_modifiers`, MODIFIERS[method], "sparsity"];
    const { items } = document.getIn(path) as YAMLSeq<Scalar>;
    for (const [i, item] of items.entries()) item.comment = ` block ${blocks[i]}`;
  }
}

function headOf(blocks: number, pattern: Pattern, notes: readonly string[]): string {
  const call = `oneshot(model=..., dataset=..., recipe="recipe.yaml", output_dir=...)`;
  return [
    `Recipe for llmcompressor (checked with ${LLM_COMPRESSOR}), made by Espalier ${VERSION}.`,
    `For a model of ${blocks} blocks${
      pattern.kind === "unstructured" ? "" : "; mask_structure has the number pruned, not that kept"
    }.`,
    `Run it: ${call}`,
    ...notes.map((note) => `Note: ${note}.`),
  ].map((line) => ` ${line}`).join("\n");
}
