/** Whether this program is a part of a web page. @module */

/** Whether this is a web page, or a worker of one: programs elsewhere have no address, as a rule. */
export function isInPage(): boolean {
  return (globalThis as { location?: object }).location !== undefined;
}
