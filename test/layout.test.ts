/** Which folder knows which: what ARCHITECTURE.md says of it is what the code does. @module */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Every folder of the arrows in ARCHITECTURE.md, with the step it stands on; the highest is the last. */
function steps(): Map<string, number> {
  const text = readFileSync(`${root}ARCHITECTURE.md`, "utf8");
  const arrows = /^Arrows point one way: `([^`]+)`/m.exec(text)?.[1] ?? "";
  const groups = arrows.split(" → ").reverse().map((group) => group.split(", "));
  return new Map(groups.flatMap((names, step) => names.map((name) => [name, step] as const)));
}

/** What looks back, and ARCHITECTURE.md says so: an importer and what it may name. */
const EXCEPTIONS: readonly (readonly [RegExp, RegExp])[] = [
  [/^src\/engine\//, /^compile\/(functions\.ts|rotary_tables\.ts|packed\/)/],
  [/^src\/bundle\//, /^src\/binary\/(places|build)\.ts$/],
];

function isException(from: string, to: string): boolean {
  return EXCEPTIONS.some(([importer, named]) => importer.test(from) && named.test(to));
}

/** The modules of a folder, but those of the kernels, which are compiled by themselves. */
function modulesIn(folder: string): string[] {
  return readdirSync(root + folder, { recursive: true, encoding: "utf8" })
    .map((path) => `${folder}/${path.replaceAll("\\", "/")}`)
    .filter((path) => path.endsWith(".ts") && !path.startsWith("src/engine/sparse/assembly/"));
}

/** The folder that a module is a part of, as the arrows name it: `errors` of `src/errors.ts`. */
function folderOf(path: string): string {
  return path.startsWith("compile/") ? "compile" : /^src\/(\w+)/.exec(path)?.[1] ?? path;
}

const modules = ["src", "compile"].flatMap(modulesIn);

/** Whatever a module names of the project: values and types, at once and later. */
const imports = modules.flatMap((from) => {
  const named = /\b(?:from|import)\s*\(?\s*"(\.[^"]+)"/g;
  return [...readFileSync(root + from, "utf8").matchAll(named)]
    .map(([, to]) => ({ from, to: new URL(to, `file:///${from}`).pathname.slice(1) }));
});

const shown = ({ from, to }: { from: string; to: string }) => `${from}: ${to}`;

describe("a folder's modules", () => {
  test("have a place in the arrows, all but those of the surface", () => {
    const known = steps();
    const missing = modules.map(folderOf).filter((folder) => !known.has(folder));
    expect([...new Set(missing)].sort()).toEqual(["library", "version"]);
  });

  test("name only what is below it", () => {
    const known = steps();
    // The surface may name all, and everybody the version.
    const judged = imports.filter(({ from, to }) =>
      known.has(folderOf(from)) && folderOf(to) !== "version"
    );
    const back = judged.filter(({ from, to }) => {
      if (folderOf(from) === folderOf(to) || isException(from, to)) return false;
      return !(known.get(folderOf(to))! < known.get(folderOf(from))!);
    });
    expect(judged.length).toBeGreaterThan(500);
    expect(back.map(shown)).toEqual([]);
  });
});

test("the core names nothing of the project but its errors", () => {
  const named = imports.filter(({ from }) => from.startsWith("src/prune/"))
    .filter(({ to }) => !to.startsWith("src/prune/") && to !== "src/errors.ts");
  expect(named.map(shown)).toEqual([]);
});

test("the file format, which the engine knows, needs nothing above graphs but the grid of int4", () => {
  const known = steps(), limit = known.get("onnx")!;
  const needed = new Set(modules.filter((path) => isException("src/engine/model.ts", path)));
  for (const path of needed) {
    for (const { from, to } of imports) if (from === path) needed.add(to);
  }
  const above = [...needed].filter((path) =>
    path !== "src/prune/int4_grid.ts" && !path.startsWith("compile/") &&
    !(known.get(folderOf(path))! <= limit)
  );
  expect(above).toEqual([]);
  // Of `compile`, no step of the command.
  expect([...needed].filter((path) => /^compile\/(compile|expand|verify|options)\.ts$/.test(path)))
    .toEqual([]);
});
