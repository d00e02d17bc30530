/**
 * Who takes a Ctrl-C: the program, which stops, or a command that has a use for it.
 * @module
 */

/** Takes a Ctrl-C; false leaves it to the program. */
export type InterruptTaker = () => boolean;

let taker: InterruptTaker | undefined;

/**
 * Takes every Ctrl-C from now on.
 *
 * @returns Gives them back.
 */
export function takeInterrupts(take: InterruptTaker): () => void {
  const former = taker;
  taker = take;
  return () => taker = former;
}

/** Offers a Ctrl-C; whether somebody took it. */
export function offerInterrupt(): boolean {
  return taker?.() ?? false;
}
