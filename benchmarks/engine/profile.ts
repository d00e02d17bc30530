/**
 * Where the time of our engine's runs goes, by kind of step. See `benchmarks/README.md`.
 *
 *     profile.ts MODEL [--tokens 1] [--context 32] [--repeat 15] [--json]
 *
 * A run is one call into WebAssembly, in which there is no clock. So each kind of step is left out in turn:
 * what a run then takes less is that kind's time. Results are nonsense meanwhile, times are not. Attention is
 * left out of runs without products, and all else of runs without both, which take so little time that the rest
 * shows: attention itself takes longer when what it is given is nonsense. All logits are computed: how many of
 * nonsense were worth it says nothing.
 * `MODEL` is a compiled model; it runs on one thread.
 */
import { resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { load } from "../../mod.ts";
import { CONTROL, KIND, OP } from "../../src/engine/sparse/layout.ts";
import { runMain, UsageError, whole } from "../support/arguments.ts";
import { machineLine, markdownTable, median } from "../support/print.ts";
import { openReader } from "./bandwidth.ts";

const USAGE = "usage: profile.ts MODEL [--tokens 1] [--context 32] [--repeat 15] [--json]";

/** Runs before those that count. */
const WARM = 96;

/** A step of the program in the engine's memory: where it is, in words. */
interface Step {
  readonly at: number;
  readonly op: number;
  readonly words: Int32Array;
}

const ATTENTION = "attention";

/** Kinds of steps, in the order of the table; the first that holds is a step's. */
const GROUPS: Readonly<Record<string, (step: Step, steps: readonly Step[]) => boolean>> = {
  "products: head": (step, steps) => step === lastLinear(steps),
  "products: slots": ({ op, words }) => op === OP.LINEAR && isSlots(words[2]),
  "products: others": ({ op }) => op === OP.LINEAR,
  [ATTENTION]: ({ op }) => op === OP.ATTEND || op === OP.COMBINE,
  "linear attention": ({ op }) => op === OP.DELTA,
  convolutions: ({ op }) => op === OP.CONVOLVE,
  "into the cache": ({ op }) => op === OP.APPEND,
  norms: ({ op }) => op === OP.NORM,
  quantisation: ({ op }) => op === OP.QUANTISE,
  "all else": ({ op }) => op === OP.EMBED || op === OP.ELEMENTWISE || op === OP.SELECT,
};

function lastLinear(steps: readonly Step[]): Step | undefined {
  return steps.findLast(({ op }) => op === OP.LINEAR);
}

function isSlots(kind: number): boolean {
  const { SLOTS_ONE, SLOTS_TWO, SLOTS_ANY, SLOTS_ONE_INT4, SLOTS_TWO_INT4 } = KIND;
  return [SLOTS_ONE, SLOTS_TWO, SLOTS_ANY, SLOTS_ONE_INT4, SLOTS_TWO_INT4].some((k) => k === kind);
}

/** The largest memory that the engine makes: it hands it to nobody, so that it is looked for here. */
function watchMemories(): () => WebAssembly.Memory {
  const made: WebAssembly.Memory[] = [];
  WebAssembly.Memory = class extends WebAssembly.Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      made.push(this);
    }
  };
  return () => made.reduce((a, b) => b.buffer.byteLength > a.buffer.byteLength ? b : a);
}

function readProgram(words: Int32Array): Step[] {
  const steps: Step[] = [];
  for (let at = words[CONTROL.PROGRAM / 4] / 4; words[at] !== OP.END; at += words[at + 1]) {
    steps.push({ at, op: words[at], words: words.slice(at, at + words[at + 1]) });
  }
  return steps;
}

