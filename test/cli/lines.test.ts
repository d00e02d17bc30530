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
    const shown = Object.assign(new PassThrough(), { isTTY: true });
    Object.defineProperty(process, "stderr", { value: shown, configurable: true });
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

/** What is read of a pipe, a line at a time. */
async function linesOf(write: (pipe: PassThrough) => void): Promise<string[]> {
  const stdin = Object.getOwnPropertyDescriptor(process, "stdin")!;
  const pipe = new PassThrough();
  Object.defineProperty(process, "stdin", { value: pipe, configurable: true });
  try {
    const lines = openLines(new AbortController().signal);
    write(pipe);
    const read: string[] = [];
    for (let line = await lines.next(""); line !== undefined; line = await lines.next("")) {
      read.push(line);
    }
    lines.close();
    return read;
  } finally {
    Object.defineProperty(process, "stdin", stdin);
  }
}

describe("lines of a pipe or a file", () => {
  test("begin behind the mark of UTF-8 that editors put before them", async () => {
    expect(await linesOf((pipe) => pipe.end("\uFEFFone\r\n\uFEFFtwo")))
      .toEqual(["one", "\uFEFFtwo"]);
  });

  test("end where a line ends, and at nothing else that may look like it", async () => {
    expect(await linesOf((pipe) => pipe.end("a\u2028b\u2029c\u0085d\rb\n\n\nlast\r\n")))
      .toEqual(["a\u2028b\u2029c\u0085d\rb", "", "", "last"]);
  });

  test("are whole however their bytes come", async () => {
    const bytes = new TextEncoder().encode("über\r\nein 🙂\r\nende");
    const read = await linesOf((pipe) => {
      for (const byte of bytes) pipe.write(Uint8Array.of(byte));
      pipe.end();
    });
    expect(read).toEqual(["über", "ein 🙂", "ende"]);
  });

  test("are refused where they are no UTF-8, and where they cannot be read", async () => {
    const latin = linesOf((pipe) => pipe.end(Uint8Array.of(0x63, 0x61, 0x66, 0xe9, 0x0a)));
    await expect(latin).rejects.toThrow("standard input is not UTF-8 text");
    const folder = linesOf((pipe) =>
      void pipe.destroy(Object.assign(new Error("EISDIR: illegal operation"), { code: "EISDIR" }))
    );
    await expect(folder).rejects.toThrow("cannot read standard input: it is a folder");
  });
});
