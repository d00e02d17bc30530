/** A search, and Ctrl-C: the first ends it, the second ends all. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Workshop } from "../checkpoint/support.ts";
import { matches, start, succeed, TINY } from "./support.ts";

const LONG = 120_000;

const workshop = new Workshop();
afterAll(() => workshop.remove());

const text = join(workshop.folder(), "text.txt");
writeFileSync(text, readFileSync(join(TINY, "calibration.txt"), "utf8").slice(0, 6000));
/** More allocations than anybody waits for. */
const ENDLESS = ["--allocation", "search", "--search-budget", "1000000"];
const FEW = ["--calibration", text, "--samples", "4", "--seqlen", "32"];
const QUICK = ["--backend", "wasm", "--threads", "1"];

/** Starts a search that does not end by itself, and waits until it has begun. */
async function searching(place: string, ...more: string[]) {
  const words = ["prune", TINY, "-o", join(place, "out"), ...ENDLESS, ...FEW, ...QUICK, ...more];
  const running = start(words);
  await running.says("Ctrl-C ends the search");
  return running;
}

describe("Ctrl-C in a search", () => {
  const unix = process.platform !== "win32";

  test.if(unix)("ends it, and the best so far is written", async () => {
    const place = workshop.folder();
    const running = await searching(place, "--json");
    running.kill("SIGINT");
    const { code, stdout, stderr } = await running.ended;
    expect(stderr).toContain("the search ends");
    expect(code).toBe(0);
    matches(JSON.parse(stdout), { allocation: "search", search: { budget: 1000000 } });
    expect(readdirSync(place)).toEqual(["out"]);
    expect(existsSync(join(place, "out", "model.safetensors"))).toBe(true);
  }, LONG);

  test.if(unix)(
    "ends all when it comes twice, but for what the next run goes on from",
    async () => {
      const place = workshop.folder();
      const running = await searching(place);
      running.kill("SIGINT");
      await running.says("the search ends");
      running.kill("SIGINT");
      const { code, stdout, stderr } = await running.ended;
      expect(stderr).toContain("error ABORTED: ");
      expect(stderr).toContain(
        `is kept in ${join(place, "out.search.json")}, and the same command goes on`,
      );
      expect(code).toBe(1);
      expect(stdout).toBe("");
      expect(readdirSync(place)).toEqual(["out.search.json"]);
    },
    LONG,
  );
});

describe("a search that ends no better than it began", () => {
  test("leaves the allocation that it started from, which the table says is written", async () => {
    const out = join(workshop.folder(), "out");
    const budget = ["--allocation", "search", "--search-budget", "1"];
    const held = ["--text", text, "--windows", "2", "--compare"];
    for (const more of [[], held]) {
      const words = ["prune", TINY, "-o", out, "--force", ...budget, ...FEW, ...QUICK, ...more];
      const { stdout, stderr } = await succeed(...words);
      const [, start] = /: (\w+) stays/.exec(stderr)!;
      const table = stdout.slice(stdout.indexOf("allocations on")).split("\n");
      expect(table.filter((line) => line.endsWith("written")).map((line) => line.split(" ")[0]))
        .toEqual([start]);
      expect(table.filter((line) => line.startsWith(start))).toHaveLength(1);
    }
  }, LONG);
});
