/**
 * How far a model's foresight is from another's, in nats a token.
 * @module
 */
import { likeliest } from "../engine/adapters/steps.ts";

/** Log-probabilities of a row of logits, in place. */
function toLogProbabilities(row: Float32Array): void {
  let largest = -Infinity;
  for (const logit of row) if (logit > largest) largest = logit;
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - largest);
  const logSum = largest + Math.log(sum);
  for (let i = 0; i < row.length; i++) row[i] -= logSum;
}

/** What {@linkcode compareRows} finds. */
export interface Divergence {
  /** Sum over rows of KL(writer ‖ reader) = Σ p·(log p − log q), in nats. */
  readonly nats: number;
  /** Rows whose likeliest token is the same in both. */
  readonly agreed: number;
  readonly rows: number;
}

/**
 * Compares what two models foresee at the same places of a text.
 *
 * @param writer Logits of the model whose text it is, `[rows, vocabulary]`; overwritten.
 * @param reader Logits of the other, of the same shape; overwritten.
 * @param from First row that counts.
 */
export function compareRows(
  writer: Float32Array,
  reader: Float32Array,
  vocabulary: number,
  from: number,
): Divergence {
  const rows = writer.length / vocabulary;
  let nats = 0;
  let agreed = 0;
  for (let r = from; r < rows; r++) {
    const p = writer.subarray(r * vocabulary, (r + 1) * vocabulary);
    const q = reader.subarray(r * vocabulary, (r + 1) * vocabulary);
    if (likeliest(p) === likeliest(q)) agreed++;
    toLogProbabilities(p);
    toLogProbabilities(q);
    for (let i = 0; i < vocabulary; i++) nats += Math.exp(p[i]) * (p[i] - q[i]);
  }
  return { nats, agreed, rows: rows - from };
}
