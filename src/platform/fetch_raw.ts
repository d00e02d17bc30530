/** Requests whose answers come as they were sent. @module */

/**
 * `fetch` that follows no redirect and asks for no compression.
 *
 * A server may compress all the same. Then Deno hands over what came, and Bun what was in it: here the
 * body is unpacked in both, or left as it is where the form is unknown.
 */
export async function fetchRaw(
  url: URL,
  init: { readonly headers: Record<string, string>; readonly signal: AbortSignal },
): Promise<{ status: number; headers: Headers; body: ReadableStream<Uint8Array> | null }> {
  const headers = { "accept-encoding": "identity", ...init.headers };
  // `decompress` is Bun's, and unknown to its types as to those of the others.
  const options = { headers, signal: init.signal, redirect: "manual", decompress: false } as const;
  const { status, headers: answered, body } = await fetch(url, options as RequestInit);
  const form = answered.get("content-encoding")?.trim().toLowerCase();
  if (!body || (form !== "gzip" && form !== "deflate")) return { status, headers: answered, body };
  const unpack = new DecompressionStream(form) as unknown as TransformStream<Uint8Array>;
  return { status, headers: answered, body: body.pipeThrough(unpack) };
}

/** What Bun says to programmers, who may call its `fetch` otherwise. */
const FOR_PROGRAMMERS = /\.? For more information, pass `verbose: true` .*$/;

/**
 * Why a request failed, in one line: Node says it in the cause of its error, and of several addresses by a code
 * alone.
 */
export function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(cause instanceof Error)) return String(cause);
  const line = cause.message.split("\n")[0].replace(FOR_PROGRAMMERS, "");
  return line || String((cause as { code?: unknown }).code ?? cause.name);
}
