/**
 * Makes a binary with `bun build --compile`. `bundle` runs it in a process of Bun:
 *
 *     bun src/binary/build.ts '{"name": …}'
 *
 * It writes nothing to standard output, and why it failed to standard error.
 *
 * @module
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { BUILDS } from "../engine/sparse/kernels.ts";
import type { BinaryModel } from "./model.ts";
import { writePlaces } from "./places.ts";

/** What is to be made. */
export interface BuildPlan {
  readonly model: Omit<BinaryModel, "files">;
  /** The folder of the model, where it goes into the binary. */
  readonly folder?: string;
  /** The paths of its files in there. */
  readonly paths: readonly string[];
  /** A file that keeps room for their places, where they may be written into the binary. */
  readonly places?: string;
  /** The file to write. */
  readonly outfile: string;
  /** Bun's name of another platform, or version: `bun-linux-arm64`, `bun-linux-x64-v1.4.5`. */
  readonly platform?: string;
  /** The version of Bun that its name ends with. */
  readonly version?: string;
  readonly withOrt: boolean;
}

/** A plugin of Bun's bundler, as far as it is used here. */
interface Plugin {
  name: string;
  setup(build: {
    onResolve(
      options: { filter: RegExp; namespace?: string },
      callback: (args: { path: string }) => { path: string; namespace?: string },
    ): void;
    onLoad(
      options: { filter: RegExp; namespace?: string },
      callback: (args: { path: string }) => { contents: string; loader: "ts" },
    ): void;
  }): void;
}

/** Options of `Bun.build`, as far as they are used here. */
interface BuildOptions {
  entrypoints: string[];
  target: "bun";
  minify: boolean;
  bytecode: boolean;
  format: "esm";
  plugins: Plugin[];
  compile: {
    outfile: string;
    target?: string;
    autoloadDotenv: boolean;
    autoloadBunfig: boolean;
  };
}

/** What an engine that was left out says. */
const NO_ORT =
  "this program carries no ONNX Runtime: use --engine sparse, or bundle the model with --with-ort";
const NO_WEBGPU = "this program carries no WebGPU: use another --device";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Files from this size on are read from the binary's own file; see `places.ts`. */
const LARGE = 1 << 20;

/** The main module of a binary. */
function mainOf({ model, folder, paths, places, withOrt }: BuildPlan): string {
  const imports: string[] = [];
  const embed = (path: string) => {
    imports.push(
      `import f${imports.length} from ${JSON.stringify(path)} with { type: "file" };`,
    );
    return `f${imports.length - 1}`;
  };
  const assets = BUILDS.map((build) => [
    `wasm/${build}.wasm`,
    embed(here(`../engine/sparse/wasm/${build}.wasm`)),
  ]);
  if (withOrt) {
    const name = "ort-wasm-simd-threaded.wasm";
    assets.push([name, embed(fileURLToPath(import.meta.resolve(`onnxruntime-web/${name}`)))]);
  }
  const record = (entries: string[][]) =>
    `{${entries.map(([name, value]) => `${JSON.stringify(name)}: ${value}`).join(", ")}}`;
  const files = folder && record(paths.map((path) => [path, embed(join(folder, path))]));
  const found = places === undefined ? undefined : embed(places);
  return [
    ...imports,
    `import { startBinary } from ${JSON.stringify(here("start.ts"))};`,
    `await startBinary({ ...${JSON.stringify(model)}, files: ${files}, places: ${found} }, ${
      record(assets)
    });`,
  ].join("\n");
}

/** Gives the main module, and modules in the place of what is left out. */
function modules(plan: BuildPlan): Plugin {
  const thrown = (message: string) =>
    `import { BackendError } from ${JSON.stringify(here("../errors.ts"))};\n` +
    `throw new BackendError(${JSON.stringify(message)});`;
  return {
    name: "binary",
    setup(build) {
      const give = (filter: RegExp, contents: string) => {
        build.onResolve({ filter }, ({ path }) => ({ path, namespace: "binary" }));
        build.onLoad({ filter, namespace: "binary" }, () => ({ contents, loader: "ts" }));
      };
      give(/^espalier:main$/, mainOf(plan));
      give(
        /^(onnxruntime-node|onnxruntime-web\/webgpu)$/,
        thrown(plan.withOrt ? NO_WEBGPU : NO_ORT),
      );
      give(/^bun-webgpu$/, thrown(NO_WEBGPU));
      if (plan.withOrt) {
        const path = here("ort_web.ts");
        build.onResolve({ filter: /^onnxruntime-web$/ }, () => ({ path }));
      } else {
        give(/^onnxruntime-web$/, thrown(NO_ORT));
      }
      // Fifty languages of messages, of which one is spoken here.
      build.onLoad({ filter: /[\\/]zod[\\/]v4[\\/]locales[\\/]index\.js$/ }, () => ({
        contents: `export { default as en } from "./en.js";`,
        loader: "ts",
      }));
      // Pruning is left out.
      give(/^\.\/example\.ts$/, thrown("this program has no example"));
    },
  };
}

async function main(plan: BuildPlan): Promise<void> {
  const { folder, outfile, places, version } = plan;
  const { Bun } = globalThis as unknown as {
    Bun: { version: string; build(o: BuildOptions): Promise<unknown> };
  };
  await Bun.build({
    entrypoints: ["espalier:main"],
    target: "bun",
    minify: true,
    // It is what this version of Bun makes of it, of no use to another.
    bytecode: version === undefined || version === Bun.version,
    format: "esm",
    plugins: [modules(plan)],
    compile: {
      outfile,
      ...(plan.platform === undefined ? {} : { target: plan.platform }),
      // Files of the folder that it is started in are no business of the program's.
      autoloadDotenv: false,
      autoloadBunfig: false,
    },
  });
  if (places === undefined) return;
  const large = plan.paths.map((path) => ({ path, file: join(folder!, path) }))
    .filter(({ file }) => statSync(file).size >= LARGE);
  writePlaces(outfile, large);
}

if (import.meta.main) {
  try {
    await main(JSON.parse(process.argv[2]) as BuildPlan);
  } catch (error) {
    const reasons = error instanceof AggregateError ? error.errors : [error];
    process.stderr.write(`${reasons.map((reason) => (reason as Error).message).join("; ")}\n`);
    process.exitCode = 1;
  }
}
