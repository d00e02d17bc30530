// @ts-check
/**
 * A model's card: what it is, what it weighs beside the dense model, and what pruning left of each
 * block.
 * @module
 */
import { draw, make } from "./dom.js";

/** @typedef {import("./api.js").Card} Card */
/** @typedef {import("./api.js").Weights} Weights */

/**
 * Bytes as people write them.
 *
 * @param {number} bytes
 */
export function size(bytes) {
  const [value, unit] = bytes >= 1e9
    ? [bytes / 1e9, "GB"]
    : bytes >= 1e6
    ? [bytes / 1e6, "MB"]
    : [bytes / 1e3, "kB"];
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}\u00a0${unit}`;
}

/**
 * A number of weights.
 *
 * @param {number} count
 */
function weights(count) {
  if (count >= 1e9) return `${(count / 1e9).toFixed(count < 1e10 ? 2 : 0)} billion`;
  return `${count >= 1e7 ? Math.round(count / 1e6) : (count / 1e6).toFixed(1)} million`;
}

/** @param {number} part */
const percent = (part) => `${(part * 100).toFixed(0)}\u00a0%`;

/**
 * What a model is, in a sentence or two.
 *
 * @param {Card} card
 */
export function sentence({ card, fileBytes, weightBytes }) {
  const bytes = size(fileBytes ?? weightBytes);
  if (!card) return `${bytes}, on this machine.`;
  const { sparsity, dense } = card;
  const pruned = sparsity > 0.005 ? `, ${percent(sparsity)} of them pruned away` : "";
  return `${weights(card.parameters)} weights in its blocks${pruned}. ` +
    `${bytes} where the dense model takes ${size(dense.f16)}.`;
}

/**
 * The whole card.
 *
 * @param {Card} model
 * @param {boolean} complete Whether nothing more of it is on its way.
 * @returns {HTMLElement}
 */
export function showCard(model, complete) {
  const { card } = model;
  const root = make("div", { class: "card" }, make("h2", {}, model.name));
  if (card) root.append(sizes(model, card));
  if (card && card.blocks.length > 0) root.append(blocks(card));
  if (!card && !complete) root.append(make("p", { class: "hint" }, "Reading its weights …"));
  root.append(facts(model));
  return root;
}

/**
 * Bars of bytes, this model's and those of dense ones.
 *
 * @param {Card} model
 * @param {Weights} card
 */
function sizes({ fileBytes, weightBytes }, { dense }) {
  /** @type {[name: string, bytes: number, own: boolean][]} */
  const rows = [
    ["This model", fileBytes ?? weightBytes, true],
    ["Dense, float16", dense.f16, false],
    ["Dense, int8", dense.int8, false],
    ["Dense, int4", dense.int4, false],
  ];
  const most = Math.max(...rows.map(([, bytes]) => bytes));
  const body = rows.map(([name, bytes, own]) =>
    make(
      "tr",
      { class: own ? "own" : undefined },
      make("th", { scope: "row" }, name),
      make("td", { class: "bar-cell" }, bar(bytes / most)),
      make("td", { class: "number" }, size(bytes)),
    )
  );
  return make(
    "section",
    {},
    make("h3", { id: "sizes-title" }, "Size of the files"),
    make("table", { class: "sizes", "aria-labelledby": "sizes-title" }, make("tbody", {}, ...body)),
  );
}

/** @param {number} part Of the full width. */
function bar(part) {
  return draw(
    "svg",
    { class: "size-bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("rect", { width: Math.max(0.5, part * 100), height: 8 }),
  );
}

/** Up to so many blocks have higher rows, and a number each. */
const FEW = 12;
/** Units of the plot: room for the numbers, and the length of a whole bar. */
const LEFT = 26;
const WIDE = 274;

/**
 * What is left of each block: a branch a block, the first at the bottom, as trees grow.
 *
 * @param {Weights} card
 */
function blocks({ blocks, sparsity }) {
  const few = blocks.length <= FEW;
  const [row, thick] = few ? [14, 8] : [9, 5];
  const height = blocks.length * row;
  const kept = blocks.map((block) => 1 - block.sparsity);
  const least = Math.min(...kept);
  const most = Math.max(...kept);
  const summary =
    `${blocks.length} blocks, which keep from ${percent(least)} to ${percent(most)} ` +
    `of their weights; ${percent(1 - sparsity)} together.`;
  const every = few ? 1 : Math.ceil(blocks.length / 8);
  const plot = draw("svg", {
    class: "blocks",
    viewBox: `0 0 ${LEFT + WIDE + 1} ${height + 24}`,
    role: "img",
    "aria-label": `Bar plot. ${summary}`,
  });
  for (const part of [0, 0.5, 1]) {
    const x = LEFT + part * WIDE;
    plot.append(
      draw("path", { class: part === 0 ? "trunk" : "rule", d: `M${x} 0V${height + 4}` }),
      draw(
        "text",
        { x, y: height + 18, "text-anchor": ["start", "middle", "end"][part * 2] },
        `${part * 100}\u00a0%`,
      ),
    );
  }
  blocks.forEach((block, i) => {
    const y = height - (i + 1) * row + (row - thick) / 2;
    const line = draw(
      "g",
      {},
      draw("title", {}, `Block ${block.index}: ${percent(kept[i])} kept, ${size(block.bytes)}`),
      // The whole row answers to the pointer.
      draw("rect", { class: "reach", x: 0, y: y - 2, width: LEFT + WIDE, height: row }),
      draw("rect", { class: "bare", x: LEFT, y, width: WIDE, height: thick }),
      draw("rect", { class: "branch", x: LEFT, y, width: kept[i] * WIDE, height: thick }),
    );
    if (i % every === 0) {
      line.append(
        draw(
          "text",
          { x: LEFT - 7, y: y + thick / 2 + 3.5, "text-anchor": "end" },
          `${block.index}`,
        ),
      );
    }
    plot.append(line);
  });
  const rows = blocks.map(({ index, sparsity, bytes }) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, String(index)),
      make("td", { class: "number" }, percent(1 - sparsity)),
      make("td", { class: "number" }, percent(sparsity)),
      make("td", { class: "number" }, size(bytes)),
    )
  );
  const head = ["Block", "Kept", "Pruned", "Bytes"].map((name, i) =>
    make("th", { scope: "col", class: i > 0 ? "number" : undefined }, name)
  );
  const table = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...rows),
  );
  return make(
    "section",
    {},
    make("h3", {}, "What is left of each block"),
    plot,
    make("details", { class: "as-table" }, make("summary", {}, "As a table"), table),
  );
}

/** @param {Card} model */
function facts(model) {
  const { card } = model;
  /** @type {[name: string, value: string | undefined][]} */
  const rows = [
    ["Architecture", model.architecture],
    ["Weights in blocks", card && weights(card.parameters)],
    ["Pruned", card && percent(card.sparsity)],
    ["Format", card && formats(card.formats)],
    ["Values", card?.values],
    ["Engine", `${model.engine}, ${model.device}`],
    ["Threads", String(model.threads)],
    ["Context", `${model.context.toLocaleString("en")} tokens`],
    ["Weights in memory", size(model.weightBytes)],
    ["Cache", `${size(model.cacheBytesPerToken)} a token`],
    ["Full cache", size(model.cacheBytesPerToken * model.context + (model.stateBytes ?? 0))],
  ];
  const list = make("dl", { class: "facts" });
  for (const [name, value] of rows) {
    if (value) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  }
  return make("section", {}, make("h3", {}, "Details"), list);
}

/** @param {Record<string, number>} formats */
function formats(formats) {
  const parts = Object.entries(formats).sort(([, a], [, b]) => b - a);
  if (parts.length === 1) return parts[0][0];
  return parts.map(([name, count]) => `${name} (${count})`).join(", ");
}
