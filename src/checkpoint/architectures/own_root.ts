/**
 * Decoders inside of models of several parts, of images and text for instance: versions of transformers have given
 * their tensors different names.
 * @module
 */
import type { Checkpoint } from "../checkpoint.ts";
import type { DecoderSpec } from "./spec.ts";

/** Up to version 4.51, as most files have them; and since. */
const ROOTS = ["language_model.model", "model.language_model"];

/** The root that a decoder inside of a larger model has where nothing is known of its files. */
export const [INNER_ROOT] = ROOTS;

/**
 * The decoder by the names that a checkpoint's files have for its tensors.
 *
 * @param spec As the config describes it; where its root is no {@linkcode INNER_ROOT}, it stays as it is.
 */
export function withOwnRoot({ tensors }: Checkpoint, spec: DecoderSpec): DecoderSpec {
  if (spec.root !== INNER_ROOT) return spec;
  const found = ROOTS.find((root) => tensors.has(`${root}.embed_tokens.weight`)) ?? INNER_ROOT;
  return withRoot(spec, found);
}

/** The decoder with another root; a head that is tied to the embedding has it, too. */
export function withRoot(spec: DecoderSpec, root: string): DecoderSpec {
  return { ...spec, root, head: spec.head.replace(spec.root, root) };
}
