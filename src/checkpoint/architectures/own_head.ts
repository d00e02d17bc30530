/**
 * Heads that a config ties to the embedding and that the files hold all the same. Some tools store the embedding
 * a second time, others have trained the two apart and forgot the config: transformers 5 ties them where they are
 * equal, and so do we (`tie_weights` in its modeling_utils.py).
 * @module
 */
import { FLOAT_BYTES, widen } from "../../onnx/element_type.ts";
import type { Checkpoint, CheckpointTensor } from "../checkpoint.ts";
import type { DecoderSpec } from "./spec.ts";

/**
 * Names of heads that have tensors of their own, without the `.weight` at their ends. GPT-NeoX's is the second; some
 * of its files call it as all others do. The last is that of decoders inside of larger models, where files have the
 * names of transformers up to version 4.51.
 */
export const OWN_HEADS: readonly string[] = ["lm_head", "embed_out", "language_model.lm_head"];
/** Elements of each that are compared at a time. */
const PIECE = 1 << 20;

/**
 * The decoder of a checkpoint with its head by the name that the files have for it; where the config ties head and
 * embedding, with a head of its own where the files hold one with other values, and by the head's name where they hold
 * that alone.
 *
 * @param spec As the config describes it.
 */
export function withOwnHead(checkpoint: Checkpoint, spec: DecoderSpec): DecoderSpec {
  const found = OWN_HEADS.find((name) => checkpoint.tensors.has(`${name}.weight`));
  if (found === undefined) return spec;
  if (OWN_HEADS.includes(spec.head)) return { ...spec, head: found };
  const embedding = checkpoint.tensors.get(`${spec.head}.weight`);
  // Who writes tensors that are one keeps the first name in the alphabet.
  if (!embedding) return { ...spec, head: found, embedding: found };
  const own = checkpoint.tensors.get(`${found}.weight`);
  const mayDiffer = embedding.type && own?.type && embedding.shape.join() === own.shape.join();
  return mayDiffer && !areEqual(checkpoint, embedding, own) ? { ...spec, head: found } : spec;
}

/** Whether tensors of one shape hold the same numbers, of whatever type. */
function areEqual(checkpoint: Checkpoint, a: CheckpointTensor, b: CheckpointTensor): boolean {
  const count = a.length / FLOAT_BYTES[a.type!];
  for (let first = 0; first < count; first += PIECE) {
    const size = Math.min(PIECE, count - first);
    const [x, y] = [a, b].map((tensor) => floatsOf(checkpoint, tensor, first, size));
    if (x.some((value, i) => value !== y[i])) return false;
  }
  return true;
}

/** Some elements of a tensor. NaN is told of by those who compute with it. */
function floatsOf(
  checkpoint: Checkpoint,
  { file, type, offset }: CheckpointTensor,
  first: number,
  count: number,
): Float32Array {
  const size = FLOAT_BYTES[type!];
  const bytes = new Uint8Array(count * size);
  checkpoint.file(file).read(bytes, offset + first * size);
  const floats = new Float32Array(count);
  widen(bytes, type!, floats);
  return floats;
}
