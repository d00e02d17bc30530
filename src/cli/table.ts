/**
 * Tables and bars in text.
 * @module
 */
import process from "node:process";
import { colours } from "./terminal.ts";

/** Escape codes, where the terminal shows them that standard output goes to. */
export const style = {
  bold: (text: string): string => wrap(text, 1, 22),
  dim: (text: string): string => wrap(text, 2, 22),
};

/** The same for what is said on standard error. */
export function aside(text: string): string {
  return wrap(text, 2, 22, process.stderr);
}

function wrap(text: string, on: number, off: number, stream?: { isTTY?: boolean }): string {
  return colours(stream) ? `\x1b[${on}m${text}\x1b[${off}m` : text;
}

/**
 * A table with aligned columns: the first to the left, the others to the right.
 *
 * @param header Names of the columns.
 * @param rows Cells as text.
 */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, i) =>
    Math.max(name.length, ...rows.map((row) => (row[i] ?? "").length))
  );
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  ")
      .trimEnd();
  return [style.dim(line(header)), ...rows.map(line)].join("\n");
}

/** Eighths of a character cell. */
const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/**
 * A bar for a fraction.
 *
 * @param fraction From 0 to 1.
 * @param width Characters of the whole.
 */
export function bar(fraction: number, width: number): string {
  const eighths = Math.round(Math.max(0, Math.min(1, fraction)) * width * 8);
  const text = "█".repeat(eighths >> 3) + EIGHTHS[eighths & 7];
  return text.padEnd(width, "·");
}
