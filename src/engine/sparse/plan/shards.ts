/**
 * Where a program is cut into shards, each of which fits into one memory of WebAssembly.
 *
 * A shard is given the values that those before it have made and it, or one behind it, reads: they are copied from
 * one memory to the next. So programs are cut where that is little, between layers, and shards are as large as each
 * other, for what is left of each memory is for its part of the cache.
 * @module
 */
import type { Value } from "../ir.ts";
import { type FusedDecoder, type FusedStep, readBy } from "./fuse.ts";

/** Most shards of a model: each has threads of its own. */
const MOST_SHARDS = 16;
/** What the size that shards may have grows by until there are no more of them than there must be. */
const STEP = 1.01;

/**
 * Cuts a program.
 *
 * @param bytesOf What a step takes of its memory.
 * @param most Bytes of a shard, as far as there are places to cut, and shards are not too many.
 * @returns The program itself where it fits.
 */
export function cutIntoShards(
  decoder: FusedDecoder,
  bytesOf: (step: FusedStep) => number,
  most: number,
): FusedDecoder[] {
  const all = decoder.steps.reduce((sum, step) => sum + bytesOf(step), 0);
  const count = Math.min(MOST_SHARDS, Math.ceil(all / most));
  if (count < 2) return [decoder];
  const pieces = piecesOf(decoder, bytesOf);
  let size = all / count;
  let ends = fill(pieces, size);
  while (ends.length > count) ends = fill(pieces, size *= STEP);
  const firsts = [0, ...ends.slice(0, -1)];
  return ends.map((end, i) => {
    const first = firsts[i];
    return {
      ...decoder,
      steps: decoder.steps.slice(first, end),
      given: passedAt(decoder, first),
      results: end === decoder.steps.length ? decoder.results : passedAt(decoder, end),
    };
  });
}

/** Steps that stay together. */
interface Piece {
  /** The step behind them. */
  readonly end: number;
  readonly bytes: number;
}

/** Ends of shards of so many bytes at most; a piece that is larger is one for itself. */
function fill(pieces: readonly Piece[], most: number): number[] {
  const ends: number[] = [];
  let bytes = 0;
  for (const [i, piece] of pieces.entries()) {
    if (i > 0 && bytes + piece.bytes > most) {
      ends.push(pieces[i - 1].end);
      bytes = 0;
    }
    bytes += piece.bytes;
  }
  ends.push(pieces.at(-1)!.end);
  return ends;
}

function piecesOf(decoder: FusedDecoder, bytesOf: (step: FusedStep) => number): Piece[] {
  const { steps } = decoder;
  let first = 0;
  return [...placesToCut(decoder), steps.length].map((end) => {
    const bytes = steps.slice(first, end).reduce((sum, step) => sum + bytesOf(step), 0);
    first = end;
    return { end, bytes };
  });
}

/** Steps before which a program may be cut, where less is passed on than at the steps beside. */
function placesToCut(decoder: FusedDecoder): number[] {
  const { steps, widths } = decoder;
  const selected = steps.findIndex(({ op }) => op === "select");
  const makers = new Map<Value, FusedStep>();
  for (const step of steps) if (step.op !== "select") makers.set(step.output, step);
  // With one token each thread has a norm of its own.
  const isOfOne = (value: Value) => {
    const op = makers.get(value)?.op;
    return op === "rmsNorm" || op === "layerNorm";
  };
  const costs = steps.map((_, at) => {
    // Behind a selection there are fewer tokens, which the next shard would not know.
    if (at === 0 || (selected >= 0 && at > selected) || dividesCache(steps, at)) return Infinity;
    const passed = passedAt(decoder, at);
    return passed.some(isOfOne) ? Infinity : passed.reduce((sum, value) => sum + widths[value], 0);
  });
  return costs.flatMap((cost, at) => {
    const isLeast = cost <= costs[at - 1] && cost <= (costs[at + 1] ?? Infinity);
    return isLeast && cost < Infinity ? [at] : [];
  });
}

/** Whether attention behind a step reads the cache of a layer before it: each memory has its own layers'. */
function dividesCache(steps: readonly FusedStep[], at: number): boolean {
  const layersOf = (some: readonly FusedStep[], keeps: boolean) =>
    some.flatMap((step) =>
      step.op === "attention" && (step.keys !== undefined) === keeps ? [step.layer] : []
    );
  const read = new Set(layersOf(steps.slice(at), false));
  return layersOf(steps.slice(0, at), true).some((layer) => read.has(layer));
}

/** Values that are made before a step, and read by it, or behind it, in ascending order. */
function passedAt({ steps, results }: FusedDecoder, at: number): Value[] {
  const made = new Set(
    steps.slice(0, at).flatMap((step) => step.op === "select" ? [] : [step.output]),
  );
  const read = new Set([...steps.slice(at).flatMap(readBy), ...results]);
  return [...read].filter((value) => made.has(value)).sort((a, b) => a - b);
}
