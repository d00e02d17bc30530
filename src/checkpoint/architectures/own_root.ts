/**
 * What a checkpoint's tensors have in front of their names: versions of transformers, and who saves the model without
 * its head, have given the same decoder different roots.
 * @module
 */
import type { Checkpoint } from "../checkpoint.ts";
import { type DecoderSpec, embeddingOf } from "./spec.ts";

/** Of decoders inside of larger models: up to version 4.51, as most files have them; and since. */
const INNER_ROOTS = ["language_model.model", "model.language_model"];

/** The root that a decoder inside of a larger model has where nothing is known of its files. */
export const [INNER_ROOT] = INNER_ROOTS;

/**
 * The decoder by the names that a checkpoint's files have for its tensors; as the config describes it where they have
 * none that is known.
 */
export function withOwnRoot({ tensors }: Checkpoint, spec: DecoderSpec): DecoderSpec {
  const roots = spec.root === INNER_ROOT ? INNER_ROOTS : [spec.root, withoutBase(spec.root)];
  const found = roots.map((root) => withRoot(spec, root))
    .find((decoder) => tensors.has(`${embeddingOf(decoder)}.weight`));
  return found ?? spec;
}

/** The root of a decoder that was saved without its head, and before 2020 of all GPT-2: `decoder` for `model.decoder`. */
function withoutBase(root: string): string {
  return root.split(".").slice(1).join(".");
}

/** The decoder with another root; a head that is tied to the embedding has it, too. */
export function withRoot(spec: DecoderSpec, root: string): DecoderSpec {
  const decoder = { ...spec, root };
  const isTied = spec.head === embeddingOf(spec);
  return isTied ? { ...decoder, head: embeddingOf(decoder) } : decoder;
}
