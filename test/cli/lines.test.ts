import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import process from "node:process";
import { PassThrough } from "node:stream";
import { type LineReader, openLines } from "../../src/cli/lines.ts";

/** A terminal that a test types at. */
class Keyboard extends PassThrough {
  readonly isTTY = true;
  setRawMode(): this {
    return this;
  }
}

describe("lines at a terminal", () => {
  const stdin = Object.getOwnPropertyDescriptor(process, "stdin")!;
  const stderr = Object.getOwnPropertyDescriptor(process, "stderr")!;
  let keyboard: Keyboard;
  let stop: AbortController;
  let lines: LineReader;

  beforeEach(() => {
    keyboard = new Keyboard();
    stop = new AbortController();
    Object.defineProperty(process, "stdin", { value: keyboard, configurable: true });
    // What is shown is no part of the test's own output.
    Object.defineProperty(process, "stderr", { value: new PassThrough(), configurable: true });
    lines = openLines(stop.signal);
  });

  afterEach(() => {
    lines.close();
    Object.defineProperty(process, "stdin", stdin);
    Object.defineProperty(process, "stderr", stderr);
  });

  test("that are pasted together come one after the other, and the beginning of another is kept", async () => {
    const first = lines.next("> ");
    keyboard.write("one\rtwo\r\rthree\rfo");
    expect(await first).toBe("one");
    expect(await lines.next("> ")).toBe("two");
    expect(await lines.next("> ")).toBe("");
    expect(await lines.next("> ")).toBe("three");
    const last = lines.next("> ");
    keyboard.write("ur\r");
    expect(await last).toBe("four");
  });

  test("that were there before they were asked for are forgotten where that is wanted", async () => {
    const first = lines.next("> ");
    keyboard.write("one\rtwo\rthr");
    expect(await first).toBe("one");
    lines.drop();
    const next = lines.next("> ");
    keyboard.write("four\r");
    expect(await next).toBe("four");
  });

  test("are typed further when Ctrl-Z has stopped the process and a shell has it go on", async () => {
    const { kill } = process;
    const stopped = new Promise<unknown>((resolve) => {
      process.kill = (_id, signal) => {
        resolve(signal);
        return true;
      };
    });
    try {
      const line = lines.next("> ");
      keyboard.write("on\x1a");
      expect(await stopped).toBe("SIGTSTP");
      process.emit("SIGCONT", "SIGCONT");
      keyboard.write("e\r");
      expect(await line).toBe("one");
    } finally {
      process.kill = kill;
    }
  });

  test("end with the input, and when the work is stopped", async () => {
    const first = lines.next("> ");
    stop.abort();
    expect(await first).toBeUndefined();
    expect(await lines.next("> ")).toBeUndefined();
  });
});

test("lines of a file begin behind the mark of UTF-8 that editors put before them", async () => {
  const stdin = Object.getOwnPropertyDescriptor(process, "stdin")!;
  const file = new PassThrough();
  Object.defineProperty(process, "stdin", { value: file, configurable: true });
  try {
    const lines = openLines(new AbortController().signal);
    file.end("\uFEFFone\r\n\uFEFFtwo");
    expect(await lines.next("> ")).toBe("one");
    expect(await lines.next("> ")).toBe("\uFEFFtwo");
    expect(await lines.next("> ")).toBeUndefined();
  } finally {
    Object.defineProperty(process, "stdin", stdin);
  }
});
