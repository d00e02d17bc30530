/**
 * Reading ahead: WebAssembly has no instruction that only fetches, and a load holds up what comes after it. Many loads
 * at once wait together, so that what is used later is read a good piece at a time where products would ask for a few
 * lines and then compute for long.
 */

/** Bytes that are read at once before they are used: a part of the second nearest cache. */
export const AHEAD: usize = 96 << 10;

/**
 * Reads a word of each line from `from` to `end`, in four places at once: what processors fetch ahead by themselves is
 * of each place for itself.
 *
 * @returns All of them together, to be written somewhere: else compilers would leave the loads out.
 */
export function touch(from: usize, end: usize): i32 {
  const part = (end - from) >> 8 << 6, second = from + part;
  let at = from, touched = 0;
  for (; at < second; at += 64) {
    const third = at + 2 * part;
    touched |= load<i32>(at) | load<i32>(at + part) | load<i32>(third) | load<i32>(third + part);
  }
  for (at += 3 * part; at < end; at += 64) touched |= load<i32>(at);
  return touched;
}

/**
 * Reads up to {@link AHEAD} bytes from `from` on, where they are used next.
 *
 * @param room Four bytes that are not in use.
 * @returns Behind what has been read.
 */
export function fetch(from: usize, end: usize, room: usize): usize {
  const behind = min(end, from + AHEAD);
  store<i32>(room, touch(from, behind));
  return behind;
}
