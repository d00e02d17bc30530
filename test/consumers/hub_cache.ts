/**
 * The cache of the Hub, shared with Python's client: what `pull` puts there it finds, and the other way
 * round. The Hub is the one of the tests, on this machine.
 *
 *     bun test/consumers/hub_cache.ts
 *
 * The client is installed into a temporary folder; without Python or a registry all is skipped.
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { pull } from "../../mod.ts";
import { COMMIT, FakeHub, file } from "../hub/fake_hub.ts";
import { fromRoot } from "../support/paths.ts";
import { Checks, makePython, runJson, withFolder } from "./support.ts";

const CLIENT = "huggingface_hub==2.4.0";
const REPOSITORY = "some-owner/some-model";
const TINY = fromRoot("examples/tiny");
/** From so many bytes on files lie on another server, as LFS files do. */
const LARGE = 10_000;

/** What hub_cache.py prints. */
interface Found {
  readonly version: string;
  readonly folder: string;
  readonly warnings: string[];
  readonly repository: string;
  readonly commit: string;
  readonly refs: string[];
  readonly files: Record<string, number>;
}

async function check(checks: Checks, python: string, folder: string): Promise<void> {
  const files = readdirSync(TINY).map((name) => {
    const content = new Uint8Array(readFileSync(join(TINY, name)));
    return file(name, content, content.length > LARGE);
  });
  const hub = await FakeHub.start(files);
  const ask = (what: "read" | "fill") =>
    runJson<Found>([python, fromRoot("test/consumers/hub_cache.py"), what, REPOSITORY]);
  const use = (cache: string) => {
    Object.assign(process.env, {
      HF_ENDPOINT: hub.url,
      HF_HUB_CACHE: join(folder, cache),
      // The protocol of parts of files: no Hub of ours speaks it.
      HF_HUB_DISABLE_XET: "1",
    });
  };
  try {
    use("ours");
    const pulled = await pull({ model: `hf:${REPOSITORY}` });
    const read = await ask("read");
    console.log(`\nhuggingface_hub ${read.version}`);
    checks.same("what pull fetched is found without asking the Hub", read.folder, pulled.folder);
    checks.same("and has no warnings", read.warnings, []);
    const { repository, commit, refs } = read;
    checks.same("and belongs to the repository, the commit and main", [repository, commit, refs], [
      REPOSITORY,
      COMMIT,
      ["main"],
    ]);
    const listed = Object.fromEntries(pulled.files.map(({ path, bytes }) => [path, bytes]));
    checks.same("and has the files that pull reports", read.files, listed);

    use("theirs");
    const filled = await ask("fill");
    const again = await pull({ model: `hf:${REPOSITORY}` });
    checks.same("what Python fetched is found", again.folder, filled.folder);
    checks.same(
      "and no file of it is fetched again",
      again.files.map(({ from }) => from),
      again.files.map(() => "cache"),
    );
  } finally {
    await hub.stop();
  }
}

const checks = new Checks();
await withFolder(async (folder) => {
  const python = await makePython(folder, [CLIENT]);
  if ("path" in python) {
    await checks.part("the cache", () => check(checks, python.path, folder));
  } else if (python.net) {
    checks.missing("Python", python.why);
  } else {
    checks.skip("Python", python.why);
  }
});
process.exit(checks.end());
