import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import process from "node:process";
import { PassThrough } from "node:stream";
import { quote } from "../../src/checks.ts";
import { colours, ProgressView, shownText } from "../../src/cli/terminal.ts";

/** A terminal that shows what it is told. */
class Screen extends PassThrough {
  readonly isTTY = true;

  constructor(readonly columns: number) {
    super();
    this.setEncoding("utf8");
  }

  get shown(): string {
    return this.read() ?? "";
  }
}

const PHASE = "fetch OWNER/A-NAME-AS-LONG-AS-MANY-ARE-Instruct";

describe("progress at a terminal", () => {
  const before = ["stderr", "stdout"].map((name) =>
    [name, Object.getOwnPropertyDescriptor(process, name)!] as const
  );
  const { TERM, NO_COLOR } = process.env;

  function show(columns: number): Screen {
    const screen = new Screen(columns);
    for (const [name] of before) {
      Object.defineProperty(process, name, { value: screen, configurable: true });
    }
    return screen;
  }

  /** What is shown of a phase that begins and ends, line by line. */
  function linesOn(columns: number): string[] {
    const screen = show(columns);
    const view = new ProgressView();
    for (const done of [0, 3e9]) {
      view.show({ type: "progress", phase: PHASE, done, total: 3e9, unit: "bytes" });
    }
    view.finish();
    // deno-lint-ignore no-control-regex
    return screen.shown.split(/\r\x1b\[2K|\r?\n/).filter((line) => line !== "");
  }

  beforeEach(() => {
    process.env.TERM = "xterm";
    delete process.env.NO_COLOR;
  });

  afterEach(() => {
    for (const [name, descriptor] of before) Object.defineProperty(process, name, descriptor);
    for (const [name, value] of Object.entries({ TERM, NO_COLOR })) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });

  test("is one line that is drawn again, cut where it would go on in the next row", () => {
    const [begun, ended] = linesOn(40);
    expect(begun).toBe("fetch OWNER/A-NAME-AS-…: 0 B of 3.00 GB");
    expect(linesOn(20)[0]).toBe("fe…: 0 B of 3.00 GB");
    expect(linesOn(10)[0]).toBe("f…: 0 B o");
    // It is drawn no more.
    expect(ended).toContain(`${PHASE}: 3.00 GB of 3.00 GB, `);
  });

  test("is whole where there is room, or nobody knows how much there is", () => {
    for (const columns of [100, 0]) {
      expect(linesOn(columns)[0]).toBe(`${PHASE}: 0 B of 3.00 GB`);
    }
  });

  test("shows what models and files say without what would command it", () => {
    const said = "a\x1b]0;b\x07\x9b2J\tc\n\x7f";
    const screen = show(40);
    const view = new ProgressView();
    view.show({ type: "note", text: said });
    view.finish();
    expect(screen.shown).toBe("a\\u001b]0;b\\u0007\\u009b2J\\u0009c\n\\u007f\n");
    expect(shownText(said)).toBe("a\\u001b]0;b\\u0007\\u009b2J\tc\n\\u007f");
    // Who reads it by a program has every byte.
    Object.defineProperty(process, "stdout", { value: new PassThrough(), configurable: true });
    expect(shownText(said)).toBe(said);
    expect(quote("\x9b2J\x1b\u2028")).toBe('"\\u009b2J\\u001b\\u2028"');
  });

  test("that calls itself dumb is lines without colours", () => {
    process.env.TERM = "dumb";
    const screen = show(40);
    expect(colours()).toBe(false);
    const view = new ProgressView();
    view.show({ type: "progress", phase: PHASE, done: 3e9, total: 3e9, unit: "bytes" });
    view.finish();
    const { shown } = screen;
    expect(shown.startsWith("fetch ")).toBe(true);
    expect(shown).not.toContain("\x1b");
  });
});