async function main(): Promise<void> {
  const { values, positionals: [folder] } = parseArgs({
    args: process.argv.slice(2),
    allowPositionals: true,
    options: {
      tokens: { type: "string", default: "1" },
      context: { type: "string", default: "32" },
      repeat: { type: "string", default: "15" },
      json: { type: "boolean", default: false },
    },
  });
  if (!folder) throw new UsageError("name a compiled model");
  const tokens = whole("tokens", values.tokens);
  const context = whole("context", values.context);
  const repeat = whole("repeat", values.repeat);

  const memoryOf = watchMemories();
  await using model = await load(resolve(folder), { engine: "sparse", threads: 1 });
  const ids = Int32Array.from(
    { length: context + tokens },
    (_, i) => (i * 7919 + 13) % model.info.vocabulary,
  );
  const sequence = model.open();
  await sequence.run(ids.subarray(0, context));
  const words = () => new Int32Array(memoryOf().buffer);
  const steps = readProgram(words());
  const groups = Object.keys(GROUPS).map((name) => ({
    name,
    steps: [] as Step[],
    times: [] as number[],
  }));
  for (const step of steps) {
    groups.find(({ name }) => GROUPS[name](step, steps))?.steps.push(step);
  }

  // To go back with a state is to compute anew: such a sequence goes on, as long as it may.
  const goesOn = model.info.stateBytes !== undefined;
  const time = async (within?: number): Promise<number> => {
    if (sequence.length + tokens > model.info.context) {
      sequence.truncate(context - 1);
      await sequence.run(ids.subarray(context - 1, context));
    }
    const started = performance.now();
    await sequence.run(ids.subarray(context), { within });
    const took = performance.now() - started;
    if (!goesOn) sequence.truncate(context);
    return took;
  };
  const without = async (left: readonly Step[]): Promise<number> => {
    // With one thread a barrier is nothing.
    for (const { at } of left) words()[at] = OP.BARRIER;
    const took = await time();
    for (const { at, op } of left) words()[at] = op;
    return took;
  };
  const products = steps.filter(({ op }) => op === OP.LINEAR);
  const heavy = [...products, ...steps.filter((step) => GROUPS[ATTENTION](step, steps))];
  // The engine tries in the first runs how it reads best.
  for (let i = 0; i < WARM; i++) await time();
  const all: number[] = [], greedy: number[] = [];
  for (let round = 0; round < repeat; round++) {
    greedy.push(await time(0));
    for (const { name, steps, times } of groups) {
      const base = name.startsWith("products") ? [] : name === ATTENTION ? products : heavy;
      const took = await without(base);
      if (base.length === 0) all.push(took);
      times.push(took - await without([...base, ...steps]));
    }
  }
  sequence.close();
  const reader = await openReader(1);
  const bandwidth = await reader.measure();
  reader.close();

  const total = median(all);
  const result = {
    machine: machineLine([]),
    model: model.info.name,
    device: model.info.device,
    tokens,
    context,
    milliseconds: total,
    greedy: median(greedy),
    bytes: model.info.tokenBytes ?? model.info.weightBytes,
    bandwidth,
    parts: groups.filter(({ steps }) => steps.length > 0)
      .map(({ name, times }) => ({ name, milliseconds: median(times) })),
  };
  process.stdout.write(`${values.json ? JSON.stringify(result) : describe(result)}\n`);
}

function describe(
  { machine, model, device, tokens, context, milliseconds, greedy, bytes, bandwidth, parts }: {
    machine: string;
    model: string;
    device: string | undefined;
    tokens: number;
    context: number;
    milliseconds: number;
    greedy: number;
    bytes: number;
    bandwidth: number;
    parts: readonly { name: string; milliseconds: number }[];
  },
): string {
  const row = (name: string, ms: number) => [
    name,
    ms.toFixed(2),
    `${(100 * ms / milliseconds).toFixed(1)} %`,
  ];
  const known = parts.reduce((sum, part) => sum + part.milliseconds, 0);
  const least = bytes / bandwidth * 1e3;
  return [
    machine,
    `${model}, ${device}: a run of ${tokens} after ${context} tokens`,
    "",
    markdownTable(["step", "ms", "of all"], [
      ...parts.map(({ name, milliseconds }) => row(name, milliseconds)),
      row("between steps, and outside", milliseconds - known),
      row("all", milliseconds),
    ]),
    "",
    `where only the largest logit matters it takes ${greedy.toFixed(2)} ms; reading the ` +
    `${(bytes / 1e6).toFixed(0)} MB of weights that it then needs takes ${
      least.toFixed(2)
    } ms at the ${(bandwidth / 1e9).toFixed(1)} GB/s that were measured`,
  ].join("\n");
}

await runMain(main, USAGE);
