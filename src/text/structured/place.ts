/**
 * Where a text stands: the words in which the rules of values are written.
 *
 * A _place_ is a state within one value: in the middle of a number, after an array's comma. Places lie
 * on a stack of _cells_: the value that is being written, below it the array or object that it is a
 * part of, and so on. A text that could still be several things has several stacks.
 *
 * Whatever a place allows can be brought to an end: no stack ever waits for a byte that cannot come.
 * That is why rules may be made narrower anywhere (fewer stacks, shorter numbers, no control characters
 * in patterns) and what is written is still right.
 *
 * @module
 */

/** A state within a value. Two places that are the same object allow the same. */
export interface Place {
  /** Whether the value may end here. */
  readonly mayEnd: boolean;
  /** What a step costs, compared with others; for the limits on work. */
  readonly weight: number;
  /**
   * Takes a byte of the text.
   *
   * @param byte Of the UTF-8.
   * @param below The cell of what this value is a part of; undefined for the whole text.
   * @param steps Is told where the text may stand after it; nothing, if the byte is not allowed.
   */
  step(byte: number, below: Cell | undefined, steps: Steps): void;
}

/** A place, and what it lies on. Of equal ones there is only one in a {@linkcode Steps}. */
export interface Cell {
  readonly place: Place;
  readonly below: Cell | undefined;
}

/** Collects where a text may stand. */
export interface Steps {
  /** The cell of a place on another. */
  cell(place: Place, below: Cell | undefined): Cell;
  /** The text may stand here. */
  add(cell: Cell): void;
  /** The value on `below` has ended, and nothing can follow within it. */
  end(below: Cell | undefined): void;
}

/** A state of a value without parts: one byte leads to one other state. */
export abstract class ScalarPlace implements Place {
  abstract readonly mayEnd: boolean;
  readonly weight: number = 1;

  /** The state after a byte; `ENDED` where nothing can follow. */
  protected abstract after(byte: number): Place | typeof ENDED | undefined;

  step(byte: number, below: Cell | undefined, steps: Steps): void {
    const next = this.after(byte);
    if (next === ENDED) steps.end(below);
    else if (next) steps.add(steps.cell(next, below));
    // A number ends with the byte that follows it.
    if (this.mayEnd && below) below.place.step(byte, below.below, steps);
  }
}

/** The value has ended. */
export const ENDED = Symbol("ended");

/** The whole text has ended. */
export const END_PLACE: Place = { mayEnd: true, weight: 1, step: () => {} };
