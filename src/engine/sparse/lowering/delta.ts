/**
 * Layers that remember: linear attention by the gated delta rule, and state spaces.
 * @module
 */
import { quote } from "../../../checks.ts";
import type { Part } from "../ir.ts";
import { cacheOf } from "./attention.ts";
import type {
  Activation,
  Cache,
  Exponentials,
  Meaning,
  OfHeads,
  Stored,
  UnitVectors,
} from "./meaning.ts";
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

/** `Reshape(vector, [heads, 1])`. */
export function turnToHeads(view: NodeView, stored: Stored): OfHeads {
  view.expectInteger("allowzero", 0);
  const shape = view.numbers(1, "integers"), { dims } = stored.tensor;
  const count = dims.length === 1 ? Number(dims[0]) : 0;
  if (shape.length === 2 && (shape[0] === count || shape[0] === -1) && shape[1] === 1) {
    return { kind: "tensor of heads", stored };
  }
  throw view.unsupported(
    `makes the shape ${listed(shape)} of ${
      quote(stored.tensor.name)
    }; one number a head is understood`,
  );
}

/** Each head of x times its own number. */
export function weighEachHead(
  view: NodeView,
  steps: StepList,
  x: Activation,
  { stored }: OfHeads,
): Activation {
  const width = steps.widthOf(x.value);
  if (x.heads === undefined) {
    throw view.unsupported("multiplies by a number a head what has no heads");
  }
  const weight = vectorName(view, stored, x.heads);
  const output = steps.value(width);
  steps.push({ op: "weigh", input: x.value, output, weight, each: width / x.heads });
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

/** Which recurrences are understood. */
const RULES = ["gated", "gated_delta"] as const;

/** `LinearAttention(queries, keys, values, state, decays, strengths)`; the last by the gated delta rule alone. */
export function remember(view: NodeView, steps: StepList): Meaning[] {
  const rule = RULES.find((rule) => rule === view.text("update_rule", "gated_delta"));
  if (!rule) {
    const found = quote(view.text("update_rule", ""));
    throw view.unsupported(`has the update_rule ${found}; ${RULES.join(" and ")} are understood`);
  }
  const { past, present } = statesOf(view, steps);
  const asked = rule === "gated" ? wholeVectors(view) : unitVectors(view);
  const values = flat(view, 2);
  const { keyHeads, valueHeads, keyDim, valueDim } = headsOf(view, steps, asked, values);
  checkHeadsOf(view, asked, keyHeads);
  checkShapeOfStates(view, past, [valueHeads, keyDim, valueDim]);
  const ofHeads = (place: number) => {
    const { value } = flat(view, place);
    const width = steps.widthOf(value);
    if (width === valueHeads) return value;
    throw view.unsupported(
      `reads ${width} numbers a token where one for each of ${valueHeads} heads is understood`,
    );
  };
  const scale = view.float("scale", 0) || 1 / Math.sqrt(keyDim);
  if (!Number.isFinite(scale)) throw view.damaged(`has the scale ${scale}`);
  const output = steps.value(steps.widthOf(values.value));
  const whole = ({ value }: Activation): Part => ({ value, offset: 0 });
  steps.push({
    op: "delta",
    queries: whole(asked.queries),
    keys: whole(asked.keys),
    values: whole(values),
    decays: ofHeads(4),
    ...(rule === "gated" ? {} : { strengths: ofHeads(5), epsilon: asked.epsilon }),
    ...{ output, layer: past.layer, keyHeads, valueHeads, keyDim, valueDim, scale },
  });
  return [{ ...values, value: output }, present];
}

/** The states that a node reads, and those that it gives. */
function statesOf(view: NodeView, steps: StepList): { past: Cache; present: Cache } {
  const past = view.input(3, "cache");
  if (past.time !== "past" || past.part !== "state") {
    throw view.unsupported(
      `reads ${quote(view.node.input[3])} where past_recurrent.N or past_ssm.N is understood`,
    );
  }
  if (!steps.claim(`state ${past.layer}`)) {
    throw view.unsupported(`reads ${quote(view.node.input[3])}, which another node has read`);
  }
  const name = view.node.output[1] ?? "", present = cacheOf(name);
  const isSame = present?.time === "present" && present.part === "state" &&
    present.layer === past.layer && present.family === past.family;
  if (isSame) return { past, present };
  throw view.unsupported(
    `gives ${quote(name)} where present_${past.family}.${past.layer} is understood`,
  );
}

/** Queries and keys of a recurrence. */
interface Asked {
  readonly queries: Activation;
  readonly keys: Activation;
  /** Where they are divided by their lengths. */
  readonly epsilon?: number;
}

function wholeVectors(view: NodeView): Asked {
  const [queries, keys] = [0, 1].map((place) => flat(view, place));
  return { queries, keys };
}

function unitVectors(view: NodeView): Asked {
  const [queries, keys] = [0, 1].map((place) => units(view, place));
  if (queries.epsilon !== keys.epsilon) {
    throw view.unsupported("reads queries and keys with other epsilons in their lengths");
  }
  return { queries: queries.of, keys: keys.of, epsilon: queries.epsilon };
}

/** Heads, and elements of each. */
function headsOf(view: NodeView, steps: StepList, { queries, keys }: Asked, values: Activation) {
  const keyHeads = view.integer("q_num_heads"), valueHeads = view.integer("kv_num_heads");
  const [keyWidth, otherWidth, valueWidth] = [queries, keys, values].map(({ value }) =>
    steps.widthOf(value)
  );
  const keyDim = keyWidth / keyHeads, valueDim = valueWidth / valueHeads;
  const areWhole = [keyDim, valueDim, valueHeads / keyHeads].every((n) =>
    Number.isInteger(n) && n >= 1
  );
  if (areWhole && otherWidth === keyWidth) return { keyHeads, valueHeads, keyDim, valueDim };
  throw view.damaged(
    `divides ${keyWidth} and ${otherWidth} elements among ${keyHeads} heads, and ${valueWidth} among ${valueHeads}`,
  );
}

/** What is of length 1 is so in each head. */
function checkHeadsOf(view: NodeView, { queries, keys, epsilon }: Asked, keyHeads: number): void {
  if (epsilon === undefined || (queries.heads === keyHeads && keys.heads === keyHeads)) return;
  throw view.unsupported("reads queries or keys that are not of length 1 in each of its heads");
}

/** The shape that the graph declares, where it does. */
function checkShapeOfStates(view: NodeView, { shape }: Cache, dims: readonly number[]): void {
  if (!shape) return;
  const isSame = shape.length === 4 && dims.every((dim, i) => (shape[i + 1] ?? dim) === dim);
  if (isSame) return;
  throw view.damaged(
    `has states of the shape ${listed(dims)}, and ${quote(view.node.input[3])} is declared as ${
      listed(shape)
    }`,
  );
}

/** Queries or keys of length 1, those of heads one after the other. */
function units(view: NodeView, place: number): UnitVectors {
  const found = view.input(place, "unit vectors");
  if (found.isFlat) return found;
  throw view.unsupported(`reads vectors that are cut into heads as its input ${place}`);
}
