/**
 * Uses the server's pages in headless Chromium: by keyboard, on a phone's screen and a desktop's, in
 * both themes, with axe-core.
 *
 *     bun test/browser/pages/run.ts [URL] [--key KEY] [--pictures FOLDER]
 *
 * URL is that of a server that runs (`deno run -A mod.ts serve`) and whose first model can chat. Without
 * one the made-up server is taken, which also does what a server should not: refuse, break off, load for
 * long. Without Chromium and Node it is skipped; playwright-core and axe-core go into a temporary folder.
 * @module
 */
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join, resolve } from "node:path";
import process from "node:process";
import { Checks, has, npmInstall, runJson, withFolder } from "../../consumers/support.ts";
import { type FakeServer, startFake } from "../../server/page/fake_server.ts";
import { fromRoot } from "../../support/paths.ts";
import { findChromium } from "./chromium.ts";

const PACKAGES = ["playwright-core@1.65.1", "axe-core@4.14.1"];
const KEY = "open sesame";
/** How long a server is not ready when that is looked at. */
const LOADING_SECONDS = 2;

/** What drive.mjs prints. */
interface Driven {
  readonly version: string;
  readonly checks: { what: string; ok: boolean; why: string }[];
}

/** Servers that misbehave, by what they are for. */
interface Fakes {
  readonly plain: string;
  readonly keyed: string;
  /** Has lost one of its models. */
  readonly lost: string;
  /** Answers each request with the address of a server that has just begun to load. */
  readonly loading: string;
}

async function startFakes(): Promise<{ fakes: Fakes; close(): void }> {
  const servers: FakeServer[] = [
    await startFake({ writer: true }),
    await startFake({ key: KEY }),
    await startFake({ hasLost: true }),
  ];
  const [plain, keyed, lost] = servers.map(({ url }) => url);
  const starter = createServer(async (_, response) => {
    const server = await startFake({ loadingSeconds: LOADING_SECONDS });
    servers.push(server);
    response.end(server.url);
  });
  await new Promise<void>((listening) => starter.listen(0, "127.0.0.1", listening));
  const { port } = starter.address() as AddressInfo;
  return {
    fakes: { plain, keyed, lost, loading: `http://127.0.0.1:${port}/` },
    close() {
      starter.closeAllConnections();
      starter.close();
      for (const server of servers) server.close();
    },
  };
}

/** The arguments: a URL, and values of flags. */
function readArguments(words: readonly string[]) {
  const after = (flag: string) => words.includes(flag) ? words[words.indexOf(flag) + 1] : undefined;
  const url = words.find((word) => /^https?:/.test(word));
  return {
    url: url && new URL("./", url).href,
    key: after("--key"),
    pictures: after("--pictures"),
  };
}

async function checkPages(checks: Checks, tools: string): Promise<void> {
  if (!await has("node")) return checks.skip("pages", "no node on PATH");
  const chromium = await findChromium();
  if ("why" in chromium) return checks.skip("pages", chromium.why);
  writeFileSync(join(tools, "package.json"), '{ "private": true, "type": "module" }\n');
  const failed = await npmInstall(tools, PACKAGES);
  if (failed) return checks.missing("pages", failed);
  const drivers = fromRoot("test/browser/pages");
  for (const name of readdirSync(drivers)) {
    if (name.endsWith(".mjs")) copyFileSync(join(drivers, name), join(tools, name));
  }

  const { url, key, pictures } = readArguments(process.argv.slice(2));
  if (pictures) mkdirSync(pictures, { recursive: true });
  const made = url ? undefined : await startFakes();
  try {
    const task = {
      chromium: chromium.path,
      url: url ?? made?.fakes.plain,
      key,
      pictures: pictures && resolve(pictures),
      fakes: made?.fakes,
    };
    const path = join(tools, "task.json");
    writeFileSync(path, JSON.stringify(task));
    const driven = await runJson<Driven>(["node", join(tools, "drive.mjs"), path], tools);
    console.log(`Chromium ${driven.version}, ${url ?? "the made-up server"}`);
    for (const { what, ok, why } of driven.checks) checks.that(what, ok, () => why);
  } finally {
    made?.close();
  }
}

const checks = new Checks();
await withFolder((tools) => checks.part("pages", () => checkPages(checks, tools)));
process.exitCode = checks.end();
