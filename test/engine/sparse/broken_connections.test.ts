/** Models on web servers whose connections break off. @module */
import { describe, expect, test } from "bun:test";
import { urlSource } from "../../../src/engine/url_source.ts";
import { FileReadError } from "../../../src/errors.ts";
import { rejectionOf } from "../../checkpoint/support.ts";
import { BASE, DATA, FakeServer, opened } from "./fake_server.ts";

describe("a web server", () => {
  const failing = (stream: ReadableStream<Uint8Array>) => {
    const reader = stream.getReader();
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        const { value } = await reader.read();
        if (value && value.length >= 7000) return controller.enqueue(value);
        controller.error(new Error("connection lost"));
      },
    });
  };

  const breaking = (r: Response) =>
    new Response(failing(r.body!), { status: r.status, headers: r.headers });

  test("that breaks off is asked for what has not come yet", async () => {
    const { server, file } = await opened("gives", [0, 0]);
    let left = 2;
    server.change = (r) => left-- > 0 ? breaking(r) : r;
    const target = new Uint8Array(50_000);
    await file.read(100, target);
    expect(target).toEqual(DATA.slice(100, 50_100));
    const starts = server.requests.map((request) => request.split("=")[1].split("-")[0]);
    // Each gave some chunks of 7000, the last of them less than that.
    expect(starts).toEqual(["0", "100", "49100", "49100"]);
  });

  test("that has answered is asked again for files that are taken whole", async () => {
    const server = new FakeServer("ignores");
    const source = urlSource(BASE, { fetch: server.fetch, waits: [0, 0, 0] });
    await source.has("config.json");
    let left = 2;
    server.change = (r) => {
      if (left-- <= 0) return r;
      if (left === 0) throw new Error("connection lost");
      return breaking(r);
    };
    expect(await source.read("onnx/data.bin")).toEqual(DATA);
    left = 2;
    const file = await source.open("onnx/data.bin");
    const target = new Uint8Array(10);
    await file.read(70_000, target);
    expect(target).toEqual(DATA.slice(70_000, 70_010));
    left = 2;
    expect(await source.has("onnx/data.bin")).toBe(true);
  });

  test("that stops giving ranges, and breaks off, is asked again", async () => {
    const { server, file } = await opened("gives", [0]);
    server.ranges = "ignores";
    let left = 1;
    server.change = (r) => left-- > 0 ? breaking(r) : r;
    const target = new Uint8Array(10);
    await file.read(20, target);
    expect(target).toEqual(DATA.slice(20, 30));
  });

  test("that breaks off again and again is an error, whatever was read, which says how often", async () => {
    const { server, file } = await opened("gives", [0, 0]);
    server.change = breaking;
    const error = await rejectionOf(file.read(0, new Uint8Array(20_000)));
    expect(error).toBeInstanceOf(FileReadError);
    expect(error.message).toContain("connection lost (3 times one after the other");
    server.ranges = "ignores";
    expect((await rejectionOf(file.read(0, new Uint8Array(20)))).message)
      .toContain("connection lost");
  });

  test("that breaks off is not asked again by who does not want it, or does not want it any more", async () => {
    const { server, file } = await opened("gives", []);
    server.change = breaking;
    const { message } = await rejectionOf(file.read(0, new Uint8Array(5000)));
    expect([message.split(": ").at(-1), server.requests.length]).toEqual(["connection lost", 2]);
    const controller = new AbortController();
    const options = { fetch: server.fetch, signal: controller.signal, waits: [60_000] };
    server.change = (r) => r;
    const other = await urlSource(BASE, options).open("onnx/data.bin");
    server.change = (r) => {
      setTimeout(() => controller.abort(), 10);
      return breaking(r);
    };
    const error = await rejectionOf(other.read(0, new Uint8Array(5000)));
    expect(error.code).toBe("ABORTED");
    expect(error.message).toContain("connection lost");
  });

  test("that has fallen silent counts as broken off", async () => {
    const { server, file } = await opened("gives", [0], 50);
    const silent = (r: Response) =>
      new Response(
        new ReadableStream({ start: (to) => to.enqueue(DATA.slice(0, 100)) }),
        { status: r.status, headers: r.headers },
      );
    let left = 1;
    server.change = (r) => left-- > 0 ? silent(r) : r;
    const target = new Uint8Array(1000);
    await file.read(0, target);
    expect(target).toEqual(DATA.slice(0, 1000));
    left = Infinity;
    const { message } = await rejectionOf(
      urlSource(BASE, {
        fetch: server.fetch,
        patience: 50,
        waits: [],
      }).read("config.json"),
    );
    expect(message).toContain("nothing has come for 0.05 s");
    // Who is that patient is not in a hurry: timers do not wait for so long.
    const patient = urlSource(BASE, {
      fetch: async (url, init) => {
        await new Promise((resolve) => setTimeout(resolve, 30));
        return await new FakeServer("gives").fetch(url, init);
      },
      patience: Infinity,
      waits: [],
    });
    expect((await patient.read("config.json")).length).toBeGreaterThan(0);
    let cancelled = false;
    let answer = (_: Response) => {};
    const late = new Promise<Response>((resolve) => answer = resolve);
    const source = urlSource(BASE, { fetch: () => late, patience: 50 });
    expect((await rejectionOf(source.read("config.json"))).message)
      .toContain("nothing has come for 0.05 s");
    // What comes after all is not left open.
    answer(new Response(new ReadableStream({ cancel: () => void (cancelled = true) })));
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(cancelled).toBe(true);
  });

  test("that says it has a page, and then nothing, or that it is busy, has not answered", async () => {
    const headers = { "content-type": "text/html" };
    const silent = () => Promise.resolve(new Response(new ReadableStream({}), { headers }));
    const source = urlSource(BASE, { fetch: silent, patience: 50, waits: [] });
    expect((await rejectionOf(source.has("config.json"))).message)
      .toContain("nothing has come for 0.05 s");
    let asked = 0;
    const busy = urlSource(BASE, {
      fetch: () => {
        const page = "<!DOCTYPE html><html>busy</html>";
        return Promise.resolve(new Response(page, { headers, status: asked++ === 0 ? 200 : 503 }));
      },
      waits: [],
    });
    expect((await rejectionOf(busy.has("config.json"))).message).toContain("503");
  });

  test("that is busy for a moment is asked again, and the last answer is told", async () => {
    for (const status of [429, 502, 503, 504]) {
      const { server, file } = await opened("gives", [0, 0]);
      let left = 2;
      server.change = (r) => left-- > 0 ? new Response("busy", { status }) : r;
      const target = new Uint8Array(100);
      await file.read(7, target);
      expect(target).toEqual(DATA.slice(7, 107));
      const source = urlSource(BASE, { fetch: server.fetch, waits: [0, 0] });
      expect(await source.has("config.json")).toBe(true);
      for (const read of [() => source.read("config.json"), () => source.open("onnx/data.bin")]) {
        left = 2;
        await read();
        expect(left).toBeLessThan(0);
        left = Infinity;
        const { code, message, cause } = await rejectionOf(read());
        expect([code, cause]).toEqual(["FILE_UNREADABLE", undefined]);
        expect(message).toContain(`the server answered ${status} (3 times`);
        left = 0;
      }
    }
    // What a server says of a file for good is not asked twice.
    const { server, file } = await opened("gives", [0, 0]);
    server.change = () => new Response("no", { status: 500 });
    await rejectionOf(file.read(0, new Uint8Array(1)));
    expect(server.requests).toHaveLength(2);
  });

  test("that says when to ask again is left alone so long, or given up where that is too long", async () => {
    for (
      const [after, least] of [["1", 1000], ["Tue, 01 Jan 2019 00:00:00 GMT", 0], [
        "soon",
        0,
      ]] as const
    ) {
      const { server, file } = await opened("gives", [0]);
      let busyAt: number | undefined;
      server.change = (r) => {
        if (busyAt !== undefined) return r;
        busyAt = performance.now();
        return new Response("busy", { status: 503, headers: { "retry-after": after } });
      };
      const target = new Uint8Array(100);
      await file.read(7, target);
      expect(target).toEqual(DATA.slice(7, 107));
      // Clocks and timers may differ by a millisecond.
      expect(performance.now() - busyAt!).toBeGreaterThanOrEqual(least - 2);
    }
    const { server, file } = await opened("gives", [0, 0]);
    server.change = () => new Response("busy", { status: 429, headers: { "retry-after": "3600" } });
    const { code, message } = await rejectionOf(file.read(0, new Uint8Array(1)));
    expect(code).toBe("FILE_UNREADABLE");
    expect(message).toContain("the server answered 429, and asks to be left alone for 3600 s");
    expect(server.requests).toHaveLength(2);
  });
});
