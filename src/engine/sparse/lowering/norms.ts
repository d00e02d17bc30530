/**
 * Norms: LayerNormalization, and the six nodes of an RMS norm.
 * @module
 */
import type { Activation, Meaning, Moment, Normed, Stored } from "./meaning.ts";
import { listed, type NodeView } from "./node_view.ts";
import type { StepList } from "./step_list.ts";
import { vectorName } from "./weights.ts";

/** `Pow(x, 2)`. */
export function square(view: NodeView): Meaning {
  const of = view.input(0, "activation");
  const exponent = view.number(1, "floats");
  if (exponent !== 2) throw view.unsupported(`has the exponent ${exponent}; 2 is understood`);
  return { kind: "part of a norm", of, stage: "square", isSum: false, epsilon: 0 };
}

/** The mean of the squares, over the last axis. */
export function mean(view: NodeView): Meaning {
  return overLast(view, "mean");
}

function overLast(view: NodeView, what: "mean" | "sum"): Moment {
  const moment = part(view, 0, "square");
  view.expectInteger("keepdims", 1);
  const axes = view.axes();
  const last = moment.of.heads === undefined ? 2 : 3;
  if (axes.length !== 1 || (axes[0] !== -1 && axes[0] !== last)) {
    throw view.unsupported(
      `takes the ${what} over the axes ${listed(axes)}; the last one is understood`,
    );
  }
  return { ...moment, stage: "mean" };
}

/** The sum of the squares, over the last axis. */
export function sumOfSquares(view: NodeView): Meaning {
  return { ...overLast(view, "sum"), isSum: true };
}

/** The mean + ε, or the sum. */
export function addEpsilon(view: NodeView, moment: Moment, place: number): Meaning {
  const epsilon = view.number(place, "floats");
  if (moment.stage !== "mean") throw view.unsupported(`adds ${epsilon} to a ${moment.stage}`);
  return { ...moment, stage: "shifted", epsilon: checkedEpsilon(view, epsilon) };
}

/** `Sqrt` of that. */
export function root(view: NodeView): Meaning {
  return { ...part(view, 0, "shifted"), stage: "root" };
}

/** x over that. */
export function divide(view: NodeView): Meaning {
  const x = view.input(0, "activation");
  const { of, epsilon, isSum } = part(view, 1, "root");
  if (x.value !== of.value || x.heads !== of.heads || x.lastOnly !== of.lastOnly) {
    throw view.unsupported("divides by the root of another value's mean square");
  }
  return isSum
    ? { kind: "unit vectors", of, epsilon, isFlat: false }
    : { kind: "norm without weight", of, epsilon };
}

/** That · weight: the norm is complete. */
export function weighNorm(
  view: NodeView,
  steps: StepList,
  { of, epsilon }: Normed,
  stored: Stored,
  above?: number,
): Activation {
  const width = steps.widthOf(of.value);
  const groups = of.heads ?? 1;
  const weight = vectorName(view, stored, width / groups);
  const output = steps.value(width);
  steps.push({ op: "rmsNorm", input: of.value, output, groups, epsilon, weight, above });
  return { ...of, value: output };
}

/** `LayerNormalization` over the last axis, of heads each on its own. */
export function layerNorm(view: NodeView, steps: StepList): Meaning {
  const x = view.input(0, "activation");
  view.expectInteger("axis", -1, x.heads === undefined ? 2 : 3);
  view.expectInteger("stash_type", 1);
  const epsilon = checkedEpsilon(view, view.float("epsilon", Math.fround(1e-5)));
  const width = steps.widthOf(x.value);
  const groups = x.heads ?? 1, length = width / groups;
  const second = view.meaning(1);
  const { stored, above } = second.kind === "tensor plus a number"
    ? second
    : { stored: view.input(1, "tensor"), above: undefined };
  const weight = vectorName(view, stored, length);
  const bias = view.has(2) ? vectorName(view, view.input(2, "tensor"), length) : undefined;
  const output = steps.value(width);
  steps.push({ op: "layerNorm", input: x.value, output, groups, epsilon, weight, bias, above });
  return { ...x, value: output };
}

function part(view: NodeView, place: number, stage: Moment["stage"]): Moment {
  const moment = view.input(place, "part of a norm");
  if (moment.stage === stage) return moment;
  throw view.unsupported(`reads the ${moment.stage} of a norm where its ${stage} is understood`);
}

function checkedEpsilon(view: NodeView, epsilon: number): number {
  if (epsilon >= 0 && epsilon < Infinity) return epsilon;
  throw view.damaged(`has the epsilon ${epsilon}`);
}
