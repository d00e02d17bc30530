/** As much of denoland/std as this project uses: the npm package `deno-std` carries no types. */

declare module "@std/cli/parse-args" {
  export function parseArgs(words: string[], options?: {
    boolean?: string[];
    string?: string[];
    collect?: string[];
    alias?: Record<string, string>;
    unknown?: (word: string, key?: string, value?: unknown) => unknown;
  }): Record<string, unknown>;
}

declare module "@std/text/closest-string" {
  export function closestString(word: string, possible: readonly string[]): string;
}
