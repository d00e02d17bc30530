import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { peakResidentBytes, runtime } from "../../src/platform/runtime.ts";
import { fromRoot } from "../support/paths.ts";

const SCRIPT = `import { peakResidentBytes } from "./src/platform/runtime.ts";
console.log(peakResidentBytes());`;

test("the largest memory that a process has held counts what it has let go of", () => {
  const before = peakResidentBytes();
  expect(before).toBeGreaterThan(10e6);
  new Uint8Array(300e6).fill(1);
  expect(peakResidentBytes()).toBeGreaterThan(300e6);
});

test.if(process.platform === "linux")("it does not count what its parent held", () => {
  const held = new Uint8Array(400e6).fill(1);
  const inline = runtime().name === "deno" ? ["eval", "--ext=ts"] : ["-e"];
  const { stdout } = spawnSync(process.execPath, [...inline, SCRIPT], {
    cwd: fromRoot(""),
    encoding: "utf8",
  });
  expect(Number(stdout)).toBeGreaterThan(10e6);
  expect(Number(stdout)).toBeLessThan(held.length - 100e6);
});
