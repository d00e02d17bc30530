/**
 * Attention: the cache's inputs and outputs, lengths from the mask.
 * @module
 */
import { TensorProto_DataType as DataType } from "../../../onnx/generated/onnx_pb.ts";
import { quote } from "../../../checks.ts";
import type { Activation, Cache, Lengths, Meaning } from "./meaning.ts";
import { listed, type NodeView } from "./node_view.ts";
import type { StepList } from "./step_list.ts";
import { flat, vectorName } from "./weights.ts";

const CACHE_NAME =
  /^(?:(past_key_values|present)\.(0|[1-9]\d{0,3})\.(key|value)|(past|present)_(conv|recurrent|ssm)\.(0|[1-9]\d{0,3}))$/;

/** The input of GroupQueryAttention that has the heads' sinks. */
const SINKS = 11;

/** What the name of an input or output says of the cache; nothing where it is none of it. */
export function cacheOf(name: string): Cache | undefined {
  const match = CACHE_NAME.exec(name);
  if (!match) return undefined;
  const [, time = match[4], layer = match[6]] = match;
  const part = match[3] ?? (match[5] === "conv" ? "inputs" : "state");
  return {
    kind: "cache",
    time: time === "present" ? "present" : "past",
    layer: Number(layer),
    part: part as Cache["part"],
    ...(part === "state" ? { family: match[5] } : {}),
  };
}

/** `ReduceSum(mask)` over the sequence: how many tokens there are. */
export function countTokens(view: NodeView): Meaning {
  const mask = lengths(view, 0, "mask");
  view.expectInteger("keepdims", 0);
  const axes = view.axes();
  if (axes.length !== 1 || (axes[0] !== 1 && axes[0] !== -1)) {
    throw view.unsupported(`sums over the axes ${listed(axes)}; the sequence is understood`);
  }
  return { ...mask, of: "count" };
}

/** A count less one. */
export function lessOne(view: NodeView, count: Lengths, difference: number): Meaning {
  if (count.of === "count" && difference === 1) return { ...count, of: "last" };
  throw view.unsupported(`takes ${difference} from the ${count.of} of the mask`);
}

/** `Shape(mask)`. */
export function shapeOfMask(view: NodeView): Meaning {
  lengths(view, 0, "mask");
  return { kind: "lengths", of: "shape", type: "int64" };
}

/** `Gather(shape, 1)`: tokens with those of the cache. */
export function totalLength(view: NodeView): Meaning {
  const shape = lengths(view, 0, "shape");
  view.expectInteger("axis", 0);
  const index = view.number(1, "integers");
  if (index !== 1 && index !== -1) {
    throw view.unsupported(`takes dimension ${index} of the mask; its length is understood`);
  }
  return { ...shape, of: "total" };
}

/** `Cast(lengths)`. */
export function castLengths(view: NodeView, lengths: Lengths, to: number): Meaning {
  if (to === DataType.INT32) return { ...lengths, type: "int32" };
  if (to === DataType.INT64) return { ...lengths, type: "int64" };
  throw view.unsupported(`casts a length to ${DataType[to] ?? to}`);
}

function lengths(view: NodeView, place: number, of: Lengths["of"], type?: "int32"): Lengths {
  const found = view.input(place, "lengths");
  if (found.of === of && (type ?? found.type) === found.type) return found;
  throw view.unsupported(
    `reads the ${found.of} of the mask as ${found.type} as its input ${place}, where its ${of}${
      type ? ` as ${type}` : ""
    } is understood`,
  );
}

/**
 * `GroupQueryAttention`: its output, and its layer's keys and values, where those are not another's: layers that attend
 * to the same cache are given the same keys and values for it, and what all but the first put there is not read.
 */
