/**
 * Makes a binary for Linux on ARM64 and runs it on an emulated processor: without instructions for dot
 * products, as a Raspberry Pi 4 has it, and with them, as a Raspberry Pi 5. It must write what this
 * machine writes, drawn from the same seed.
 *
 *     bun test/consumers/arm64.ts
 *
 * Where there is no `qemu-aarch64`, none of the libraries that it needs, or no registry to fetch Bun from, it
 * is skipped, and says why. (Debian: `apt-get install qemu-user libc6-arm64-cross`.)
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fromRoot } from "../support/paths.ts";
import { makeModels, PROMPT } from "./models.ts";
import { Checks, has, lastLines, run, withFolder } from "./support.ts";

const PLATFORM = "bun-linux-arm64";
/** Where the libraries of that platform are: Debian's place for them. */
const LIBRARIES = process.env.QEMU_LD_PREFIX ?? "/usr/aarch64-linux-gnu";
const PROCESSORS = ["cortex-a72", "cortex-a76"];
const WORDS = ["--prompt", PROMPT, "--max-tokens", "32", "--seed", "7"];

async function checkArm64(checks: Checks, folder: string): Promise<void> {
  if (!await has("qemu-aarch64")) return checks.skip(PLATFORM, "no qemu-aarch64 on PATH");
  if (!existsSync(join(LIBRARIES, "lib/ld-linux-aarch64.so.1"))) {
    return checks.skip(PLATFORM, `no libraries for ARM64 in ${LIBRARIES}: set QEMU_LD_PREFIX`);
  }
  const [model] = await makeModels(folder, 1, ["int8-nm-8-16"]);
  const binary = join(folder, "my-model");
  const words = ["bundle", model.folder, "--target", "binary", "-o", binary];
  const made = await run(["bun", "mod.ts", ...words, "--platform", PLATFORM], fromRoot(""));
  if (made.code !== 0) return checks.missing(PLATFORM, lastLines(made.stderr));

  // Inputs in 8 and in 16 bits, and a cache in both forms: other kernels each.
  for (const options of [["--activations", "int8", "--kv", "int8"], ["--activations", "int16"]]) {
    const here = await run(
      ["bun", "mod.ts", "generate", model.folder, ...WORDS, ...options],
      fromRoot(""),
    );
    checks.that(`${options.join(" ")}: generates here`, here.stdout.trim().length > 20);
    for (const processor of PROCESSORS) {
      const emulated = ["qemu-aarch64", "-L", LIBRARIES, "-cpu", processor];
      const there = await run([...emulated, binary, "generate", ...WORDS, ...options], folder);
      const name = `${processor}, ${options.join(" ")}`;
      checks.same(`${name}: exit code`, there.code, 0);
      checks.same(`${name}: text`, there.stdout, here.stdout);
    }
  }
}

const checks = new Checks();
await withFolder((folder) => checks.part(PLATFORM, () => checkArm64(checks, folder)));
process.exitCode = checks.end();
