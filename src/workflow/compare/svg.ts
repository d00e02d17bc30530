/**
 * The plots as one SVG image, readable on light and on dark ground.
 * @module
 */
import { UsageError } from "../../errors.ts";
import { type Panel, panelsOf, type Plotted } from "./points.ts";
import { tickText } from "./scale.ts";

const WIDTH = 820;
const PANEL = 400;
/** Around what is drawn of a panel. */
const EDGE = { left: 70, right: 24, top: 56, bottom: 52 };
/** Titles, and below them the legend, above the panels. */
const LEGEND = 54;
/** About the width of a character of a label. */
const LETTER = 6.1;
const LABEL_HEIGHT = 13;

/** Colours by value type, in the order in which types come: told apart by the colour-blind, too. */
const COLOURS = [
  { light: "#1f6fb4", dark: "#6db3f2" },
  { light: "#c2571a", dark: "#f0995c" },
  { light: "#24885a", dark: "#63cf9c" },
  { light: "#7a4fb3", dark: "#b894ec" },
];

/**
 * Draws variants.
 *
 * @param title What was compared; any text.
 * @param subtitle How; any text.
 * @param variants What was measured.
 * @returns A whole SVG document.
 * @throws {UsageError} When the variants are no list.
 */
export function comparisonSvg(
  title: string,
  subtitle: string,
  variants: readonly Plotted[],
): string {
  if (!Array.isArray(variants)) {
    throw new UsageError(
      "variants must be a list: comparisonSvg(title, subtitle, report.variants)",
    );
  }
  const panels = panelsOf(variants);
  const values = [...new Set(variants.map(({ values }) => values))];
  const height = LEGEND + 24 + panels.length * PANEL;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${escaped(`${title}: ${subtitle}`)}</title>`,
    style(values.length),
    `<rect class="ground" width="${WIDTH}" height="${height}"/>`,
    `<text class="ink strong" x="${EDGE.left}" y="24" font-size="15">${shortened(title, 8)}</text>`,
    `<text class="soft" x="${EDGE.left}" y="42">${shortened(subtitle, LETTER)}</text>`,
    legend(values),
    ...panels.map((panel, i) => panelSvg(panel, values, LEGEND + 24 + i * PANEL)),
    "</svg>",
    "",
  ].join("\n");
}

function style(values: number): string {
  const vars = (mode: "light" | "dark") =>
    COLOURS.slice(0, Math.max(1, Math.min(values, COLOURS.length)))
      .map((colour, i) => `--c${i}:${colour[mode]}`).join(";");
  return [
    "<style>",
    `svg{--ground:#fff;--ink:#1c2024;--soft:#656d76;--grid:#e3e6ea;${vars("light")}}`,
    `@media (prefers-color-scheme:dark){svg{--ground:#14181c;--ink:#e8eaed;--soft:#9aa4ae;--grid:#2b3138;${
      vars("dark")
    }}}`,
    ".ground{fill:var(--ground)}.ink{fill:var(--ink)}.soft{fill:var(--soft)}.strong{font-weight:600}",
    // A rim of the ground's colour: lines may run under names.
    ".label{paint-order:stroke;stroke:var(--ground);stroke-width:3px;stroke-linejoin:round}",
    ".grid{stroke:var(--grid)}.line{fill:none;stroke:var(--soft);stroke-dasharray:4 3}",
    COLOURS.map((_, i) => `.s${i}{fill:var(--c${i});stroke:var(--ground)}`).join(""),
    "</style>",
  ].join("\n");
}

function legend(values: readonly string[]): string {
  let x = EDGE.left;
  const y = LEGEND + 10;
  const parts: string[] = [];
  const entry = (mark: string, text: string) => {
    parts.push(mark, `<text class="soft" x="${x + 10}" y="${y + 4}">${escaped(text)}</text>`);
    x += 30 + text.length * LETTER;
  };
  for (const [i, name] of values.entries()) entry(dot(x, y, `s${i % COLOURS.length}`), name);
  entry(square(x, y, "soft"), "dense");
  entry(dot(x, y, "soft"), "pruned");
  parts.push(
    `<path class="line" d="M${x - 6} ${y}h22"/>`,
    `<text class="soft" x="${x + 22}" y="${y + 4}">frontier</text>`,
  );
  return parts.join("\n");
}

