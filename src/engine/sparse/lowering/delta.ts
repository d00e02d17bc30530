/**
 * Linear attention by the gated delta rule.
 * @module
 */
import { quote } from "../../../checks.ts";
import type { Part } from "../ir.ts";
import { cacheOf } from "./attention.ts";
import type { Activation, Exponentials, Meaning, UnitVectors } from "./meaning.ts";
import { listed, type NodeView } from "./node_view.ts";
import type { StepList } from "./step_list.ts";
import { flat, vectorName } from "./weights.ts";

/** `Exp(vector)`: how fast heads forget. */
export function exponentials(view: NodeView): Exponentials {
  return { kind: "exponentials", of: view.input(0, "tensor"), isNegated: false };
}

/** `Neg` of that. */
export function negate(view: NodeView): Exponentials {
  const found = view.input(0, "exponentials");
  return { ...found, isNegated: !found.isNegated };
}

/** `x · exponentials`. */
export function weighByExponentials(
  view: NodeView,
  steps: StepList,
  x: Activation,
  { of, isNegated }: Exponentials,
): Activation {
  if (x.heads !== undefined || !isNegated) {
    throw view.unsupported("multiplies by exponentials; -e^weight of whole vectors is understood");
  }
  const width = steps.widthOf(x.value);
  const weight = vectorName(view, of, width);
  const output = steps.value(width);
  steps.push({ op: "weigh", input: x.value, output, weight, isNegatedExponential: true });
  return { ...x, value: output };
}

/** `Reshape(unit vectors)`: those of heads, one after the other. */
export function joinUnits(view: NodeView, steps: StepList, units: UnitVectors): UnitVectors {
  view.expectInteger("allowzero", 0);
  const shape = view.numbers(1, "integers"), width = steps.widthOf(units.of.value);
  const isFlat = shape.length === 3 && shape[0] === 0 && shape[1] === 0 &&
    (shape[2] === -1 || shape[2] === width);
  if (!isFlat) throw view.unsupported(`makes the shape ${listed(shape)} of vectors of length 1`);
  return { ...units, isFlat: true };
}

/** `LinearAttention(queries, keys, values, state, decays, strengths)`. */
export function remember(view: NodeView, steps: StepList): Meaning[] {
  const rule = view.text("update_rule", "gated_delta");
  if (rule !== "gated_delta") {
    throw view.unsupported(`has the update_rule ${quote(rule)}; gated_delta is understood`);
  }
  const [queries, keys] = [0, 1].map((place) => units(view, place));
  const values = flat(view, 2);
  const past = view.input(3, "cache");
  if (past.time !== "past" || past.part !== "state") {
    throw view.unsupported(
      `reads ${quote(view.node.input[3])} where past_recurrent.N is understood`,
    );
  }
  if (!steps.claim(`state ${past.layer}`)) {
    throw view.unsupported(`reads ${quote(view.node.input[3])}, which another node has read`);
  }
  const name = view.node.output[1] ?? "";
  const present = cacheOf(name);
  if (present?.time !== "present" || present.part !== "state" || present.layer !== past.layer) {
    throw view.unsupported(
      `gives ${quote(name)} where present_recurrent.${past.layer} is understood`,
    );
  }
  const keyHeads = view.integer("q_num_heads"), valueHeads = view.integer("kv_num_heads");
  const [keyWidth, otherWidth, valueWidth] = [queries.of, keys.of, values].map(({ value }) =>
    steps.widthOf(value)
  );
  const keyDim = keyWidth / keyHeads, valueDim = valueWidth / valueHeads;
  const areWhole = [keyDim, valueDim, valueHeads / keyHeads].every((n) =>
    Number.isInteger(n) && n >= 1
  );
  if (!areWhole || otherWidth !== keyWidth) {
    throw view.damaged(
      `divides ${keyWidth} and ${otherWidth} elements among ${keyHeads} heads, and ${valueWidth} among ${valueHeads}`,
    );
  }
  if (queries.of.heads !== keyHeads || keys.of.heads !== keyHeads) {
    throw view.unsupported("reads queries or keys that are not of length 1 in each of its heads");
  }
  if (queries.epsilon !== keys.epsilon) {
    throw view.unsupported("reads queries and keys with other epsilons in their lengths");
  }
  const wanted = [undefined, valueHeads, keyDim, valueDim];
  const isDeclared = !past.shape ||
    (past.shape.length === 4 &&
      past.shape.every((dim, i) => (dim ?? wanted[i]) === wanted[i] || i === 0));
  if (!isDeclared) {
    throw view.damaged(
      `has ${valueHeads} states of ${keyDim} × ${valueDim} elements, and ${
        quote(view.node.input[3])
      } is declared as ${listed(past.shape!)}`,
    );
  }
  const [decays, strengths] = [4, 5].map((place) => {
    const { value } = flat(view, place);
    const width = steps.widthOf(value);
    if (width === valueHeads) return value;
    throw view.unsupported(
      `reads ${width} numbers a token where one for each of ${valueHeads} heads is understood`,
    );
  });
  const scale = view.float("scale", 0) || 1 / Math.sqrt(keyDim);
  if (!Number.isFinite(scale)) throw view.damaged(`has the scale ${scale}`);
  const output = steps.value(valueWidth);
  const whole = ({ value }: Activation): Part => ({ value, offset: 0 });
  steps.push({
    op: "delta",
    ...{ queries: whole(queries.of), keys: whole(keys.of), values: whole(values) },
    ...{ decays, strengths, output },
    layer: past.layer,
    ...{ keyHeads, valueHeads, keyDim, valueDim, scale },
    epsilon: queries.epsilon,
  });
  return [{ ...values, value: output }, present];
}

/** Queries or keys of length 1, those of heads one after the other. */
function units(view: NodeView, place: number): UnitVectors {
  const found = view.input(place, "unit vectors");
  if (found.isFlat) return found;
  throw view.unsupported(`reads vectors that are cut into heads as its input ${place}`);
}
