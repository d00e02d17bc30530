/**
 * Builds and runs `examples/container` as its README says, from a clean clone.
 *
 *     bun test/consumers/container.ts
 *
 * Where there is no engine for containers, or the images that it is built from cannot be had, it is
 * skipped, and says why.
 * @module
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { freePort } from "./edge_programs.ts";
import { makeModels } from "./models.ts";
import { cleanClone, commandsIn } from "./readme.ts";
import { Checks, lastLines, run, withFolder } from "./support.ts";

const FOLDER = "examples/container";
/** The name that the README gives it. */
const IMAGE = "espalier";
/** Milliseconds in which the server has to be ready. */
const PATIENCE = 120_000;

/** An engine that runs containers here; undefined where there is none. */
async function findEngine(): Promise<string | undefined> {
  for (const engine of ["podman", "docker"]) {
    if ((await run([engine, "info"])).code === 0) return engine;
  }
}

/** Why no container can be built or run; undefined when all that is needed is here. */
async function lacking(engine: string, clone: string): Promise<string | undefined> {
  const text = readFileSync(join(clone, FOLDER, "Containerfile"), "utf8");
  let base = "";
  for (const [, image] of text.matchAll(/^FROM (\S+)/gm)) {
    base = image;
    if ((await run([engine, "image", "inspect", image])).code === 0) continue;
    const { code, stderr } = await run([engine, "pull", image]);
    if (code !== 0) return `${image} cannot be had: ${lastLines(stderr, 1)}`;
  }
  const { code, stderr } = await run([engine, "run", "--rm", base, "true"]);
  if (code !== 0) return `${engine} runs no container: ${lastLines(stderr, 1)}`;
}

/** A container that serves; `args` are those of `run` before the image. */
async function serve(engine: string, args: readonly string[]) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const variables = ["-e", `ESPALIER_PORT=${port}`, "-e", "ESPALIER_HOST=127.0.0.1"];
  const words = [engine, "run", "--detach", "--network", "host", ...variables, ...args, IMAGE];
  const { code, stdout, stderr } = await run(words);
  if (code !== 0) throw new Error(`it does not start: ${lastLines(stderr)}`);
  const id = stdout.trim();
  const started = Date.now();
  for (;;) {
    const response = await fetch(`${url}/ready`).catch(() => undefined);
    if (response?.ok) break;
    if (Date.now() - started > PATIENCE) {
      throw new Error(`it is not ready: ${lastLines((await run([engine, "logs", id])).stderr)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return {
    url,
    /** Runs a command in it. */
    exec: (...command: string[]) => run([engine, "exec", id, ...command]),
    /** Stops it as the README says; its exit code, or what else became of it. */
    stop: async () => {
      await run([engine, "stop", "-t", "35", id]);
      const { stdout } = await run([engine, "inspect", id, "--format", "{{.State.ExitCode}}"]);
      await run([engine, "rm", "--force", id]);
      return stdout.trim();
    },
  };
}

/** What a completion of a server says. */
async function complete(url: string): Promise<string> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "The town", max_tokens: 12, temperature: 0 }),
  });
  const { choices } = await response.json() as { choices: { text: string }[] };
  return choices[0].text;
}

async function checkContainer(checks: Checks, folder: string): Promise<void> {
  const engine = await findEngine();
  if (engine === undefined) return checks.skip("the container", "no podman or docker that runs");
  const clone = await cleanClone(folder);
  if (clone === undefined) return checks.skip("the container", "no git, or this is no clone");
  const why = await lacking(engine, clone);
  if (why !== undefined) return checks.skip("the container", why);

  const [[line]] = commandsIn(`${FOLDER}/README.md`);
  // What Docker does not take, it does by itself.
  const ofDocker = line.replace("podman", "docker").replace(/ --(format|ignorefile) \S+/g, "");
  const built = await run(["sh", "-c", engine === "podman" ? line : ofDocker], clone);
  checks.that("builds", built.code === 0, () => lastLines(built.stderr));
  if (built.code !== 0) return;

  // The example, with no model given; nothing can be written but in /tmp.
  const bare = await serve(engine, ["--read-only", "--tmpfs", "/tmp"]);
  const example = await complete(bare.url);
  checks.that(
    "serves the example, on a disk that is read only",
    example.length > 20,
    () => example,
  );
  checks.same("its user is nobody", (await bare.exec("id", "-u")).stdout.trim(), "10001");
  // Podman and Docker have it in different places.
  const [about] = JSON.parse((await run([engine, "image", "inspect", IMAGE])).stdout) as [{
    Healthcheck?: { Test: string[] };
    Config: { Healthcheck?: { Test: string[] } };
  }];
  const [, ...check] = (about.Healthcheck ?? about.Config.Healthcheck)?.Test ?? [];
  checks.same("its health check finds it well", (await bare.exec(...check)).code, 0);
  checks.same("it ends in order when it is stopped", await bare.stop(), "0");

  const [made] = await makeModels(folder, 1, ["int8-nm-8-16"]);
  const given = await serve(engine, [
    ...["-v", `${made.folder}:/model:ro`, "-e", "ESPALIER_MODEL=/model"],
    ...["-e", "ESPALIER_PARALLEL=2"],
  ]);
  const text = await complete(given.url);
  checks.that("serves a model that is mounted", text.length > 20, () => text);
  await given.stop();
}

const checks = new Checks();
await checks.part("the container", () => withFolder((folder) => checkContainer(checks, folder)));
process.exit(checks.end());
