/**
 * `export` as people meet it: see `support.ts`.
 * @module
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parse } from "yaml";
import { Workshop } from "../checkpoint/support.ts";
import { unstructured } from "../export/support.ts";
import { fail, failAll, report, run, start, succeed, TINY } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

/** A pruning for which no model needs to run. */
const PRUNE = ["prune", TINY, "--method", "magnitude", "--allocation", "atp", "--sparsity", "0.6"];

/** A file with an allocation, in a folder of its own. */
function allocation(): { path: string; folder: string } {
  const folder = workshop.folder();
  const path = join(folder, "allocation.json");
  writeFileSync(path, JSON.stringify(unstructured()));
  return { path, folder };
}

describe("export", () => {
  test("writes the recipe to standard output, and nothing else", async () => {
    const { path } = allocation();
    const { stdout, stderr } = await succeed("export", path);
    expect(stderr).toBe("");
    const { pruning_modifiers } = parse(stdout, { version: "1.1" }).prune_stage;
    expect(pruning_modifiers.WandaPruningModifier.sparsity).toHaveLength(6);
  });

  test("writes it to a file, which anybody who may see the folder may read", async () => {
    const { path, folder } = allocation();
    const output = join(folder, "recipe.yaml");
    const words = ["--recipe", "llm-compressor", "--method", "sparsegpt", "--skip", "*.down_proj"];
    const { stdout, stderr } = await succeed("export", path, ...words, "-o", output);
    expect(stdout).toBe("");
    expect(stderr).toContain(output);
    const text = readFileSync(output, "utf8");
    expect(text).toContain("SparseGPTModifier:");
    expect(text).toContain("down_proj$");
    expect(readdirSync(folder).sort()).toEqual(["allocation.json", "recipe.yaml"]);
    if (process.platform !== "win32") {
      expect(statSync(output).mode & 0o777).toBe(statSync(path).mode & 0o777);
    }
  });

  test("prints one JSON object with the recipe in it", async () => {
    const { path } = allocation();
    const found = await report("export", path, "--skip", "q_proj");
    expect(found).toMatchObject({
      recipe: "llm-compressor",
      method: "wanda",
      pattern: "unstructured",
      dense: [],
      skip: ["q_proj"],
      notes: [],
    });
    expect(found.densities).toHaveLength(6);
    expect(found.text).toBe((await succeed("export", path, "--skip", "q_proj")).stdout);
  });

  test("gives the same recipe for a dry run, on standard input too, and for what was pruned", async () => {
    const skip = ["--skip", "*.down_proj"];
    const { stdout: dry } = await succeed(...PRUNE, ...skip, "--dry-run", "--json");
    const { code, stdout } = await start(["export", "-"], { input: dry }).ended;
    expect(code).toBe(0);
    const output = join(workshop.folder(), "out");
    await succeed(...PRUNE, ...skip, "-o", output);
    expect((await succeed("export", output)).stdout).toBe(stdout);
    expect((await succeed("export", join(output, "espalier.json"))).stdout).toBe(stdout);
    const { WandaPruningModifier } =
      parse(stdout, { version: "1.1" }).prune_stage.pruning_modifiers;
    expect(WandaPruningModifier.ignore.at(-1)).toContain("down_proj");
    const { blocks } = JSON.parse(dry) as { blocks: { density: number }[] };
    WandaPruningModifier.sparsity.forEach((share: number, i: number) =>
      expect(share).toBeCloseTo(1 - blocks[i].density, 9)
    );
  });

  test("says what is wrong with an allocation, and writes nothing", async () => {
    const { path, folder } = allocation();
    const write = (name: string, content: string) => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    };
    const to = ["-o", join(folder, "recipe.yaml")];
    const damaged = write("damaged.json", '{"blocks":[{"index":0,"density":2}]}');
    await fail(1, "ALLOCATION_INVALID", ["export", damaged, ...to], damaged, "blocks.0.density");
    await fail(
      1,
      "ALLOCATION_IMPOSSIBLE",
      ["export", write("all.json", "[1,1]"), ...to],
      "nothing",
    );
    await failAll(1, "FILE_UNREADABLE", [
      [["export", join(folder, "none.json"), ...to], "none.json"],
      [["export", write("no.json", "{"), ...to], "no.json"],
      [["export", TINY, ...to], "espalier.json"],
    ]);
    const { code, stderr } = await start(["export", "-", ...to], { input: '"text"' }).ended;
    expect([code, stderr]).toEqual([1, expect.stringContaining("ALLOCATION_INVALID")]);
    await failAll(2, "USAGE", [
      [["export"], "name an allocation"],
      [["export", path, "--recipe", "other"], "--recipe"],
      [["export", path, "--method", "magnitude"], "--method"],
      [["export", path, "--methode", "wanda"], "did you mean --method?"],
      [["export", path, "-o", path, "--force"], "the allocation itself"],
    ]);
    expect(readdirSync(folder)).not.toContain("recipe.yaml");
  });

  test("replaces a file only when it is told to", async () => {
    const { path, folder } = allocation();
    const output = join(folder, "recipe.yaml");
    writeFileSync(output, "mine");
    await fail(1, "OUTPUT_EXISTS", ["export", path, "-o", output], output, "--force");
    expect(readFileSync(output, "utf8")).toBe("mine");
    expect((await run("export", path, "-o", output, "--force")).code).toBe(0);
    expect(readFileSync(output, "utf8")).toContain("WandaPruningModifier");
  });
});
