/**
 * A plot in characters, for a terminal.
 * @module
 */
import type { Panel, Plotted } from "./points.ts";
import { type Scale, tickText } from "./scale.ts";

/** Where several points share a place. */
const SEVERAL = "+";

/**
 * Draws a panel.
 *
 * @param panel What to draw.
 * @param letterOf The character for a variant.
 * @param size Columns and rows of the whole, labels included.
 */
export function terminalPlot<T extends Plotted>(
  panel: Panel<T>,
  letterOf: (item: T) => string,
  size: { readonly columns: number; readonly rows: number },
): string {
  const { x, y, points, title, xLabel, yLabel } = panel;
  const labels = new Map(y.ticks.map((tick) => [tick, tickText(tick)]));
  const margin = Math.max(...[...labels.values()].map((label) => label.length), 1);
  const width = Math.max(10, size.columns - margin - 3);
  const height = Math.max(5, size.rows - 5);
  const grid = Array.from({ length: height }, () => new Array<string>(width).fill(" "));
  const column = (value: number) => cell(x, value, width);
  const row = (value: number) => height - 1 - cell(y, value, height);
  for (const { item, ...at } of points) {
    const line = grid[row(at.y)];
    const place = column(at.x);
    line[place] = line[place] === " " ? letterOf(item) : SEVERAL;
  }
  const named = new Map([...labels].map(([tick, label]) => [row(tick), label]));
  const lines = grid.map((cells, i) => {
    const label = named.get(i);
    return `${(label ?? "").padStart(margin)} ${label ? "┤" : "│"}${cells.join("")}`;
  });
  const axis = new Array<string>(width).fill("─");
  const under = new Array<string>(width).fill(" ");
  let free = 0;
  for (const tick of x.ticks) {
    const label = tickText(tick);
    const place = column(tick);
    const start = Math.min(width - label.length, Math.max(0, place - (label.length >> 1)));
    axis[place] = "┬";
    if (start < free) continue;
    for (let i = 0; i < label.length; i++) under[start + i] = label[i];
    free = start + label.length + 1;
  }
  const indent = " ".repeat(margin + 2);
  return [
    `${title}: ${yLabel}`,
    ...lines,
    `${" ".repeat(margin)} └${axis.join("")}`,
    `${indent}${under.join("").trimEnd()}`,
    `${indent}${xLabel}`,
  ].map((line) => line.trimEnd()).join("\n");
}

function cell(scale: Scale, value: number, cells: number): number {
  return Math.min(cells - 1, Math.max(0, Math.round(scale.place(value) * (cells - 1))));
}
