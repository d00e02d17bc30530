/**
 * The build that bundles are made of: taken as it is, or made first.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BUILT, distribution } from "../../src/bundle/dist.ts";
import { ToolMissingError } from "../../src/errors.ts";
import { Workshop } from "../checkpoint/support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** A package whose build writes what is asked for, or fails. */
function packageWith(build: string, root = workshop.folder()): string {
  for (const folder of ["src", "compile", "scripts"]) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  writeFileSync(join(root, "src/a.ts"), "export {};\n");
  writeFileSync(join(root, "package.json"), '{ "private": true }\n');
  writeFileSync(join(root, "scripts/build.ts"), build);
  const past = new Date(Date.now() - 60_000);
  for (const path of ["src/a.ts", "package.json", "scripts/build.ts"]) {
    utimesSync(join(root, path), past, past);
  }
  return root;
}

const BUILD = `
import { mkdirSync, writeFileSync } from "node:fs";
mkdirSync("dist/page", { recursive: true });
for (const name of ${JSON.stringify(BUILT)}) writeFileSync("dist/" + name, String(Date.now()));
`;

/** Tells how often something was built. */
function watcher() {
  const notes: string[] = [];
  const onProgress = (event: { type: string; text?: string }) => {
    if (event.type === "note") notes.push(event.text!);
  };
  return { notes, hooks: { onProgress } };
}

describe("the build", () => {
  test("is made where it is missing, and again when a source is newer", async () => {
    const root = packageWith(BUILD);
    const { notes, hooks } = watcher();
    expect(await distribution(hooks, root)).toBe(join(root, "dist"));
    expect(existsSync(join(root, "dist/edge.js"))).toBe(true);
    await distribution(hooks, root);
    expect(notes.length).toBe(1);
    const later = new Date(Date.now() + 5_000);
    utimesSync(join(root, "src/a.ts"), later, later);
    await distribution(hooks, root);
    expect(notes.length).toBe(2);
  }, 60_000);

  test("is made once for two who want it at once", async () => {
    const root = packageWith(BUILD);
    const { notes, hooks } = watcher();
    await Promise.all([distribution(hooks, root), distribution(hooks, root)]);
    expect(notes.length).toBe(1);
    expect(existsSync(join(root, "dist/.lock"))).toBe(false);
  }, 60_000);

  test("is made again where one was cut short: not all that it writes was there", async () => {
    const root = packageWith(BUILD);
    const { notes, hooks } = watcher();
    await distribution(hooks, root);
    rmSync(join(root, "dist/complete.json"));
    await distribution(hooks, root);
    expect(notes.length).toBe(2);
  }, 60_000);

  test("that came with an installed package is taken, in whatever order it was unpacked", async () => {
    const root = packageWith(BUILD, join(workshop.folder(), "node_modules/espalier"));
    mkdirSync(join(root, "dist/page"), { recursive: true });
    for (const name of BUILT) {
      writeFileSync(join(root, "dist", name), "packed");
      utimesSync(join(root, "dist", name), 1, 1);
    }
    const { notes, hooks } = watcher();
    expect(await distribution(hooks, root)).toBe(join(root, "dist"));
    expect(notes).toEqual([]);
  });

  test("that fails says why, and what to do", async () => {
    const root = packageWith('throw new Error("the mill is broken");\n');
    const failure = await distribution({}, root).catch((error) => error);
    expect(failure).toBeInstanceOf(ToolMissingError);
    expect(failure.message).toContain("the mill is broken");
    expect(failure.message).toContain("bun install && bun scripts/build.ts");
    expect(existsSync(join(root, "dist/.lock"))).toBe(false);
  }, 60_000);
});
