/**
 * What was compared, as rows of text; in Markdown where that is asked for.
 * @module
 */
import { percent } from "../../api/percent.ts";
import type { ComparedVariant, CompareReport } from "./compare.ts";

/** Names of the columns of {@linkcode rowsOf}. */
export const HEADER = [
  "variant",
  "zeros",
  "values",
  "megabytes",
  "bytes a weight",
  "perplexity",
  "tokens/s",
  "of dense int8",
  "frontier",
];

/** Rows, the smallest variant first. */
export function rowsOf({ variants, frontier }: CompareReport): string[][] {
  return variants.map((variant) => [
    variant.name,
    variant.sparsity === 0 ? "none" : percent(variant.sparsity),
    variant.values,
    (variant.bytes / 1e6).toFixed(1),
    variant.bytesPerWeight.toFixed(3),
    perplexityText(variant.perplexity),
    variant.tokensPerSecond?.toFixed(1) ?? "",
    variant.speedup?.toFixed(2) ?? "",
    [
      ...frontier.size.includes(variant.name) ? ["size"] : [],
      ...frontier.speed.includes(variant.name) ? ["speed"] : [],
    ].join(", "),
  ]);
}

/** The table in Markdown, with what was measured on above it. */
export function markdownTable(report: CompareReport): string {
  const rows = rowsOf(report);
  const line = (cells: readonly string[]) => `| ${cells.map(markdownText).join(" | ")} |`;
  return [
    `${markdownText(report.model)}: ${measuredOn(report)}`,
    "",
    line(HEADER),
    `|${HEADER.map((_, i) => i === 0 ? " --- |" : " ---: |").join("")}`,
    ...rows.map(line),
    ...report.at.length === 0 ? [] : ["", ...report.at.map((at) => `- ${atText(report, at)}`)],
  ].join("\n");
}

/** What perplexity was measured on, and what pruning calibrated on. */
export function measuredOn({ text, calibration }: CompareReport): string {
  const calibrated = calibration === undefined
    ? ""
    : calibration === "self"
    ? ", calibrated on text of its own"
    : `, calibrated on ${calibration}`;
  return `perplexity on ${text.windows} windows of ${text.seqlen} tokens of ${text.file}${calibrated}`;
}

/** What there is for a size, in a sentence. */
export function atText(report: CompareReport, at: CompareReport["at"][number]): string {
  const size = `${Number((at.bytes / 1e6).toPrecision(6))} MB`;
  if (at.best === undefined) {
    return `at ${size} nothing fits${at.unreachable ? `: ${at.unreachable}` : ""}`;
  }
  const of = (name: string) => report.variants.find((variant) => variant.name === name)!;
  const said = (name: string) => `${name} (${figures(of(name))})`;
  const { sparse, dense } = at;
  if (sparse === undefined) return `at ${size}: ${said(dense!)}; of the pruned ones none fits`;
  if (dense === undefined) return `at ${size}: ${said(sparse)}; of the dense ones none fits`;
  return at.best === dense
    ? `at ${size} dense is better: ${said(dense)} against ${said(sparse)}`
    : `at ${size} pruned is better: ${said(sparse)} against ${said(dense)}`;
}

function figures({ perplexity, bytes }: ComparedVariant): string {
  return `perplexity ${perplexityText(perplexity)}, ${(bytes / 1e6).toFixed(1)} MB`;
}

function perplexityText(perplexity: number): string {
  return !Number.isFinite(perplexity)
    ? "∞"
    : perplexity < 1000
    ? perplexity.toFixed(2)
    : perplexity < 1e6
    ? Math.round(perplexity).toLocaleString("en-US")
    : perplexity.toExponential(1);
}

/** Text that is no mark-up. */
function markdownText(text: string): string {
  return text.replace(/[\\|`*_<>[\]]/g, "\\$&").replaceAll("\n", " ");
}
