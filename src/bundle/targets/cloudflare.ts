/**
 * A Worker of Cloudflare: a project for wrangler, the model in its static assets.
 * @module
 */
import { join } from "node:path";
import { TargetUnfitError } from "../../errors.ts";
import { writeText } from "../../platform/files.ts";
import { pathWord } from "../../platform/shell.ts";
import { distribution } from "../dist.ts";
import { copyBuilt, literal, writeModel } from "../edge_files.ts";
import {
  account,
  advice,
  engineBytes,
  LEAST_CONTEXT,
  longestContext,
  measure,
  type Measured,
} from "../memory_account.ts";
import type { Target, TargetInput } from "../target.ts";
import { cloudflareReadme } from "./cloudflare_readme.ts";

/** The newest wrangler that runs on Node 20. */
const WRANGLER = "4.86.0";
/** What the Worker was tried with. */
const COMPATIBILITY_DATE = "2026-04-01";
/**
 * The kernels that the Worker takes. Clocks stand still there during a computation, so that there is no
 * choice by speed: it is the first of them that is right.
 */
const KERNELS = ["relaxed", "simd"] as const;

/** Bytes of the largest static asset; parts of a model are smaller. */
const LARGEST_ASSET = 25 << 20;

/**
 * Writes the project.
 *
 * @throws {TargetUnfitError} When the model does not fit into an isolate, with what would fit.
 */
export const makeCloudflare: Target = async (input) => {
  const { name, model, folder, settings, hooks } = input;
  const { kv, parallel } = settings;
  const dist = await distribution(hooks);
  hooks.onProgress?.({ type: "note", text: "loading the model once, to see what it takes" });
  const measured = await measure(model, { context: settings.context, kv, signal: hooks.signal });
  const context = contextFor(measured, input);
  const shape = { context, parallel };
  const memory = account(measured, shape);
  const engine = { context, kv, memory: engineBytes(measured, shape) };
  const { bundle, largest } = await writeModel(input, "assets", engine);
  if (largest > LARGEST_ASSET) {
    throw new TargetUnfitError(
      `${name}: a file of ${largest} bytes is larger than the ${LARGEST_ASSET} of a static asset`,
    );
  }
  copyBuilt(dist, join(folder, "src"), ["edge.js", ...KERNELS.map(wasmOf)]);
  writeText(join(folder, "src/worker.js"), entryOf(literal(bundle)));
  writeText(join(folder, "wrangler.jsonc"), configOf(input));
  writeText(join(folder, "package.json"), `${literal(PACKAGE)}\n`);
  writeText(join(folder, "dev.js"), DEV);
  writeText(join(folder, "README.md"), cloudflareReadme(name, context, parallel));
  const shortened = settings.context === undefined && context < measured.context
    ? [`context ${context}: the longest that fits, of the model's ${measured.context}`]
    : [];
  return {
    next: [
      `cd ${pathWord(settings.output ?? `${name}-cloudflare`)}`,
      "npm install",
      "npm run dev",
      "npx wrangler deploy",
    ],
    notes: [
      ...shortened,
      "it needs the plan Workers Paid: the free one gives a request 10 ms of a processor",
      "whoever knows its address may use it, unless it has keys: npx wrangler secret put ESPALIER_KEYS",
    ],
    memory,
  };
};

/**
 * `wrangler dev` without its inspector: that is told of every 4 kB of every asset, and chokes on the 76 MB of
 * a model (4.86.0: its proxy runs out of file descriptors).
 */
const DEV = `// npm run dev [-- PORT]
import process from "node:process";
import { unstable_startWorker } from "wrangler";

const [port = "8787"] = process.argv.slice(2);
const worker = await unstable_startWorker({
  config: "wrangler.jsonc",
  dev: { inspector: false, server: { hostname: "127.0.0.1", port: Number(port) } },
});
await worker.ready;
console.log(\`http://127.0.0.1:\${port}\`);
`;

/** What the project installs: what deploys it, and nothing that runs in it. */
const PACKAGE = {
  private: true,
  type: "module",
  scripts: { dev: "node dev.js", deploy: "wrangler deploy" },
  devDependencies: { wrangler: WRANGLER },
};

/**
 * The context asked for, or the longest that fits.
 *
 * @throws {TargetUnfitError} When it does not fit.
 */
function contextFor(measured: Measured, { name, settings }: TargetInput): number {
  const { parallel } = settings;
  const longest = longestContext(measured, parallel);
  if (settings.context !== undefined && settings.context <= longest) return settings.context;
  if (settings.context === undefined && longest >= Math.min(LEAST_CONTEXT, measured.context)) {
    return longest;
  }
  const context = settings.context ?? LEAST_CONTEXT;
  const { total, limit, parts } = account(measured, { context, parallel });
  const list = Object.entries(parts).map(([part, bytes]) => `${megabytes(bytes)} ${part}`);
  throw new TargetUnfitError(
    `${name} with --context ${context} --parallel ${parallel} takes ${megabytes(total)} ` +
      `of the ${megabytes(limit)} of a Worker (${list.join(", ")}): ${advice(measured, settings)}`,
  );
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function wasmOf(kernel: string): string {
  return `wasm/${kernel}.unshared.wasm`;
}

function entryOf(bundle: string): string {
  return `// Made by Espalier: bundle the model again instead of changing this file.
import { cloudflareWorker } from "./edge.js";
${KERNELS.map((kernel) => `import ${kernel} from "./${wasmOf(kernel)}";`).join("\n")}

const bundle = ${bundle};

export default cloudflareWorker(bundle, { ${KERNELS.join(", ")} });
`;
}

/** The configuration of wrangler. All requests go to the Worker, which gives no asset to anybody. */
function configOf({ name }: TargetInput): string {
  return `${
    literal({
      $schema: "./node_modules/wrangler/config-schema.json",
      name: nameOf(name),
      main: "src/worker.js",
      no_bundle: true,
      // wrangler knows kernels by their names, and edge.js not.
      rules: [{ type: "ESModule", globs: ["**/*.js"], fallthrough: true }],
      compatibility_date: COMPATIBILITY_DATE,
      compatibility_flags: ["nodejs_compat", "enable_request_signal"],
      assets: {
        directory: "./assets",
        binding: "ASSETS",
        run_worker_first: true,
        html_handling: "none",
      },
      limits: { cpu_ms: 300_000 },
      observability: { enabled: true },
    })
  }\n`;
}

/** A name as Workers may have it: at most 54 letters, digits and dashes, no dash first or last. */
function nameOf(name: string): string {
  const dashed = name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-").replace(/^-/, "");
  return dashed.slice(0, 54).replace(/-$/, "") || "model";
}
