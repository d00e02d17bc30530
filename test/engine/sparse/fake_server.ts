/** A web server that is a function, and does what a test says. @module */
import { urlSource } from "../../../src/engine/url_source.ts";

export const DATA = Uint8Array.from({ length: 100_000 }, (_, i) => i * 7 + (i >> 8));
export const CONFIG = new TextEncoder().encode('{"model_type":"llama"}');
export const FILES = {
  "config.json": CONFIG,
  "onnx/data.bin": DATA,
  "onnx/empty": new Uint8Array(0),
};
export const BASE = "http://models.example/a b/";

/** How a server treats requests for ranges. */
export type Ranges = "gives" | "ignores" | "hides";

/** A web server that is a function. */
export class FakeServer {
  readonly requests: string[] = [];
  readonly headers: Record<string, string>[] = [];
  /** Changes answers before they are given. */
  change: (response: Response, request: number) => Response | Promise<Response> = (r) => r;

  constructor(
    public ranges: Ranges = "gives",
    readonly files: Record<string, Uint8Array<ArrayBuffer>> = FILES,
  ) {}

  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    init.signal?.throwIfAborted();
    const headers = init.headers as Record<string, string>;
    this.headers.push(headers);
    const path = decodeURIComponent(new URL(url).pathname).replace("/a b/", "");
    const range = headers.range;
    this.requests.push(range ? `${path} ${range}` : path);
    return await this.change(this.#answer(path, range), this.requests.length - 1);
  };

  #answer(path: string, range: string | undefined): Response {
    const bytes = this.files[path];
    if (!bytes) return new Response("no such file", { status: 404, statusText: "Not Found" });
    const [first, last] = range?.slice("bytes=".length).split("-").map(Number) ?? [];
    if (range && this.ranges !== "ignores") {
      if (first >= bytes.length) return new Response(null, { status: 416 });
      const place = { "content-range": `bytes ${first}-${last}/${bytes.length}` };
      return new Response(inChunks(bytes.subarray(first, last + 1)), {
        status: 206,
        headers: this.ranges === "hides" ? {} : place,
      });
    }
    return new Response(inChunks(bytes), {
      headers: { "content-length": String(bytes.length) },
    });
  }
}

/** A body that comes in pieces, as bodies do. */
export function inChunks(bytes: Uint8Array<ArrayBuffer>, size = 7000): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at += size));
    },
  });
}

/** A file of a server, opened, and the server. */
export async function opened(
  ranges: Ranges = "gives",
  waits?: readonly number[],
  patience?: number,
) {
  const server = new FakeServer(ranges);
  const source = urlSource(BASE, { fetch: server.fetch, waits, patience });
  const file = await source.open("onnx/data.bin");
  return { server, file };
}
