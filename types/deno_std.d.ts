/**
 * As much of denoland/std as this project uses. Its packages are on JSR; on npm all of them are one package, `deno-std`,
 * which carries no types and is installed as `@std/cli`.
 */

declare module "@std/cli/cli/parse_args.js" {
  export function parseArgs(words: string[], options?: {
    boolean?: string[];
    string?: string[];
    collect?: string[];
    alias?: Record<string, string>;
    unknown?: (word: string, key?: string, value?: unknown) => unknown;
  }): Record<string, unknown>;
}

declare module "@std/cli/text/closest_string.js" {
  export function closestString(word: string, possible: readonly string[]): string;
}
