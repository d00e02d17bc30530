import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { TEST_TIMEOUT_MS } from "./support/limit.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Larger files make every clone slow for good; models and benchmark outputs belong elsewhere. */
const MAX_TRACKED_BYTES = 12_000_000;

interface DenoConfig {
  version: string;
  imports: Record<string, string>;
}

interface PackageJson {
  name: string;
  version: string;
  files: string[];
  exports: Record<string, string | Record<string, string>>;
  dependencies: Record<string, string>;
  devDependencies: Record<string, string>;
  optionalDependencies: Record<string, string>;
}

function readText(path: string): string {
  return readFileSync(root + path, "utf8");
}

const denoConfig = JSON.parse(readText("deno.json")) as DenoConfig;
const packageJson = JSON.parse(readText("package.json")) as PackageJson;

/** The npm packages that deno.json imports, with every version it names for each. */
function denoVersions(): Map<string, Set<string>> {
  const versions = new Map<string, Set<string>>();
  for (const target of Object.values(denoConfig.imports)) {
    const [, name, version] = /^npm:\/?((?:@[^/]+\/)?[^@/]+)@([^/]+)/.exec(target) ?? [];
    if (name === undefined) continue;
    versions.set(name, (versions.get(name) ?? new Set()).add(version));
  }
  return versions;
}

