/**
 * Times our engine beside those of others. See `benchmarks/README.md`.
 *
 *     main.ts [--model DIR] [--threads 1,2] [--peers NAME,…|none] [--ours NAME,…|none]
 *             [--ours-in-node NAME,…|none] [--measures NAME,…] [--repeat 5] [--runtime deno|bun]
 *             [--python PYTHON] [--dir DIR] [--json]
 *
 * Runs under Deno (`deno run -A`) and Bun, and measures in the same runtime unless `--runtime` names
 * another. The result goes to standard output, progress to standard error.
 */
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { oneOf, runMain, say, UsageError, whole } from "../support/arguments.ts";
import { machineLine } from "../support/print.ts";
import {
  catchInterrupts,
  findRuntime,
  ownRuntime,
  ProgramError,
  throwIfInterrupted,
} from "../support/process.ts";
import { stopAll } from "./child.ts";
import {
  type Candidate,
  type Group,
  measureGroup,
  MEASURES,
  PROMPTS,
  type Work,
} from "./measure.ts";
import { Models } from "./models.ts";
import {
  OURS_NAMES,
  PEER_NAMES,
  prepareOurs,
  prepareOursInNode,
  preparePeer,
  type Startable,
} from "./peers.ts";
import { makePrompts } from "./prompts.ts";
import { describe, type EngineResult } from "./report.ts";

/** Tokens whose text is shown. */
const SHOWN = 24;

const USAGE =
  `usage: main.ts [--model DIR] [--threads 1,2] [--peers NAME,...|none] [--ours NAME,...|none]
               [--ours-in-node NAME,...|none] [--measures NAME,...] [--repeat 5]
               [--runtime deno|bun] [--python PYTHON] [--dir DIR] [--json]
peers: ${PEER_NAMES.join(", ")}, or what several begin with
ours: ${OURS_NAMES.join(", ")}
measures: ${MEASURES.join(", ")}
Without --model, ESPALIER_TEST_MODEL names the checkpoint.`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: process.argv.slice(2),
    options: {
      model: { type: "string", default: process.env.ESPALIER_TEST_MODEL },
      threads: { type: "string", default: "1,2" },
      peers: { type: "string", default: PEER_NAMES.join() },
      ours: { type: "string", default: OURS_NAMES.join() },
      "ours-in-node": { type: "string", default: "8:16" },
      measures: { type: "string", default: MEASURES.join() },
      repeat: { type: "string", default: "5" },
      runtime: { type: "string", default: ownRuntime() },
      python: { type: "string" },
      dir: { type: "string", default: join(tmpdir(), "espalier-benchmarks", "engine") },
      json: { type: "boolean", default: false },
    },
  });
  if (!values.model) throw new UsageError("name a checkpoint with --model");
  const checkpoint = resolve(values.model);
  const cache = resolve(values.dir);
  const [runtime] = oneOf("runtime", [values.runtime], ["deno", "bun"]);
  const work: Work = {
    measures: oneOf("measures", values.measures.split(","), MEASURES),
    repeat: whole("repeat", values.repeat),
  };
  const threads = values.threads.split(",").map((text) => whole("threads", text));
  const ours = chosen("ours", values.ours, OURS_NAMES);
  const oursInNode = chosen("ours-in-node", values["ours-in-node"], OURS_NAMES);
  const peers = chosen("peers", values.peers, PEER_NAMES);

  const prompts = makePrompts(checkpoint, PROMPTS.short, PROMPTS.long);
  const models = new Models(checkpoint, cache, runtime, values.python);
  const candidates: Candidate[] = [];
  for (const name of ours) {
    const start = () => prepareOurs(name, models, runtime);
    candidates.push(await candidate(`ours-${name}`, true, start));
  }
  for (const name of oursInNode) {
    const start = () => prepareOursInNode(name, models);
    candidates.push(await candidate(`ours-${name}-node`, true, start));
  }
  for (const name of peers) {
    const start = () => preparePeer(name, models, runtime, cache);
    candidates.push(await candidate(name, false, start));
  }

  const groups: Group[] = [];
  for (const count of threads) {
    groups.push(await measureGroup(candidates, count, work, prompts, say));
  }
  const { version } = await findRuntime(runtime);
  const result: EngineResult = {
    machine: machineLine([
      `${runtime === "deno" ? "Deno" : "Bun"} ${version}`,
      ...[...models.versions].map(([program, version]) => `${program} ${version}`),
    ]),
    model: basename(checkpoint),
    ...work,
    groups,
    texts: Object.fromEntries(
      groups[0].engines.filter(({ runs }) => runs.decode.length > 0).map((
        { name, runs },
      ) => [name, prompts.decode(runs.decode[0].tokens.slice(0, SHOWN))]),
    ),
  };
  process.stdout.write(`${values.json ? JSON.stringify(result) : describe(result)}\n`);
}

/** Names of a list, or of what they begin with. */
function chosen<T extends string>(option: string, text: string, known: readonly T[]): T[] {
  if (text === "none") return [];
  const names = text.split(",").flatMap((word) => {
    if (known.includes(word as T)) return [word];
    const found = known.filter((name) => name.startsWith(`${word}-`));
    return found.length > 0 ? found : [word];
  });
  return oneOf(option, names, known);
}

/** Makes an engine ready; when that fails, it is missing, and says why. */
async function candidate(
  name: string,
  ours: boolean,
  prepare: () => Promise<Startable>,
): Promise<Candidate> {
  say(`preparing ${name}`);
  try {
    return { name, ours, start: await prepare() };
  } catch (error) {
    throwIfInterrupted();
    if (!(error instanceof ProgramError)) throw error;
    say(`${name} cannot be prepared: ${error.message}`);
    return { name, ours, missing: error.message };
  }
}

catchInterrupts(stopAll);
await runMain(main, USAGE);
