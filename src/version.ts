/** The version of this package: the one in `package.json` and `deno.json`. */
export const VERSION = "0.1.0";
