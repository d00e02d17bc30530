/** A client that sends bytes as it pleases and reads HTTP by itself: what `fetch` would never do. @module */
import { connect, type Socket } from "node:net";

/** An answer, read off the wire. */
export interface RawAnswer {
  readonly status: number;
  /** By names in small letters. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
  /** Whether all of the body has come that was announced. */
  readonly isWhole: boolean;
}

/** Milliseconds that anything is waited for. */
const PATIENCE = 15_000;

/** A connection. */
export class RawClient {
  readonly #socket: Socket;
  #received = "";
  #isClosed = false;
  /** Called whenever something has come. */
  #news: () => void = () => {};

  private constructor(socket: Socket) {
    this.#socket = socket;
    // A character a byte, so that lengths are lengths.
    socket.setEncoding("latin1");
    socket.on("data", (text: string) => {
      this.#received += text;
      this.#news();
    });
    // That the server hangs up is what many tests are after.
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#isClosed = true;
      this.#news();
    });
  }

  /** Connects, and sends something. */
  static open(port: number, text = ""): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: "127.0.0.1" });
      socket.once("error", reject);
      socket.once("connect", () => {
        const client = new RawClient(socket);
        if (text !== "") client.send(text);
        resolve(client);
      });
    });
  }

  /** All that has come and was not read as an answer. */
  get received(): string {
    return this.#received;
  }

  /** Bytes that were to be sent and have not been taken yet. */
  get unsent(): number {
    return this.#socket.writableLength;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Sends text, a byte a character. */
  send(text: string): void {
    if (!this.#socket.destroyed) this.#socket.write(text, "latin1");
  }

  /** Says that nothing more is sent; still reads. */
  end(): void {
    this.#socket.end();
  }

  /** Stops reading: what the server sends fills buffers, and then nothing moves. */
  stopReading(): void {
    this.#socket.pause();
  }

  /** Reads on. */
  readOn(): void {
    this.#socket.resume();
  }

  /** Goes away. */
  leave(): void {
    this.#socket.destroy();
  }

  /** Waits until something holds; false when it does not in time. */
  async until(holds: () => boolean, patience = PATIENCE): Promise<boolean> {
    const end = performance.now() + patience;
    while (!holds()) {
      const left = end - performance.now();
      if (left <= 0) return false;
      let timer: ReturnType<typeof setTimeout> | undefined;
      await new Promise<void>((resolve) => {
        this.#news = resolve;
        timer = setTimeout(resolve, left);
      });
      clearTimeout(timer);
    }
    return true;
  }

  /** Seconds until the server has hung up; undefined when it does not in time. */
  async hungUp(patience = PATIENCE): Promise<number | undefined> {
    const start = performance.now();
    return await this.until(() => this.#isClosed, patience)
      ? (performance.now() - start) / 1000
      : undefined;
  }

  /** Reads the next answer; undefined when the server hangs up, or says nothing, instead. */
  async answer(patience = PATIENCE): Promise<RawAnswer | undefined> {
    const head = () => this.#received.indexOf("\r\n\r\n");
    await this.until(() => head() >= 0 || this.#isClosed, patience);
    if (head() < 0) return undefined;
    const [first, ...lines] = this.#received.slice(0, head()).split("\r\n");
    const headers = new Map(lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }));
    this.#received = this.#received.slice(head() + 4);
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first)?.[1]);
    return { status, headers, ...await this.#body(headers, patience) };
  }

  async #body(
    headers: ReadonlyMap<string, string>,
    patience: number,
  ): Promise<Pick<RawAnswer, "body" | "isWhole">> {
    if (headers.get("transfer-encoding") === "chunked") {
      let body = "";
      for (;;) {
        const size = parseInt(await this.#take(this.#lineLength, patience), 16);
        const chunk = await this.#take(() => size + 2, patience);
        if (!(size > 0)) return { body, isWhole: size === 0 };
        body += chunk.slice(0, -2);
      }
    }
    const length = headers.get("content-length");
    if (length !== undefined) {
      const body = await this.#take(() => Number(length), patience);
      return { body, isWhole: body.length === Number(length) };
    }
    const isWhole = await this.until(() => this.#isClosed, patience);
    return { body: this.#received, isWhole };
  }

  #lineLength = () => {
    const end = this.#received.indexOf("\r\n");
    return end < 0 ? Infinity : end + 2;
  };

  /** Takes so many characters off; fewer when the server has hung up. */
  async #take(count: () => number, patience: number): Promise<string> {
    await this.until(() => this.#received.length >= count() || this.#isClosed, patience);
    const taken = this.#received.slice(0, count());
    this.#received = this.#received.slice(taken.length);
    return taken;
  }
}

/** The text of a request with a JSON body. */
export function postText(path: string, body: unknown, headers: readonly string[] = []): string {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return headText("POST", path, [
    "Content-Type: application/json",
    `Content-Length: ${text.length}`,
    ...headers,
  ]) + text;
}

/** The text of a request's head. */
export function headText(method: string, path: string, headers: readonly string[] = []): string {
  return `${[`${method} ${path} HTTP/1.1`, "Host: localhost", ...headers].join("\r\n")}\r\n\r\n`;
}
