/**
 * Which tests run in one of two runtimes: some files, and every second of many like cases in others.
 *
 * @module
 */

/**
 * Test files that take minutes, of what no runtime has a part in: numbers in, numbers out, and native ONNX
 * Runtime between them. Where Bun and Deno both run, each file runs in one of them, so that they end at about
 * the same time. The commands that do the same have tests of their own, which run in both, as do the tests
 * against the released code.
 */
const IN_ONE: Readonly<Record<"bun" | "deno", readonly string[]>> = {
  bun: [
    "test/api/prune_slots.test.ts",
    "test/calibrate/distill.test.ts",
    "test/compile/predict.test.ts",
    "test/engine/sparse/build.test.ts",
    "test/workflow/compare/compare.test.ts",
  ],
  deno: [
    "test/api/prune_distill.test.ts",
    "test/api/prune_methods.test.ts",
    "test/calibrate/reconstruct.test.ts",
    "test/engine/gradient.test.ts",
    "test/search/masked_slice.test.ts",
    "test/search/search.test.ts",
    "test/text/structured_random.test.ts",
    "test/workflow/fit.test.ts",
  ],
};

/** All files that run in one runtime where two run. */
export const ONCE: readonly string[] = Object.values(IN_ONE).flat();

/** What Bun or Deno runs of some test files where the other runs, too. */
export function shareOf(runtime: "bun" | "deno", files: readonly string[]): string[] {
  return files.filter((file) => !ONCE.includes(file) || IN_ONE[runtime].includes(file));
}

/** The turn of Bun or Deno where both take turns: what tests find in `ESPALIER_TEST_TURN`; see `test/support/turns.ts`. */
export function turnOf(runtime: "bun" | "deno"): string {
  return runtime === "bun" ? "0/2" : "1/2";
}
