/** The frontier, the axes, and the plots of a comparison. @module */
import { describe, expect, test } from "bun:test";
import { XMLValidator } from "./xml.ts";
import {
  bestAt,
  paretoFrontier,
  sizeFrontier,
  speedFrontier,
} from "../../../src/workflow/compare/frontier.ts";
import { panelsOf, type Plotted } from "../../../src/workflow/compare/points.ts";
import { scaleFor } from "../../../src/workflow/compare/scale.ts";
import { comparisonSvg } from "../../../src/workflow/compare/svg.ts";
import { terminalPlot } from "../../../src/workflow/compare/terminal_plot.ts";
import { uniformNumbers } from "../../../src/text/windows.ts";

function variant(name: string, bytes: number, perplexity: number, more: Partial<Plotted> = {}) {
  return {
    name,
    bytes: bytes * 1e6,
    perplexity,
    tokensPerSecond: 1000 / bytes,
    sparsity: name.startsWith("dense") ? 0 : 0.5,
    values: "int8",
    ...more,
  };
}

const VARIANTS = [
  variant("dense:f16", 270, 20, { values: "f16" }),
  variant("dense:int8", 139, 20.5),
  variant("8:16", 99, 46),
  variant("2:4", 98, 145),
  variant("bad", 100, 150),
  variant("gone", 60, Infinity),
];

describe("the frontier", () => {
  test("has those that nothing beats in both, as the definition says", () => {
    const next = uniformNumbers(1);
    for (let round = 0; round < 200; round++) {
      // Few values, so that many are equal.
      const items = Array.from(
        { length: 12 },
        () => [Math.floor(next() * 6), Math.floor(next() * 6)] as const,
      );
      const found = paretoFrontier(items, (item) => item);
      for (const item of items) {
        const beaten = items.some((other) =>
          other[0] <= item[0] && other[1] <= item[1] && (other[0] < item[0] || other[1] < item[1])
        );
        const there = found.some((other) => other[0] === item[0] && other[1] === item[1]);
        expect(there).toBe(!beaten);
      }
      expect(new Set(found.map(String)).size).toBe(found.length);
    }
  });

  test("is by size and by speed, without what is not finite", () => {
    expect(sizeFrontier(VARIANTS).map(({ name }) => name))
      .toEqual(["2:4", "8:16", "dense:int8", "dense:f16"]);
    expect(speedFrontier(VARIANTS).map(({ name }) => name))
      .toEqual(["2:4", "8:16", "dense:int8", "dense:f16"]);
    const untimed = variant("8:16", 50, 10, { tokensPerSecond: undefined });
    expect(speedFrontier([...VARIANTS, untimed])).not.toContain(untimed);
  });

  test("says the best that fits, pruned and dense", () => {
    expect(bestAt(150e6, VARIANTS))
      .toEqual({ bytes: 150e6, best: "dense:int8", sparse: "8:16", dense: "dense:int8" });
    expect(bestAt(99e6, VARIANTS))
      .toEqual({ bytes: 99e6, best: "8:16", sparse: "8:16", dense: undefined });
    expect(bestAt(61e6, VARIANTS).best).toBeUndefined();
  });
});

describe("an axis", () => {
  test("holds all its values, and names some of them", () => {
    const next = uniformNumbers(2);
    for (let round = 0; round < 500; round++) {
      const values = Array.from(
        { length: 1 + Math.floor(next() * 5) },
        () => 10 ** (next() * 8 - 2),
      );
      const scale = scaleFor(values, { log: round % 2 === 0 ? "auto" : false });
      for (const value of [...values, ...scale.ticks]) {
        expect(scale.place(value)).toBeGreaterThanOrEqual(0);
        expect(scale.place(value)).toBeLessThanOrEqual(1);
      }
      expect(scale.ticks.length).toBeGreaterThan(1);
      expect(scale.ticks.length).toBeLessThan(20);
      expect([...scale.ticks].sort((a, b) => a - b)).toEqual([...scale.ticks]);
    }
  });

  test("is logarithmic where perplexities span much", () => {
    expect(scaleFor([20, 30], { log: "auto" }).log).toBe(false);
    const wide = scaleFor([20, 600], { log: "auto" });
    expect(wide.log).toBe(true);
    expect(wide.ticks).toEqual([20, 50, 100, 200, 500]);
    expect(wide.place(Math.sqrt(20 * 600))).toBeCloseTo(0.5, 9);
  });
});

describe("the plots", () => {
  test("are an XML document that says what its axes are", () => {
    const svg = comparisonSvg("SmolLM2", "on text", VARIANTS);
    expect(XMLValidator(svg)).toEqual({ root: "svg", problem: undefined });
    for (
      const text of [
        "megabytes of the model's files",
        "tokens a second",
        "perplexity, logarithmic (lower is better)",
        "prefers-color-scheme:dark",
        "8:16: perplexity 46.00, 99.0 MB",
      ]
    ) {
      expect(svg).toContain(text.replaceAll("'", "'"));
    }
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
    // A mark for each that is finite, in each of two panels; the legend has squares and circles as well.
    expect(svg.match(/<title>[^<]*perplexity \d/g)!.length).toBe(2 * 5);
  });

  test("hold any name, and no mark-up of it", () => {
    const evil = `</text><script>alert("1")</script>&\u0000\ud800'`;
    const svg = comparisonSvg(evil, evil, [variant(evil, 5, 7), variant("dense", 6, 5)]);
    expect(XMLValidator(svg)).toEqual({ root: "svg", problem: undefined });
    expect(svg).not.toContain("<script");
    expect(svg.isWellFormed()).toBe(true);
  });

  test("are there for one variant, and for none", () => {
    for (const some of [[], [VARIANTS[0]], [variant("gone", 1, Infinity)]]) {
      const svg = comparisonSvg("one", "", some);
      expect(XMLValidator(svg)).toEqual({ root: "svg", problem: undefined });
      expect(svg).not.toMatch(/NaN|Infinity|undefined/);
    }
  });

  test("stay within the columns of a terminal, and have each point where it belongs", () => {
    const [panel] = panelsOf(VARIANTS);
    const plot = terminalPlot(panel, ({ name }) => name[0], { columns: 80, rows: 18 });
    const lines = plot.split("\n");
    expect(lines.length).toBeLessThanOrEqual(18);
    for (const line of lines) expect([...line].length).toBeLessThanOrEqual(80);
    expect(lines[0]).toContain("logarithmic");
    expect(lines.at(-1)).toContain("megabytes");
    const area = lines.filter((line) => /[│┤]/.test(line)).map((line) => line.split(/[│┤]/)[1]);
    // The best and largest is at the lower right, the worst in the upper left.
    const rowOf = (letter: string) => area.findIndex((line) => line.includes(letter));
    expect(rowOf("d")).toBe(area.findLastIndex((line) => line.trim() !== ""));
    expect(area[rowOf("b")].indexOf("b")).toBeLessThan(area[rowOf("d")].lastIndexOf("d"));
    expect(rowOf("b")).toBeLessThan(rowOf("8"));
  });
});
