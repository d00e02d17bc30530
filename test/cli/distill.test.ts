import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, start } from "./support.ts";

const folder = mkdtempSync(join(tmpdir(), "espalier-cli-distill-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const prune = (output: string, ...more: string[]) => [
  ...["prune", "examples/tiny", "-o", join(folder, output), "--sparsity", "0.6"],
  ...["--calibration", "examples/tiny/calibration.txt", "--samples", "4", "--seqlen", "128"],
  ...more,
];

describe("prune --distill", () => {
  test("shows its steps, and says what they came to", async () => {
    const { code, stdout, stderr } = await run(...prune("out", "--distill", "2"));
    expect(code).toBe(0);
    expect(stderr).toMatch(/^distill: 2 of 2 steps/m);
    expect(stdout).toMatch(/^distilled +2 steps: \d\.\d+ nats a token from the dense model's/m);
  }, 120_000);

  test("leaves nothing behind when it is stopped", async () => {
    const running = start(prune("stopped", "--distill", "100000"));
    await running.says("distill: ");
    running.kill("SIGINT");
    const { code, stderr } = await running.ended;
    expect(code).toBe(1);
    expect(stderr).toContain("ABORTED");
    expect(readdirSync(folder).filter((name) => name.includes("stopped"))).toEqual([]);
  }, 120_000);

  test("is refused with a number that is none of steps", async () => {
    const { code, stderr } = await run(...prune("bad", "--distill", "1.5"));
    expect(code).toBe(2);
    expect(stderr).toContain("--distill");
  });
});
