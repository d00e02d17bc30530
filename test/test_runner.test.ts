/** The runner of the tests themselves. @module */
import { afterAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ONCE, shareOf, turnOf } from "../scripts/test/once.ts";
import type { Plan } from "../scripts/test/plans.ts";
import { judge } from "../scripts/test/report.ts";
import { runWatched } from "../scripts/test/run_watched.ts";
import { fromRoot } from "./support/paths.ts";
import { ours, readTurn } from "./support/turns.ts";

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
      `for (let i = 0; i < 8; i++) { console.log(i); await new Promise((r) => setTimeout(r, 1000)); }`,
      6000,
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
      6000,
    );
    expect(code).toBe(1);
    expect(hung).toBe(true);
    expect(ending).toBe("was ended after 6 s of silence");
    expect(printed).toContain("nothing was printed for 6 s by");
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

describe("files that take minutes, of what no runtime has a part in", () => {
  const all = readdirSync(fromRoot("test"), { recursive: true })
    .map((entry) => `test/${String(entry).replaceAll("\\", "/")}`)
    .filter((file) => file.endsWith(".test.ts"));

  test("are there, and run in one runtime where two run, and all others in both", () => {
    const [bun, deno] = [shareOf("bun", all), shareOf("deno", all)];
    for (const file of ONCE) {
      const runs = [bun, deno].filter((files) => files.includes(file)).length;
      expect([file, all.includes(file), runs]).toEqual([file, true, 1]);
    }
    expect(bun.length + deno.length).toBe(2 * all.length - ONCE.length);
  });

  test("are none that try the runtime: commands, threads, requests, the released code's results", () => {
    expect(ONCE.filter((file) => /test\/(cli|server|platform|bundle|oracle)|serving/.test(file)))
      .toEqual([]);
  });
});

describe("cases of many that are alike", () => {
  const cases = Array.from({ length: 7 }, (_, i) => i);

  test("run in one runtime each where two run", () => {
    for (const first of [0, 1, 4]) {
      const halves = (["bun", "deno"] as const)
        .map((runtime) => ours(cases, first, readTurn(turnOf(runtime))));
      expect(halves.flat().sort()).toEqual(cases);
      for (const half of halves) expect(half.length).toBeGreaterThanOrEqual(3);
    }
  });

  test("are not always the same ones of a runtime", () => {
    const turn = readTurn(turnOf("bun"));
    expect(ours(cases, 1, turn)).not.toEqual(ours(cases, 0, turn));
  });

  test("run all where one runtime runs", () => {
    expect(ours(cases, 3, readTurn("0/1"))).toEqual(cases);
  });
});

describe("a runner's report", () => {
  const folder = mkdtempSync(join(tmpdir(), "espalier-reports-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  let count = 0;

  /** What is made of a report, or of none, after an exit code. */
  async function judged(
    runtime: Plan["runtime"],
    report: string | undefined,
    code: number,
    printed = "",
  ) {
    const reportPath = join(folder, `${count++}.xml`);
    if (report !== undefined) writeFileSync(reportPath, report);
    const plan = { runtime, version: "1", files: ["test/a.test.ts"], command: [], reportPath };
    return await judge(plan, { code, ending: `exited with code ${code}`, hung: false }, printed);
  }
  const file = 'file="test/a.test.ts"';

  test("tells passed, failed and skipped tests, whatever they print", async () => {
    const report = `<?xml version="1.0"?><testsuites><testsuite name="a">
      <testcase name="one" ${file} />
      <testcase name="two" ${file}><failure message="x"><![CDATA[<testcase name="no" />]]></failure></testcase>
      <testcase name="three" ${file}><skipped /></testcase>
      <!-- <testcase name="neither" /> -->
      <testcase name="four" ${file}><system-out>&lt;failure /&gt;</system-out></testcase>
    </testsuite></testsuites>`;
    expect(await judged("bun", report, 1))
      .toEqual({ passed: 2, failed: 1, skipped: 1, troubles: [] });
  });

  test("that is missing, and an exit code that no test explains, count as a failed test", async () => {
    const one = `<testcase name="one" ${file} />`;
    expect(await judged("deno", undefined, 0)).toMatchObject({ passed: 0, failed: 1 });
    expect(await judged("deno", one, 1)).toMatchObject({ passed: 1, failed: 1 });
    expect(await judged("deno", one, 0)).toMatchObject({ passed: 1, failed: 0, troubles: [] });
  });

  test("with a file of Deno's in which there are no tests counts that as a failed test", async () => {
    const one = `<testcase name="one" ${file} />`;
    const printed = (tests: number) =>
      `running 1 test from ./test/b.test.ts\nrunning ${tests} tests from ./test/a.test.ts\n`;
    expect(await judged("deno", one, 0, printed(2))).toMatchObject({ passed: 1, failed: 0 });
    for (const text of [printed(0), `\x1b[0m\x1b[38;5;245m${printed(0)}`]) {
      const { failed, troubles } = await judged("deno", one, 0, text);
      expect([failed, troubles.join()]).toEqual([1, "test/a.test.ts holds no test"]);
    }
  });

  test("without a word on one of Bun's files counts as a failed test", async () => {
    const { failed, troubles } = await judged("bun", "<testsuites />", 0);
    expect(failed).toBe(1);
    expect(troubles.join()).toContain("test/a.test.ts");
  });
});
