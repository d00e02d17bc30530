/**
 * What a repository of the Hub holds at a revision.
 * @module
 */
import { listFiles, modelInfo } from "@huggingface/hub";
import { z } from "zod";
import { quote } from "../checks.ts";
import { EspalierError, HubAnswerError } from "../errors.ts";
import type { HubConnection } from "./connection.ts";
import { type HubReference, isCommit } from "./reference.ts";

/** Bytes of the longest answer: a page of a listing has some hundred kB. */
const LONGEST_ANSWER = 32 << 20;
/** Entries of a folder above which it is no model: the largest have some hundred shards. */
const MOST_ENTRIES = 20_000;
/** Requests for one folder. */
const MOST_PAGES = 100;

/** A file of a repository. */
export interface HubFile {
  /** With slashes, from the root of the repository. */
  readonly path: string;
  readonly bytes: number;
  /** What it is called by in the cache: its SHA-256, or for small files the hash that git gives it. */
  readonly hash: string;
}

const entrySchema = z.looseObject({
  type: z.string(),
  path: z.string(),
  size: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  oid: z.string().regex(/^[0-9a-f]{40}$/).optional(),
  lfs: z.looseObject({
    oid: z.string().regex(/^[0-9a-f]{64}$/),
    size: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER),
  }).nullish(),
});

/**
 * The commit that a revision stands for.
 *
 * @throws {EspalierError} Of the class that says what is wrong.
 */
export async function commitOf(connection: HubConnection, wanted: HubReference): Promise<string> {
  const { sha } = await understood(wanted, () =>
    modelInfo({
      name: wanted.repository,
      revision: wanted.revision,
      additionalFields: ["sha"],
      hubUrl: connection.settings.endpoint,
      fetch: fetchFor(connection, wanted),
    }));
  if (typeof sha !== "string" || !isCommit(sha)) {
    throw new HubAnswerError(
      `${connection.settings.endpoint} names no commit for ${wanted.repository}: check HF_ENDPOINT`,
    );
  }
  return sha;
}

/**
 * The files at the root of a repository and in its folder `onnx`; a model has none elsewhere.
 *
 * Names are as the server gives them: nothing may be written under one that is not known.
 *
 * @throws {EspalierError} Of the class that says what is wrong.
 */
export async function listRepository(
  connection: HubConnection,
  wanted: HubReference,
  commit: string,
): Promise<HubFile[]> {
  const root = await listOne(connection, wanted, commit);
  const hasOnnx = root.some(({ type, path }) => type === "directory" && path === "onnx");
  const all = hasOnnx ? [...root, ...await listOne(connection, wanted, commit, "onnx")] : root;
  const files = new Map<string, HubFile>();
  for (const { type, path, size, oid, lfs } of all) {
    if (type !== "file") continue;
    const hash = lfs?.oid ?? oid;
    const bytes = lfs?.size ?? size;
    if (hash === undefined || bytes === undefined || files.has(path)) {
      throw new HubAnswerError(
        `the listing of ${wanted.repository} has ${quote(path)} ${
          files.has(path) ? "twice" : "without its size or hash"
        }: try again later`,
      );
    }
    files.set(path, { path, bytes, hash });
  }
  return [...files.values()];
}

async function listOne(
  connection: HubConnection,
  wanted: HubReference,
  commit: string,
  path?: string,
): Promise<z.output<typeof entrySchema>[]> {
  const entries: z.output<typeof entrySchema>[] = [];
  await understood(wanted, async () => {
    const listing = listFiles({
      repo: wanted.repository,
      revision: commit,
      path,
      hubUrl: connection.settings.endpoint,
      fetch: fetchFor(connection, wanted),
    });
    for await (const entry of listing) {
      entries.push(entrySchema.parse(entry));
      if (entries.length > MOST_ENTRIES) {
        throw new HubAnswerError(
          `${wanted.repository} lists more than ${MOST_ENTRIES} files in one folder: it is no model`,
        );
      }
    }
  });
  return entries;
}

/** The client's `fetch`: ours, whatever it asks for. */
function fetchFor(connection: HubConnection, wanted: HubReference): typeof fetch {
  let requests = 0;
  const ask = (input: string | URL | Request) => {
    if (++requests > MOST_PAGES) {
      throw new HubAnswerError(`the listing of ${wanted.repository} does not end`);
    }
    const url = input instanceof Request ? input.url : String(input);
    return connection.read(url, wanted, LONGEST_ANSWER);
  };
  return ask as typeof fetch;
}

/** Runs what reads an answer; what it cannot read makes no sense. */
async function understood<T>(wanted: HubReference, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof EspalierError) throw cause;
    throw new HubAnswerError(
      `the answer about ${wanted.repository} is none of the Hub: check HF_ENDPOINT`,
      { cause },
    );
  }
}