function panelSvg(panel: Panel, values: readonly string[], top: number): string {
  const left = EDGE.left;
  const right = WIDTH - EDGE.right;
  const upper = top + EDGE.top;
  const lower = top + PANEL - EDGE.bottom;
  const x = (value: number) => round(left + panel.x.place(value) * (right - left));
  const y = (value: number) => round(lower - panel.y.place(value) * (lower - upper));
  const parts = [
    `<text class="ink strong" x="${left}" y="${upper - 30}" font-size="13">${panel.title}</text>`,
    `<text class="soft" x="${left}" y="${upper - 13}">${panel.yLabel}</text>`,
    `<text class="soft" x="${right}" y="${lower + 38}" text-anchor="end">${panel.xLabel}</text>`,
  ];
  for (const tick of panel.y.ticks) {
    parts.push(
      `<path class="grid" d="M${left} ${y(tick)}H${right}"/>`,
      `<text class="soft" x="${left - 8}" y="${y(tick) + 4}" text-anchor="end">${
        tickText(tick)
      }</text>`,
    );
  }
  for (const tick of panel.x.ticks) {
    parts.push(
      `<path class="grid" d="M${x(tick)} ${upper}V${lower}"/>`,
      `<text class="soft" x="${x(tick)}" y="${lower + 18}" text-anchor="middle">${
        tickText(tick)
      }</text>`,
    );
  }
  const place = new Map(
    panel.points.map(({ item, ...at }) => [item, { x: x(at.x), y: y(at.y) }]),
  );
  if (panel.frontier.length > 1) {
    const line = panel.frontier.map((item) => `${place.get(item)!.x} ${place.get(item)!.y}`);
    parts.push(`<path class="line" d="M${line.join("L")}"/>`);
  }
  for (const [item, at] of place) {
    const mark = item.sparsity === 0 ? square : dot;
    const series = `s${values.indexOf(item.values) % COLOURS.length}`;
    parts.push(mark(at.x, at.y, series, titleOf(item)));
  }
  const bounds = { left, right, upper, lower };
  parts.push(...labels(panel, place, bounds));
  return parts.join("\n");
}

/** What a pointer that rests on a mark is told. */
function titleOf({ name, bytes, perplexity, tokensPerSecond }: Plotted): string {
  const speed = tokensPerSecond === undefined ? "" : `, ${tokensPerSecond.toFixed(1)} tokens/s`;
  return `${name}: perplexity ${perplexity.toFixed(2)}, ${(bytes / 1e6).toFixed(1)} MB${speed}`;
}

interface Box {
  readonly left: number;
  readonly right: number;
  readonly top: number;
  readonly bottom: number;
}

/** Names beside their marks, those of the frontier first, as far as there is room for them. */
function labels(
  panel: Panel,
  place: ReadonlyMap<Plotted, { x: number; y: number }>,
  bounds: { left: number; right: number; upper: number; lower: number },
): string[] {
  const taken: Box[] = [...place.values()].map(({ x, y }) => ({
    left: x - 6,
    right: x + 6,
    top: y - 6,
    bottom: y + 6,
  }));
  const onFrontier = new Set<Plotted>(panel.frontier);
  const order = [...place.keys()].sort((a, b) =>
    Number(onFrontier.has(b)) - Number(onFrontier.has(a))
  );
  const parts: string[] = [];
  for (const item of order) {
    const { x, y } = place.get(item)!;
    const width = item.name.length * LETTER;
    const boxes: Box[] = [
      [x + 9, y - 7],
      [x - 9 - width, y - 7],
      [x - width / 2, y - 22],
      [x - width / 2, y + 9],
    ].map(([left, top]) => ({ left, right: left + width, top, bottom: top + LABEL_HEIGHT }));
    const box = boxes.find((box) =>
      box.left >= bounds.left && box.right <= bounds.right && box.top >= bounds.upper - 8 &&
      box.bottom <= bounds.lower && !taken.some((other) => overlap(box, other))
    );
    if (!box) continue;
    taken.push(box);
    const look = onFrontier.has(item) ? "ink" : "soft";
    parts.push(
      `<text class="label ${look}" x="${round(box.left)}" y="${
        round(box.bottom - 3)
      }" font-size="11">${escaped(item.name)}</text>`,
    );
  }
  return parts;
}

function overlap(a: Box, b: Box): boolean {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

function dot(x: number, y: number, series: string, title?: string): string {
  return marked(`<circle class="${series}" cx="${x}" cy="${y}" r="5"`, "circle", title);
}

function square(x: number, y: number, series: string, title?: string): string {
  const at = `x="${round(x - 4.5)}" y="${round(y - 4.5)}" width="9" height="9"`;
  return marked(`<rect class="${series}" ${at}`, "rect", title);
}

function marked(open: string, element: string, title: string | undefined): string {
  return title === undefined
    ? `${open}/>`
    : `${open}><title>${escaped(title)}</title></${element}>`;
}

/** As much of a text as there is room for in a line. */
function shortened(text: string, letter: number): string {
  const most = Math.floor((WIDTH - EDGE.left - EDGE.right) / letter);
  const letters = [...text];
  return escaped(letters.length <= most ? text : `${letters.slice(0, most - 1).join("")}…`);
}

/** Text for an XML document: characters that it cannot hold become U+FFFD. */
function escaped(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.toWellFormed()
    // deno-lint-ignore no-control-regex
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd")
    .replace(/[&<>"']/g, (character) => entities[character]);
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
