/**
 * What the tests of single kernels share: the vectors that they are given, machines to run them on, and
 * what they must give.
 * @module
 */
import type { Activation } from "../../../src/engine/sparse/plan/fuse.ts";
import type { Dice } from "../../support/fuzz.ts";
import { ACTIVATIONS } from "../../support/naive_decoder.ts";
import { everyMachine, expectSameBits, type Machine } from "./machine.ts";

/** Every build of the kernels, on one thread and on several. */
export class Machines {
  #all: Machine[] = [];

  async start(): Promise<void> {
    this.#all = await everyMachine();
  }

  stop(): void {
    for (const machine of this.#all) machine.stop();
  }

  get all(): readonly Machine[] {
    return this.#all;
  }

  /** Runs a program that a test makes on every machine; all must give the same bits. */
  everywhere(make: (machine: Machine) => Float32Array[]): Float32Array[] {
    const found = this.#all.map((machine) => {
      machine.reset();
      return make(machine);
    });
    found.forEach((vectors, i) => expectSameBits(vectors, found[0], this.#all[i].name));
    return found[0];
  }
}

/** Half a unit in the last place of a float32, relatively. */
export const HALF_ULP = 2 ** -24;

/** Normally distributed, nearly. */
export function normal(dice: Dice): number {
  return (dice.next() + dice.next() + dice.next() + dice.next() - 2) * Math.sqrt(3);
}

/** Vectors that kernels meet, or might: by kind. */
export const INPUTS: readonly ((dice: Dice, width: number) => number[])[] = [
  (dice, width) => Array.from({ length: width }, () => normal(dice)),
  // One that is far larger than the others.
  (dice, width) => {
    const vector = Array.from({ length: width }, () => normal(dice));
    vector[dice.below(width)] = 1e4;
    return vector;
  },
  (_, width) => new Array(width).fill(-0.7),
  (_, width) => new Array(width).fill(0),
  // Numbers below the normal ones.
  (dice, width) => Array.from({ length: width }, () => dice.pick([-1, 0, 1]) * 2 ** -140),
  (dice, width) => Array.from({ length: width }, () => normal(dice) * 1e-36),
  (dice, width) => Array.from({ length: width }, () => normal(dice) * 1e25),
  (dice, width) => Array.from({ length: width }, () => dice.pick([-1, 1])),
];

export function inputs(dice: Dice, count: number, width: number, firstKind: number): number[][] {
  return Array.from({ length: count }, (_, t) => {
    const vector = INPUTS[(firstKind + t) % INPUTS.length](dice, width);
    return vector.map((value) => Math.fround(value));
  });
}

/** Fails where a number is further than `bound` from what it should be. */
export function expectNear(found: number, wanted: number, bound: number, what: string): void {
  if (Math.abs(found - wanted) <= bound || found === wanted) return;
  throw new Error(`${what}: ${found}, not ${wanted} ± ${bound}`);
}

/** Activations in float64. */
export const ACTIVATE: Readonly<Record<Activation, (x: number) => number>> = {
  ...ACTIVATIONS,
  none: (x) => x,
};
