/**
 * What benchmarks print: tables, numbers, the machine.
 * @module
 */
import { availableParallelism, cpus, totalmem } from "node:os";
import process from "node:process";
import { VERSION } from "../../src/version.ts";

/** A table in Markdown: the first column to the left, the others to the right. */
export function markdownTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const widths = header.map((name, i) => Math.max(name.length, 3, ...rows.map((r) => r[i].length)));
  const line = (cells: readonly string[]) =>
    `| ${
      cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join(
        " | ",
      )
    } |`;
  const rule = widths.map((width, i) => i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`);
  return [line(header), line(rule), ...rows.map(line)].join("\n");
}

/** The middle value; of an even count, the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Seconds with a sensible number of digits. */
export function seconds(value: number): string {
  return value < 10 ? value.toFixed(2) : value.toFixed(1);
}

/** A number of things: `1 thread`, `2 threads`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Bytes in gigabytes (10^9). */
export function gigabytes(bytes: number | undefined): string {
  return bytes === undefined ? "?" : (bytes / 1e9).toFixed(2);
}

/** The machine and what runs on it, in one line. */
export function machineLine(versions: readonly string[]): string {
  const model = cpus()[0]?.model.trim() || process.arch;
  return [
    `${model}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    `${process.platform} ${process.arch}`,
    `Espalier ${VERSION}`,
    ...versions,
  ].join("; ");
}
