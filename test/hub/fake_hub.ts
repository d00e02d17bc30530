/**
 * A Hub for tests: its routes, its headers, and all that can go wrong on the way.
 *
 * It speaks HTTP over bare sockets: servers of the runtimes do not let a test lie about lengths, or end
 * a connection in the middle of a byte range.
 * @module
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";

/** The commit that `main` is. */
export const COMMIT = "1234567890abcdef1234567890abcdef12345678";

/** A file of the fake repository. */
export interface FakeFile {
  readonly path: string;
  readonly content: Uint8Array;
  /** Kept elsewhere: the Hub redirects to another server. */
  readonly large: boolean;
}

/** A request as a server saw it. */
export interface Seen {
  readonly server: "hub" | "files";
  readonly path: string;
  readonly headers: ReadonlyMap<string, string>;
}

/** An answer. */
export interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  /** Length to claim instead of the true one; none at all when null. */
  readonly claimed?: number | null;
  /** Bytes of the body after which the connection is torn down. */
  readonly cut?: number;
  /** Milliseconds before the answer. */
  readonly wait?: number;
  /** Milliseconds between pieces of 64 kB. */
  readonly slow?: number;
  /** Whether the connection stays open and silent after the body. */
  readonly hang?: boolean;
}

/** Changes an answer, or gives another. */
export type Meddler = (seen: Seen, reply: Reply) => Reply;

/** What a listing says of a file that is not there. */
export type Entry = Readonly<Record<string, unknown>>;

/** A running Hub with one repository, `some-owner/some-model`. */
export class FakeHub {
  /** All requests so far. */
  readonly seen: Seen[] = [];
  files: FakeFile[];
  /** Revisions beside `main`. */
  revisions: Record<string, string> = {};
  /** More entries of the listing of the root. */
  entries: Entry[] = [];
  /** Entries on a page of a listing. */
  pageSize = 1000;
  meddle: Meddler = (_, reply) => reply;
  readonly #servers: Server[];
  readonly #sockets = new Set<Socket>();

  private constructor(files: FakeFile[], servers: Server[]) {
    this.files = files;
    this.#servers = servers;
  }

  /** Starts one. */
  static async start(files: FakeFile[]): Promise<FakeHub> {
    const servers = [createServer(), createServer()];
    const hub = new FakeHub(files, servers);
    for (const [i, server] of servers.entries()) {
      server.on("connection", (socket) => hub.#serve(i === 0 ? "hub" : "files", socket));
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    }
    return hub;
  }

  /** Its address. */
  get url(): string {
    return this.#url(0);
  }

  /** Address of the server that large files come from. */
  get filesUrl(): string {
    return this.#url(1);
  }

  /** Requests for files since the last call, as `server path range`. */
  takeSeen(): Seen[] {
    return this.seen.splice(0);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(this.#servers.map((server) => new Promise((done) => server.close(done))));
  }

  #url(i: number): string {
    return `http://127.0.0.1:${(this.#servers[i].address() as { port: number }).port}`;
  }

  #serve(server: Seen["server"], socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {});
    let head = "";
    socket.on("data", (data) => {
      head += data.toString("latin1");
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      const [first, ...lines] = head.slice(0, end).split("\r\n");
      head = "";
      const headers = new Map(lines.map((line) => {
        const colon = line.indexOf(":");
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }));
      const [method, path] = first.split(" ");
      const seen: Seen = { server, path, headers };
      this.seen.push(seen);
      const reply = this.meddle(seen, this.#answer(seen));
      const length = Buffer.from((reply.body ?? "") as string).length;
      void send(socket, method === "HEAD" ? { ...reply, body: "", claimed: length } : reply);
    });
  }

  #answer(seen: Seen): Reply {
    const { pathname, searchParams } = new URL(seen.path, this.url);
    const path = decodeURIComponent(pathname);
    if (seen.server === "files") {
      const file = this.files.find((file) => path === `/${sha256(file.content)}`);
      return file ? content(file, seen) : { status: 404 };
    }
    const [owner, name, ...rest] = path.replace(/^\/api\/models/, "").slice(1).split("/");
    if (`${owner}/${name}` !== "some-owner/some-model") return missing("RepoNotFound", 401);
    const [route, ...words] = rest;
    if (route === "revision") {
      const commit = this.#commit(words.join("/"));
      const info = {
        _id: "0",
        id: `${owner}/${name}`,
        sha: commit,
        lastModified: "2026-01-01T00:00:00.000Z",
      };
      return commit ? json(info) : missing("RevisionNotFound");
    }
    const commit = this.#commit(words[0]);
    if (!commit) return missing("RevisionNotFound");
    if (route === "tree") return this.#list(pathname, words.slice(1).join("/"), searchParams);
    const file = this.files.find((file) => file.path === words.slice(1).join("/"));
    if (route !== "resolve" || !file) return missing("EntryNotFound");
    const headers = { "x-repo-commit": commit };
    if (!file.large) return content(file, seen, headers);
    const hash = sha256(file.content);
    return {
      status: 302,
      headers: {
        ...headers,
        "x-linked-etag": `"${hash}"`,
        "x-linked-size": String(file.content.length),
        location: `${this.filesUrl}/${hash}?signature=abc`,
      },
      body: "Found. Redirecting",
    };
  }

