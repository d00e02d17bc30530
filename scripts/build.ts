/**
 * Builds `dist/prune.js`, the pruning core, `dist/run.js`, what runs compiled models, and
 * `dist/server.js`, what serves them, each as one module of plain JavaScript, for runtimes that cannot
 * import TypeScript from a package (Node, browsers, edge functions). `dist/edge.js` is what `bundle` puts
 * into edge functions. `dist/wasm` has the kernels, each for a memory that threads share and for one that
 * they do not: some edge runtimes compile no bytes, and want them imported as modules.
 *
 * Run it with `bun scripts/build.ts`.
 *
 * @module
 */

import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { BUILDS } from "../src/engine/sparse/kernels.ts";
import { unshared } from "../src/engine/sparse/module_bytes.ts";

/** A plugin of Bun's bundler, as far as this project uses them. */
export interface BundlerPlugin {
  name: string;
  setup(build: {
    onResolve(
      options: { filter: RegExp },
      callback: (args: { path: string; importer: string }) => { path: string } | undefined,
    ): void;
    onLoad(
      options: { filter: RegExp },
      callback: (args: { path: string }) => Promise<{ contents: string; loader: "ts" | "js" }>,
    ): void;
  }): void;
}

/** Options of {@linkcode bundle}; they mean what they mean to `Bun.build`. */
export interface BundleOptions {
  entrypoints: string[];
  outdir: string;
  naming: string;
  target: "browser" | "node";
  minify?: boolean;
  plugins?: BundlerPlugin[];
}

/**
 * Bundles TypeScript into one ES module with `Bun.build`.
 *
 * Declared through `globalThis` since Deno, which type-checks this folder too, knows no `Bun`.
 *
 * @param options What to bundle and where to.
 * @throws {AggregateError} If a module cannot be found or parsed.
 */
export async function bundle(options: BundleOptions): Promise<void> {
  const { Bun } = globalThis as unknown as {
    Bun?: { build(options: BundleOptions & { format: "esm" }): Promise<unknown> };
  };
  if (Bun === undefined) throw new Error("this script bundles with Bun: run it with `bun`");
  await Bun.build({ ...options, format: "esm" });
}

/**
 * Keeps the core pure. For the target "browser" Bun would replace a `node:` module by a polyfill
 * without a word, and the file would run here and fail elsewhere.
 */
const noPackages: BundlerPlugin = {
  name: "no-packages",
  setup(build) {
    build.onResolve({ filter: /^[^./]/ }, ({ path, importer }) => {
      throw new Error(`${importer} imports "${path}": src/prune may import its own files only`);
    });
  },
};

/** Leaves out of prom-client what nobody asks for here: it wants modules of Node that an edge function may not have. */
const fewMetrics: BundlerPlugin = {
  name: "few-metrics",
  setup(build) {
    build.onLoad(
      { filter: /prom-client[\\/]lib[\\/](cluster|defaultMetrics|pushgateway)\.js$/ },
      () => Promise.resolve({ contents: "module.exports = class {};", loader: "js" }),
    );
  },
};

/**
 * Builds what serves. CommonJS packages in it ask for modules of Node by a `require` that edge functions, and
 * programs bundled from it again, may not have: imports give them.
 */
async function buildServer(root: string, entry: string, naming: string): Promise<void> {
  const outdir = `${root}dist`;
  const path = `${outdir}/${naming}`;
  await bundle({
    entrypoints: [`${root}src/${entry}`],
    outdir,
    naming,
    target: "node",
    plugins: [fewMetrics],
  });
  const code = await readFile(path, "utf8");
  const asked = [...code.matchAll(/__require\("(?:node:)?([^"]+)"\)/g)].map(([, name]) => name);
  const names = [...new Set(asked)];
  const rewritten = [
    ...names.map((name, i) => `import * as builtin${i} from "node:${name}";`),
    `const builtins = { ${names.map((name, i) => `"${name}": builtin${i}`).join(", ")} };`,
    'const __require = (name) => builtins[name.replace("node:", "")];',
    code.replace(/^import \{ createRequire \}.*$/m, "").replace(/^var __require = .*$/m, ""),
  ];
  await writeFile(path, rewritten.join("\n"));
}

/** Copies the kernels, and writes each for a memory that is not shared as well. */
async function writeKernels(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const build of BUILDS) {
    const bytes = new Uint8Array(await readFile(`${from}${build}.wasm`));
    await writeFile(`${to}${build}.wasm`, bytes);
    await writeFile(`${to}${build}.unshared.wasm`, unshared(bytes));
  }
}

async function main(): Promise<void> {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const outdir = `${root}dist`;
  // A build that is cut short must not be taken for one: see `src/bundle/dist.ts`.
  const complete = `${outdir}/complete.json`;
  await rm(complete, { force: true });
  await bundle({
    entrypoints: [`${root}src/prune/mod.ts`],
    outdir,
    naming: "prune.js",
    target: "browser",
    plugins: [noPackages],
  });
  // For "node" modules of Node stay imports: they are asked for only where there is Node.
  await bundle({
    entrypoints: [`${root}src/generate/run.ts`],
    outdir,
    naming: "run.js",
    target: "node",
  });
  await buildServer(root, "server/mod.ts", "server.js");
  await buildServer(root, "edge/mod.ts", "edge.js");
  const edge = [`${outdir}/edge.js`];
  await bundle({ entrypoints: edge, outdir, naming: "edge.js", target: "node", minify: true });
  // What a folder for any web server has: its page, and the worker with the engine.
  for (const [entry, naming] of [["page.js", "page.js"], ["worker.ts", "worker.js"]]) {
    await bundle({
      entrypoints: [`${root}src/bundle/page/${entry}`],
      outdir: `${root}dist/page`,
      naming,
      target: "node",
      minify: true,
    });
  }
  await writeKernels(`${root}src/engine/sparse/wasm/`, `${root}dist/wasm/`);
  for (
    const file of ["prune.js", "run.js", "server.js", "edge.js", "page/page.js", "page/worker.js"]
  ) {
    const { size } = await stat(`${outdir}/${file}`);
    console.log(`dist/${file}: ${(size / 1024).toFixed(1)} KiB`);
  }
  await writeFile(complete, "{}\n");
}

if (import.meta.main) await main();
