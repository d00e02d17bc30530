/**
 * Loads one engine, and runs what it is told until its standard input ends.
 *
 *     child.mjs ADAPTER CONFIG
 *
 * ADAPTER is a file of `adapters/`, CONFIG the JSON of an `EngineConfig`. Commands come as lines of
 * JSON, `{"call": "generate", "arguments": [...]}`; answers go out as `{"value"}` or `{"error"}`, one a
 * line, each after a record separator: other lines are what the runtimes themselves have to say. The
 * first answer says that the model is loaded. Plain JavaScript, for Node, Deno and Bun.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

console.log = console.info = console.error;

function answer(message) {
  process.stdout.write(`\u001e${JSON.stringify(message)}\n`);
}

/** What went wrong, without the stack that some put into the message. */
function reason(error) {
  return String(error?.message ?? error).split("\n")[0];
}

/** `VmHWM` of this process; undefined where there is no /proc. */
function ownPeak() {
  try {
    const found = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
    return found ? Number(found[1]) * 1024 : undefined;
  } catch {
    return undefined;
  }
}

const [adapter, config] = process.argv.slice(2);
let engine;

const calls = {
  generate: (prompt, steps) => engine.generate(prompt, steps),
  hold: (prompt) => engine.hold(prompt),
  resume: (steps) => engine.resume(steps),
  memory: () => engine.peakBytes ? engine.peakBytes() : ownPeak(),
};

// One call at a time: the next line waits for the answer to the one before.
let turn = (async () => {
  const start = performance.now();
  try {
    const { open } = await import(pathToFileURL(adapter).href);
    engine = await open(JSON.parse(config));
    const { product, tokenBytes, loadSeconds } = engine;
    const seconds = loadSeconds ?? (performance.now() - start) / 1000;
    answer({ value: { product, tokenBytes, seconds } });
  } catch (error) {
    answer({ error: reason(error) });
    process.exit(1);
  }
})();

createInterface({ input: process.stdin }).on("line", (line) => {
  turn = turn.then(async () => {
    try {
      const { call, arguments: given } = JSON.parse(line);
      answer({ value: await calls[call](...given) });
    } catch (error) {
      answer({ error: reason(error) });
    }
  });
}).on("close", () => process.exit());
