/**
 * What places between the parts of arrays and objects share.
 *
 * After a comma and after a colon there may be one space; there is no other white space, so that a
 * model cannot write it for ever.
 *
 * @module
 */
import type { Cell, Place, Steps } from "./place.ts";
import type { Value } from "./value.ts";

export const SPACE = 0x20;
export const COMMA = 0x2c;

/** A place at which a text does not end. */
export abstract class Between implements Place {
  readonly mayEnd = false;
  readonly weight: number = 1;
  abstract step(byte: number, below: Cell | undefined, steps: Steps): void;
}

/** The values that arrays and objects have in them. */
export interface Values {
  /** The place before a value, where one space may come first. */
  beforeValue(value: Value, mayHaveSpace?: boolean): Place;
  /** Takes the first byte of a value. */
  begin(value: Value, byte: number, below: Cell | undefined, steps: Steps): void;
}
