/**
 * The result as a person reads it.
 * @module
 */
import { counted, markdownTable, median, seconds } from "../support/print.ts";
import { FLOAT32 } from "./peers.ts";
import { type Group, type Measure, type Measured, rate, type Work } from "./measure.ts";

/** Tokens of a continuation that are compared. */
const COMPARED = 16;

/** Everything measured, as `--json` prints it. */
export interface EngineResult extends Work {
  readonly machine: string;
  readonly model: string;
  readonly groups: readonly Group[];
  /** The text of what every engine generated after the short prompt. */
  readonly texts: Record<string, string>;
}

/** What is timed, in the order of the tables, with the heads of their columns; all in tokens a second. */
const TITLES: Record<Measure, string> = {
  decode: "decode",
  decode128: "decode at 128",
  decode2048: "decode at 2048",
  prefill128: "prefill of 128",
  prefill512: "prefill of 512",
};

/** The tables, and what is missing. */
export function describe(result: EngineResult): string {
  const { machine, model, measures, repeat, groups, texts } = result;
  const shown = (Object.keys(TITLES) as Measure[]).filter((measure) => measures.includes(measure));
  const parts = [
    `${machine}\n${model}, batch 1, greedy, ${
      counted(repeat, "round")
    } in turn; medians, speeds in tokens/s`,
  ];
  for (const group of groups) parts.push(...describeGroup(group, shown));
  const products = new Map<string, string[]>();
  for (const { engines } of groups) {
    for (const { name, loaded } of engines) {
      if (!loaded) continue;
      products.set(loaded.product, [...products.get(loaded.product) ?? [], name]);
    }
  }
  if (products.size > 0) {
    parts.push(
      [...products].map(([product, names]) => `- ${[...new Set(names)].join(", ")}: ${product}`)
        .join("\n"),
    );
  }
  if (Object.keys(texts).length > 0) {
    parts.push(
      `What they say after the short prompt:\n${
        Object.entries(texts).map(([name, text]) => `- ${name}: ${JSON.stringify(text)}`).join("\n")
      }`,
    );
  }
  return parts.join("\n\n");
}

function describeGroup(
  { threads, bandwidth, engines }: Group,
  shown: readonly Measure[],
): string[] {
  const ran = engines.filter(({ missing }) => missing === undefined);
  const speed = bandwidth.length > 0 ? median(bandwidth) : NaN;
  const parts = [
    `### ${counted(threads, "thread")}; memory is read at ${(speed / 1e9).toFixed(1)} GB/s`,
  ];
  if (ran.length > 0) parts.push(overview(ran, speed, shown));
  const agreement = float32Agreement(ran);
  if (agreement) parts.push(agreement);
  const ours = ran.filter((engine) => engine.ours);
  const peers = ran.filter((engine) => !engine.ours);
  if (ours.length > 0 && peers.length > 0) {
    for (const measure of shown) parts.push(ratios(measure, ours, peers));
  }
  const missing = engines.filter((engine) => engine.missing !== undefined);
  if (missing.length > 0) {
    parts.push(missing.map(({ name, missing }) => `${name} is missing: ${missing}`).join("\n"));
  }
  return parts;
}

/** Everything but the ratios. */
function overview(
  ran: readonly Measured[],
  bandwidth: number,
  shown: readonly Measure[],
): string {
  const megabytes = (bytes: number | undefined) =>
    bytes === undefined ? "?" : (bytes / 1e6).toFixed(0);
  const decodes = shown.includes("decode");
  const keeps = shown.includes("decode128") && shown.includes("decode2048");
  const header = [
    "",
    ...shown.map((measure) => TITLES[measure]),
    ...(keeps ? ["of that at 128"] : []),
    "load, s",
    "files, MB",
    "peak memory, MB",
    "read a token, MB",
    "GB/s",
    "of bandwidth",
  ];
  return markdownTable(
    header,
    ran.map((engine) => {
      const { name, tokenBytes, fileBytes, peakBytes, loaded } = engine;
      const read = tokenBytes === undefined || !decodes
        ? NaN
        : tokenBytes * typical(engine, "decode");
      return [
        name,
        ...shown.map((measure) => digits(typical(engine, measure))),
        ...(keeps ? [digits(typical(engine, "decode2048") / typical(engine, "decode128"))] : []),
        seconds(loaded!.seconds),
        megabytes(fileBytes),
        megabytes(peakBytes),
        megabytes(tokenBytes),
        Number.isNaN(read) ? "?" : (read / 1e9).toFixed(1),
        Number.isNaN(read) ? "?" : `${(100 * read / bandwidth).toFixed(0)} %`,
      ];
    }),
  );
}

/** Our rates over the peers'. */
function ratios(
  measure: Measure,
  ours: readonly Measured[],
  peers: readonly Measured[],
): string {
  return markdownTable(
    [
      `${TITLES[measure]}: ours over`,
      ...ours.map(({ name }) => name),
    ],
    peers.map((peer) => [
      peer.name,
      ...ours.map((engine) => digits(typical(engine, measure) / typical(peer, measure))),
    ]),
  );
}

/** Whether all that compute in float32 say the same, as they should. */
function float32Agreement(ran: readonly Measured[]): string | undefined {
  const [first, ...others] = ran.filter(({ name, runs }) =>
    FLOAT32.includes(name) && runs.decode.length > 0
  );
  if (!first || others.length === 0) return undefined;
  const different = others.filter((engine) => same(engine, first) < COMPARED);
  return different.length === 0
    ? `The ${others.length + 1} engines in float32 say the same ${COMPARED} tokens.`
    : `In float32, ${different.map(({ name }) => name).join(", ")} and ${first.name} differ.`;
}

/** How many tokens of two continuations are the same before the first that is not. */
function same(a: Measured, b: Measured): number {
  const [x, y] = [a, b].map(({ runs }) => runs.decode[0].tokens.slice(0, COMPARED));
  const at = x.findIndex((token, i) => token !== y[i]);
  return at === -1 ? x.length : at;
}

/** The median of an engine's rates. */
function typical({ runs }: Measured, measure: Measure): number {
  return median(runs[measure].map((found) => rate(measure, found)));
}

/** Three digits, as far as they mean something. */
function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
