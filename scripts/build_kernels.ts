/**
 * Compiles the kernels of the sparse engine from AssemblyScript.
 *
 *     bun scripts/build_kernels.ts [FOLDER]
 *
 * writes a `.wasm` for each build, to `src/engine/sparse/wasm` unless told otherwise. The files are part
 * of the repository, so that users need no compiler; a test builds them anew and compares.
 */
import asc from "assemblyscript/asc";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const SOURCES = join(ROOT, "src/engine/sparse/assembly");

/** Builds by name: what `variant.ts` says, and which instructions there are. */
const BUILDS = [
  { name: "simd", fused: false, features: ["simd", "threads"] },
  { name: "relaxed", fused: false, features: ["simd", "relaxed-simd", "threads"] },
  { name: "relaxed-fused", fused: true, features: ["simd", "relaxed-simd", "threads"] },
];

/**
 * Compiles all builds.
 *
 * @returns Their bytes by name.
 */
export async function buildKernels(): Promise<Map<string, Uint8Array>> {
  const built = new Map<string, Uint8Array>();
  for (const { name, fused, features } of BUILDS) {
    let bytes: Uint8Array | undefined;
    const { error, stderr } = await asc.main([
      "index.ts",
      "--outFile",
      "kernels.wasm",
      "--baseDir",
      SOURCES,
      "-O3",
      ...features.flatMap((feature) => ["--enable", feature]),
      "--importMemory",
      "--sharedMemory",
      "--initialMemory",
      "1",
      "--maximumMemory",
      "65536",
      "--noAssert",
      "--runtime",
      "stub",
      // Vectors are exchanged between our own modules only.
      "--disableWarning",
      "112",
    ], {
      readFile: async (file: string, base: string) => {
        if (file === "variant.ts") return `export const FUSED_DOT: bool = ${fused};\n`;
        try {
          return await readFile(join(base, file), "utf8");
        } catch {
          return null;
        }
      },
      writeFile: (_: string, contents: string | Uint8Array) => {
        if (typeof contents !== "string") bytes = contents;
      },
    });
    if (error || !bytes) throw new Error(`${name}: ${stderr.toString() || error}`);
    built.set(name, bytes);
  }
  return built;
}

if (import.meta.main) {
  const folder = process.argv[2] ?? join(ROOT, "src/engine/sparse/wasm");
  await mkdir(folder, { recursive: true });
  for (const [name, bytes] of await buildKernels()) {
    await writeFile(join(folder, `${name}.wasm`), bytes);
    console.log(`${name}.wasm: ${bytes.length} bytes`);
  }
}