  #commit(revision: string): string | undefined {
    return { main: COMMIT, [COMMIT]: COMMIT, ...this.revisions }[revision];
  }

  #list(pathname: string, folder: string, query: URLSearchParams): Reply {
    const prefix = folder === "" ? "" : `${folder}/`;
    const below = this.files.filter(({ path }) => path.startsWith(prefix));
    const folders = new Set(
      below.map(({ path }) => path.slice(prefix.length).split("/"))
        .filter((parts) => parts.length > 1).map(([first]) => first),
    );
    const all = [
      ...[...folders].map((name) => ({
        type: "directory",
        oid: "0".repeat(40),
        size: 0,
        path: name,
      })),
      ...below.filter(({ path }) => !path.slice(prefix.length).includes("/")).map(entryOf),
      ...(folder === "" ? this.entries : []),
    ];
    const from = Number(query.get("cursor") ?? 0);
    const next = from + this.pageSize;
    const link = `<${this.url}${pathname}?recursive=false&expand=false&cursor=${next}>; rel="next"`;
    return json(all.slice(from, next), next < all.length ? { link } : {});
  }
}

/** A file of the fake repository. */
export function file(path: string, content: string | Uint8Array, large = false): FakeFile {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  return { path, content: bytes, large };
}

/** Bytes that look like none else, the same every time. */
export function noise(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What `git hash-object` says. */
export function gitHash(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

/** How the Hub lists a file. */
export function entryOf({ path, content, large }: FakeFile): Entry {
  const oid = gitHash(content);
  const lfs = { oid: sha256(content), size: content.length, pointerSize: 134 };
  const xetHash = "c".repeat(64);
  return { type: "file", path, oid, size: content.length, ...(large ? { lfs, xetHash } : {}) };
}

function json(value: unknown, headers: Record<string, string> = {}): Reply {
  return {
    status: 200,
    headers: { "content-type": "application/json; charset=utf-8", ...headers },
    body: JSON.stringify(value),
  };
}

function missing(code: string, status = 404): Reply {
  return { status, headers: { "x-error-code": code, "x-error-message": "not here" }, body: "{}" };
}

/** A file, or the range of it that is asked for. */
function content(
  { content, large }: FakeFile,
  { headers }: Seen,
  more: Record<string, string> = {},
): Reply {
  const etag = `"${large ? sha256(content).slice(0, 32) : gitHash(content)}"`;
  const range = /^bytes=(\d+)-$/.exec(headers.get("range") ?? "");
  const condition = headers.get("if-range");
  if (!range || (condition !== undefined && condition !== etag)) {
    return { status: 200, headers: { etag, "accept-ranges": "bytes", ...more }, body: content };
  }
  const from = Number(range[1]);
  if (from >= content.length) return { status: 416, headers: more };
  const what = `bytes ${from}-${content.length - 1}/${content.length}`;
  const body = content.subarray(from);
  return { status: 206, headers: { etag, "content-range": what, ...more }, body };
}

async function send(socket: Socket, reply: Reply): Promise<void> {
  const { status, headers = {}, claimed, cut, slow = 0 } = reply;
  const body = Buffer.from((reply.body ?? "") as string);
  const length = claimed === undefined ? body.length : claimed;
  if (reply.wait) await new Promise((done) => setTimeout(done, reply.wait));
  const lines = Object.entries({
    ...headers,
    ...(length === null ? {} : { "content-length": String(length) }),
    connection: "close",
  });
  socket.write(
    `HTTP/1.1 ${status} Status\r\n${lines.map(([k, v]) => `${k}: ${v}\r\n`).join("")}\r\n`,
  );
  const part = cut === undefined ? body : body.subarray(0, cut);
  for (let at = 0; at < part.length && !socket.destroyed; at += 65536) {
    await new Promise<void>((done) => socket.write(part.subarray(at, at + 65536), () => done()));
    if (slow) await new Promise((done) => setTimeout(done, slow));
  }
  if (cut !== undefined) {
    // What has not been read by then is lost: so it is on real networks, but tests want to count. On a busy machine
    // 30 ms were too few.
    await new Promise((done) => setTimeout(done, 250));
    socket.destroy();
  } else if (!reply.hang) socket.end();
}
