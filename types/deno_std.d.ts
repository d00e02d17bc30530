/** As much of denoland/std as this project uses: the npm package `deno-std` carries no types. */

declare module "deno-std/cli/parse_args.js" {
  export function parseArgs(words: string[], options?: {
    boolean?: string[];
    string?: string[];
    collect?: string[];
    alias?: Record<string, string>;
    unknown?: (word: string, key?: string, value?: unknown) => unknown;
  }): Record<string, unknown>;
}

declare module "deno-std/text/closest_string.js" {
  export function closestString(word: string, possible: readonly string[]): string;
}
