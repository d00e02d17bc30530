/**
 * A program for Deno, on a machine of one's own or on Deno Deploy.
 * @module
 */
import { join } from "node:path";
import { writeText } from "../../platform/files.ts";
import { pathWord } from "../../platform/shell.ts";
import { distribution } from "../dist.ts";
import { copyBuilt, literal, writeModel } from "../edge_files.ts";
import type { Target } from "../target.ts";
import { tryModel } from "../try_model.ts";
import { denoReadme } from "./deno_readme.ts";

/** All that it may do: use the network, on which it listens, read itself, and see its own variables. */
const PERMISSIONS = [
  "--no-prompt",
  "--allow-net",
  "--allow-read=.",
  "--allow-env=ESPALIER_*,DENO_DEPLOY,DENO_DEPLOYMENT_ID",
].join(" ");

/** All builds: it is not known where it will run. */
const KERNELS = ["relaxed", "relaxed-fused", "simd"];

/** What `deno compile` takes into the binary beside the modules. */
const INCLUDED = "--include model --include wasm";

const CONFIG = {
  tasks: {
    start: `deno run ${PERMISSIONS} main.js`,
    // Else it would listen on all addresses.
    serve: `deno serve --host 127.0.0.1 --port 8080 ${PERMISSIONS} serve.js`,
    compile: `deno compile ${PERMISSIONS} ${INCLUDED} -o model-server main.js`,
  },
  // Nothing is fetched, and nothing is looked for above this folder.
  nodeModulesDir: "none",
  lock: false,
  // A client that goes is noticed, an answer that was sent is none that was left.
  unstable: ["no-legacy-abort"],
};

/**
 * Writes the folder.
 *
 * @throws {TargetUnfitError} When our engine does not run the model.
 */
export const makeDeno: Target = async (input) => {
  const { name, model, folder, settings, hooks } = input;
  await tryModel(model, settings, hooks.signal);
  const dist = await distribution(hooks);
  const { context, kv } = settings;
  const { bundle } = await writeModel(input, "model", { context, kv });
  copyBuilt(dist, folder, ["edge.js", ...KERNELS.map((kernel) => `wasm/${kernel}.wasm`)]);
  writeText(join(folder, "program.js"), programOf(literal(bundle)));
  writeText(join(folder, "main.js"), MAIN);
  writeText(join(folder, "serve.js"), SERVE);
  writeText(join(folder, "deno.json"), `${literal(CONFIG)}\n`);
  writeText(join(folder, "README.md"), denoReadme(name));
  return {
    next: [`cd ${pathWord(settings.output ?? `${name}-deno`)}`, "deno task start"],
    notes: [
      "whoever reaches its address may use it, unless the variable ESPALIER_KEYS holds lines of the command key",
    ],
  };
};

function programOf(bundle: string): string {
  return `// Made by Espalier: bundle the model again instead of changing this file.
import { denoProgram } from "./edge.js";

const bundle = ${bundle};

export const program = (served) => denoProgram(bundle, import.meta.url, served);
`;
}

/** On Deno Deploy nobody says where to listen, and it stops without asking. */
const MAIN = `// deno run, Deno Deploy, deno compile.
import { program } from "./program.js";

const { fetch, listen } = program();
if (!listen) Deno.serve(fetch);
else {
  const server = start();
  let since;
  const stop = () => {
    // Answers may end, until somebody asks again. What started this may pass on what has come here, too.
    if (since !== undefined && performance.now() - since > 500) Deno.exit(130);
    since ??= performance.now();
    server.shutdown().then(() => Deno.exit(0));
  };
  Deno.addSignalListener("SIGINT", stop);
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", stop);
}

function start() {
  try {
    return Deno.serve(listen, fetch);
  } catch ({ message }) {
    const where = \`\${listen.hostname}, port \${listen.port}\`;
    console.error(\`error LISTEN_FAILED: cannot listen on \${where}: \${message}: set ESPALIER_PORT\`);
    Deno.exit(1);
  }
}
`;

/** Address and port are its own there: `deno serve --host --port`. Who is told of them has to say so. */
const SERVE = `// deno serve.
import { program } from "./program.js";

let served;
export default {
  // With --parallel, not every thread is told where it listens.
  fetch: (request) => (served ??= program({})).fetch(request),
  onListen({ hostname, port }) {
    served ??= program({ hostname });
    const host = hostname.includes(":") ? \`[\${hostname}]\` : hostname;
    console.error(\`deno serve: Listening on http://\${host}:\${port}/\`);
  },
};
`;
