/** The runner of the tests themselves. @module */
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { runWatched } from "../scripts/test/run_watched.ts";

/** Runs a program of this runtime, with so many milliseconds of silence allowed. */
async function run(program: string, silence: number) {
  const printed: string[] = [];
  const runtime = [process.execPath, ...("Deno" in globalThis ? ["eval"] : ["-e"])];
  const decoder = new TextDecoder();
  const started = performance.now();
  const ended = await runWatched([...runtime, program], {
    cwd: ".",
    env: process.env,
    silence,
    write: (text) => printed.push(typeof text === "string" ? text : decoder.decode(text)),
  });
  return { ...ended, printed: printed.join(""), took: performance.now() - started };
}

describe("a command that is watched", () => {
  test("gives what it prints, and its exit code", async () => {
    const { code, ending, hung, printed } = await run(
      `import { spawnSync } from "node:child_process";
import process from "node:process"; console.log("out"); console.error("err"); process.exit(3);`,
      60_000,
    );
    expect({ code, ending, hung }).toEqual({ code: 3, ending: "exited with code 3", hung: false });
    expect(printed).toContain("out\n");
    expect(printed).toContain("err\n");
  });

  test("may take longer than it may be silent", async () => {
    const { code, printed } = await run(
      `for (let i = 0; i < 8; i++) { console.log(i); await new Promise((r) => setTimeout(r, 500)); }`,
      3000,
    );
    expect(code).toBe(0);
    expect(printed).toContain("7\n");
  });

  test("is ended when it hangs, with all that it has started, and what they did is told", async () => {
    const { code, ending, hung, printed, took } = await run(
      `import { spawn } from "node:child_process";
       const { pid } = spawn("sleep", ["1234"], { stdio: "inherit" });
       console.log("began", pid);
       setTimeout(() => { for (;;); }, 100);`,
      2000,
    );
    expect(code).toBe(1);
    expect(hung).toBe(true);
    expect(ending).toBe("was ended after 2 s of silence");
    expect(printed).toContain("nothing was printed for 2 s by");
    expect(printed).toContain("sleep 1234");
    expect(took).toBeLessThan(60_000);
    const pid = Number(/began (\d+)/.exec(printed)?.[1]);
    // Nobody may have taken note of its end: then it is there as Z.
    const { stdout } = spawnSync("ps", ["-o", "stat=", "-p", `${pid}`], { encoding: "utf8" });
    expect(stdout.trim()).toMatch(/^(Z.*)?$/);
  });

  test("that cannot be started is told", async () => {
    const { code, ending } = await runWatched(["no-such-command-of-ours"], {
      cwd: ".",
      env: process.env,
      silence: 1000,
      write: () => {},
    });
    expect(code).toBe(1);
    expect(ending).toContain("could not start");
  });
});
