/**
 * What a server does, whatever runs it: named checks that ask it by `fetch` alone. They run against the
 * app's own `fetch` and against a server that listens, in Bun, Deno and workerd.
 * @module
 */
import { chatChecks } from "./behaviour/chat.ts";
import { completionChecks } from "./behaviour/completions.ts";
import { errorChecks } from "./behaviour/errors.ts";
import { routeChecks } from "./behaviour/routes.ts";
import type { Check } from "./behaviour/support.ts";

export { type Check, type Known, type Server, TEMPLATE } from "./behaviour/support.ts";

/** All of them, in an order in which they can run. */
export const checks: readonly Check[] = [
  ...routeChecks,
  ...completionChecks,
  ...chatChecks,
  ...errorChecks,
];
