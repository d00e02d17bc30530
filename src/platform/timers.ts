/** Timers of all runtimes. @module */

/** The most milliseconds that a timer waits: with more, it does not wait at all. */
export const LONGEST_TIMER = 2 ** 31 - 1;
