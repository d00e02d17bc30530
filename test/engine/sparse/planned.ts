/**
 * The programs that are planned while something is done: their steps, one after the other.
 * @module
 */
import { filesSource, type ModelSource } from "../../../src/engine/source.ts";
import { OP } from "../../../src/engine/sparse/layout.ts";
import { Program } from "../../../src/engine/sparse/plan/encode.ts";
import type { Files } from "./support.ts";

const NAMES = new Map(Object.entries(OP).map(([name, number]) => [number as number, name]));

/** A step's operation, and what follows its two first words. */
export interface ProgramStep {
  readonly op: number;
  readonly words: Int32Array;
}

export function nameOf({ op }: ProgramStep): string {
  return NAMES.get(op)!;
}

/** The steps of the program that is planned meanwhile. */
export async function stepsPlannedBy(planning: () => Promise<unknown>): Promise<ProgramStep[]> {
  const { finish } = Program.prototype;
  const steps: ProgramStep[] = [];
  Program.prototype.finish = function (this: Program) {
    const words = finish.call(this);
    for (let at = 0; words[at] !== OP.END; at += words[at + 1]) {
      steps.push({ op: words[at], words: words.slice(at + 2, at + words[at + 1]) });
    }
    return words;
  };
  try {
    await planning();
  } finally {
    Program.prototype.finish = finish;
  }
  return steps;
}

/** A compiled model whose files lie in memory. */
export function sourceOf({ graph, data }: Files): ModelSource {
  return filesSource({ "onnx/model.onnx": graph, "onnx/model.onnx_data": data });
}
