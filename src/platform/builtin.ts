/** Modules of Node, for programs that also run where there are none. @module */

/** A module of Node where there is one that can be had at once: not in browsers, nor in the first versions of Node 20. */
export function builtinNow<T>(name: string): T | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?(name: string): unknown } };
  return process?.getBuiltinModule?.(name) as T | undefined;
}

/**
 * A module of Node, asked for where there is Node. Bundlers for browsers look for every module that an
 * `import("…")` names, and fail where there is none: this one names nothing to them.
 *
 * @param name Such as `node:worker_threads`.
 */
export async function builtinModule<T>(name: string): Promise<T> {
  return builtinNow<T>(name) ?? await import(/* webpackIgnore: true */ name) as T;
}