/** The project's modules that are loaded with some, whatever they do then. */
function loadedWith(...modules: string[]): string[] {
  const found = new Set(modules);
  for (const path of found) {
    const statements = /^(?:import|export)\s(?!type\s)(?:[^;"]*?\sfrom\s)?"(\.[^"]+)"/gm;
    for (const [, target] of readText(path).matchAll(statements)) {
      found.add(new URL(target, `file:///${path}`).pathname.slice(1));
    }
  }
  return [...found];
}

/** The paths that git tracks, or undefined where there is no git or no repository. */
function trackedFiles(): string[] | undefined {
  const { status, stdout } = spawnSync("git", ["ls-files", "-z"], {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  return status === 0 ? stdout.split("\0").filter((path) => path !== "") : undefined;
}

describe("deno.json and package.json", () => {
  test("name one version of each package, and the same one in both", () => {
    const wanted = {
      ...packageJson.dependencies,
      ...packageJson.devDependencies,
      ...packageJson.optionalDependencies,
    };
    const fromNpm = Object.fromEntries(
      Object.entries(wanted).map(([name, version]) => {
        const [, itself = name, its = version] = /^npm:(.+)@([^@]+)$/.exec(version) ?? [];
        return [itself, its];
      }),
    );
    const shared = [...denoVersions()].filter(([name]) => name in fromNpm);
    expect(shared.length).toBeGreaterThan(0);
    expect(shared.map(([name, versions]) => `${name} ${[...versions].join(" and ")}`))
      .toEqual(shared.map(([name]) => `${name} ${fromNpm[name]}`));
  });

  test("give the project one version", () => {
    expect(denoConfig.version).toBe(packageJson.version);
  });
});

describe("the package", () => {
  test("holds all that it exports, also what git ignores", () => {
    const targets = Object.values(packageJson.exports)
      .flatMap((target) => typeof target === "string" ? [target] : Object.values(target))
      .map((target) => target.replace("./", ""));
    const isHeld = (path: string) =>
      packageJson.files.some((held) => path === held || path.startsWith(`${held}/`));
    expect(targets.filter((path) => !isHeld(path))).toEqual([]);
  });

  test("gives only Bun TypeScript: Node and Deno take none from among installed packages", () => {
    const { ".": library, ...others } = packageJson.exports;
    expect(library).toBeDefined();
    for (const target of Object.values(others)) {
      const given = typeof target === "string" ? { default: target } : target;
      const sources = Object.entries(given).filter(([, path]) => /(?<!\.d)\.ts$/.test(path));
      expect(sources.map(([condition]) => condition).filter((name) => name !== "bun")).toEqual([]);
    }
  });

  const hasNpm = spawnSync("npm", ["--version"]).status === 0;
  test.if(hasNpm)("holds none of the packages that its examples have been given", () => {
    const folder = mkdtempSync(join(tmpdir(), "espalier-package-"));
    try {
      const { files, name, version } = packageJson;
      writeFileSync(join(folder, "package.json"), JSON.stringify({ files, name, version }));
      for (const path of ["examples/a/b.mjs", "examples/a/node_modules/c/index.js"]) {
        mkdirSync(dirname(join(folder, path)), { recursive: true });
        writeFileSync(join(folder, path), "");
      }
      const words = ["pack", "--dry-run", "--json", "--ignore-scripts", "--offline"];
      const { stdout } = spawnSync("npm", words, { cwd: folder, encoding: "utf8" });
      const [packed] = JSON.parse(stdout) as { files: { path: string }[] }[];
      expect(packed.files.map(({ path }) => path)).toEqual(["examples/a/b.mjs", "package.json"]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("imports packages by the names that it depends on: it may lie among those of another", () => {
    const known = { ...packageJson.dependencies, ...packageJson.optionalDependencies };
    const ours = (trackedFiles() ?? []).filter((path) =>
      /^(src|compile)\/.*\.ts$/.test(path) && !path.startsWith("src/engine/sparse/assembly/")
    );
    const statements = /^(?:import|export)\s(?!type\s)[^;]*?\sfrom\s"([^".][^"]*)"/gm;
    const imported = ours.flatMap((path) => {
      // Text in a template may be that of another program.
      const code = readText(path).replaceAll(/`[^`]*`/g, "``");
      return [...code.matchAll(statements)].map(([, name]) => /^(?:@[^/]+\/)?[^/]+/.exec(name)![0]);
    });
    const unknown = imported.filter((name) => !/^(node|bun):/.test(name) && !(name in known));
    expect([...new Set(unknown)]).toEqual([]);
  });
});

describe("what runs in browsers", () => {
  test("names no module of Node: bundlers look for what is named", () => {
    const entries = ["src/prune/mod.ts", "src/generate/run.ts", "src/bundle/page/worker.ts"];
    const named = loadedWith(...entries).flatMap((path) =>
      [...readText(path).matchAll(/(?:\bfrom|\bimport\s*\()\s*"(node:[^"]+)"\)?(?!\)?>)/g)]
        .map(([, name]) => `${path}: ${name}`)
    );
    expect(named).toEqual([]);
  });
});

describe("the pinned runtimes", () => {
  const pin = (path: string, name: string) =>
    new RegExp(`\\b${name}\\w* ?= ?"?(\\d+\\.\\d+\\.\\d+)`, "i").exec(readText(path))?.[1];

  test("are the same Deno in .ci/run and scripts/test/plans.ts", () => {
    expect(pin(".ci/run", "deno_version")).toBeDefined();
    expect(pin(".ci/run", "deno_version")).toBe(pin("scripts/test/plans.ts", "deno_version"));
  });

  test("are the Bun that @types/bun describes", () => {
    expect(pin(".ci/run", "bun_version")).toBe(packageJson.devDependencies["@types/bun"]);
  });
});

test("a test that names no limit has the same in every runtime", () => {
  expect(/^timeout = (\d+)$/m.exec(readText("bunfig.toml"))?.[1]).toBe(`${TEST_TIMEOUT_MS}`);
});

describe("the program", () => {
  test("loads neither the library nor a command before it knows which one is wanted", () => {
    const modules = loadedWith("mod.ts", "src/cli/main.ts");
    expect(modules).toContain("src/cli/args.ts");
    const later = /^(compile|src\/(library\.ts|engine|generate|server|workflow|bundle))\b/;
    expect(modules.filter((path) => later.test(path))).toEqual([]);
  });

  test("loads all that requests need with serve: a server may have no network later", () => {
    const modules = loadedWith("src/cli/serve.ts");
    const loaded = modules.flatMap((path) =>
      [...readText(path).matchAll(/\bimport\("(\.[^"]+)"\)/g)].map(([, target]) =>
        new URL(target, `file:///${path}`).pathname.slice(1)
      )
    );
    // Those of models, which are there before it is ready, and of commands.
    const before = /^src\/(engine|hub|bundle|cli)\/|^src\/generate\/(fit|folder_place)\.ts$/;
    const later = loaded.filter((path) => !before.test(path) && !modules.includes(path));
    expect(later).toEqual([]);
  });
});

describe("the repository", () => {
  const tracked = trackedFiles();

  test.if(tracked !== undefined)("tracks no file over 12 MB", () => {
    const sizes = (tracked ?? []).map((path) => ({
      path,
      // A file removed from the working tree but not yet from the index has no size to judge.
      bytes: lstatSync(root + path, { throwIfNoEntry: false })?.size ?? 0,
    }));
    expect(sizes.filter(({ bytes }) => bytes > MAX_TRACKED_BYTES)).toEqual([]);
  });
});
