import { expect, test } from "bun:test";
import process from "node:process";
import { pathWord } from "../../src/platform/shell.ts";
import { runToEnd } from "../../src/platform/run_to_end.ts";

test.if(process.platform !== "win32")("a shell takes a path as one word, as it is", async () => {
  const paths = ["a/b-1.0", "two words", "it's", 'a"b', "$HOME", "a;b&c|d", "*", "~", "ä", "a\\b"];
  const { stdout } = await runToEnd([
    "sh",
    "-c",
    `printf '%s\\n' ${paths.map(pathWord).join(" ")}`,
  ]);
  expect(stdout.split("\n").slice(0, -1)).toEqual(paths);
  expect(pathWord(paths[0])).toBe(paths[0]);
});

test("a path is no option of a command", () => {
  expect(pathWord("-rf")).toBe("./-rf");
});
