/**
 * Measures what pruning does to a model's writing. See `benchmarks/README.md`.
 *
 *     main.ts --dense DIR --text FILE [--prompts 64] [--prompt-tokens 32] [--tokens 64] [--json] MODEL...
 *
 * `MODEL` is a checkpoint or a compiled model. Dense and pruned models continue the same prompts, and
 * each reads what the other wrote. The result goes to standard output, progress to standard error.
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { load, type Model } from "../../mod.ts";
import { runMain, say, UsageError, whole } from "../support/arguments.ts";
import { machineLine, markdownTable } from "../support/print.ts";
import { compareRows } from "./divergence.ts";

const USAGE = `usage: main.ts --dense DIR --text FILE [--prompts 64] [--prompt-tokens 32]
               [--tokens 64] [--json] MODEL...`;

/** What is measured of a pruned model. */
interface Writing {
  readonly model: string;
  /** Mean KL(dense ‖ pruned) over the tokens of texts that the dense model wrote, nats. */
  readonly missed: number;
  /** Share of those tokens where both have the same likeliest one. */
  readonly agreed: number;
  /** Mean KL(pruned ‖ dense) over the tokens of texts that the pruned model wrote, nats. */
  readonly strange: number;
  /** Mean count of tokens that both write alike, each taking its likeliest, at most `tokens`. */
  readonly alike: number;
}

/** Texts that a model wrote after each prompt, prompts included. */
interface Texts {
  /** Drawn at temperature 1, prompt by prompt by seeds of their own. */
  readonly drawn: readonly Int32Array[];
  /** The likeliest token each time. */
  readonly greedy: readonly Int32Array[];
}

/** Prompts are what a text has at equal distances. */
function promptsOf(tokens: Int32Array, count: number, length: number): Int32Array[] {
  const distance = Math.floor((tokens.length - length) / count);
  if (distance < length) throw new UsageError(`the text has too few tokens for ${count} prompts`);
  return Array.from(
    { length: count },
    (_, i) => tokens.slice(i * distance, i * distance + length),
  );
}

async function continued(
  model: Model,
  prompt: Int32Array,
  tokens: number,
  temperature: number,
  seed: number,
): Promise<Int32Array> {
  const written: number[] = [...prompt];
  const options = { maxTokens: tokens, temperature, seed, ignoreEos: true };
  for await (const piece of model.generate(prompt, options)) {
    if (piece.type === "text") written.push(...piece.tokens);
  }
  return Int32Array.from(written);
}

async function write(
  model: Model,
  prompts: readonly Int32Array[],
  tokens: number,
): Promise<Texts> {
  const drawn: Int32Array[] = [];
  const greedy: Int32Array[] = [];
  for (const [seed, prompt] of prompts.entries()) {
    drawn.push(await continued(model, prompt, tokens, 1, seed));
    greedy.push(await continued(model, prompt, tokens, 0, 0));
  }
  return { drawn, greedy };
}

/** Mean divergence of `reader` from `writer` on texts of the latter, prompts left out. */
async function divergence(
  writer: Model,
  reader: Model,
  texts: readonly Int32Array[],
  promptTokens: number,
): Promise<{ nats: number; agreed: number }> {
  let nats = 0;
  let agreed = 0;
  let rows = 0;
  for (const text of texts) {
    // The last token foresees one that was not written.
    const read = text.subarray(0, -1);
    const [p, q] = [await writer.logits(read), await reader.logits(read)];
    const found = compareRows(p, q, writer.info.vocabulary, promptTokens - 1);
    nats += found.nats;
    agreed += found.agreed;
    rows += found.rows;
  }
  return { nats: nats / rows, agreed: agreed / rows };
}

/** Mean count of tokens after the prompt until two texts part. */
function meanAlike(a: readonly Int32Array[], b: readonly Int32Array[], from: number): number {
  const counts = a.map((text, t) => {
    let at = from;
    while (at < text.length && at < b[t].length && text[at] === b[t][at]) at++;
    return at - from;
  });
  return counts.reduce((sum, count) => sum + count, 0) / counts.length;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    args: process.argv.slice(2),
    allowPositionals: true,
    options: {
      dense: { type: "string" },
      text: { type: "string" },
      prompts: { type: "string", default: "64" },
      "prompt-tokens": { type: "string", default: "32" },
      tokens: { type: "string", default: "64" },
      json: { type: "boolean", default: false },
    },
  });
  if (!values.dense || !values.text) throw new UsageError("name --dense and --text");
  if (positionals.length === 0) throw new UsageError("name a model to compare");
  const count = whole("prompts", values.prompts);
  const promptTokens = whole("prompt-tokens", values["prompt-tokens"]);
  const tokens = whole("tokens", values.tokens);

  await using dense = await load(values.dense);
  const text = dense.tokens(readFileSync(values.text, "utf8"));
  const prompts = promptsOf(text, count, promptTokens);
  say(`${dense.info.name} writes`);
  const ofDense = await write(dense, prompts, tokens);

  const results: Writing[] = [];
  for (const name of positionals) {
    await using pruned = await load(name);
    say(`${name} writes`);
    const ofPruned = await write(pruned, prompts, tokens);
    say(`each reads the other's`);
    const missed = await divergence(dense, pruned, ofDense.drawn, promptTokens);
    const strange = await divergence(pruned, dense, ofPruned.drawn, promptTokens);
    results.push({
      model: name,
      missed: missed.nats,
      agreed: missed.agreed,
      strange: strange.nats,
      alike: meanAlike(ofDense.greedy, ofPruned.greedy, promptTokens),
    });
  }
  const report = {
    machine: machineLine([]),
    dense: values.dense,
    text: values.text,
    prompts: count,
    tokens,
    results,
  };
  process.stdout.write(`${values.json ? JSON.stringify(report) : describe(report)}\n`);
}

function describe(report: { dense: string; text: string; results: readonly Writing[] }): string {
  return markdownTable(
    [`${report.dense}, ${report.text}`, "KL(dense ‖ it)", "same token", "KL(it ‖ dense)", "alike"],
    report.results.map((r) => [
      r.model,
      r.missed.toFixed(3),
      `${(100 * r.agreed).toFixed(1)} %`,
      r.strange.toFixed(3),
      r.alike.toFixed(1),
    ]),
  );
}

await runMain(main, USAGE);