export function attend(view: NodeView, steps: StepList): Meaning[] {
  const [queries, keys, values] = [0, 1, 2].map((place) => flat(view, place));
  if ([queries, keys, values].some(({ lastOnly }) => lastOnly)) {
    throw view.unsupported("sees the last token alone");
  }
  const { layer } = pastOf(view, 3, "key");
  if (pastOf(view, 4, "value").layer !== layer) {
    throw view.unsupported("reads keys and values of two layers");
  }
  lengths(view, 5, "last", "int32");
  lengths(view, 6, "total", "int32");
  const before = steps.attentionOf(layer);
  const present = before ? [] : (["key", "value"] as const).map((part, i) => {
    const name = view.node.output[i + 1] ?? "";
    const cache = cacheOf(name);
    if (cache?.time === "present" && cache.part === part && cache.layer === layer) return cache;
    throw view.unsupported(`gives ${quote(name)} where present.${layer}.${part} is understood`);
  });
  for (const name of ["do_rotary", "rotary_interleaved"]) view.expectInteger(name, 0);
  view.expectInteger("smooth_softmax", 0, -1);
  const cap = view.float("softcap", 0);
  if (cap < 0 || (cap > 0 && !Number.isFinite(Math.fround(1 / cap)))) {
    throw view.damaged(`has the softcap ${cap}`);
  }

  const heads = view.integer("num_heads");
  const keyValueHeads = view.integer("kv_num_heads");
  const widths = [queries, keys, values].map(({ value }) => steps.widthOf(value));
  const headDim = widths[0] / heads;
  const fits = heads >= 1 && keyValueHeads >= 1 && Number.isInteger(headDim) &&
    heads % keyValueHeads === 0 && widths[1] === keyValueHeads * headDim && widths[2] === widths[1];
  if (!fits) {
    throw view.damaged(
      `attends with ${heads} heads of queries and ${keyValueHeads} of keys and values ` +
        `in ${widths.join(", ")} elements`,
    );
  }
  for (const place of [3, 4]) checkCacheShape(view, place, keyValueHeads, headDim);
  const isOthers = before?.keys === keys.value && before.values === values.value &&
    before.keyValueHeads === keyValueHeads && before.headDim === headDim;
  if (before && !isOthers) {
    throw view.unsupported(
      `attends to the cache of layer ${layer} with other keys or values than those that an earlier node puts there`,
    );
  }
  const window = view.integer("local_window_size", -1);
  if (window !== -1 && window < 1) throw view.damaged(`has a window of ${window} tokens`);
  const output = steps.value(widths[0]);
  steps.push({
    op: "attention",
    queries: queries.value,
    keys: before ? undefined : keys.value,
    values: before ? undefined : values.value,
    output,
    layer,
    heads,
    keyValueHeads,
    headDim,
    // 0 is the default of the operator, not a scale.
    scale: view.float("scale", 0) || 1 / Math.sqrt(headDim),
    cap: cap || undefined,
    window: window === -1 ? undefined : window,
    sinks: view.has(SINKS) ? vectorName(view, view.input(SINKS, "tensor"), heads) : undefined,
  });
  const attended: Activation = { kind: "activation", value: output, lastOnly: false };
  return [attended, ...present];
}

function pastOf(view: NodeView, place: number, part: Cache["part"]): Cache {
  const cache = view.input(place, "cache");
  if (cache.time === "past" && cache.part === part) return cache;
  throw view.unsupported(
    `reads ${quote(view.node.input[place])} where past ${part}s are understood`,
  );
}

/** The heads that the graph declares for a cache, where it does. */
function checkCacheShape(view: NodeView, place: number, heads: number, headDim: number): void {
  const { shape } = view.input(place, "cache");
  const wanted = [undefined, heads, undefined, headDim];
  const fits = !shape || shape.length === 4 &&
      shape.every((dim, i) => dim === undefined || (wanted[i] ?? dim) === dim);
  if (fits) return;
  throw view.damaged(
    `has ${heads} heads of ${headDim} elements, and the graph declares ` +
      `${quote(view.node.input[place])} as ${listed(shape)}`,
  );
}
